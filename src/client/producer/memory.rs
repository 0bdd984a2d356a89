//! `Memory`: the bytes that unacknowledged batches may take, handed out in the order of asking (I10).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use parking_lot::Mutex;

use crate::client::ClientError;
use crate::env::Instant;

/// Who waits goes on once this part of the memory is free: a sender that outruns its log would else be woken for each
/// single batch.
const FREE_PART: usize = 8;

/// `buffer.memory`, shared by the batches of a producer.
pub(super) struct Memory {
    limit_bytes: usize,
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    used_bytes: usize,
    /// First come, first served: a large record is not overtaken for ever by small ones.
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    bytes: usize,
    since: Instant,
    deadline: Instant,
    grant: oneshot::Sender<Result<Reservation, ClientError>>,
}

/// Bytes that were handed out; its drop gives them back.
pub(super) struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

/// Answer to a call for memory.
pub(super) enum Reserved {
    Now(Reservation),
    Later(oneshot::Receiver<Result<Reservation, ClientError>>),
}

impl Memory {
    pub(super) fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            state: Mutex::default(),
        })
    }

    /// Asks for `bytes`, which must not be above the limit, and waits until `now + max_block` at most.
    pub(super) fn reserve(
        self: &Arc<Self>,
        bytes: usize,
        now: Instant,
        max_block: Duration,
    ) -> Reserved {
        assert!(
            bytes <= self.limit_bytes,
            "larger records are refused before"
        );
        let mut state = self.state.lock();
        if state.waiters.is_empty() && state.used_bytes + bytes <= self.limit_bytes {
            state.used_bytes += bytes;
            return Reserved::Now(self.reservation(bytes));
        }
        let (grant, granted) = oneshot::channel();
        state.waiters.push_back(Waiter {
            bytes,
            since: now,
            deadline: now.plus(max_block),
            grant,
        });
        Reserved::Later(granted)
    }

    /// Whether somebody waits: then half-full batches are sent too.
    pub(super) fn is_exhausted(&self) -> bool {
        !self.state.lock().waiters.is_empty()
    }

    /// Bytes handed out.
    #[cfg(test)]
    pub(super) fn used_bytes(&self) -> usize {
        self.state.lock().used_bytes
    }

    /// Tells those whose time is over; returns the next one's deadline.
    pub(super) fn expire(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let (expired, next) = {
            let mut state = self.state.lock();
            let (expired, waiting): (VecDeque<_>, VecDeque<_>) = state
                .waiters
                .drain(..)
                .partition(|waiter| waiter.deadline <= now || waiter.grant.is_canceled());
            let next = waiting.iter().map(|waiter| waiter.deadline).min();
            state.waiters = waiting;
            (expired, next)
        };
        for waiter in expired {
            // Nobody listens if the `send` was dropped.
            let _ = waiter.grant.send(Err(ClientError::BufferExhausted {
                waited: now.since(waiter.since),
                buffer_memory_bytes: self.limit_bytes,
            }));
        }
        // Somebody large may have stood in the way of somebody small.
        self.release(0);
        next
    }

    /// Refuses all that wait, because the producer is closed.
    pub(super) fn refuse_all(&self, error: &ClientError) {
        let waiters = std::mem::take(&mut self.state.lock().waiters);
        for waiter in waiters {
            let _ = waiter.grant.send(Err(error.clone()));
        }
    }

    fn reservation(self: &Arc<Self>, bytes: usize) -> Reservation {
        Reservation {
            memory: self.clone(),
            bytes,
        }
    }

    fn release(self: &Arc<Self>, bytes: usize) {
        let mut grants = Vec::new();
        {
            let mut state = self.state.lock();
            assert!(state.used_bytes >= bytes, "memory is given back once");
            state.used_bytes -= bytes;
            let is_low = state.used_bytes <= self.limit_bytes - self.limit_bytes / FREE_PART;
            while is_low
                && let Some(next) = state.waiters.front()
                && state.used_bytes + next.bytes <= self.limit_bytes
            {
                state.used_bytes += next.bytes;
                grants.extend(state.waiters.pop_front());
            }
        }
        // Outside the lock: a grant that nobody takes is dropped here, and so released again.
        for waiter in grants {
            let _ = waiter.grant.send(Ok(self.reservation(waiter.bytes)));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}
