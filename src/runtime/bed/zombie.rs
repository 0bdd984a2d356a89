//! A process that another one took over from, and that does not know it: it goes on, at once or after a while.

use std::time::Duration;

use super::incarnation::Turns;
use super::process::Process;
use crate::env::Instant;

/// Such a process.
pub(super) struct Zombie {
    process: Process,
    /// Until then it stands still.
    wakes: Instant,
}

impl Zombie {
    /// `process` gets no turns for so long.
    pub(super) fn of(process: Process, suspended: Duration) -> Self {
        let wakes = process.log().env().clock.now().plus(suspended);
        Self { process, wakes }
    }

    /// Returns the rest of its pause.
    fn rest(&self) -> Duration {
        self.wakes.since(self.process.log().env().clock.now())
    }

    /// It goes on at once.
    pub(super) fn wake(&mut self) {
        self.wakes = Instant::default();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.process.ended.is_some()
    }

    /// Gives everybody in it a turn; `false` if nobody had anything to do.
    pub(super) fn round(&mut self, turns: &mut Turns) -> bool {
        self.rest().is_zero() && self.process.round(turns)
    }

    /// Returns the idle time ahead, at most `rest`.
    pub(super) fn next_due(&self, rest: Duration) -> Duration {
        let asleep = self.rest();
        match asleep.is_zero() {
            true => self.process.next_due(rest),
            false => asleep.min(rest),
        }
    }
}
