//! Durations of a commit's phases, and the reason for its cycle's close.

use std::time::Duration;

use super::Driver;
use crate::env::{Env, Instant};
use crate::protocol::messages::EndMoments;
use crate::runtime::task::cycle::Event;
use crate::runtime::task::meter::{CloseReason, CycleStatus, Drain, micros};

/// The moments of a commit.
pub(super) struct Moments {
    begin: Instant,
    positions_sent: Instant,
    ended: Instant,
    end: EndPhases,
    flush: Duration,
}

/// The parts of the end of a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct EndPhases {
    sync: Duration,
    decide: Duration,
    markers: Duration,
}

impl EndPhases {
    /// An end that was asked for at `begin` and answered at `ended`. Where the broker told no moments, all of it is the decision.
    fn of(begin: Instant, ended: Instant, told: Option<EndMoments>) -> Self {
        let told = told.unwrap_or(EndMoments {
            synced: begin,
            decided: ended,
        });
        let ended = ended.max(begin);
        let synced = told.synced.clamp(begin, ended);
        let decided = told.decided.clamp(synced, ended);
        Self {
            sync: synced.since(begin),
            decide: decided.since(synced),
            markers: ended.since(decided),
        }
    }
}

impl Moments {
    pub(super) fn new(env: &Env) -> Self {
        let begin = env.clock.now();
        Self {
            begin,
            positions_sent: begin,
            ended: begin,
            end: EndPhases::default(),
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

    /// The transaction has ended; `told` is what the broker says of it, if it is in this process.
    pub(super) fn ended(&mut self, env: &Env, told: Option<EndMoments>) {
        self.ended = env.clock.now();
        self.end = EndPhases::of(self.positions_sent, self.ended, told);
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
            sync_micros: micros(self.end.sync),
            decide_micros: micros(self.end.decide),
            markers_micros: micros(self.end.markers),
            apply_micros: micros(now.since(self.ended)),
        };
        (now.since(self.begin), cycle)
    }
}

impl Driver {
    /// Returns the reason for a close that this event causes.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(Duration::from_millis(millis))
    }

    fn phases(synced: u64, decided: u64) -> [u128; 3] {
        let told = EndMoments {
            synced: at(synced),
            decided: at(decided),
        };
        let it = EndPhases::of(at(10), at(20), Some(told));
        [it.sync, it.decide, it.markers].map(|it| it.as_millis())
    }

    #[test]
    fn the_parts_of_an_end_are_all_of_it_whatever_was_told() {
        assert_eq!(phases(14, 17), [4, 3, 3]);
        assert_eq!(phases(10, 20), [0, 10, 0]);
        // Of another end, or out of order: nothing is counted twice, or below zero.
        assert_eq!(phases(3, 5), [0, 0, 10]);
        assert_eq!(phases(30, 40), [10, 0, 0]);
        assert_eq!(phases(17, 14), [7, 0, 3]);
    }

    #[test]
    fn an_end_on_a_network_is_one_answer() {
        let it = EndPhases::of(at(10), at(20), None);
        assert_eq!((it.sync, it.markers), (Duration::ZERO, Duration::ZERO));
        assert_eq!(it.decide, Duration::from_millis(10));
    }
}
