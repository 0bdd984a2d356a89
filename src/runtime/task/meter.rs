//! The counters of a running job: kept by its workers and its driver, read by whoever looks ([`Status`](crate::runtime::Status)).
//!
//! Workers count once a batch, with their own counters, so that nothing is paid per record. The counters outlive a restart of the job
//! within its process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::context::JobContext;
use super::late::LateReason;
use super::letter_reasons::LetterReasons;
use super::recovery::{Recovering, RecoveryStatus};
use crate::env::Instant;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Position;
use crate::state::StoreReads;
use crate::types::{Offset, Timestamp};

/// The commits that are remembered one by one.
const CYCLES_MAX: usize = 200;
/// The starts that are remembered.
const LIVES_MAX: usize = 100;
/// The phases of a commit, in order.
pub(crate) const PHASES: [&str; 7] = [
    "drain",
    "flush",
    "positions",
    "sync",
    "decide",
    "markers",
    "apply",
];
/// The upper bounds of the buckets of a commit's duration, in microseconds.
pub(crate) const BUCKET_MICROS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// The work of one worker in a chain: a source or a shuffle, and all steps up to the next shuffle.
#[derive(Debug, Default)]
pub(crate) struct ChainMeter {
    records: AtomicU64,
    busy_nanos: AtomicU64,
}

impl ChainMeter {
    /// A batch was processed.
    pub(crate) fn add(&self, records: u64, took: Duration) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.busy_nanos.fetch_add(nanos(took), Ordering::Relaxed);
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }
}

/// Sleep of one worker by its reasons.
#[derive(Debug, Default)]
pub(crate) struct SleepMeter {
    blocked_nanos: AtomicU64,
    idle_nanos: AtomicU64,
}

impl SleepMeter {
    /// The worker slept: held back by others if it `was_blocked`, else without work.
    pub(crate) fn add(&self, was_blocked: bool, slept: Duration) {
        let counter = match was_blocked {
            true => &self.blocked_nanos,
            false => &self.idle_nanos,
        };
        counter.fetch_add(nanos(slept), Ordering::Relaxed);
    }

    pub(crate) fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_nanos(self.idle_nanos.load(Ordering::Relaxed))
    }
}

/// The counters that one worker writes.
pub(crate) struct WorkerMeters {
    /// By feed.
    pub(crate) feeds: Vec<Arc<ChainMeter>>,
    /// By receiver.
    pub(crate) receivers: Vec<Arc<ChainMeter>>,
    pub(crate) sleep: Arc<SleepMeter>,
}

/// Reason for a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// The commit interval was over.
    Interval,
    /// The cycle had all the records or all the changed state that it may have, or a record was to have a cycle of its own.
    Budget,
    /// The sources ended.
    EndOfInput,
    /// Somebody stopped the job.
    Stop,
    /// Somebody asked for the state of the job.
    Query,
    /// Tasks came or went, or a savepoint was taken.
    Reassign,
}

impl CloseReason {
    pub(crate) const ALL: [Self; 6] = [
        Self::Interval,
        Self::Budget,
        Self::EndOfInput,
        Self::Stop,
        Self::Query,
        Self::Reassign,
    ];

    /// The reason in one word, as metrics and JSON name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Budget => "budget",
            Self::EndOfInput => "end_of_input",
            Self::Stop => "stop",
            Self::Query => "query",
            Self::Reassign => "reassign",
        }
    }
}

/// One committed cycle.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CycleStatus {
    /// When it was committed (wall clock).
    pub committed_at: Timestamp,
    /// Reason for it.
    pub reason: CloseReason,
    /// The records of sources that it had.
    pub records: u64,
    /// Time that it was open, in microseconds: from its first record until it was asked to close.
    pub open_micros: u64,
    /// The time until what was in flight had run out, in microseconds.
    pub drain_micros: u64,
    /// The time to write changelogs and prepare sinks, of the slowest worker, in microseconds.
    pub flush_micros: u64,
    /// The time to write the positions, in microseconds.
    pub positions_micros: u64,
    /// The time until all data of the transaction was durable, in microseconds. 0 where the log is not in this process: see
    /// [`decide_micros`](Self::decide_micros).
    pub sync_micros: u64,
    /// The time from there until the decision was durable, in microseconds. A log on a network gives one answer to the end of a
    /// transaction: all that this takes is counted here.
    pub decide_micros: u64,
    /// The time of the markers, and of the answer, in microseconds. 0 where the log is not in this process.
    pub markers_micros: u64,
    /// The time until readers, sinks and the state store knew of the commit, in microseconds.
    pub apply_micros: u64,
}

impl CycleStatus {
    /// The phases of the commit in the order of [`PHASES`], in microseconds.
    fn phases(&self) -> [u64; PHASES.len()] {
        [
            self.drain_micros,
            self.flush_micros,
            self.positions_micros,
            self.sync_micros,
            self.decide_micros,
            self.markers_micros,
            self.apply_micros,
        ]
    }
}

/// All commits of the process together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cycles {
    /// The last ones, the oldest first.
    pub(crate) last: VecDeque<CycleStatus>,
    pub(crate) by_reason: BTreeMap<CloseReason, u64>,
    /// The sum of each phase, in microseconds, in the order of [`PHASES`].
    pub(crate) phase_micros: [u64; PHASES.len()],
    /// Commits that were not longer than each of [`BUCKET_MICROS`], and longer than the one before; the rest at the end.
    pub(crate) buckets: [u64; BUCKET_MICROS.len() + 1],
}

/// State of a split in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SplitState {
    /// It may have more records, and time waits for it.
    Active,
    /// It had none for as long as its source was told to wait: time goes on without it.
    Idle,
    /// It has ended.
    Ended,
}

/// The last known place of a split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitMark {
    pub(crate) offset: Offset,
    pub(crate) watermark: Option<Timestamp>,
}

/// One start of the job within its process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LifeStatus {
    /// When its workers ran (wall clock).
    pub began: Timestamp,
    /// The commit interval, in microseconds.
    pub commit_interval_micros: u64,
    /// The work before its first record.
    pub recovery: RecoveryStatus,
    /// When it had committed for the first time (wall clock).
    pub first_commit: Option<Timestamp>,
    /// The cycles that it committed.
    pub commits: u64,
    /// Its failure, if it failed.
    pub ended_by: Option<String>,
}

/// The counters of a job's process.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    chains: Mutex<BTreeMap<(String, usize), Arc<ChainMeter>>>,
    sleeps: Mutex<BTreeMap<usize, Arc<SleepMeter>>>,
    cycles: Mutex<Cycles>,
    marks: Mutex<BTreeMap<u32, SplitMark>>,
    states: Mutex<BTreeMap<u32, SplitState>>,
    lives: Mutex<VecDeque<LifeStatus>>,
    recovering: Mutex<Recovering>,
    reads: Mutex<BTreeMap<String, StoreReads>>,
    dead_letters: Mutex<LetterReasons>,
    /// In the order of [`LateReason::ALL`].
    late_records: [AtomicU64; LateReason::ALL.len()],
}

impl Meters {
    /// The counters of worker `number`, whose feeds and receivers have these names.
    pub(crate) fn of_worker(
        &self,
        number: usize,
        feeds: &[Arc<str>],
        receivers: &[Arc<str>],
    ) -> WorkerMeters {
        let mut chains = self.chains.lock();
        let mut meter = |name: &Arc<str>| {
            let meter = chains.entry((name.to_string(), number)).or_default();
            Arc::clone(meter)
        };
        WorkerMeters {
            feeds: feeds.iter().map(&mut meter).collect(),
            receivers: receivers.iter().map(&mut meter).collect(),
            sleep: Arc::clone(self.sleeps.lock().entry(number).or_default()),
        }
    }

    /// A cycle was committed.
    pub(crate) fn note_cycle(&self, cycle: CycleStatus, moved: &BTreeMap<u32, Position>) {
        self.marks.lock().extend(moved.iter().map(|(&number, at)| {
            let mark = SplitMark {
                offset: at.offset,
                watermark: at.watermark,
            };
            (number, mark)
        }));
        if let Some(life) = self.lives.lock().back_mut() {
            life.commits += 1;
            // All stores are open before anything is committed.
            if life.first_commit.is_none() {
                life.first_commit = Some(cycle.committed_at);
                life.recovery = self.recovering.lock().status();
            }
        }
        let mut cycles = self.cycles.lock();
        *cycles.by_reason.entry(cycle.reason).or_default() += 1;
        let phases = cycle.phases();
        for (sum, micros) in cycles.phase_micros.iter_mut().zip(phases) {
            *sum += micros;
        }
        let whole_micros: u64 = phases.iter().sum();
        let bucket = BUCKET_MICROS.iter().position(|&max| whole_micros <= max);
        cycles.buckets[bucket.unwrap_or(BUCKET_MICROS.len())] += 1;
        if cycles.last.len() == CYCLES_MAX {
            cycles.last.pop_front();
        }
        cycles.last.push_back(cycle);
    }

    /// A split stands like this.
    pub(crate) fn note_state(&self, split: u32, state: SplitState) {
        self.states.lock().insert(split, state);
    }

    /// A dead letter was written.
    pub(crate) fn note_dead_letter(&self, why: &str) {
        self.dead_letters.lock().note(why);
    }

    /// A record came too late.
    pub(crate) fn note_late(&self, reason: LateReason) {
        self.late_records[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker read a store so often in its last cycle.
    pub(crate) fn note_reads(&self, store: &str, reads: StoreReads) {
        let mut all = self.reads.lock();
        match all.get_mut(store) {
            Some(sum) => {
                sum.hits += reads.hits;
                sum.misses += reads.misses;
            }
            None => drop(all.insert(store.to_owned(), reads)),
        }
    }

    /// An incarnation has come through what precedes its workers: when that began, the instance before was fenced, state was open,
    /// and positions were read.
    pub(crate) fn note_prepared(&self, moments: [Instant; 4]) {
        self.recovering.lock().prepared(moments);
    }

    /// A worker has replayed so many records for a store, maybe before the driver has begun.
    pub(crate) fn note_replayed(&self, worker: usize, records: u64, took: Duration) {
        self.recovering.lock().replayed(worker, records, took);
    }

    /// The job runs.
    pub(crate) fn note_begun(&self, now: Timestamp, commit_interval: Duration) {
        let mut lives = self.lives.lock();
        if lives.len() == LIVES_MAX {
            lives.pop_front();
        }
        lives.push_back(LifeStatus {
            began: now,
            commit_interval_micros: micros(commit_interval),
            recovery: RecoveryStatus::default(),
            first_commit: None,
            commits: 0,
            ended_by: None,
        });
    }

    /// The incarnation failed for this reason; one that failed before it ran is none of these lives.
    pub(crate) fn note_failed(&self, why: &JobError) {
        if let Some(life) = self.lives.lock().back_mut() {
            if life.first_commit.is_none() && life.ended_by.is_none() {
                life.recovery = self.recovering.lock().status();
            }
            life.ended_by.get_or_insert_with(|| why.to_string());
        }
    }

    pub(crate) fn chains(&self) -> Vec<(String, usize, Arc<ChainMeter>)> {
        let chains = self.chains.lock();
        let chains = chains.iter();
        chains
            .map(|((name, worker), meter)| (name.clone(), *worker, Arc::clone(meter)))
            .collect()
    }

    pub(crate) fn sleeps(&self) -> BTreeMap<usize, Arc<SleepMeter>> {
        self.sleeps.lock().clone()
    }

    pub(crate) fn cycles(&self) -> Cycles {
        self.cycles.lock().clone()
    }

    pub(crate) fn mark(&self, split: u32) -> Option<SplitMark> {
        self.marks.lock().get(&split).copied()
    }

    pub(crate) fn state(&self, split: u32) -> SplitState {
        let states = self.states.lock();
        states.get(&split).copied().unwrap_or(SplitState::Active)
    }

    pub(crate) fn lives(&self) -> Vec<LifeStatus> {
        let mut lives: Vec<_> = self.lives.lock().iter().cloned().collect();
        if let Some(life) = lives.last_mut()
            && life.first_commit.is_none()
            && life.ended_by.is_none()
        {
            life.recovery = self.recovering.lock().status();
        }
        lives
    }

    pub(crate) fn dead_letters(&self) -> LetterReasons {
        self.dead_letters.lock().clone()
    }

    pub(crate) fn late_by_reason(&self) -> [(LateReason, u64); LateReason::ALL.len()] {
        LateReason::ALL.map(|reason| {
            let count = &self.late_records[reason as usize];
            (reason, count.load(Ordering::Relaxed))
        })
    }

    pub(crate) fn late_records(&self) -> u64 {
        self.late_by_reason().iter().map(|(_, count)| count).sum()
    }

    /// Counts the reads of a store.
    pub(crate) fn reads(&self, store: &str) -> StoreReads {
        self.reads.lock().get(store).copied().unwrap_or_default()
    }
}

impl JobContext {
    /// The counters of a worker, by the names of the sources and the steps that its chains begin at.
    pub(crate) fn meters_of(&self, worker: usize, sources_count: usize) -> WorkerMeters {
        debug_assert_eq!(self.sources.len(), sources_count, "each source has a name");
        let meters = &self.progress.meters;
        match self.is_spread {
            // Behind topics between processes, steps are read as sources are.
            true => {
                let feeds: Vec<_> = self
                    .sources
                    .iter()
                    .chain(&self.exchanges)
                    .cloned()
                    .collect();
                meters.of_worker(worker, &feeds, &[])
            }
            false => meters.of_worker(worker, &self.sources, &self.exchanges),
        }
    }
}

/// The moments of the cycle that is closing, as the driver sees them.
#[derive(Debug, Default)]
pub(crate) struct CycleTimes {
    closed: Option<(Instant, CloseReason)>,
    drained: Option<Drain>,
}

/// The end of a drained cycle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) reason: CloseReason,
    pub(crate) open: Duration,
    /// From the close until the last worker was drained.
    pub(crate) whole: Duration,
}

impl CycleTimes {
    /// The workers were told to close the cycle.
    pub(crate) fn closed(&mut self, now: Instant, reason: CloseReason) {
        self.closed = Some((now, reason));
    }

    /// All have drained the cycle that `began` then.
    pub(crate) fn drained(&mut self, began: Option<Instant>, now: Instant) {
        let (closed, reason) = self.closed.take().unwrap_or((now, CloseReason::Interval));
        self.drained = Some(Drain {
            reason,
            open: began.map_or(Duration::ZERO, |began| closed.since(began)),
            whole: now.since(closed),
        });
    }

    /// Takes what is known of the drained cycle.
    pub(crate) fn take(&mut self) -> Option<Drain> {
        self.drained.take()
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
