//! Messages of workers to each other and of the driver to them.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::runtime::contract::source::AssignedSplit;
use crate::state::FlushTicket;

/// A message to a worker. Messages of one sender arrive in order.
pub(crate) enum Message {
    /// Records of an exchange.
    Batch {
        /// Which exchange.
        exchange: usize,
        /// Its typed batch.
        batch: Box<dyn Any + Send>,
        /// Its records.
        records_count: usize,
        /// The memory that it takes, with the state that its records will add.
        size_bytes: usize,
    },
    /// The sender has no more records for the exchange in this cycle.
    EndOfCycle {
        /// Which exchange.
        exchange: usize,
    },
    /// Close the cycle: stop at the sources, let everything in flight run out.
    Close,
    /// Open the next cycle, written by the transaction of this number.
    Open {
        /// Index of the transactional writer.
        writer: usize,
    },
    /// The cycle that was drained last is committed.
    Committed,
    /// The state store holds what these flushes collected.
    Flushed {
        /// Store name and ticket of each.
        tickets: Vec<(String, FlushTicket)>,
    },
    /// No cycle is open: let splits and state partitions go, and take others on.
    Reassign(Box<TaskChange>),
    /// No cycle is open: hand over for RocksDB all that the stores have.
    FlushAll,
    /// End the thread.
    Stop,
}

/// Tasks that a worker lets go of and takes on between cycles.
#[derive(Default)]
pub(crate) struct TaskChange {
    pub(crate) closed_splits: Vec<u32>,
    pub(crate) closed_state: Vec<u16>,
    /// State partitions of which RocksDB holds all that their changelogs do.
    pub(crate) opened_state: Vec<u16>,
    /// Each with the number of the feed that reads it.
    pub(crate) opened_splits: Vec<(usize, AssignedSplit)>,
}

/// Wakes a sleeping worker; remembers a wake-up that comes before the sleep.
#[derive(Default)]
pub(crate) struct Signal {
    is_set: Mutex<bool>,
    condition: Condvar,
}

impl Signal {
    pub(crate) fn set(&self) {
        let mut is_set = self.is_set.lock();
        if !*is_set {
            *is_set = true;
            self.condition.notify_one();
        }
    }

    /// Sleeps until somebody calls [`Signal::set`], or `at_most` passed.
    pub(crate) fn wait(&self, at_most: Duration) {
        let mut is_set = self.is_set.lock();
        if !*is_set {
            self.condition.wait_for(&mut is_set, at_most);
        }
        *is_set = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.set();
    }
}

/// A worker's queue. Sending never blocks, so that workers cannot wait for each other in a circle;
/// the bound is kept at the sources, which stop reading while any inbox is over it.
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<Message>>,
    size_bytes: AtomicUsize,
    records_count: AtomicUsize,
    signal: Arc<Signal>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            size_bytes: AtomicUsize::new(0),
            records_count: AtomicUsize::new(0),
            signal: Arc::default(),
        }
    }

    pub(crate) fn send(&self, message: Message) {
        if let Message::Batch {
            size_bytes,
            records_count,
            ..
        } = &message
        {
            self.size_bytes.fetch_add(*size_bytes, Ordering::Relaxed);
            self.records_count
                .fetch_add(*records_count, Ordering::Relaxed);
        }
        self.queue.lock().push_back(message);
        self.signal.set();
    }

    /// The next message, if there is one.
    pub(crate) fn receive(&self) -> Option<Message> {
        let message = self.queue.lock().pop_front()?;
        if let Message::Batch {
            size_bytes,
            records_count,
            ..
        } = &message
        {
            self.size_bytes.fetch_sub(*size_bytes, Ordering::Relaxed);
            self.records_count
                .fetch_sub(*records_count, Ordering::Relaxed);
        }
        Some(message)
    }

    /// Whether a message waits here.
    pub(crate) fn has_messages(&self) -> bool {
        !self.queue.lock().is_empty()
    }

    /// The bytes of the batches that wait here.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Counts their records.
    pub(crate) fn records_count(&self) -> usize {
        self.records_count.load(Ordering::Relaxed)
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.signal))
    }

    pub(crate) fn wait(&self, at_most: Duration) {
        self.signal.wait(at_most);
    }
}
