//! `Bisect`: finds where things begin to lie behind a line, by looking at few of them. Pure.
//!
//! Things lie at some offsets of a partition, and are *before* the line up to some offset, and *behind* it from there on. A probe is an
//! offset; whoever reads tells the first thing at or behind it. Where things are out of order (positions that were set back), the end is
//! still a thing behind the line whose neighbour to the left is before it.

use crate::types::Offset;

/// On which side of the line a thing lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    Behind,
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Bisect {
    /// All things below it are before the line, as far as was seen.
    low: Offset,
    /// No thing lies from here up to the one that was found, or to the end.
    high: Offset,
}

impl Bisect {
    /// A search from `low` on, below `high`.
    pub(super) fn new(low: Offset, high: Offset) -> Self {
        Self { low, high }
    }

    /// Where to look next: for the first thing from there on that lies below [`high`](Self::high). `None` at the end.
    pub(super) fn probe(&self) -> Option<Offset> {
        let distance = self.high.since(self.low);
        (distance > 0).then(|| self.low.plus(distance / 2))
    }

    /// Below which a thing must lie to be told.
    pub(super) fn high(&self) -> Offset {
        self.high
    }

    /// The first thing from `probe` on, if there is one below `high`.
    pub(super) fn step(&mut self, probe: Offset, seen: Option<(Offset, Side)>) {
        match seen {
            None => self.high = probe,
            Some((at, Side::Before)) => self.low = at.plus(1),
            Some((_, Side::Behind)) => self.high = probe,
        }
    }

    /// Behind the last thing that is before the line.
    pub(super) fn low(&self) -> Offset {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches things by their offsets; counts the looks.
    fn search(things: &[(i64, bool)], end: i64) -> (Bisect, Option<Offset>, u32) {
        let (mut bisect, mut found, mut looks) = (Bisect::new(Offset::ZERO, Offset(end)), None, 0);
        while let Some(probe) = bisect.probe() {
            looks += 1;
            let high = bisect.high();
            let seen = things.iter().find(|(at, _)| *at >= probe.0 && *at < high.0);
            if let Some((at, true)) = seen {
                found = Some(Offset(*at));
            }
            let side = |is_behind| match is_behind {
                true => Side::Behind,
                false => Side::Before,
            };
            bisect.step(
                probe,
                seen.map(|(at, is_behind)| (Offset(*at), side(*is_behind))),
            );
        }
        (bisect, found, looks)
    }

    proptest! {
        #[test]
        fn the_first_thing_behind_the_line_is_found_by_few_looks(
            offsets in prop::collection::btree_set(0i64..100_000, 0..60),
            line in 0i64..100_000,
        ) {
            let things: Vec<_> = offsets.iter().map(|at| (*at, *at >= line)).collect();
            let (bisect, found, looks) = search(&things, 100_000);
            let first = offsets.range(line..).next().map(|at| Offset(*at));
            prop_assert_eq!(found, first);
            let last = offsets.range(..line).next_back();
            prop_assert!(bisect.low() >= Offset(last.map_or(0, |at| at + 1)));
            prop_assert!(looks <= 18, "{} looks", looks);
        }

        #[test]
        fn out_of_order_the_end_is_still_a_step_over_the_line(
            things in prop::collection::btree_map(0i64..1_000, any::<bool>(), 1..40),
        ) {
            let things: Vec<_> = things.into_iter().collect();
            let (_, found, _) = search(&things, 1_000);
            if let Some(found) = found {
                let place = things.iter().position(|(at, _)| *at == found.0).unwrap();
                prop_assert!(things[place].1);
                prop_assert!(place == 0 || !things[place - 1].1);
            } else {
                prop_assert!(!things.last().unwrap().1);
            }
        }
    }
}
