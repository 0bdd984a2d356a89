//! `Backoff`: pauses that double up to a bound, with jitter, so that many clients do not come back at once.

use std::time::Duration;

use crate::env::Random;

/// A pause is shortened or lengthened by at most this share of itself (Kafka's 20 %).
const JITTER_PERCENT: u64 = 20;

/// The next pause of a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest: longest.max(first),
            attempts: 0,
        }
    }

    /// The next pause.
    pub(super) fn next(&mut self, random: &dyn Random) -> Duration {
        let factor = 2u32.saturating_pow(self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        let pause = self.first.saturating_mul(factor).min(self.longest);
        let percent = 100 - JITTER_PERCENT + random.below(2 * JITTER_PERCENT + 1);
        pause.saturating_mul(u32::try_from(percent).unwrap_or(100)) / 100
    }

    /// The series begins anew.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}
