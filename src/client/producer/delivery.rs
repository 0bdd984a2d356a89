//! `Delivery`: the future of one sent record. All records of a batch share one `Completion`, so that a record costs no allocation.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::RecordMetadata;
use crate::client::ClientError;
use crate::types::{Offset, Timestamp, TopicPartition};

/// Called once with a record's fate, on the producer's thread: it must be quick and must not block.
pub type Callback = Box<dyn FnOnce(Result<RecordMetadata, ClientError>) + Send>;

/// Where a batch ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Unknown with `acks=0`, and for a duplicate too old for the broker to remember where it is.
    pub(super) base_offset: Option<Offset>,
    /// The log's timestamp, if it sets them.
    pub(super) log_append_time: Timestamp,
}

/// The fate of a batch, to be told once.
pub(super) struct Completion {
    partition: TopicPartition,
    state: Mutex<CompletionState>,
}

#[derive(Default)]
struct CompletionState {
    is_decided: bool,
    result: Option<Result<Written, ClientError>>,
    wakers: HashMap<u64, Waker>,
    next_waker: u64,
    callbacks: Vec<(RecordPlace, Callback)>,
}

/// Facts of a record before its batch is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordPlace {
    pub(super) index: i32,
    pub(super) timestamp: Timestamp,
    pub(super) key_bytes: Option<usize>,
    pub(super) value_bytes: Option<usize>,
}

impl Completion {
    pub(super) fn new(partition: TopicPartition) -> Arc<Self> {
        Arc::new(Self {
            partition,
            state: Mutex::default(),
        })
    }

    /// Has `callback` called for the record at `place`. The batch must not be complete yet.
    pub(super) fn call_back(&self, place: RecordPlace, callback: Callback) {
        let mut state = self.state.lock();
        debug_assert!(!state.is_decided, "the batch still takes records");
        state.callbacks.push((place, callback));
    }

    /// Tells everyone, callbacks first: who awaited a record or a flush finds its callback called.
    /// A later result is ignored: a batch given up may still be answered.
    pub(super) fn complete(&self, result: &Result<Written, ClientError>) {
        let callbacks = {
            let mut state = self.state.lock();
            if state.is_decided {
                return;
            }
            state.is_decided = true;
            std::mem::take(&mut state.callbacks)
        };
        for (place, callback) in callbacks {
            let outcome = self.outcome(place, result);
            // A user's panic must not take the other records' fates with it.
            if catch_unwind(AssertUnwindSafe(|| callback(outcome))).is_err() {
                crate::env::error!(partition = %self.partition, "a send callback panicked");
            }
        }
        let wakers = {
            let mut state = self.state.lock();
            state.result = Some(result.clone());
            std::mem::take(&mut state.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// Completes when the batch has its fate, good or bad.
    pub(super) async fn done(self: Arc<Self>) {
        let place = RecordPlace {
            index: 0,
            timestamp: Timestamp::NONE,
            key_bytes: None,
            value_bytes: None,
        };
        // Whoever sent the records learns of an error from their own futures.
        let _ = Delivery::new(self, place).await;
    }

    fn outcome(
        &self,
        place: RecordPlace,
        result: &Result<Written, ClientError>,
    ) -> Result<RecordMetadata, ClientError> {
        let written = result.as_ref().map_err(Clone::clone)?;
        let index = i64::from(place.index);
        Ok(RecordMetadata {
            partition: self.partition.clone(),
            offset: written.base_offset.map(|base| base.plus(index)),
            timestamp: match written.log_append_time {
                Timestamp::NONE => place.timestamp,
                stamped => stamped,
            },
            key_bytes: place.key_bytes,
            value_bytes: place.value_bytes,
        })
    }
}

/// Completes when the record is acknowledged or given up. The record is sent whether or not it
/// is awaited; dropping it takes nothing back.
#[must_use = "only the delivery says whether the record was written; `flush` waits for all"]
pub struct Delivery {
    completion: Arc<Completion>,
    place: RecordPlace,
    waker: Option<u64>,
}

impl Delivery {
    pub(super) fn new(completion: Arc<Completion>, place: RecordPlace) -> Self {
        Self {
            completion,
            place,
            waker: None,
        }
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.completion.partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.completion.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(this.completion.outcome(this.place, result));
        }
        let key = *this.waker.get_or_insert_with(|| {
            state.next_waker += 1;
            state.next_waker
        });
        state.wakers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(key) = self.waker {
            self.completion.state.lock().wakers.remove(&key);
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Delivery").field(self.partition()).finish()
    }
}
