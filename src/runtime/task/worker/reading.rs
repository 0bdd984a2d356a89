//! A worker's work while a cycle is open: the batches that it gets, and its sources where they may read.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{State, TICK, Worker};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Signal};
use crate::runtime::contract::record::Origin;
use crate::runtime::contract::source::Read;
use crate::runtime::task::report::Report;

/// Pause of a worker that stands back, before it looks whether another has caught up.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

impl Worker {
    /// Processes a batch that another worker, or this one, sent. It is not stopped within: all that is in flight must be
    /// processed before a commit, so its size is what is bounded (`pressure.rs`).
    pub(super) fn receive(
        &mut self,
        exchange: usize,
        batch: Box<dyn Any + Send>,
        records_count: usize,
    ) -> Result<(), JobError> {
        self.turn.begin_record();
        let began = self.job.env.clock.now();
        self.receivers[exchange]
            .receive
            .receive(batch, &mut self.current)?;
        let took = self.job.env.clock.now().since(began);
        self.meters.receivers[exchange].add(records_count as u64, took);
        self.job.pressure.note_work(records_count, took);
        let before_bytes = self.overlay_bytes;
        self.check_overlay();
        let added_bytes = self.overlay_bytes.saturating_sub(before_bytes);
        self.job.pressure.note_growth(records_count, added_bytes);
        Ok(())
    }

    /// Tells the chains what the wall clock says, if the cycle is open and they ask for it, or their calls have answers.
    pub(super) fn tick(&mut self) -> Result<(), JobError> {
        if self.state != State::Open {
            return Ok(());
        }
        let has_news = self.job.calls.take_news(self.number);
        if !has_news && !self.is_tick_due() {
            return Ok(());
        }
        let signal = Signal::Clock(self.job.env.clock.wall());
        self.turn.trace().wipe();
        self.current = Origin::TIME;
        let feeds = self.feeds.iter_mut().map(|feed| feed.signal(signal));
        let receivers = self.receivers.iter_mut();
        let receivers = receivers.map(|receiver| receiver.receive.signal(signal));
        let told: Flow = feeds.chain(receivers).collect();
        told.map_err(|failure| self.failed(failure))?;
        if self.turn.trace().is_left() {
            // What was pushed or changed is to be committed.
            self.turn.begin_record();
        }
        Ok(())
    }

    fn is_tick_due(&mut self) -> bool {
        if !self.job.uses_clock {
            return false;
        }
        let now = self.job.env.clock.now();
        let is_due = now >= self.next_tick;
        if is_due {
            self.next_tick = now.plus(TICK);
        }
        is_due
    }

    /// Reads a batch of every source, if the cycle is open and nobody is behind.
    pub(super) fn read_sources(&mut self) -> Result<Read, JobError> {
        let is_over = self.is_exhausted && !self.feeds.iter().any(|feed| feed.takes_letters());
        if is_over || self.state != State::Open {
            return Ok(Read::Pending);
        }
        if self.job.pressure.are_sources_stopped() {
            // Whoever stopped them told the driver, or was the driver: `Close` is on its way.
            return Ok(Read::Pending);
        }
        // Back-pressure reaches the source (I10).
        if (0..self.job.inboxes.len()).any(|worker| self.job.is_crowded(worker)) {
            return Ok(Read::Later(LOOK_AGAIN));
        }
        if self.job.calls.are_crowded() {
            // Whoever has room again wakes it.
            return Ok(Read::Pending);
        }
        if !self.turn.begin() {
            // The others have the last records of the cycle; what they do not need comes back.
            return Ok(Read::Later(LOOK_AGAIN));
        }
        let polled = self.poll_feeds();
        self.turn.end();
        let (is_progress, idle) = polled?;
        if is_progress {
            self.check_overlay();
            return Ok(Read::Progress);
        }
        if idle == Read::Exhausted && self.job.is_spread {
            // The others may give this process a share later.
            return Ok(Read::Pending);
        }
        if idle != Read::Exhausted {
            return Ok(idle);
        }
        if !std::mem::replace(&mut self.is_exhausted, true) {
            self.reports.send(Report::Exhausted);
        }
        Ok(Read::Pending)
    }

    /// Reads each source in turn, as far as the cycle may have more; whether one had something, and else what they wait for.
    fn poll_feeds(&mut self) -> Result<(bool, Read), JobError> {
        let (mut is_progress, mut idle) = (false, Read::Exhausted);
        for _ in 0..self.feeds.len() {
            let index = self.next_feed;
            self.next_feed = (index + 1) % self.feeds.len();
            let began = self.job.env.clock.now();
            let read = self.feeds[index].poll(&self.waker, &mut self.current);
            let records = self.feeds[index].take_records();
            let took = self.job.env.clock.now().since(began);
            self.meters.feeds[index].add(records, took);
            let read = read.inspect_err(|_| {
                // They are discarded, and told as such.
                self.job.cycle_records.fetch_add(records, Ordering::Relaxed);
            })?;
            if read != Read::Progress {
                idle = idle.sooner(read);
            }
            if read == Read::Progress || records > 0 {
                is_progress = true;
                self.count_records(records);
                if !self.turn.may_go_on() {
                    break;
                }
            }
        }
        Ok((is_progress, idle))
    }

    /// Asks for an early commit when the cycle has all the records that it may have.
    fn count_records(&self, records: u64) {
        // A position that moved over markers alone is worth a commit, too.
        self.turn.begin_record();
        let before = self.job.cycle_records.fetch_add(records, Ordering::Relaxed);
        let records_max = self.job.record_budget.records_max();
        let is_reached = before.saturating_add(records) >= records_max;
        if is_reached && before < records_max && self.job.pressure.stop_sources() {
            self.reports.send(Report::OverBudget);
        }
    }

    /// Stops the sources and asks for an early commit when the state that the cycle changed is over its share of
    /// the budget (D6): the driver may be busy with the last commit, and the cycle would grow meanwhile.
    fn check_overlay(&mut self) {
        let mut overlay_bytes = 0;
        let counted = self.each_store(&mut |store, _| {
            overlay_bytes += store.overlay_bytes();
            Ok(())
        });
        debug_assert!(counted.is_ok(), "counting cannot fail");
        self.overlay_bytes = overlay_bytes;
        let overlay_bytes_max = self.commit.overlay_bytes_max;
        let overlay_bytes_max = overlay_bytes_max.min(self.job.backend.overlay_bytes_max());
        let is_over_budget = overlay_bytes > overlay_bytes_max / self.job.inboxes.len();
        if is_over_budget && self.job.pressure.stop_sources() {
            self.reports.send(Report::OverBudget);
        }
    }
}
