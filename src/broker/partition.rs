//! `Partition`: one partition's log behind its lock, and the readers that wait for more of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::BrokerError;
use crate::log::PartitionLog;
use crate::protocol::ErrorCode;
use crate::types::{Isolation, TopicPartition};

/// A partition of this broker.
pub(super) struct Partition {
    pub(super) name: TopicPartition,
    log: Mutex<Slot>,
    readers: Mutex<HashMap<u64, Reader>>,
    /// Whether the partition stands in the list of those to be synced at the next flush interval.
    is_flush_planned: AtomicBool,
    /// Whether it stands in the list of those with an interval of their own.
    is_own_flush_planned: AtomicBool,
}

/// A partition that is damaged or closed keeps its place, and says why to everybody who asks.
enum Slot {
    Online(Box<PartitionLog>),
    Offline(BrokerError),
}

struct Reader {
    waker: Waker,
    isolation: Isolation,
}

/// The log of a partition, locked.
pub(super) type LockedLog<'a> = MappedMutexGuard<'a, PartitionLog>;

impl Partition {
    pub(super) fn new(name: TopicPartition, log: Result<PartitionLog, BrokerError>) -> Self {
        let slot = match log {
            Ok(log) => Slot::Online(Box::new(log)),
            Err(why) => Slot::Offline(why),
        };
        Self {
            name,
            log: Mutex::new(slot),
            readers: Mutex::default(),
            is_flush_planned: AtomicBool::new(false),
            is_own_flush_planned: AtomicBool::new(false),
        }
    }

    /// Locks the log. Lock order: group coordinator, partition, transaction coordinator, its journal.
    ///
    /// # Errors
    /// Reason for the offline state.
    pub(super) fn lock(&self) -> Result<LockedLog<'_>, BrokerError> {
        let mapped = MutexGuard::try_map(self.log.lock(), |slot| match slot {
            Slot::Online(log) => Some(&mut **log),
            Slot::Offline(_) => None,
        });
        mapped.map_err(|slot| match &*slot {
            Slot::Offline(why) => why.clone(),
            Slot::Online(_) => ErrorCode::UnknownServerError.into(),
        })
    }

    /// Returns why the partition is offline.
    pub(super) fn offline(&self) -> Option<BrokerError> {
        match &*self.log.lock() {
            Slot::Online(_) => None,
            Slot::Offline(why) => Some(why.clone()),
        }
    }

    /// Takes the log out; `why` is what everybody is told from now on.
    pub(super) fn take(&self, why: BrokerError) -> Option<PartitionLog> {
        let before = std::mem::replace(&mut *self.log.lock(), Slot::Offline(why));
        self.wake_all();
        match before {
            Slot::Online(log) => Some(*log),
            Slot::Offline(_) => None,
        }
    }

    /// Wakes `reader` when something may have become visible to it, once.
    pub(super) fn register(&self, reader: u64, waker: &Waker, isolation: Isolation) {
        let waiting = Reader {
            waker: waker.clone(),
            isolation,
        };
        self.readers.lock().insert(reader, waiting);
    }

    /// Forgets a reader.
    pub(super) fn unregister(&self, reader: u64) {
        self.readers.lock().remove(&reader);
    }

    /// Whether a reader waits to whom an append of such a kind is visible once it is stable enough.
    pub(super) fn has_reader_for(&self, is_transactional: bool) -> bool {
        let readers = self.readers.lock();
        let is_for =
            |reader: &Reader| !is_transactional || reader.isolation == Isolation::ReadUncommitted;
        readers.values().any(is_for)
    }

    /// Whether a reader waits that sees committed records only.
    pub(super) fn has_committed_reader(&self) -> bool {
        let readers = self.readers.lock();
        let is_committed = |reader: &Reader| reader.isolation == Isolation::ReadCommitted;
        readers.values().any(is_committed)
    }

    /// Wakes the readers that see uncommitted records too: the high watermark moved.
    pub(super) fn wake_uncommitted(&self) {
        let mut readers = self.readers.lock();
        let woken = readers.extract_if(|_, reader| reader.isolation == Isolation::ReadUncommitted);
        let woken: Vec<_> = woken.map(|(_, reader)| reader.waker).collect();
        drop(readers);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Wakes every reader: the high watermark or the last stable offset moved.
    pub(super) fn wake_all(&self) {
        let readers = std::mem::take(&mut *self.readers.lock());
        for reader in readers.into_values() {
            reader.waker.wake();
        }
    }

    /// Marks the partition as standing in the flush list; false if it stood there.
    pub(super) fn plan_flush(&self) -> bool {
        !self.is_flush_planned.swap(true, Ordering::Relaxed)
    }

    /// As [`Partition::plan_flush`], for the list of partitions with an interval of their own (`flush.ms`).
    pub(super) fn plan_own_flush(&self) -> bool {
        !self.is_own_flush_planned.swap(true, Ordering::Relaxed)
    }

    /// Marks the partition as no longer standing in a flush list. Called before its sync is planned, so that an
    /// append in between lists it again.
    pub(super) fn begin_flush(&self) {
        self.is_flush_planned.store(false, Ordering::Relaxed);
        self.is_own_flush_planned.store(false, Ordering::Relaxed);
    }
}
