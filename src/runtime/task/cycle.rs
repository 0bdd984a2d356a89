//! The consume-transform-produce cycle, as a pure step function: when it opens, closes and commits.
//!
//! ```text
//!            first record            deadline, budget, end, stop        all workers drained
//!   Idle ───────────────────► Open ───────────────────────────► Closing ───────────────────► Idle
//!                                                                       effects: Open next, Commit this
//! ```
//! The next cycle is opened before the last one is committed (design D9): it works while the last one is
//! made durable. It cannot close before the last one's outcome is known, because effects are carried out in
//! order; so at most two transactions are open, and they are decided in order (I2).
//! Where tasks come or go, the next cycle waits: it opens once this one is committed and the tasks are changed.

use std::time::Duration;

use crate::env::Instant;

/// Transactional writers that a job alternates between.
pub(crate) const WRITERS_COUNT: usize = 2;

/// A cycle that took longer than the transaction timeout is followed by one with so much fewer records.
const SMALLER: u64 = 8;

/// When a cycle closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub(crate) interval: Duration,
    pub(crate) records_max: u64,
    /// Most records of the first cycle: fewer than `records_max` after one that took too long.
    pub(crate) records_first: u64,
    pub(crate) overlay_bytes_max: usize,
}

impl Default for Commit {
    /// Every 100 ms: what Kafka Streams does for exactly-once jobs (its `commit.interval.ms`).
    fn default() -> Self {
        Self::every(Duration::from_millis(100))
    }
}

impl Commit {
    /// Commits `interval` after the first record of a cycle, at the latest.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            records_max: u64::MAX,
            records_first: u64::MAX,
            overlay_bytes_max: 64 << 20,
        }
    }

    /// Commits earlier once `records` were read of the sources in a cycle by all workers together. No cycle has more.
    #[must_use]
    pub fn or_records(self, records: u64) -> Self {
        Self {
            records_max: records.max(1),
            records_first: records.max(1),
            ..self
        }
    }

    /// The same, with room for the commit within a transaction timeout.
    pub(crate) fn within(self, transaction_timeout: Duration) -> Self {
        Self {
            interval: self.interval.min(transaction_timeout / 3),
            ..self
        }
    }

    /// Where to go on after `failures` cycles in a row of `records` at last that took longer than the transaction timeout.
    pub(crate) fn smaller(self, records: u64, failures: u32) -> Self {
        let fewer = match failures {
            0..=2 => (records / SMALLER).max(1),
            _ => 1,
        };
        Self {
            records_first: fewer.min(self.records_max),
            ..self
        }
    }

    /// Returns the most records of the next cycle, after one of `records` that was committed `lasted` after its first record.
    pub(crate) fn records_after(
        &self,
        records: u64,
        lasted: Duration,
        transaction_timeout: Duration,
    ) -> u64 {
        match lasted < transaction_timeout / 4 {
            true => records.saturating_mul(2).min(self.records_max),
            false => records,
        }
    }

    /// Commits earlier once the state changed in a cycle takes `bytes`. The default is 64 MiB.
    #[must_use]
    pub fn or_state_bytes(self, bytes: usize) -> Self {
        Self {
            overlay_bytes_max: bytes,
            ..self
        }
    }
}

/// Event of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time passed.
    Tick,
    /// A worker processed the first records of its cycle.
    Dirty,
    /// A worker went over the budget of records or state.
    OverBudget,
    /// A worker has no split left that could ever have more.
    Exhausted,
    /// A worker let everything of the closing cycle run out.
    Drained,
    /// Tasks are to come or go at the end of a cycle.
    Reassign,
    /// They came and went.
    Reassigned,
    /// Somebody wants to read the state: what readers need is kept from the next cycle on that closes.
    Query,
    /// Somebody wants the job to end well.
    Stop,
}

/// Work to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Tell every worker to close the cycle.
    Close,
    /// Tell every worker to open the next cycle with this writer.
    Open { writer: usize },
    /// Commit the drained cycle of this writer.
    Commit { writer: usize },
    /// Nothing is open: let tasks go and take others on, then say [`Event::Reassigned`].
    Reassign,
    /// Everything is committed: end the workers.
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Open { deadline: Instant },
    Closing { drained: usize },
    Reassigning,
    Finished,
}

/// The state of a job's cycles.
#[derive(Debug)]
pub(crate) struct Cycle {
    commit: Commit,
    workers: usize,
    writer: usize,
    phase: Phase,
    exhausted: usize,
    is_reassignment_due: bool,
    /// Whether the next cycle is to close at once.
    is_close_due: bool,
    is_stopping: bool,
    is_waiting_for_answers: bool,
}

impl Cycle {
    pub(crate) fn new(commit: Commit, workers: usize) -> Self {
        assert!(workers > 0, "a job has at least one worker");
        Self {
            commit,
            workers,
            writer: 0,
            phase: Phase::Idle,
            exhausted: 0,
            is_reassignment_due: false,
            is_close_due: false,
            is_stopping: false,
            is_waiting_for_answers: false,
        }
    }

    /// Says, before each step, whether records wait for answers from outside: then the job does not end with its input.
    pub(crate) fn wait_for_answers(&mut self, is_waiting: bool) {
        self.is_waiting_for_answers = is_waiting;
    }

    /// When [`Event::Tick`] is due, if it matters.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { deadline } => Some(deadline),
            _ => None,
        }
    }

    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match (event, self.phase) {
            (_, Phase::Finished) => vec![],
            (Event::Drained, Phase::Closing { drained }) => self.drained(drained + 1),
            (Event::Drained, _) => unreachable!("a worker drains only after Close, and once"),
            (Event::Dirty, Phase::Idle) => {
                self.phase = Phase::Open {
                    deadline: now.plus(self.commit.interval),
                };
                vec![]
            }
            (Event::Reassign, _) => {
                self.is_reassignment_due = true;
                self.close()
            }
            (Event::Reassigned, Phase::Reassigning) => self.reassigned(),
            (Event::Reassigned, _) => unreachable!("tasks change when they are told to, and once"),
            (Event::Stop, _) => {
                self.is_stopping = true;
                self.close()
            }
            (Event::Exhausted, _) => {
                self.exhausted += 1;
                assert!(self.exhausted <= self.workers, "a worker is exhausted once");
                if self.is_finishing() {
                    self.close()
                } else {
                    vec![]
                }
            }
            (Event::OverBudget, _) => self.close(),
            (Event::Query, _) => {
                let effects = self.close();
                self.is_close_due = effects.is_empty();
                effects
            }
            (Event::Tick, Phase::Open { deadline }) if now >= deadline => self.close(),
            (Event::Tick | Event::Dirty, _) => vec![],
        }
    }

    fn is_finishing(&self) -> bool {
        let is_over = self.exhausted == self.workers && !self.is_waiting_for_answers;
        self.is_stopping || is_over
    }

    fn close(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Idle | Phase::Open { .. } => {
                self.phase = Phase::Closing { drained: 0 };
                vec![Effect::Close]
            }
            // The cycle that is closing already ends in what was asked for, or the next one does.
            Phase::Closing { .. } | Phase::Reassigning | Phase::Finished => vec![],
        }
    }

    fn drained(&mut self, drained: usize) -> Vec<Effect> {
        if drained < self.workers {
            self.phase = Phase::Closing { drained };
            return vec![];
        }
        let writer = self.writer;
        if self.is_finishing() {
            self.phase = Phase::Finished;
            return vec![Effect::Commit { writer }, Effect::Finish];
        }
        self.writer = (writer + 1) % WRITERS_COUNT;
        if std::mem::take(&mut self.is_reassignment_due) {
            self.phase = Phase::Reassigning;
            return vec![Effect::Commit { writer }, Effect::Reassign];
        }
        self.phase = Phase::Idle;
        let mut effects = vec![self.open(), Effect::Commit { writer }];
        if std::mem::take(&mut self.is_close_due) {
            effects.extend(self.close());
        }
        effects
    }

    fn open(&self) -> Effect {
        Effect::Open {
            writer: self.writer,
        }
    }

    /// Goes on; with what was asked for meanwhile at once.
    fn reassigned(&mut self) -> Vec<Effect> {
        self.phase = Phase::Idle;
        let mut effects = vec![self.open()];
        let is_close_due = std::mem::take(&mut self.is_close_due);
        if self.is_reassignment_due || self.is_finishing() || is_close_due {
            effects.extend(self.close());
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn x10_cycles_shrink_to_one_record_where_they_outlive_their_transaction_and_grow_back() {
        let timeout = Duration::from_secs(60);
        let commit = Commit::every(Duration::from_secs(3600)).within(timeout);
        assert_eq!(commit.interval, Duration::from_secs(20));
        let smaller = commit.smaller(15_000, 1);
        assert_eq!(
            (smaller.records_first, smaller.records_max),
            (1_875, u64::MAX)
        );
        assert_eq!(smaller.smaller(5, 2).records_first, 1);
        assert_eq!(smaller.smaller(1_000_000, 3).records_first, 1);
        assert_eq!(commit.or_records(10).smaller(1_000, 1).records_first, 10);
        let (quick, slow) = (Duration::from_secs(1), Duration::from_secs(40));
        assert_eq!(commit.records_after(1, quick, timeout), 2);
        assert_eq!(commit.records_after(1, slow, timeout), 1);
        assert_eq!(commit.or_records(3).records_after(2, quick, timeout), 3);
    }

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(Duration::from_millis(millis))
    }

    #[test]
    fn a_cycle_closes_one_interval_after_its_first_record() {
        let mut cycle = Cycle::new(Commit::every(Duration::from_millis(100)), 2);
        assert_eq!(cycle.step(Event::Tick, at(1_000)), []);
        assert_eq!(cycle.step(Event::Dirty, at(1_000)), []);
        assert_eq!(cycle.step(Event::Dirty, at(1_050)), []);
        assert_eq!(cycle.step(Event::Tick, at(1_099)), []);
        assert_eq!(cycle.step(Event::Tick, at(1_100)), [Effect::Close]);
        assert_eq!(cycle.step(Event::Drained, at(1_101)), []);
        assert_eq!(
            cycle.step(Event::Drained, at(1_102)),
            [Effect::Open { writer: 1 }, Effect::Commit { writer: 0 }]
        );
    }

    #[test]
    fn a_stopped_job_commits_what_it_has_and_finishes() {
        let mut cycle = Cycle::new(Commit::every(Duration::from_secs(1)), 1);
        assert_eq!(cycle.step(Event::Dirty, at(0)), []);
        assert_eq!(cycle.step(Event::Stop, at(1)), [Effect::Close]);
        assert_eq!(cycle.step(Event::Stop, at(1)), []);
        assert_eq!(
            cycle.step(Event::Drained, at(2)),
            [Effect::Commit { writer: 0 }, Effect::Finish]
        );
        assert_eq!(cycle.step(Event::Tick, at(9)), []);
    }

    #[test]
    fn a_stop_while_closing_finishes_with_that_very_cycle() {
        let mut cycle = Cycle::new(Commit::every(Duration::from_secs(1)), 1);
        assert_eq!(cycle.step(Event::OverBudget, at(0)), [Effect::Close]);
        assert_eq!(cycle.step(Event::Exhausted, at(0)), []);
        assert_eq!(
            cycle.step(Event::Drained, at(0)),
            [Effect::Commit { writer: 0 }, Effect::Finish]
        );
    }

    #[test]
    fn tasks_change_between_two_cycles_when_nothing_is_open() {
        let mut cycle = Cycle::new(Commit::every(Duration::from_secs(1)), 1);
        assert_eq!(cycle.step(Event::Reassign, at(0)), [Effect::Close]);
        assert_eq!(
            cycle.step(Event::Drained, at(1)),
            [Effect::Commit { writer: 0 }, Effect::Reassign]
        );
        assert_eq!(cycle.step(Event::Stop, at(2)), []);
        assert_eq!(
            cycle.step(Event::Reassigned, at(3)),
            [Effect::Open { writer: 1 }, Effect::Close]
        );
        assert_eq!(
            cycle.step(Event::Drained, at(4)),
            [Effect::Commit { writer: 1 }, Effect::Finish]
        );
    }

    #[test]
    fn a_reader_that_comes_while_a_cycle_closes_has_the_next_one_close_at_once() {
        let mut cycle = Cycle::new(Commit::every(Duration::from_secs(1)), 1);
        assert_eq!(cycle.step(Event::Query, at(0)), [Effect::Close]);
        assert_eq!(cycle.step(Event::Query, at(0)), []);
        assert_eq!(
            cycle.step(Event::Drained, at(1)),
            [
                Effect::Open { writer: 1 },
                Effect::Commit { writer: 0 },
                Effect::Close
            ]
        );
        assert_eq!(
            cycle.step(Event::Drained, at(2)),
            [Effect::Open { writer: 0 }, Effect::Commit { writer: 1 }]
        );
    }

    fn events() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..9, 0..200)
    }

    proptest! {
        /// Whatever happens: writers alternate, every closed cycle is committed once and in order, nothing follows Finish.
        #[test]
        fn every_closed_cycle_is_committed_once_and_in_order(choices in events(), workers in 1usize..4) {
            let mut cycle = Cycle::new(Commit::every(Duration::from_millis(3)), workers);
            let (mut to_drain, mut exhausted, mut committed, mut is_finished) = (0, 0, 0, false);
            let (mut open, mut is_reassigning) = (1, false);
            for (i, choice) in choices.into_iter().enumerate() {
                let event = match choice {
                    0 => Event::Tick,
                    1 => Event::Dirty,
                    2 => Event::OverBudget,
                    3 if exhausted < workers => { exhausted += 1; Event::Exhausted }
                    4 if i > 150 => Event::Stop,
                    5 => Event::Reassign,
                    6 if is_reassigning => { is_reassigning = false; Event::Reassigned }
                    7 => Event::Query,
                    _ if to_drain > 0 => { to_drain -= 1; Event::Drained }
                    _ => Event::Tick,
                };
                for effect in cycle.step(event, at(i as u64)) {
                    prop_assert!(!is_finished);
                    match effect {
                        Effect::Close => { prop_assert_eq!(to_drain, 0); prop_assert!(!is_reassigning); to_drain = workers; }
                        Effect::Open { writer } => { prop_assert_eq!(writer, open % WRITERS_COUNT); open += 1; }
                        Effect::Commit { writer } => { prop_assert_eq!(writer, committed % WRITERS_COUNT); committed += 1; }
                        // Whatever was opened is committed.
                        Effect::Reassign => { prop_assert_eq!(open, committed); is_reassigning = true; }
                        Effect::Finish => is_finished = true,
                    }
                }
            }
        }
    }
}
