//! Lanes: which effect of each key is next, in memory. Pure; the effects themselves are rows of the store.
//!
//! ```text
//!   added ──► its key is free? ──► waits for its commit ──► ready ──► under way, with those behind it ──► settled, one after the other
//!                  no: stands behind those of its key                                     └─► the next of the key, if there is one
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// Effects of a key in one delivery: enough that a task seldom waits for the worker's next look, few enough that their copies
/// are no matter.
const IN_TURN_MAX: usize = 64;

/// The undelivered effects of a key, in order.
struct Lane {
    number: u64,
    partition_hash: u32,
    /// Their numbers, and the cycles in which they came; none if they were there at the start.
    effects: VecDeque<(i64, Option<u64>)>,
    /// Number of them, from the first on, that are being delivered.
    under_way: usize,
}

/// An effect in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: Rc<[u8]>,
    pub(super) partition_hash: u32,
    pub(super) number: i64,
}

/// Effects of a key that are to be delivered in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    /// The number of the key's lane, by which what becomes of them is told.
    pub(super) lane: u64,
    pub(super) key: Rc<[u8]>,
    pub(super) partition_hash: u32,
    pub(super) numbers: Vec<i64>,
}

/// The lanes of all keys that have undelivered effects.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Rc<[u8]>, Lane>,
    /// Whose lane has which number.
    keys: HashMap<u64, Rc<[u8]>>,
    /// The keys whose next effect can be delivered.
    ready: VecDeque<Rc<[u8]>>,
    /// Those whose next effect can be once a cycle is committed, in the order of cycles.
    uncommitted: VecDeque<(u64, Rc<[u8]>)>,
    /// The numbers of all effects, with their lanes: two keys may have the same, where one came from elsewhere.
    numbers: BTreeSet<(i64, u64)>,
    next_lane: u64,
}

impl Lanes {
    /// Counts the effects.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The least number of an effect.
    pub(super) fn first_number(&self) -> Option<i64> {
        self.numbers.first().map(|(number, _)| *number)
    }

    /// Takes an effect on, which came in this cycle, or was there at the start; its number is above those of its key.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        partition_hash: u32,
        number: i64,
        cycle: Option<u64>,
        is_committed: impl Fn(u64) -> bool,
    ) {
        if let Some(lane) = self.lanes.get_mut(key) {
            // A key that has effects is under way already, or waits for that.
            lane.effects.push_back((number, cycle));
            self.numbers.insert((number, lane.number));
            return;
        }
        let key: Rc<[u8]> = key.into();
        let lane = Lane {
            number: self.next_lane,
            partition_hash,
            effects: VecDeque::from([(number, cycle)]),
            under_way: 0,
        };
        self.next_lane += 1;
        self.numbers.insert((number, lane.number));
        self.keys.insert(lane.number, Rc::clone(&key));
        self.lanes.insert(Rc::clone(&key), lane);
        self.line_up(key, cycle, is_committed);
    }

    /// Puts a key where it waits to be delivered; its next effect came in this cycle.
    fn line_up(&mut self, key: Rc<[u8]>, cycle: Option<u64>, is_committed: impl Fn(u64) -> bool) {
        match cycle.filter(|cycle| !is_committed(*cycle)) {
            None => self.ready.push_back(key),
            Some(cycle) => self.uncommitted.push_back((cycle, key)),
        }
    }

    /// The committed effects of the next key that has any and is not under way, the first ones if there are many: they are under way now.
    pub(super) fn begin_next(&mut self, is_committed: impl Fn(u64) -> bool) -> Option<Begun> {
        while let Some((_, key)) = self
            .uncommitted
            .pop_front_if(|(cycle, _)| is_committed(*cycle))
        {
            self.ready.push_back(key);
        }
        let key = self.ready.pop_front()?;
        let Some(lane) = self.lanes.get_mut(&key) else {
            unreachable!("a key that is ready has effects")
        };
        let effects = lane.effects.iter().take(IN_TURN_MAX);
        let numbers: Vec<i64> = effects
            .take_while(|(_, cycle)| cycle.is_none_or(&is_committed))
            .map(|(number, _)| *number)
            .collect();
        assert!(!numbers.is_empty(), "a key is ready with its first effect");
        lane.under_way = numbers.len();
        Some(Begun {
            lane: lane.number,
            partition_hash: lane.partition_hash,
            key,
            numbers,
        })
    }

    /// The effect that is being delivered in a lane.
    pub(super) fn first(&self, lane: u64) -> Place {
        let Some(key) = self.keys.get(&lane) else {
            unreachable!("a lane has a key until all its effects are settled")
        };
        let Some(lane) = self.lanes.get(key) else {
            unreachable!("a key has a lane until all its effects are settled")
        };
        let Some((number, _)) = lane.effects.front() else {
            unreachable!("an effect is in its lane until its fate is known")
        };
        Place {
            key: Rc::clone(key),
            partition_hash: lane.partition_hash,
            number: *number,
        }
    }

    /// The fate of the effect that was being delivered in a lane is known: it is no more.
    pub(super) fn settle(&mut self, lane: u64, is_committed: impl Fn(u64) -> bool) -> Place {
        let place = self.first(lane);
        self.numbers.remove(&(place.number, lane));
        let Some(of_key) = self.lanes.get_mut(&place.key) else {
            unreachable!("a key has a lane until all its effects are settled")
        };
        of_key.effects.pop_front();
        of_key.under_way -= 1;
        if of_key.under_way == 0 {
            match of_key.effects.front().map(|(_, cycle)| *cycle) {
                Some(cycle) => self.line_up(Rc::clone(&place.key), cycle, is_committed),
                None => {
                    self.lanes.remove(&place.key);
                    self.keys.remove(&lane);
                }
            }
        }
        place
    }
}

#[cfg(test)]
mod tests;
