//! How long each phase of a commit takes, and why its cycle closed.

use std::time::Duration;

use super::Driver;
use crate::env::{Env, Instant};
use crate::runtime::task::cycle::Event;
use crate::runtime::task::meter::{CloseReason, CycleStatus, Drain, micros};

/// The moments of a commit.
pub(super) struct Moments {
    begin: Instant,
    positions_sent: Instant,
    ended: Instant,
    flush: Duration,
}

impl Moments {
    pub(super) fn new(env: &Env) -> Self {
        let begin = env.clock.now();
        Self {
            begin,
            positions_sent: begin,
            ended: begin,
            flush: Duration::ZERO,
        }
    }

    /// A worker wrote changelogs and prepared sinks for so long. Workers do so side by side: the slowest counts.
    pub(super) fn flushed(&mut self, took: Duration) {
        self.flush = self.flush.max(took);
    }

    pub(super) fn positions_sent(&mut self, env: &Env) {
        self.positions_sent = env.clock.now();
    }

    /// The transaction was decided.
    pub(super) fn ended(&mut self, env: &Env) {
        self.ended = env.clock.now();
    }

    /// Workers and readers were told: how long the commit took, and its cycle as a whole.
    pub(super) fn told(
        self,
        env: &Env,
        drain: Option<Drain>,
        records: u64,
    ) -> (Duration, CycleStatus) {
        let now = env.clock.now();
        let drain = drain.unwrap_or(Drain {
            reason: CloseReason::Interval,
            open: Duration::ZERO,
            whole: self.flush,
        });
        let cycle = CycleStatus {
            committed_at: env.clock.wall(),
            reason: drain.reason,
            records,
            open_micros: micros(drain.open),
            drain_micros: micros(drain.whole.saturating_sub(self.flush)),
            flush_micros: micros(self.flush),
            positions_micros: micros(self.positions_sent.since(self.begin)),
            end_micros: micros(self.ended.since(self.positions_sent)),
            apply_micros: micros(now.since(self.ended)),
        };
        (now.since(self.begin), cycle)
    }
}

impl Driver {
    /// Why a cycle closes that closes because of this event.
    pub(super) fn close_reason(event: Event) -> CloseReason {
        match event {
            Event::Tick | Event::Dirty => CloseReason::Interval,
            Event::OverBudget => CloseReason::Budget,
            Event::Exhausted => CloseReason::EndOfInput,
            Event::Stop => CloseReason::Stop,
            // Behind `Drained`: it was asked for while the last cycle closed.
            Event::Query | Event::Drained => CloseReason::Query,
            Event::Reassign | Event::Reassigned => CloseReason::Reassign,
        }
    }
}
