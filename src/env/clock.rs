//! Two clocks: one that only moves forward, and the one on the wall.

use std::time::Duration;

use crate::types::Timestamp;

/// A moment of the monotonic clock, as the time since the clock was made. It never moves back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub Duration);

impl Instant {
    /// The time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Time, as a parameter. Timers use [`Clock::now`]; only record timestamps and what is
/// shown to people use [`Clock::wall`], which may jump (C24).
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// Blocks the calling thread for `duration`; in a simulation, moves its clock.
    fn sleep(&self, duration: Duration);
}
