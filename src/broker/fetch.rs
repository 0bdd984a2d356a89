//! Reading records, and waiting for them without a thread or a loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::core::Core;
use super::partition::{LockedLog, Partition};
use super::{BrokerError, SyncMode};
use crate::env::Instant;
use crate::protocol::messages::{FetchPartition, FetchRequest, FetchedPartition, FetchedRecords};
use crate::types::Isolation;

/// A read: there at once if enough is, else when enough is or its time is over. It reads when it is polled.
/// In [`SyncMode::Inline`], where no thread could wake it, it never waits.
#[must_use = "a fetch reads only when it is awaited"]
pub struct Fetch {
    core: Arc<Core>,
    request: FetchRequest,
    reader: u64,
    deadline: Instant,
    is_waiting: bool,
}

impl Fetch {
    pub(super) fn new(core: &Arc<Core>, request: FetchRequest) -> Self {
        let deadline = match (core.config.sync_mode, request.max_wait.is_zero()) {
            (SyncMode::Thread, false) => core.env.clock.now().plus(request.max_wait),
            _ => Instant::default(),
        };
        Self {
            reader: core.next_reader(),
            core: core.clone(),
            request,
            deadline,
            is_waiting: false,
        }
    }

    /// The partitions' answers if they are enough, or if nothing more may be waited for.
    fn try_read(&self) -> Option<Result<Vec<FetchedPartition>, BrokerError>> {
        if let Err(error) = self.core.check_open() {
            return Some(Err(error));
        }
        let read = self.core.read(&self.request);
        let is_enough = read.size_bytes >= self.request.min_bytes
            || read.has_error
            || self.core.env.clock.now() >= self.deadline;
        is_enough.then_some(Ok(read.partitions))
    }

    fn register(&mut self, waker: &Waker) {
        self.is_waiting = true;
        for partition in self.partitions() {
            partition.register(self.reader, waker, self.request.isolation);
            self.core
                .sync_for_reader(&partition, self.request.isolation);
        }
        self.core.timer.register(self.reader, self.deadline, waker);
    }

    fn partitions(&self) -> impl Iterator<Item = Arc<Partition>> {
        let asked = self.request.partitions.iter();
        asked.filter_map(|asked| self.core.partition(&asked.partition).ok())
    }
}

impl Future for Fetch {
    type Output = Result<Vec<FetchedPartition>, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_waiting
            && let Some(result) = self.try_read()
        {
            return Poll::Ready(result);
        }
        // Registered before the last look, so that what comes after the look wakes.
        self.register(context.waker());
        self.try_read().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if self.is_waiting {
            for partition in self.partitions() {
                partition.unregister(self.reader);
            }
            self.core.timer.unregister(self.reader);
        }
    }
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fetch").field(&self.request).finish()
    }
}

struct Read {
    partitions: Vec<FetchedPartition>,
    size_bytes: usize,
    has_error: bool,
}

impl Core {
    fn read(&self, request: &FetchRequest) -> Read {
        let mut read = Read {
            partitions: Vec::with_capacity(request.partitions.len()),
            size_bytes: 0,
            has_error: false,
        };
        for asked in &request.partitions {
            let left = request.max_bytes.saturating_sub(read.size_bytes);
            // The first batch of an answer may be larger than the limit, so that a reader always gets on.
            let left = if read.size_bytes == 0 {
                left.max(1)
            } else {
                left
            };
            let result = self.read_partition(asked, left, request.isolation);
            match &result {
                Ok(records) => read.size_bytes += records.records.len(),
                Err(error) => {
                    tracing::debug!(partition = %asked.partition, %error, "read refused");
                    read.has_error = true;
                }
            }
            read.partitions.push(FetchedPartition {
                partition: asked.partition.clone(),
                result: result.map_err(|error| error.code),
            });
        }
        read
    }

    fn read_partition(
        &self,
        asked: &FetchPartition,
        left_bytes: usize,
        isolation: Isolation,
    ) -> Result<FetchedRecords, BrokerError> {
        let partition = self.partition(&asked.partition)?;
        let log = partition.lock()?;
        if left_bytes == 0 {
            return Ok(marks_only(&log));
        }
        let plan = log.plan_read(asked.offset, asked.max_bytes.min(left_bytes), isolation)?;
        drop(log);
        Ok(plan.execute()?)
    }

    /// Has records synced that a waiting reader would be shown then.
    fn sync_for_reader(&self, partition: &Arc<Partition>, isolation: Isolation) {
        let Ok(log) = partition.lock() else { return };
        let high_watermark = log.high_watermark();
        let is_behind = high_watermark < log.log_end_offset();
        // An open transaction's records stay hidden from this reader, synced or not.
        let is_held_back = isolation == Isolation::ReadCommitted
            && log
                .open_transactions()
                .iter()
                .any(|(_, first_offset)| *first_offset <= high_watermark);
        drop(log);
        if self.is_fsync() && is_behind && !is_held_back {
            self.syncs.request(partition.clone());
        }
    }
}

fn marks_only(log: &LockedLog<'_>) -> FetchedRecords {
    FetchedRecords {
        records: Bytes::new(),
        aborted_transactions: Vec::new(),
        high_watermark: log.high_watermark(),
        last_stable_offset: log.last_stable_offset(),
        log_start_offset: log.log_start_offset(),
    }
}
