//! Progress of a running job.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Position;
use crate::runtime::task::desk::Desk;
use crate::runtime::task::meter::{CycleStatus, Meters};
use crate::runtime::task::quarantine::Quarantine;
use crate::state::StoreSize;
use crate::types::{Offset, Timestamp, TopicId, TopicName, TopicPartition};

/// Counters of a running job, shared with whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    commits: AtomicU64,
    records: AtomicU64,
    discarded_records: AtomicU64,
    left_out_records: AtomicU64,
    undelivered_effects: AtomicUsize,
    positions: Mutex<BTreeMap<u32, Offset>>,
    /// Who the topics that it reads were when it first read them (S16).
    pub(crate) read_topics: Mutex<BTreeMap<TopicName, TopicId>>,
    share: Mutex<ShareReport>,
    /// Source records that are set apart, from attempt to attempt.
    pub(crate) quarantine: Quarantine,
    report: Mutex<JobProgress>,
    /// The size of each worker's part of a store at the end of its last cycle.
    sizes: Mutex<BTreeMap<String, BTreeMap<usize, StoreSize>>>,
    pub(crate) meters: Meters,
    /// Where readers of its state ask.
    pub(crate) desk: Desk,
    is_begun: AtomicBool,
    /// Whether there is an [`Untold`] commit.
    is_untold: AtomicBool,
    /// Told at every commit, every second, and at the end.
    changes: watch::Sender<()>,
}

/// A commit that the log may have and [`Progress`] does not tell of yet, until it is dropped.
pub(crate) struct Untold(Arc<Progress>);

impl Untold {
    pub(crate) fn of(progress: &Arc<Progress>) -> Self {
        progress.is_untold.store(true, Ordering::Release);
        Self(Arc::clone(progress))
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.0.is_untold.store(false, Ordering::Release);
        self.0.changed();
    }
}

/// Progress of a job in this run: see [`Running::progress`](crate::runtime::Running::progress).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobProgress {
    /// The cycles that were committed.
    pub commits: u64,
    /// The source records in them.
    pub records: u64,
    /// The records that came too late for a result, those of cycles that were not committed included.
    pub late_records: u64,
    /// The records that lie between windows, where these leave gaps; counted as late ones are.
    pub left_out_records: u64,
    /// The effects of this process that are not delivered yet, those of the open cycle included: see
    /// [`Keyed::effect`](crate::runtime::Keyed::effect).
    pub undelivered_effects: usize,
    /// Duration of the last commit, from the end of its cycle to the answer.
    pub last_commit: Option<Duration>,
    /// Duration of the slowest commit.
    pub slowest_commit: Option<Duration>,
    /// Restarts of the job from its last commit.
    pub restarts: u64,
    /// Reason for the last one.
    pub last_restart: Option<String>,
    /// The size of each store at the end of the last cycle, in this process; that of a broadcast table is called `broadcast NAME`, by its
    /// topic.
    pub stores: BTreeMap<String, StoreSize>,
}

/// The account of a finished job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The cycles that it committed.
    pub commits: u64,
    /// The records of its sources that these cycles had; in a job that is spread, those between its processes, too.
    pub records: u64,
    /// The records that were read in cycles that were not committed: a cycle was done again, or the job was stopped
    /// before. Nothing of them is visible, and nothing is lost: they are read again, by the next run at the latest.
    pub discarded_records: u64,
}

/// Share of a process in a job that is spread over several: see [`Running::share`](crate::runtime::Running::share).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareReport {
    /// The generation of the job's group that was agreed on last; -1 before the first.
    pub generation: i32,
    /// The partitions of topics that it reads, those of repartition topics included.
    pub partitions: Vec<TopicPartition>,
    /// The state partitions that it stands by for, and how many changelog records it lacks of each.
    pub standby_lags: BTreeMap<u16, u64>,
    /// The changelog records that were replayed for tasks before they could be taken on. What a standby had replayed does not count.
    pub restored_records: u64,
}

impl Progress {
    pub(crate) fn committed(
        &self,
        moved: &BTreeMap<u32, Position>,
        latency: Duration,
        cycle: CycleStatus,
    ) {
        self.meters.note_cycle(cycle, moved);
        self.commits.fetch_add(1, Ordering::Relaxed);
        let mut report = self.report.lock();
        report.commits += 1;
        report.last_commit = Some(latency);
        report.slowest_commit = report.slowest_commit.max(Some(latency));
        drop(report);
        // Last: whoever waits for a position finds all else that is told of its commit.
        let moved = moved.iter().map(|(&number, at)| (number, at.offset));
        self.positions.lock().extend(moved);
        self.changed();
    }

    pub(crate) fn restarts(&self, why: &JobError) {
        let mut report = self.report.lock();
        report.restarts += 1;
        report.last_restart = Some(why.to_string());
    }

    pub(crate) fn report(&self) -> JobProgress {
        JobProgress {
            records: self.records.load(Ordering::Relaxed),
            late_records: self.meters.late_records(),
            left_out_records: self.left_out_records.load(Ordering::Relaxed),
            undelivered_effects: self.undelivered_effects.load(Ordering::Relaxed),
            stores: self.store_sizes(),
            ..self.report.lock().clone()
        }
    }

    /// The size of a worker's part of a store.
    pub(crate) fn note_size(&self, store: &str, worker: usize, size: StoreSize) {
        let mut sizes = self.sizes.lock();
        match sizes.get_mut(store) {
            Some(parts) => parts.insert(worker, size),
            None => sizes
                .entry(store.to_owned())
                .or_default()
                .insert(worker, size),
        };
    }

    fn store_sizes(&self) -> BTreeMap<String, StoreSize> {
        let sizes = self.sizes.lock();
        let all = sizes.iter().map(|(store, parts)| {
            let all = parts.values().fold(StoreSize::default(), |mut all, part| {
                all.rows_in_memory += part.rows_in_memory;
                all.memory_bytes += part.memory_bytes;
                // Each part tells that of the whole.
                all.rows_on_disk = part.rows_on_disk;
                all.disk_bytes = part.disk_bytes;
                all.written_tail_bytes = part.written_tail_bytes;
                all.dirty_bytes += part.dirty_bytes;
                all.tail_bytes += part.tail_bytes;
                all
            });
            let tail_bytes = all.tail_bytes + all.written_tail_bytes;
            (store.clone(), StoreSize { tail_bytes, ..all })
        });
        all.collect()
    }

    /// The job's topics are there, and its workers run.
    pub(crate) fn begun(&self, now: Timestamp, commit_interval: Duration) {
        self.meters.note_begun(now, commit_interval);
        self.is_begun.store(true, Ordering::Release);
        self.changed();
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Acquire)
    }

    /// Whether what the log shows may be further than what is told here.
    pub(crate) fn is_behind_the_log(&self) -> bool {
        self.is_untold.load(Ordering::Acquire)
    }

    /// Wakes those who wait for a change.
    pub(crate) fn changed(&self) {
        self.changes.send_replace(());
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Who a topic was when this process first read it; `None` if that is now.
    pub(crate) fn first_id(&self, topic: &TopicName, id: TopicId) -> Option<TopicId> {
        match self.read_topics.lock().entry(topic.clone()) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(vacant) => {
                vacant.insert(id);
                None
            }
        }
    }

    /// A record lies between windows.
    pub(crate) fn note_left_out(&self) {
        self.left_out_records.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `more` effects that wait for delivery; the number wraps around where there are fewer.
    pub(crate) fn note_undelivered(&self, more: usize) {
        self.undelivered_effects.fetch_add(more, Ordering::Relaxed);
    }

    /// The records read in the cycle that was committed.
    pub(crate) fn kept(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// The records read in cycles that were not committed; they are read again.
    pub(crate) fn discarded(&self, records: u64) {
        self.discarded_records.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            commits: self.commits(),
            records: self.records.load(Ordering::Relaxed),
            discarded_records: self.discarded_records.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn agreed(&self, generation: i32) {
        self.share.lock().generation = generation;
    }

    pub(crate) fn reads(&self, partitions: Vec<TopicPartition>) {
        self.share.lock().partitions = partitions;
    }

    pub(crate) fn restored(&self, records: u64) {
        self.share.lock().restored_records += records;
    }

    pub(crate) fn standbys_lag(&self, lags: BTreeMap<u16, u64>) {
        self.share.lock().standby_lags = lags;
    }

    pub(crate) fn share(&self) -> ShareReport {
        self.share.lock().clone()
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn positions(&self) -> BTreeMap<u32, Offset> {
        self.positions.lock().clone()
    }
}
