//! `Standstill`: notices that a partition's last stable offset has stood for longer than any transaction may be open (K8).

use std::time::Duration;

use crate::env::Instant;
use crate::types::Offset;

/// The longest transaction that a cluster allows unless told otherwise (`transaction.max.timeout.ms`), and a minute more.
const ALARM_AFTER: Duration = Duration::from_secs(16 * 60);

/// Where the last stable offset stands below the high watermark, and since when.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    stands: Option<(Offset, Instant)>,
    is_told: bool,
}

impl Standstill {
    /// Returns its length, once for each standstill that lasts too long.
    pub(super) fn step(
        &mut self,
        last_stable_offset: Offset,
        high_watermark: Offset,
        now: Instant,
    ) -> Option<Duration> {
        if last_stable_offset >= high_watermark {
            *self = Self::default();
            return None;
        }
        match self.stands {
            Some((offset, since)) if offset == last_stable_offset => {
                let stood = now.since(since);
                let is_due = stood >= ALARM_AFTER && !self.is_told;
                self.is_told |= is_due;
                is_due.then_some(stood)
            }
            _ => {
                *self = Self {
                    stands: Some((last_stable_offset, now)),
                    is_told: false,
                };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Instant {
        Instant::default().plus(Duration::from_secs(60 * count))
    }

    #[test]
    fn k8_a_last_stable_offset_that_stands_too_long_is_told_once() {
        let mut standstill = Standstill::default();
        let mut step = |stable, end, at| standstill.step(Offset(stable), Offset(end), minutes(at));
        assert_eq!(step(5, 9, 0), None);
        assert_eq!(step(5, 12, 15), None);
        assert_eq!(step(5, 12, 16), Some(Duration::from_secs(16 * 60)));
        assert_eq!(step(5, 20, 60), None, "it was told");
        assert_eq!(step(20, 20, 61), None);
        assert_eq!(step(20, 25, 90), None);
        assert_eq!(step(20, 25, 106), Some(Duration::from_secs(16 * 60)));
    }

    #[test]
    fn k8_one_that_moves_or_has_nothing_behind_it_is_not_told() {
        let mut standstill = Standstill::default();
        for at in 0..100 {
            let offset = Offset(i64::try_from(at / 10).unwrap());
            let end = Offset(1_000);
            assert_eq!(standstill.step(offset, end, minutes(at)), None);
        }
        for at in 100..200 {
            let end = Offset(1_000);
            assert_eq!(standstill.step(end, end, minutes(at)), None);
        }
    }
}
