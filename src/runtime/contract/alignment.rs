//! Alignment of sources, as a pure step function: which splits wait for the others, so that what steps keep until the slower ones
//! have come as far stays bounded.
//!
//! Each split tells the others one time: how far it has come, or [`Timestamp::MAX`] while nobody need wait for it (it was asked and
//! had nothing, it has ended). A split may be read up to the least time that the others tell, and a bound beyond it.
//! So the least one never waits, and there always is a least one: splits do not wait for each other in a circle.
//! The time that a split told may be older than its own, never newer; then others wait for longer than they must.
//! Where the times are kept, and who wakes whom, is `task/alignment.rs`'s business.

use crate::types::Timestamp;

/// One split among those that wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlignedSplit {
    bound_millis: i64,
    /// The time that the others know of it.
    told: Timestamp,
    /// Time that it may reach, as of the last look at the others.
    limit: Timestamp,
}

impl AlignedSplit {
    /// A split that goes on from `watermark` ([`Timestamp::MIN`] if it begins), and has told so.
    pub(crate) fn new(bound_millis: i64, watermark: Timestamp) -> Self {
        Self {
            bound_millis,
            told: watermark,
            limit: watermark,
        }
    }

    /// Whether a split that has come to `watermark` must look at the others before it goes on.
    #[inline]
    pub(crate) fn is_beyond(&self, watermark: Timestamp) -> bool {
        watermark > self.limit
    }

    /// Takes the least time that the others tell; returns whether the split waits.
    pub(crate) fn look(&mut self, watermark: Timestamp, least: Timestamp) -> bool {
        self.limit = match least {
            // One of them was never heard of.
            Timestamp::MIN => least,
            _ => least.plus_millis(self.bound_millis),
        };
        self.is_beyond(watermark)
    }

    /// The split has come to `watermark`, or nobody need wait for it; returns what to tell the others, if that is news.
    pub(crate) fn come_to(&mut self, watermark: Timestamp, is_away: bool) -> Option<Timestamp> {
        let tells = match is_away {
            true => Timestamp::MAX,
            false => watermark,
        };
        let is_news = tells != self.told;
        self.told = tells;
        is_news.then_some(tells)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn t6_a_split_waits_once_it_is_ahead_of_the_least_by_more_than_the_bound() {
        let mut split = AlignedSplit::new(10, Timestamp::MIN);
        // The first record is read: nobody can say how far it is.
        assert!(!split.is_beyond(Timestamp::MIN));
        assert!(split.is_beyond(Timestamp(5)));
        // One that was never heard of holds, one that is nine or ten behind does not, eleven are too many.
        assert!(split.look(Timestamp(5), Timestamp::MIN));
        assert!(!split.look(Timestamp(5), Timestamp(-4)));
        assert!(!split.look(Timestamp(5), Timestamp(-5)));
        assert!(split.look(Timestamp(5), Timestamp(-6)));
        // All others are away.
        assert!(!split.look(Timestamp(i64::MAX - 1), Timestamp::MAX));
    }

    #[test]
    fn u14_a_split_that_was_found_empty_holds_nobody_until_it_has_something() {
        let mut split = AlignedSplit::new(10, Timestamp(3));
        assert_eq!(split.come_to(Timestamp(3), true), Some(Timestamp::MAX));
        assert_eq!(split.come_to(Timestamp(3), true), None);
        assert_eq!(split.come_to(Timestamp(4), false), Some(Timestamp(4)));
        assert_eq!(split.come_to(Timestamp(4), false), None);
    }

    /// The result of one read of a split: records by how far each goes on, and whether it finds nothing behind them.
    type Batch = (Vec<i64>, bool);

    /// A split of the world below.
    struct Reads {
        aligned: AlignedSplit,
        watermark: Timestamp,
        told: Timestamp,
        batches: Vec<Batch>,
        /// Where its newest record is.
        time: i64,
    }

    impl Reads {
        /// Whether it waits for the others, of which `least` is the least.
        fn waits(&mut self, least: Timestamp) -> bool {
            self.aligned.look(self.watermark, least)
        }

        /// Reads until its batch is over or it is too far ahead. Returns the watermarks that it went on from.
        fn read(&mut self, least: Timestamp) -> Vec<Timestamp> {
            let mut from = Vec::new();
            let Some((records, is_away)) = self.batches.first_mut() else {
                self.told = Timestamp::MAX;
                return from;
            };
            while !records.is_empty() {
                from.push(self.watermark);
                self.time += records.remove(0);
                self.watermark = self.watermark.max(Timestamp(self.time));
                if self.aligned.is_beyond(self.watermark)
                    && self.aligned.look(self.watermark, least)
                {
                    break;
                }
            }
            let is_away = *is_away && records.is_empty();
            if records.is_empty() {
                self.batches.remove(0);
            }
            let is_away = is_away || self.batches.is_empty();
            self.told = self
                .aligned
                .come_to(self.watermark, is_away)
                .unwrap_or(self.told);
            from
        }
    }

    fn least_but(splits: &[Reads], number: usize) -> Timestamp {
        let others = splits.iter().enumerate().filter(|other| other.0 != number);
        others
            .map(|other| other.1.told)
            .min()
            .unwrap_or(Timestamp::MAX)
    }

    proptest! {
        /// Whatever splits bring, and whoever is asked: one that is not at its end can always go on, and none goes on that is ahead
        /// of another one, which is not away, by more than the bound.
        #[test]
        fn some_split_can_always_go_on_and_none_that_is_too_far_ahead_does(
            inputs in prop::collection::vec(
                prop::collection::vec((prop::collection::vec(-5i64..40, 0..6), any::<bool>()), 0..8),
                1..5,
            ),
            bound in 0i64..60,
            order in prop::collection::vec(0usize..5, 0..40),
        ) {
            let mut splits: Vec<Reads> = inputs.into_iter().map(|batches| Reads {
                aligned: AlignedSplit::new(bound, Timestamp::MIN),
                watermark: Timestamp::MIN,
                told: Timestamp::MIN,
                batches,
                time: 0,
            }).collect();
            let count = splits.len();
            let mut order = order.into_iter().map(|number| number % count);
            while splits.iter().any(|split| split.told != Timestamp::MAX || !split.batches.is_empty()) {
                // Somebody at random, then each in turn: one of them does something.
                let mut is_progress = false;
                for number in order.by_ref().take(1).chain(0..count).collect::<Vec<_>>() {
                    let is_over = splits[number].batches.is_empty() && splits[number].told == Timestamp::MAX;
                    let least = least_but(&splits, number);
                    if is_over || splits[number].waits(least) {
                        continue;
                    }
                    is_progress = true;
                    for from in splits[number].read(least) {
                        prop_assert!(
                            from == Timestamp::MIN || from <= least.plus_millis(bound),
                            "it was at {from:?}, and the least of the others at {least:?}"
                        );
                    }
                }
                prop_assert!(is_progress, "all wait");
            }
        }
    }
}
