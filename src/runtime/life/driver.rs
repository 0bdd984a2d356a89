//! The driver: carries out what [`Cycle`] decides, and commits (design §4).
//!
//! The commit of a cycle, in the order that matters: positions and changelog are appended already, pending in
//! the cycle's transaction; `commit` makes the data durable, then decides; only then do values go to RocksDB (I7).

mod committing;
mod holding;
mod measuring;
mod read_topics;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{Span, debug, info_span};

use self::committing::Committing;
use self::holding::Savepoints;
pub(crate) use self::read_topics::source_topics;
use super::epochs::Epochs;
use super::flusher::Flusher;
use super::kept::of_a_writer;
use super::participation::Share;
use crate::client::wait;
use crate::env::Instant;
use crate::protocol::ErrorKind;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::{AssignedSplit, Position, Split};
use crate::runtime::scale::{Placement, Plan, ReadyTask, Task};
use crate::runtime::task::context::JobContext;
use crate::runtime::task::cycle::{Commit, Cycle, Effect, Event};
use crate::runtime::task::inbox::{Message, TaskChange};
use crate::runtime::task::meter::CycleTimes;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Drained, Report};
use crate::runtime::task::splits::SplitPlan;
use crate::runtime::task::worker::worker_thread;
use crate::runtime::topics::positions::Positions;
use crate::runtime::topics::schemas::NotedSchema;
use crate::runtime::topics::source_topics::SourceTopics;
use crate::types::GroupId;

mod standstill;

/// The name of the driver's thread.
pub(crate) const DRIVER_THREAD: &str = "of-driver";
/// The longest wait for a report when nothing is due.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Drives one incarnation of a job, from its first cycle to its end.
pub(crate) struct Driver {
    job: Arc<JobContext>,
    /// The share of this process, if the job is spread over several.
    share: Option<Arc<Share>>,
    group: GroupId,
    cycle: Cycle,
    reports: Receiver<Report>,
    drained: Vec<Drained>,
    /// The positions committed last, by split number.
    committed: BTreeMap<u32, Position>,
    positions: Positions,
    /// Schemas that the log does not know yet.
    unnoted: Vec<NotedSchema>,
    sources: SourceTopics,
    flusher: Flusher,
    progress: Arc<Progress>,
    epochs: Epochs,
    commit: Commit,
    /// The most records of the open cycle.
    records_max: u64,
    /// When the open cycle began, and the drained one.
    began: Option<Instant>,
    drained_began: Option<Instant>,
    times: CycleTimes,
    /// The records of the drained cycle, until it is committed.
    drained_records: u64,
    /// Whether it was said that a cycle does not close.
    is_standstill_told: bool,
    /// Splits whose next record is to have a cycle of its own.
    held: BTreeSet<u32>,
    running: usize,
    /// Which worker has which task of a spread job.
    placement: Placement,
    /// The tasks that are going, and how many workers have not changed yet.
    changing: Option<(BTreeSet<Task>, usize)>,
    /// The open cycle, from its first record to its commit.
    span: Option<Span>,
    savepoints: Savepoints,
    /// The commit that waits until the instances of the job agree anew, if one does. No report is read meanwhile.
    committing: Option<Box<Committing>>,
    /// The job's result, as far as is known.
    result: Result<(), JobError>,
    /// Whether what is open is to be rolled back.
    is_aborted: bool,
}

impl Driver {
    pub(crate) fn new(
        job: Arc<JobContext>,
        share: Option<Arc<Share>>,
        commit: Commit,
        reports: Receiver<Report>,
        positions: Positions,
        flusher: Flusher,
        sources: SourceTopics,
    ) -> Result<Self, JobError> {
        let workers = job.inboxes.len();
        let committed = job
            .splits
            .all()
            .iter()
            .filter_map(|(number, plan)| Some((*number, plan.position.clone()?)))
            .collect();
        Ok(Self {
            sources,
            group: GroupId::new(&job.name)?,
            unnoted: Vec::new(),
            progress: Arc::clone(&job.progress),
            epochs: Epochs::new(job.shown_as.last_epoch),
            job,
            share,
            cycle: Cycle::new(commit, workers),
            reports,
            drained: Vec::new(),
            committed,
            positions,
            flusher,
            commit,
            records_max: commit.records_first,
            began: None,
            drained_began: None,
            times: CycleTimes::default(),
            drained_records: 0,
            is_standstill_told: false,
            held: BTreeSet::new(),
            running: workers,
            placement: Placement::new(workers),
            changing: None,
            span: None,
            savepoints: Savepoints::default(),
            committing: None,
            result: Ok(()),
            is_aborted: false,
        })
    }

    /// Tells the log of these schemas with the first commit.
    pub(crate) fn noting(self, unnoted: Vec<NotedSchema>) -> Self {
        Self { unnoted, ..self }
    }

    /// Gives itself turns until the sources end, somebody stops the job, or something fails, and until the workers have ended.
    pub(crate) fn run(mut self) -> Result<(), JobError> {
        self.begin();
        loop {
            if self.is_committing() {
                self.wait_for_member();
                match self.turn(None) {
                    true => break,
                    false => continue,
                }
            }
            let report = match self.reports.recv_timeout(self.wait_at_most()) {
                Ok(report) => Some(report),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    let gone = JobError::thread(DRIVER_THREAD, "all workers are gone");
                    self.end(Err(gone));
                    break;
                }
            };
            if self.turn(report) {
                break;
            }
        }
        while self.has_workers() {
            let Ok(report) = self.reports.recv() else {
                break;
            };
            self.hear_of_the_end(report);
        }
        self.finish()
    }

    /// The job has begun; turns follow.
    pub(crate) fn begin(&mut self) {
        let now = self.job.env.clock.wall();
        self.progress.begun(now, self.commit.interval);
    }

    /// Returns the longest wait for a report before a turn.
    pub(crate) fn wait_at_most(&self) -> Duration {
        if let Some(at_most) = self.commit_waits_at_most() {
            return at_most;
        }
        let now = self.job.env.clock.now();
        let deadline = self.cycle.deadline();
        let wait_at_most = deadline.map_or(WAIT_MAX, |deadline| deadline.since(now));
        wait_at_most.min(WAIT_MAX)
    }

    /// Does what a report asks for, or what time does where there is none (design D27). `true` once the job is finished, or
    /// failed: its workers are told to end then, what they still report is for [`Driver::hear_of_the_end`], and
    /// [`Driver::finish`] comes last.
    pub(crate) fn turn(&mut self, report: Option<Report>) -> bool {
        let driven = match self.drive(report) {
            Ok(false) => return false,
            Ok(true) => self.flush_the_rest(),
            Err(e) => Err(e),
        };
        self.end(driven);
        true
    }

    /// Nothing more is driven: the workers are to end.
    fn end(&mut self, driven: Result<(), JobError>) {
        self.result = driven.map_err(|e| self.name_timeout(e));
        self.is_aborted = self.result.is_err();
        // Before a store goes: no reader finds the others without it.
        self.progress.desk.close();
        self.job.pressure.stop_sources();
        self.broadcast(|| Message::Stop);
    }

    /// A report that came after the last turn.
    pub(crate) fn hear_of_the_end(&mut self, report: Report) {
        let heard = match report {
            Report::Ended(_, ended) => {
                self.running -= 1;
                ended
            }
            // I7: see `Report::Flush`.
            Report::Flush(worker, flush) => self.hand_over(worker, flush),
            _ => Ok(()),
        };
        self.is_aborted |= heard.is_err();
        let before = std::mem::replace(&mut self.result, Ok(()));
        self.result = before.and(heard);
    }

    /// The next report, if there is one and its turn has come.
    pub(crate) fn next_report(&self) -> Option<Report> {
        match self.is_committing() {
            true => None,
            false => self.reports.try_recv().ok(),
        }
    }

    /// Has the flusher carry out one order; `false` if there was none.
    pub(crate) fn flush_turn(&mut self) -> bool {
        self.flusher.turn()
    }

    /// Whether a worker has not ended yet.
    pub(crate) fn has_workers(&self) -> bool {
        self.running > 0
    }

    /// The workers have ended: rolls back what is open, and says how the job ended.
    pub(crate) fn finish(mut self) -> Result<(), JobError> {
        let fenced = match self.is_aborted {
            true => self.abort(),
            false => Ok(()),
        };
        let open = self.job.cycle_records.load(Ordering::Relaxed);
        self.progress.discarded(self.drained_records + open);
        let flushed = self.flusher.close();
        let ended = std::mem::replace(&mut self.result, Ok(()));
        let result = fenced.and(ended).and(flushed);
        result.map_err(|e| self.sources.explain(e))
    }

    /// `true` once the job is finished.
    fn drive(&mut self, report: Option<Report>) -> Result<bool, JobError> {
        if let Some(committing) = self.committing.take() {
            return self.go_on_committing(committing);
        }
        let now = self.job.env.clock.now();
        self.watch(now);
        self.look_into_letterbox(now);
        let event = match report {
            Some(Report::Dirty(at)) => {
                let (job, span) = (&self.job, &mut self.span);
                span.get_or_insert_with(|| info_span!("cycle", job = %job.name));
                self.began.get_or_insert(at);
                let effects = self.cycle.step(Event::Dirty, at);
                debug_assert!(effects.is_empty(), "a first record only sets the deadline");
                Event::Tick
            }
            Some(Report::OverBudget) => Event::OverBudget,
            Some(Report::Held(split)) => {
                self.held.insert(split);
                Event::OverBudget
            }
            Some(Report::Exhausted) => Event::Exhausted,
            Some(Report::Query) => Event::Query,
            Some(Report::Stop) => Event::Stop,
            Some(Report::Reassigned) => Event::Reassign,
            Some(Report::TasksChanged) => match self.tasks_changed() {
                true => Event::Reassigned,
                false => return Ok(false),
            },
            Some(report @ (Report::Savepoint | Report::Durable | Report::StateFlushed)) => {
                match self.for_a_savepoint(&report)? {
                    Some(event) => event,
                    None => return Ok(false),
                }
            }
            Some(Report::Lost) => {
                return Err(JobError::NotCommitted {
                    job: self.job.name.clone(),
                });
            }
            Some(Report::Drained(drained)) => {
                self.drained.push(drained);
                Event::Drained
            }
            Some(Report::Ended(worker, result)) => {
                self.running -= 1;
                let why = "it ended before the job did";
                return result.and(Err(JobError::thread(&worker_thread(worker), why)));
            }
            Some(Report::Flush(worker, flush)) => {
                // I7: the commit of the cycle drained last was carried out before this report was read.
                self.hand_over(worker, flush)?;
                return Ok(false);
            }
            Some(Report::StateFailed(e)) => return Err(e.into()),
            None => {
                self.progress.changed();
                Event::Tick
            }
        };
        self.carry_out(event)
    }

    /// `true` once the job is finished.
    fn carry_out(&mut self, event: Event) -> Result<bool, JobError> {
        let now = self.job.env.clock.now();
        self.cycle.wait_for_answers(self.job.calls.are_pending());
        let effects = self.cycle.step(event, now);
        let is_drained = |effect: &Effect| matches!(effect, Effect::Commit { .. });
        if effects.iter().any(is_drained) {
            // Every worker is drained, so nobody counts now.
            self.drained_records = self.job.cycle_records.swap(0, Ordering::Relaxed);
            self.drained_began = self.began.take();
            self.times.drained(self.drained_began, now);
        }
        self.have_effects(event, effects)
    }

    /// Does what the cycle asks for because of `event`, in order; `true` once the job is finished.
    fn have_effects(&mut self, event: Event, effects: Vec<Effect>) -> Result<bool, JobError> {
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Close => {
                    let now = self.job.env.clock.now();
                    self.times.closed(now, Self::close_reason(event));
                    let is_read = self.progress.desk.close_cycle(now);
                    self.job.backend.views().close_cycle(is_read);
                    // Workers see this within a batch, and `Close` once they are out of it.
                    self.job.pressure.ask_to_close(now);
                    self.broadcast(|| Message::Close);
                }
                Effect::Open { writer } => {
                    let alone = self.held.pop_first();
                    self.job.alone.set(alone);
                    let records_max = alone.map_or(self.records_max, |_| 1);
                    self.job.record_budget.refill(records_max);
                    self.job.pressure.release_sources();
                    self.broadcast(|| Message::Open { writer });
                }
                Effect::Commit { writer } => {
                    let mut committing = self.begin_commit(writer)?;
                    committing.then = (event, effects.collect());
                    return self.go_on_committing(Box::new(committing));
                }
                Effect::Reassign => self.stand_still()?,
                Effect::Finish => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The drained cycle is committed: the next ones may have more records, if it left time for them.
    fn note_committed(&mut self, moved: &BTreeMap<u32, Position>) {
        let quarantine = &self.progress.quarantine;
        if !quarantine.is_empty() {
            for (&number, position) in moved {
                if let Some(plan) = self.job.splits.get(number) {
                    quarantine.forget_before(&plan.split, position.offset);
                }
            }
        }
        self.progress
            .kept(std::mem::take(&mut self.drained_records));
        self.is_standstill_told = false;
        let now = self.job.env.clock.now();
        if let Some(began) = self.drained_began.take() {
            let timeout = self.job.transaction_timeout;
            let lasted = now.since(began);
            self.records_max = self.commit.records_after(self.records_max, lasted, timeout);
        }
    }

    fn broadcast(&self, message: impl Fn() -> Message) {
        self.job
            .inboxes
            .iter()
            .for_each(|inbox| inbox.send(message()));
    }

    /// Everything is committed: RocksDB gets it all, so that the next start has nothing to replay, and the directory can be read.
    fn flush_the_rest(&self) -> Result<(), JobError> {
        self.flusher.wait_until_idle()?;
        self.broadcast(|| Message::FlushAll);
        Ok(())
    }

    /// Rolls back whatever is open. What cannot be rolled back now is when the job starts again, or times out.
    ///
    /// I4: whoever took over is found out here, whatever failed first: a partition says of a fenced producer only that its
    /// epoch is old. One who is just about to take over has Kafka answer this end as if the transaction had timed out; the
    /// next start fences nobody then, and hears of them from its first write at the latest.
    fn abort(&self) -> Result<(), JobError> {
        let mut fenced = Ok(());
        for writer in &self.job.writers {
            let Err(error) = wait(writer.abort()) else {
                continue;
            };
            debug!(%error, "could not abort; the next start does");
            if error.kind() == ErrorKind::Fenced {
                fenced = Err(of_a_writer(&self.job.name, error));
            }
        }
        fenced
    }
}
