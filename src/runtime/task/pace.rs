//! Pace of a worker before it looks around: not past the moment of a commit, the records that a cycle may have,
//! or what the inboxes hold (I10). A record costs two comparisons and no look at a clock.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::context::JobContext;
use super::report::{Report, Reports};
use crate::env::{Instant, warn};
use crate::runtime::contract::record::Origin;
use crate::runtime::contract::source::Pace;
use crate::state::Trace;

/// Least pause between warnings of records that take longer than the commit interval.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The records that sources may still read in the open cycle, all workers together.
#[derive(Debug)]
pub(crate) struct RecordBudget {
    /// Those of the whole cycle.
    records_max: AtomicU64,
    /// Those that no worker has taken.
    left: AtomicU64,
}

impl RecordBudget {
    pub(crate) fn new(records_max: u64) -> Self {
        Self {
            records_max: AtomicU64::new(records_max),
            left: AtomicU64::new(records_max),
        }
    }

    /// The next cycle is about to open; nobody reads.
    pub(crate) fn refill(&self, records_max: u64) {
        self.records_max.store(records_max, Ordering::Relaxed);
        self.left.store(records_max, Ordering::Relaxed);
    }

    pub(crate) fn records_max(&self) -> u64 {
        self.records_max.load(Ordering::Relaxed)
    }

    /// Takes a worker's part of what is left, at most half of its fair share: the others find some, too. 0 if nothing is left.
    fn take(&self, workers: u64) -> u64 {
        let part = |left: u64| (left / (2 * workers)).max(1).min(left);
        let take = |left: u64| Some(left - part(left));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.map_or(0, part)
    }

    fn give_back(&self, records: u64) {
        self.left.fetch_add(records, Ordering::Relaxed);
    }
}

/// One worker's turn at its sources and inbox.
pub(crate) struct Turn {
    job: Arc<JobContext>,
    reports: Reports,
    /// The commit interval.
    interval: Duration,
    /// When the worker processed its first record of the cycle, if it did.
    began: Cell<Option<Instant>>,
    /// The records that the worker may read before it asks for more.
    allowance: Cell<u64>,
    /// The records that it read of its sources in the cycle.
    records: Cell<u64>,
    /// A batch that it sent found the inbox full.
    is_crowded: Cell<bool>,
    /// It looked at how long the commit has been waiting for a record of this cycle.
    is_wait_noted: Cell<bool>,
    warned: Cell<Option<Instant>>,
    trace: Trace,
}

impl Turn {
    pub(crate) fn new(job: Arc<JobContext>, reports: Reports, interval: Duration) -> Self {
        Self {
            job,
            reports,
            interval,
            began: Cell::new(None),
            allowance: Cell::new(0),
            records: Cell::new(0),
            is_crowded: Cell::new(false),
            is_wait_noted: Cell::new(false),
            warned: Cell::new(None),
            trace: Trace::default(),
        }
    }

    /// The next cycle is open.
    pub(crate) fn open_cycle(&self) {
        self.began.set(None);
        self.records.set(0);
        self.is_wait_noted.set(false);
    }

    /// May the sources read? Some records of the cycle are this worker's then.
    pub(crate) fn begin(&self) -> bool {
        self.is_crowded.set(false);
        self.allowance.get() > 0 || self.take_more()
    }

    /// The sources were read: leaves to the others what was not needed.
    pub(crate) fn end(&self) {
        self.job.record_budget.give_back(self.allowance.take());
    }

    fn take_more(&self) -> bool {
        let workers = u64::try_from(self.job.inboxes.len()).unwrap_or(u64::MAX);
        self.allowance.set(self.job.record_budget.take(workers));
        self.allowance.get() > 0
    }

    /// Whether the next source may read, too.
    pub(crate) fn may_go_on(&self) -> bool {
        self.allowance.get() > 0
            && !self.is_crowded.get()
            && !self.job.pressure.are_sources_stopped()
    }

    /// Whether the source record that is being processed left a trace.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The next record of a split is to have a cycle of its own: this one is to close.
    pub(crate) fn hold(&self, split: u32) {
        self.job.pressure.stop_sources();
        self.reports.send(Report::Held(split));
    }

    /// A batch that this worker sent is more than its receiver should have waiting.
    pub(crate) fn crowd(&self) {
        self.is_crowded.set(true);
    }

    /// A record is about to be processed. The cycle's time runs from here, not from the end of a slow first record.
    #[inline]
    pub(crate) fn begin_record(&self) {
        if self.began.get().is_none() {
            self.begin_cycle();
        }
    }

    #[cold]
    fn begin_cycle(&self) {
        let now = self.job.env.clock.now();
        self.began.set(Some(now));
        self.reports.send(Report::Dirty(now));
    }

    /// A source's record was processed.
    #[inline]
    pub(crate) fn end_record(&self, at: Origin) -> Pace {
        self.records.set(self.records.get() + 1);
        let allowance = self.allowance.get().saturating_sub(1);
        self.allowance.set(allowance);
        if allowance == 0 || self.is_crowded.get() || self.job.pressure.are_sources_stopped() {
            return self.look_around(at);
        }
        Pace::GoOn
    }

    #[cold]
    fn look_around(&self, at: Origin) -> Pace {
        if self.job.pressure.are_sources_stopped() {
            self.note_wait(at);
            return Pace::Pause;
        }
        match !self.is_crowded.get() && (self.allowance.get() > 0 || self.take_more()) {
            true => Pace::GoOn,
            false => Pace::Pause,
        }
    }

    /// A record that came out of a shuffle was processed; whether the commit waited for it is looked at once a cycle.
    #[inline]
    pub(crate) fn end_received(&self, at: Origin) {
        if self.job.pressure.are_sources_stopped() && !self.is_wait_noted.get() {
            self.note_wait(at);
        }
    }

    /// Says so where a commit waited for one record for longer than the commit interval.
    #[cold]
    fn note_wait(&self, at: Origin) {
        let (Some(asked), Some(began)) = (self.job.pressure.close_asked(), self.began.get()) else {
            return;
        };
        if self.is_wait_noted.replace(true) {
            return;
        }
        let now = self.job.env.clock.now();
        let lasted = held_up(self.records.get(), began, asked, now);
        let is_time = |warned: Instant| now.since(warned) >= WARN_EVERY;
        if lasted <= self.interval || !self.warned.get().is_none_or(is_time) {
            return;
        }
        self.warned.set(Some(now));
        warn!(
            job = self.job.name(),
            record = %at.offset,
            of = self.job.split_name(at.split),
            millis = lasted.as_millis(),
            interval_millis = self.interval.as_millis(),
            "one record, with the windows and timers that its time made due, took longer than the commit interval, and the commit waited \
             for it: make the functions faster, let them give up earlier, or commit less often (`Commit::every`)"
        );
    }
}

/// Returns the least time of the record that ended `now`, the last of `records` of a cycle whose close was `asked` meanwhile.
/// The first record of a cycle was the only one all the while.
fn held_up(records: u64, began: Instant, asked: Instant, now: Instant) -> Duration {
    now.since(match records {
        1 => began,
        _ => asked.max(began),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x10_a_record_is_slow_if_the_commit_waited_for_it_or_it_was_the_only_one() {
        let at = |millis| Instant(Duration::from_millis(millis));
        let millis = |records| held_up(records, at(1_000), at(1_100), at(1_150)).as_millis();
        assert_eq!((millis(1), millis(2), millis(900)), (150, 50, 50));
    }

    #[test]
    fn x10_workers_share_the_records_of_a_cycle_to_the_last_one() {
        for (records_max, workers) in [(1, 4), (2, 1), (500, 2), (10_007, 3), (u64::MAX, 2)] {
            let budget = RecordBudget::new(records_max);
            let first = budget.take(workers);
            assert!(
                first > 0 && first <= records_max,
                "{first} of {records_max}"
            );
            budget.give_back(first);
            let mut taken = 0u64;
            for _ in 0..10_000 {
                taken += budget.take(workers);
            }
            assert!(taken <= records_max);
            if records_max <= 10_007 {
                assert_eq!((taken, budget.take(workers)), (records_max, 0));
            }
            budget.refill(7);
            assert_eq!((budget.records_max(), budget.take(1)), (7, 3));
        }
    }
}
