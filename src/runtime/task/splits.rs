//! The splits that a process reads, or has read, by their numbers.
//!
//! A number stands in rows of state, where it decides the order of records of one key and time. So it is the same in each process and
//! each run of a program, however many partitions there are, and whichever of them the process has:
//!
//! ```text
//! number    rank of the feed among all feeds, by name + number of the partition · count of feeds
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use parking_lot::RwLock;

use crate::runtime::contract::record::Origin;
use crate::runtime::contract::source::{Position, Split};

/// The splits that this process reads or has read.
#[derive(Default)]
pub(crate) struct Splits {
    /// The rank of each feed.
    ranks: Vec<u32>,
    numbered: RwLock<BTreeMap<u32, Numbered>>,
}

struct Numbered {
    /// The number of splits before it.
    place: usize,
    plan: SplitPlan,
}

impl Splits {
    /// For feeds of these names: first sources, then topics between processes.
    pub(crate) fn new<'a>(
        sources: impl Iterator<Item = &'a str>,
        exchanges: impl Iterator<Item = &'a str>,
    ) -> Self {
        let sources = sources.map(|name| (false, name));
        let exchanges = exchanges.map(|name| (true, name));
        let mut by_name: Vec<_> = sources.chain(exchanges).zip(0usize..).collect();
        by_name.sort_unstable();
        let mut ranks = vec![0; by_name.len()];
        for ((_, feed), rank) in by_name.into_iter().zip(0u32..) {
            ranks[feed] = rank;
        }
        Self {
            ranks,
            numbered: RwLock::default(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.numbered.read().len()
    }

    pub(crate) fn get(&self, number: u32) -> Option<SplitPlan> {
        let numbered = self.numbered.read();
        numbered.get(&number).map(|it| it.plan.clone())
    }

    /// All of them with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, SplitPlan)> {
        let numbered = self.numbered.read();
        let all = numbered
            .iter()
            .map(|(number, it)| (*number, it.plan.clone()));
        all.collect()
    }

    /// Those of a source that fall to a worker, where workers share them evenly.
    pub(crate) fn of_worker(
        &self,
        source: usize,
        worker: usize,
        workers: usize,
    ) -> Vec<(u32, SplitPlan)> {
        let numbered = self.numbered.read();
        let falls_to_it = |it: &Numbered| it.plan.source == source && it.place % workers == worker;
        let all = numbered.iter().filter(|(_, it)| falls_to_it(it));
        all.map(|(number, it)| (*number, it.plan.clone())).collect()
    }

    /// Adds a split, which has its old number if it was there before; returns the number.
    pub(crate) fn add(&self, plan: SplitPlan) -> u32 {
        let mut numbered = self.numbered.write();
        let place = numbered.len();
        let mut number = self.number_of(&plan, &numbered);
        loop {
            match numbered.entry(number) {
                Entry::Vacant(free) => {
                    free.insert(Numbered { place, plan });
                    return number;
                }
                Entry::Occupied(mut known) if known.get().plan.split == plan.split => {
                    known.get_mut().plan = plan;
                    return number;
                }
                // Only where there are so many that numbers ran out.
                Entry::Occupied(_) => number = number.wrapping_add(1) % Origin::TIME.split,
            }
        }
    }

    fn number_of(&self, plan: &SplitPlan, numbered: &BTreeMap<u32, Numbered>) -> u32 {
        let among_its_own = match &plan.split {
            Split::Partition(place) => u32::try_from(place.partition).unwrap_or(0),
            Split::Named { .. } => {
                let mut of_source = numbered.iter().filter(|it| it.1.plan.source == plan.source);
                let known = of_source.clone().find(|it| it.1.plan.split == plan.split);
                if let Some((number, _)) = known {
                    return *number;
                }
                u32::try_from(of_source.by_ref().count()).unwrap_or(u32::MAX)
            }
        };
        let feeds = u32::try_from(self.ranks.len()).unwrap_or(u32::MAX).max(1);
        let rank = self.ranks.get(plan.source).copied().unwrap_or(0);
        let number = among_its_own.wrapping_mul(feeds).wrapping_add(rank);
        number % Origin::TIME.split
    }

    /// The number of a split.
    pub(crate) fn number(&self, split: &Split) -> Option<u32> {
        let numbered = self.numbered.read();
        let mut all = numbered.iter();
        all.find(|it| it.1.plan.split == *split).map(|it| *it.0)
    }
}

/// One split of the job.
#[derive(Clone)]
pub(crate) struct SplitPlan {
    pub(crate) source: usize,
    pub(crate) split: Split,
    pub(crate) position: Option<Position>,
    /// Whether a record can be read again, after a failure.
    pub(crate) is_rereadable: bool,
    /// The state partition that the split's records are for, if it belongs to a repartition topic.
    pub(crate) state_partition: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{TopicName, TopicPartition};

    fn plan(source: usize, topic: &str, partition: i32) -> SplitPlan {
        let topic = TopicName::new(topic).unwrap();
        SplitPlan {
            source,
            split: Split::Partition(TopicPartition::new(topic, partition)),
            position: None,
            is_rereadable: true,
            state_partition: None,
        }
    }

    #[test]
    fn i16_a_split_has_one_number_whoever_reads_it_and_whatever_else_there_is() {
        let one = Splits::new(["orders", "clicks"].into_iter(), ["counts"].into_iter());
        let other = Splits::new(["clicks", "orders"].into_iter(), ["counts"].into_iter());
        let mut numbers = Vec::new();
        for partition in [2, 0, 1] {
            numbers.push(one.add(plan(0, "orders", partition)));
            numbers.push(one.add(plan(1, "clicks", partition)));
            numbers.push(one.add(plan(2, "job-counts-repartition", partition)));
        }
        assert_eq!(numbers, [7, 6, 8, 1, 0, 2, 4, 3, 5]);
        assert_eq!(
            other.add(plan(1, "orders", 1)),
            4,
            "declared in another order"
        );
        assert_eq!(one.add(plan(0, "orders", 1)), 4, "known before");
        assert_eq!(one.count(), 9);
        let orders = TopicPartition::new(TopicName::new("orders").unwrap(), 1);
        assert_eq!(one.number(&Split::Partition(orders)), Some(4));
    }

    #[test]
    fn workers_share_the_splits_of_each_source() {
        let splits = Splits::new(["a", "b"].into_iter(), [].into_iter());
        for source in 0..2 {
            let topic = ["a", "b"][source];
            for partition in 0..4 {
                splits.add(plan(source, topic, partition));
            }
        }
        for (source, worker) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            assert_eq!(splits.of_worker(source, worker, 2).len(), 2);
        }
    }
}
