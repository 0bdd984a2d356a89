//! Reading records, and waiting for them without a thread or a loop.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::core::Core;
use super::partition::{LockedLog, Partition};
use super::{Broker, BrokerError, SyncMode};
use crate::env::Instant;
use crate::log::{LogError, PartitionLog, ReadPlan, RecordSource};
use crate::protocol::messages::{FetchPartition, FetchRequest, FetchedPartition, FetchedRecords};
use crate::types::{Isolation, Offset};

/// Form of a fetch's records: all in memory, or large reads as streams.
pub trait FetchedAs: Sized + Send + 'static {
    /// No records.
    fn nothing() -> Self;

    /// Plans a read, under the log's lock.
    ///
    /// # Errors
    /// As [`PartitionLog::plan_read`].
    fn plan(
        log: &PartitionLog,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadPlan, LogError>;

    /// Reads, outside the lock, and takes at most `held_bytes_max` in memory, though at least one batch.
    ///
    /// # Errors
    /// As `ReadPlan::execute`.
    fn read(plan: ReadPlan, held_bytes_max: usize) -> Result<FetchedRecords<Self>, LogError>;

    /// Returns the bytes of records.
    fn length_bytes(&self) -> usize;

    /// Returns those of them in memory.
    fn held_bytes(&self) -> usize;
}

impl FetchedAs for Bytes {
    fn nothing() -> Self {
        Self::new()
    }

    fn plan(
        log: &PartitionLog,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadPlan, LogError> {
        log.plan_read(from, max_bytes, isolation)
    }

    fn read(plan: ReadPlan, _: usize) -> Result<FetchedRecords, LogError> {
        plan.execute()
    }

    fn length_bytes(&self) -> usize {
        self.len()
    }

    fn held_bytes(&self) -> usize {
        self.len()
    }
}

impl FetchedAs for RecordSource {
    fn nothing() -> Self {
        Self::Read(Bytes::new())
    }

    fn plan(
        log: &PartitionLog,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadPlan, LogError> {
        log.plan_stream(from, max_bytes, isolation)
    }

    fn read(plan: ReadPlan, held_bytes_max: usize) -> Result<FetchedRecords<Self>, LogError> {
        plan.open(held_bytes_max)
    }

    fn length_bytes(&self) -> usize {
        self.length_bytes()
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }
}

/// A read: there at once if enough is, else when enough is or its time is over. It reads when it is polled.
/// In [`SyncMode::Inline`], where no thread could wake it, it never waits, but has synced what it would wait for.
#[must_use = "a fetch reads only when it is awaited"]
pub struct Fetch<R = Bytes> {
    core: Arc<Core>,
    request: FetchRequest,
    /// Most bytes of records in memory, but for one batch.
    held_bytes_max: usize,
    reader: u64,
    deadline: Instant,
    is_waiting: bool,
    records: PhantomData<fn() -> R>,
}

impl<R> Fetch<R> {
    pub(super) fn new(core: &Arc<Core>, request: FetchRequest, held_bytes_max: usize) -> Self {
        let deadline = match (core.config.sync_mode, request.max_wait.is_zero()) {
            (SyncMode::Thread, false) => core.env.clock.now().plus(request.max_wait),
            _ => Instant::default(),
        };
        Self {
            reader: core.next_reader(),
            core: core.clone(),
            request,
            held_bytes_max,
            deadline,
            is_waiting: false,
            records: PhantomData,
        }
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

    /// In [`SyncMode::Inline`] no thread syncs what a reader that would wait waits for.
    fn sync_if_inline(&self) {
        if self.core.config.sync_mode == SyncMode::Inline && !self.request.max_wait.is_zero() {
            for partition in self.partitions() {
                self.core
                    .sync_for_reader(&partition, self.request.isolation);
            }
            self.core.sync_if_inline();
        }
    }

    fn partitions(&self) -> impl Iterator<Item = Arc<Partition>> {
        let asked = self.request.partitions.iter();
        asked.filter_map(|asked| self.core.partition(&asked.partition).ok())
    }
}

impl<R: FetchedAs> Fetch<R> {
    /// The partitions' answers if they are enough, or if nothing more may be waited for.
    fn try_read(&self) -> Option<Result<Vec<FetchedPartition<R>>, BrokerError>> {
        if let Err(error) = self.core.check_open() {
            return Some(Err(error));
        }
        let read = self.core.read(&self.request, self.held_bytes_max);
        let is_enough = read.length_bytes >= self.request.min_bytes
            || read.has_error
            || self.core.env.clock.now() >= self.deadline;
        is_enough.then_some(Ok(read.partitions))
    }
}

impl<R: FetchedAs> Future for Fetch<R> {
    type Output = Result<Vec<FetchedPartition<R>>, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_waiting {
            self.sync_if_inline();
            if let Some(result) = self.try_read() {
                return Poll::Ready(result);
            }
        }
        // Registered before the last look, so that what comes after the look wakes.
        self.register(context.waker());
        self.try_read().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<R> Drop for Fetch<R> {
    fn drop(&mut self) {
        if self.is_waiting {
            for partition in self.partitions() {
                partition.unregister(self.reader);
            }
            self.core.timer.unregister(self.reader);
        }
    }
}

impl<R> std::fmt::Debug for Fetch<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fetch").field(&self.request).finish()
    }
}

impl Broker {
    #[doc(hidden)]
    /// Reads; there at once if `min_bytes` are, else when they are or `max_wait` is over.
    pub fn fetch(&self, request: FetchRequest) -> Fetch {
        Fetch::new(&self.core, request, usize::MAX)
    }

    #[doc(hidden)]
    /// As [`Broker::fetch`], but large reads come as streams; what does not takes at most `held_bytes_max` in memory, but for
    /// one batch.
    pub fn fetch_streams(
        &self,
        request: FetchRequest,
        held_bytes_max: usize,
    ) -> Fetch<RecordSource> {
        Fetch::new(&self.core, request, held_bytes_max)
    }
}

struct Read<R> {
    partitions: Vec<FetchedPartition<R>>,
    length_bytes: usize,
    held_bytes: usize,
    has_error: bool,
}

impl Core {
    fn read<R: FetchedAs>(&self, request: &FetchRequest, held_bytes_max: usize) -> Read<R> {
        let mut read = Read {
            partitions: Vec::with_capacity(request.partitions.len()),
            length_bytes: 0,
            held_bytes: 0,
            has_error: false,
        };
        for asked in &request.partitions {
            let left = request.max_bytes.saturating_sub(read.length_bytes);
            let held_left = held_bytes_max.saturating_sub(read.held_bytes);
            // The first batch of an answer may be larger than the limits, so that a reader always gets on.
            let (left, held_left) = match read.length_bytes {
                0 => (left.max(1), held_left.max(1)),
                _ => (left, held_left),
            };
            let result = self.read_partition::<R>(asked, left, held_left, request.isolation);
            match &result {
                Ok(records) => {
                    read.length_bytes += records.records.length_bytes();
                    read.held_bytes += records.records.held_bytes();
                }
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

    fn read_partition<R: FetchedAs>(
        &self,
        asked: &FetchPartition,
        left_bytes: usize,
        held_left_bytes: usize,
        isolation: Isolation,
    ) -> Result<FetchedRecords<R>, BrokerError> {
        let partition = self.partition(&asked.partition)?;
        let log = partition.lock()?;
        if left_bytes == 0 || held_left_bytes == 0 {
            return Ok(marks_only(&log));
        }
        let max_bytes = asked.max_bytes.min(left_bytes);
        let plan = R::plan(&log, asked.offset, max_bytes, isolation)?;
        drop(log);
        Ok(R::read(plan, held_left_bytes)?)
    }

    /// Has records synced that a waiting reader would be shown then.
    fn sync_for_reader(&self, partition: &Arc<Partition>, isolation: Isolation) {
        let Ok(log) = partition.lock() else { return };
        let end = match isolation {
            Isolation::ReadUncommitted => log.high_watermark(),
            Isolation::ReadCommitted => log.synced_end(),
        };
        let is_behind = end < log.log_end_offset();
        // An open transaction's records stay hidden from this reader, synced or not.
        let is_held_back = isolation == Isolation::ReadCommitted
            && log
                .open_transactions()
                .iter()
                .any(|(_, first_offset)| *first_offset <= end);
        drop(log);
        if self.is_fsync() && is_behind && !is_held_back {
            self.syncs.request(partition.clone());
        }
    }
}

fn marks_only<R: FetchedAs>(log: &LockedLog<'_>) -> FetchedRecords<R> {
    FetchedRecords {
        records: R::nothing(),
        aborted_transactions: Vec::new(),
        high_watermark: log.high_watermark(),
        last_stable_offset: log.last_stable_offset(),
        log_start_offset: log.log_start_offset(),
    }
}
