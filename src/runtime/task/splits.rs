//! The splits that a process reads, or has read, by their numbers.

use parking_lot::RwLock;

use crate::runtime::contract::source::{Position, Split};

/// The splits that this process reads or has read, numbered by their place in the list.
#[derive(Default)]
pub(crate) struct Splits(RwLock<Vec<SplitPlan>>);

impl Splits {
    pub(crate) fn new(plans: Vec<SplitPlan>) -> Self {
        Self(RwLock::new(plans))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.read().len()
    }

    pub(crate) fn get(&self, number: u32) -> Option<SplitPlan> {
        self.0.read().get(number as usize).cloned()
    }

    /// All of them with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, SplitPlan)> {
        (0u32..).zip(self.0.read().iter().cloned()).collect()
    }

    /// Adds a split, which has its old number if it was there before; returns the number.
    pub(crate) fn add(&self, plan: SplitPlan) -> u32 {
        let mut plans = self.0.write();
        let known = plans.iter().position(|known| known.split == plan.split);
        let place = known.unwrap_or(plans.len());
        match known {
            Some(place) => plans[place] = plan,
            None => plans.push(plan),
        }
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// The number of a split.
    pub(crate) fn number(&self, split: &Split) -> Option<u32> {
        let place = self.0.read().iter().position(|known| known.split == *split);
        place.and_then(|place| u32::try_from(place).ok())
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
