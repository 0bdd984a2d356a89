//! The view of a running job as plain data: metrics and JSON draw from it.
//!
//! Reading order: this file (the data), `looking.rs` (where it comes from), `log_view.rs` (what the log says), `sentence.rs` (the job in one sentence).

mod log_view;
mod looking;
mod sentence;

use std::collections::BTreeMap;

use serde::Serialize;

#[cfg(feature = "cli")]
pub(in crate::runtime::life) use self::log_view::open_in;
pub(in crate::runtime::life) use self::looking::Watcher;
use crate::runtime::graph::description::Description;
use crate::runtime::task::meter::{CycleStatus, LifeStatus, SplitState};
use crate::types::Timestamp;

/// A job of this process at one moment: see [`Running::status`](crate::runtime::Running::status). All of it can be serialised.
///
/// Counters begin with the process and go on where the job starts again within it. Times of day are the wall clock's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The job's name.
    pub job: String,
    /// The version of this crate.
    pub version: &'static str,
    /// The moment that is looked at.
    pub now: Timestamp,
    /// The state of the job in one sentence.
    pub sentence: String,
    /// Whether the job starts, runs or has ended.
    pub phase: JobPhase,
    /// The counters of the whole job.
    pub totals: Totals,
    /// The graph.
    pub graph: Description,
    /// Per worker, the chains: a source or a shuffle with all steps up to the next shuffle, which are one function.
    pub chains: Vec<ChainStatus>,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The last 200 commits, the oldest first.
    pub cycles: Vec<CycleStatus>,
    /// The splits that the process reads.
    pub splits: Vec<SplitStatus>,
    /// The stores.
    pub stores: Vec<StoreStatus>,
    /// The open transactions before which readers of the job's partitions wait: hanging ones first, then the oldest.
    pub transactions: Vec<OpenTransaction>,
    /// The starts of the job in this process, the oldest first.
    pub lives: Vec<LifeStatus>,
    /// The error of the log, if it could not be asked for positions and transactions.
    pub log_error: Option<String>,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobPhase {
    /// It opens its state, or starts again from its last commit.
    Starting,
    /// Its workers run.
    Running,
    /// It has ended.
    Ended,
}

/// The counters of a whole job, in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// The cycles that were committed.
    pub commits: u64,
    /// The commits by what closed their cycle.
    pub commits_by_reason: BTreeMap<&'static str, u64>,
    /// The sum of each phase of all commits, in microseconds.
    pub phase_micros: BTreeMap<&'static str, u64>,
    /// The number of commits by their duration: an upper bound in microseconds, and the commits up to it that are above the bound
    /// before. The last one has no bound.
    pub commit_durations: Vec<(Option<u64>, u64)>,
    /// The source records of committed cycles.
    pub records: u64,
    /// The records of cycles that were not committed; they are read again.
    pub discarded_records: u64,
    /// The records that came too late for a result.
    pub late_records: u64,
    /// These by the reason: `closed` (the time of their results is over) or `out of range`.
    pub late_by_reason: BTreeMap<&'static str, u64>,
    /// The records that lie between windows.
    pub left_out_records: u64,
    /// The dead letters that were written, those of cycles that were done again included.
    pub dead_letters: u64,
    /// These by the kind of their reason, without what is of one record: numbers are `#`, and quotes are empty. There are 20 kinds at most;
    /// the rest is counted together.
    pub dead_by_reason: BTreeMap<String, u64>,
    /// The effects that are not delivered yet.
    pub undelivered_effects: usize,
    /// Restarts of the job from its last commit.
    pub restarts: u64,
    /// Reason for the last one.
    pub last_restart: Option<String>,
}

/// The work of one worker in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChainStatus {
    /// The name of the source that the chain begins at, or of the step behind the shuffle.
    pub name: String,
    /// The worker.
    pub worker: usize,
    /// The records that came in.
    pub records: u64,
    /// Time that the worker was busy with them, in microseconds.
    pub busy_micros: u64,
}

/// Times of one worker, and what waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// Time that it processed records, in microseconds.
    pub busy_micros: u64,
    /// Time that it waited for a commit or for a worker that was behind, in microseconds.
    pub blocked_micros: u64,
    /// Time without anything to do, in microseconds.
    pub idle_micros: u64,
    /// The bytes of the batches that wait for it, with the state that they will add.
    pub queue_bytes: usize,
    /// The records of these.
    pub queue_records: usize,
}

/// The progress of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SplitStatus {
    /// The name of the source.
    pub source: String,
    /// The split: a partition of a topic, or a name.
    pub split: String,
    /// The committed position: the offset of the next record.
    pub position: i64,
    /// The last stable offset of the partition: committed records end here.
    pub last_stable_offset: Option<i64>,
    /// The high watermark of the partition: records of open transactions included.
    pub high_watermark: Option<i64>,
    /// The offsets between the position and the last stable offset. The end of a transaction takes an offset, too.
    pub lag: Option<u64>,
    /// The transaction before which readers of committed records wait, if there is one.
    pub held_by: Option<String>,
    /// When that began; of a hanging one, when it wrote last (wall clock).
    pub held_since: Option<Timestamp>,
    /// The watermark, if a step of the job asks for the time and the split had a record.
    pub watermark: Option<Timestamp>,
    /// Whether time waits for the split.
    pub state: SplitState,
    /// Whether it is the one of this process that holds the job's event time back.
    pub holds_time: bool,
}

/// The size of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Its name.
    pub name: String,
    /// The rows in memory.
    pub rows_in_memory: u64,
    /// The bytes of these.
    pub memory_bytes: u64,
    /// The rows in RocksDB, by its estimate.
    pub rows_on_disk: u64,
    /// The bytes of RocksDB's files.
    pub disk_bytes: u64,
    /// The bytes in memory of rows that RocksDB lacks, or is just given.
    pub dirty_bytes: u64,
    /// The bytes of the changelog that a restart would replay, at most.
    pub tail_bytes: u64,
    /// The answers of memory while the store was larger than its memory: a key of a batch, or a range, counts once. While all rows are in
    /// memory nothing is counted.
    pub hits: u64,
    /// The requests to RocksDB then.
    pub misses: u64,
}

/// A transaction that is open, and before which readers wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenTransaction {
    /// The transactional id; none of a hanging transaction, which no coordinator knows.
    pub transactional_id: Option<String>,
    /// The producer id.
    pub producer_id: i64,
    /// The state, as Kafka names it.
    pub state: String,
    /// When it began; of a hanging one, when it wrote last (wall clock).
    pub since: Timestamp,
    /// The time after which its coordinator aborts it, in milliseconds.
    pub timeout_millis: Option<u64>,
    /// The partitions in which it wrote; of a hanging one, those of them that the job reads.
    pub partitions: Vec<String>,
    /// Whether nobody will ever end it.
    pub is_hanging: bool,
    /// Whether it is the job's own.
    pub is_own: bool,
}

#[cfg(all(test, feature = "otel"))]
impl Status {
    /// A job of which nothing is known.
    pub(in crate::runtime::life) fn of_a_test() -> Self {
        Self {
            job: "job".to_owned(),
            version: "0",
            now: Timestamp(0),
            sentence: String::new(),
            phase: JobPhase::Running,
            totals: Totals::default(),
            graph: Description::new("job", &[], &BTreeMap::new()),
            chains: Vec::new(),
            workers: Vec::new(),
            cycles: Vec::new(),
            splits: Vec::new(),
            stores: Vec::new(),
            transactions: Vec::new(),
            lives: Vec::new(),
            log_error: None,
        }
    }
}

impl Status {
    /// The job's event time: the least watermark of the splits that time waits for.
    #[must_use]
    pub fn watermark(&self) -> Option<Timestamp> {
        let mut holders = self.splits.iter().filter(|split| split.holds_time);
        holders.next().and_then(|split| split.watermark)
    }

    /// Returns the lag in offsets of topics; `None` if the job reads no topic, or the log did not answer.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        self.splits
            .iter()
            .filter_map(|split| split.lag)
            .reduce(|all, lag| all + lag)
    }

    /// The view as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers only: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}
