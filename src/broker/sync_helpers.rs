//! Threads that help the sync thread: syncs of several files at once cost little more than one of them, because the
//! file system commits its journal once for all.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::core::Core;
use super::partition::Partition;
use super::{BrokerError, SyncMode};
use crate::protocol::ErrorCode;

/// Number of helper threads; they wait for the disk, not for a core.
pub(super) const COUNT: usize = 3;

/// The partitions that wait for a helper. `None` ends one helper.
pub(super) struct SyncHelpers {
    sender: Sender<Option<Job>>,
    receiver: Receiver<Option<Job>>,
}

struct Job {
    partition: Arc<Partition>,
    done: Sender<Result<(), BrokerError>>,
}

impl Default for SyncHelpers {
    fn default() -> Self {
        // Bounded by the partitions of one round: only the sync thread adds to it, and it waits for all of them.
        let (sender, receiver) = unbounded();
        Self { sender, receiver }
    }
}

impl SyncHelpers {
    /// Ends all helpers, once the sync thread has ended.
    pub(super) fn stop(&self) {
        for _ in 0..COUNT {
            let _ = self.sender.send(None);
        }
    }
}

impl Core {
    /// A helper's life.
    pub(super) fn run_sync_helper(&self) {
        while let Ok(Some(job)) = self.sync_helpers.receiver.recv() {
            self.run_job(&job);
        }
    }

    fn run_job(&self, job: &Job) {
        // The receiver is gone only if the sync thread is.
        let _ = job.done.send(self.sync_partition(&job.partition));
    }

    /// Makes what was appended to these partitions until now durable. Each stands in the list once.
    pub(super) fn sync_partitions(&self, partitions: &[Arc<Partition>]) -> Result<(), BrokerError> {
        if partitions.len() < 2 || self.config.sync_mode == SyncMode::Inline {
            return partitions.iter().try_for_each(|p| self.sync_partition(p));
        }
        let (done, results) = bounded(partitions.len());
        for partition in partitions {
            let partition = partition.clone();
            let done = done.clone();
            let _ = self.sync_helpers.sender.send(Some(Job { partition, done }));
        }
        drop(done);
        while let Ok(job) = self.sync_helpers.receiver.try_recv() {
            match job {
                Some(job) => self.run_job(&job),
                None => {
                    let _ = self.sync_helpers.sender.send(None);
                    break;
                }
            }
        }
        let results: Vec<_> = results.iter().collect();
        // A helper that panicked leaves no result, and then nothing is known.
        if results.len() < partitions.len() {
            return Err(ErrorCode::UnknownServerError.into());
        }
        results.into_iter().collect()
    }
}
