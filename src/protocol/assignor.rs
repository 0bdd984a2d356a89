//! Assignment of partitions to the members of a group: by ranges, or evenly and with as few moves as possible.
//!
//! Both are deterministic: the same members, in the same order, get the same partitions.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::PartitionIndex;

/// Topics (by name or identity), each with the number of its partitions and its readers, at least one, in order.
pub(crate) type Readers<'a, T> = BTreeMap<T, (PartitionIndex, Vec<&'a str>)>;

/// Who gets what.
pub(crate) type Shared<'a, T> = BTreeMap<(T, PartitionIndex), &'a str>;

/// A member's partitions, by topic.
pub(crate) type Owned<T> = BTreeMap<T, BTreeSet<PartitionIndex>>;

/// Of each topic a contiguous range for each reader, so that topics with equally many partitions are shared out alike.
#[must_use]
pub(crate) fn range<'a, T: Ord + Clone>(readers: &Readers<'a, T>) -> Shared<'a, T> {
    let mut shared = Shared::new();
    for (topic, (partitions_count, members)) in readers {
        let count = usize::try_from(*partitions_count).unwrap_or(0);
        let (each, extra) = (count / members.len().max(1), count % members.len().max(1));
        let mut partitions = 0..*partitions_count;
        for (index, member) in members.iter().enumerate() {
            let share = each + usize::from(index < extra);
            let share = partitions.by_ref().take(share);
            shared.extend(share.map(|it| ((topic.clone(), it), *member)));
        }
    }
    shared
}

/// Keeps what members have, gives the rest to whoever has least, and then evens out, over all topics.
#[must_use]
pub(crate) fn uniform<'a, T: Ord + Clone>(
    readers: &Readers<'a, T>,
    before: &BTreeMap<String, Owned<T>>,
) -> Shared<'a, T> {
    let mut sharing = Sharing::new(readers);
    sharing.keep(before);
    let all = readers.iter();
    let all = all.flat_map(|(topic, (count, _))| (0..*count).map(|it| (topic.clone(), it)));
    let all: Vec<_> = all.collect();
    for place in &all {
        if !sharing.shared.contains_key(place)
            && let Some((member, _)) = sharing.least_loaded(&place.0)
        {
            sharing.give(place, member);
        }
    }
    // Each move makes the loads more even, so that this ends.
    loop {
        let moved_count = all.iter().filter(|it| sharing.even_out(it)).count();
        if moved_count == 0 {
            break;
        }
    }
    sharing.shared
}

struct Sharing<'r, 'a, T> {
    readers: &'r Readers<'a, T>,
    loads: BTreeMap<&'a str, usize>,
    shared: Shared<'a, T>,
}

impl<'r, 'a, T: Ord + Clone> Sharing<'r, 'a, T> {
    fn new(readers: &'r Readers<'a, T>) -> Self {
        let members = readers.values().flat_map(|(_, members)| members);
        Self {
            readers,
            loads: members.map(|it| (*it, 0)).collect(),
            shared: Shared::new(),
        }
    }

    fn keep(&mut self, before: &BTreeMap<String, Owned<T>>) {
        for (topic, (count, members)) in self.readers {
            let members: BTreeSet<&str> = members.iter().copied().collect();
            for (owner, owned) in before {
                let Some(owner) = members.get(owner.as_str()) else {
                    continue;
                };
                let owned = owned.get(topic).into_iter().flatten();
                for partition in owned.filter(|it| (0..*count).contains(*it)) {
                    let place = (topic.clone(), *partition);
                    if !self.shared.contains_key(&place) {
                        self.give(&place, owner);
                    }
                }
            }
        }
    }

    fn give(&mut self, place: &(T, PartitionIndex), member: &'a str) {
        if let Some(owner) = self.shared.insert(place.clone(), member) {
            *self.loads.entry(owner).or_default() -= 1;
        }
        *self.loads.entry(member).or_default() += 1;
    }

    fn load(&self, member: &str) -> usize {
        self.loads.get(member).copied().unwrap_or(0)
    }

    /// The reader of a topic that has least.
    fn least_loaded(&self, topic: &T) -> Option<(&'a str, usize)> {
        let (_, members) = self.readers.get(topic)?;
        let loads = members.iter().map(|it| (*it, self.load(it)));
        loads.min_by_key(|(_, load)| *load)
    }

    /// Moves a partition to a reader that has at least two less; whether it did.
    fn even_out(&mut self, place: &(T, PartitionIndex)) -> bool {
        let owner = self.shared.get(place).copied();
        let (Some(owner), Some((member, load))) = (owner, self.least_loaded(&place.0)) else {
            return false;
        };
        let is_uneven = self.load(owner) >= load + 2;
        if is_uneven {
            self.give(place, member);
        }
        is_uneven
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics(counts: [PartitionIndex; 3], members: usize) -> Readers<'static, u8> {
        let all = &["a", "b", "c", "d"][..members];
        let of = |(topic, count): (u8, PartitionIndex)| (topic, (count, all.to_vec()));
        (0..).zip(counts).map(of).collect()
    }

    fn owned(shared: &Shared<'_, u8>) -> BTreeMap<String, Owned<u8>> {
        let mut owned: BTreeMap<String, Owned<u8>> = BTreeMap::new();
        for ((topic, partition), member) in shared {
            let of = owned.entry((*member).to_owned()).or_default();
            of.entry(*topic).or_default().insert(*partition);
        }
        owned
    }

    proptest! {
        #[test]
        fn every_partition_has_one_reader_and_loads_are_even_and_moves_are_few(
            counts in [0i32..7, 0i32..7, 0i32..7],
            before in 1usize..5,
            after in 1usize..5,
        ) {
            let first = uniform(&topics(counts, before), &BTreeMap::new());
            let readers = topics(counts, after);
            let second = uniform(&readers, &owned(&first));
            let total = counts.iter().sum::<i32>();
            for shared in [&second, &range(&readers)] {
                prop_assert_eq!(i32::try_from(shared.len()), Ok(total));
            }
            let load = |member: &str| second.values().filter(|it| **it == member).count();
            let loads: Vec<_> = ["a", "b", "c", "d"][..after].iter().map(|it| load(it)).collect();
            let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
            prop_assert!(spread <= 1);
            if before == after {
                prop_assert_eq!(&first, &second);
            }
            let is_kept = |(place, member): (&(u8, i32), &&str)| first.get(place) == Some(member);
            let kept = second.iter().filter(|it| is_kept(*it)).count();
            let largest = usize::try_from(total).unwrap().div_ceil(before.max(after));
            // Whoever stays keeps at least a fair share of the larger group, less the one that rounding may cost.
            prop_assert!(kept >= largest.saturating_sub(1) * before.min(after));
        }
    }

    #[test]
    fn ranges_are_contiguous_and_alike_for_topics_of_the_same_size() {
        let shared = range(&topics([3, 3, 0], 2));
        let of = |topic: u8| [0, 1, 2].map(|it| shared[&(topic, it)]);
        assert_eq!(of(0), ["a", "a", "b"]);
        assert_eq!(of(0), of(1));
    }
}
