//! Lanes against lists: 10,000 histories of effects, commits, deliveries and restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// Effects of a key.
    Add(u8, usize),
    /// The open cycle is committed, and known to be a little later.
    Close,
    /// The commits are known.
    Know,
    /// Some keys begin to be delivered, as far as there is room.
    Begin(usize),
    /// The fate of an effect is known, in one of the lanes that are under way.
    Settle(usize),
    /// The process is killed: what was not committed is gone, and the rest is there at the next start.
    Restart,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..5u8, 1..4usize).prop_map(|(key, count)| Operation::Add(key, count)),
        1 => (0..5u8, 60..140usize).prop_map(|(key, count)| Operation::Add(key, count)),
        3 => Just(Operation::Close),
        3 => Just(Operation::Know),
        4 => (1..4usize).prop_map(Operation::Begin),
        8 => (0..8usize).prop_map(Operation::Settle),
        1 => Just(Operation::Restart),
    ]
}

/// The lanes, and what a list of each key says.
#[derive(Default)]
struct World {
    lanes: Lanes,
    /// The effects of each key that are not settled, with their cycles.
    effects: BTreeMap<u8, VecDeque<(i64, Option<u64>)>>,
    /// The lanes that are under way: whose they are, and what is still to be settled.
    under_way: BTreeMap<u64, (u8, VecDeque<i64>)>,
    next_number: i64,
    cycle: u64,
    known: u64,
    /// The effects that were settled: none is delivered again in the same life or the next one.
    settled: BTreeSet<i64>,
}

impl World {
    fn add(&mut self, key: u8) {
        let number = self.next_number;
        self.next_number += 1;
        let known = self.known;
        let cycle = Some(self.cycle);
        self.lanes
            .add(&[key], u32::from(key), number, cycle, |it| it < known);
        self.effects
            .entry(key)
            .or_default()
            .push_back((number, cycle));
    }

    /// Begins the next key; says whether there was one.
    fn begin(&mut self) -> bool {
        let known = self.known;
        let Some(begun) = self.lanes.begin_next(|it| it < known) else {
            return false;
        };
        let key = begun.key[0];
        assert_eq!(begun.partition_hash, u32::from(key));
        let is_under_way = self.under_way.values().any(|(it, _)| *it == key);
        assert!(!is_under_way, "two tasks deliver the effects of one key");
        let list = self.effects[&key].iter().take(begun.numbers.len());
        for ((number, cycle), begun) in list.zip(&begun.numbers) {
            assert_eq!(number, begun, "in the order of the key");
            assert!(cycle.is_none_or(|it| it < known), "O1: it is not committed");
            assert!(!self.settled.contains(number), "it is delivered again");
        }
        let all = self.effects[&key].iter();
        let ready = all.take_while(|(_, cycle)| cycle.is_none_or(|it| it < known));
        assert_eq!(begun.numbers.len(), ready.count().min(IN_TURN_MAX));
        let before = self
            .under_way
            .insert(begun.lane, (key, begun.numbers.into()));
        assert_eq!(before, None);
        true
    }

    fn settle(&mut self, which: usize) {
        let lanes: Vec<u64> = self.under_way.keys().copied().collect();
        let Some(lane) = lanes.get(which % lanes.len().max(1)).copied() else {
            return;
        };
        let (key, numbers) = self.under_way.get_mut(&lane).unwrap();
        let key = *key;
        let number = numbers.pop_front().unwrap();
        if numbers.is_empty() {
            self.under_way.remove(&lane);
        }
        assert_eq!(self.lanes.first(lane).number, number);
        let known = self.known;
        let place = self.lanes.settle(lane, |it| it < known);
        assert_eq!((place.key[0], place.number), (key, number));
        let list = self.effects.get_mut(&key).unwrap();
        assert_eq!(list.pop_front().map(|(first, _)| first), Some(number));
        self.settled.insert(number);
    }

    /// Restarts: what is committed is there, in the order of numbers.
    fn restart(&mut self) {
        self.known = self.cycle;
        self.under_way.clear();
        self.lanes = Lanes::default();
        let known = self.known;
        let mut rows = Vec::new();
        for (key, list) in &mut self.effects {
            list.retain(|(_, cycle)| cycle.is_none_or(|it| it < known));
            list.iter_mut().for_each(|effect| effect.1 = None);
            rows.extend(list.iter().map(|(number, _)| (*number, *key)));
        }
        rows.sort_unstable();
        for (number, key) in rows {
            let hash = u32::from(key);
            self.lanes.add(&[key], hash, number, None, |_| false);
        }
    }

    fn take(&mut self, operation: Operation) {
        match operation {
            Operation::Add(key, count) => (0..count).for_each(|_| self.add(key)),
            Operation::Close => self.cycle += 1,
            Operation::Know => self.known = self.cycle,
            Operation::Begin(room) => {
                let _ = (0..room).take_while(|_| self.begin()).count();
            }
            Operation::Settle(which) => self.settle(which),
            Operation::Restart => self.restart(),
        }
        let all = self.effects.values().flatten();
        assert_eq!(self.lanes.len(), all.clone().count());
        let least = all.map(|(number, _)| *number).min();
        assert_eq!(self.lanes.first_number(), least);
    }

    /// With all committed, everything is delivered, and nothing is left.
    fn finish(mut self) {
        (self.cycle, self.known) = (self.cycle + 1, self.cycle + 1);
        loop {
            while self.begin() {}
            if self.under_way.is_empty() {
                break;
            }
            self.settle(0);
        }
        assert_eq!(self.lanes.len(), 0);
        assert!(self.lanes.lanes.is_empty() && self.lanes.keys.is_empty());
        assert!(self.effects.values().all(VecDeque::is_empty));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn o1_o8_effects_of_a_key_are_delivered_in_order_behind_their_commits_in_every_history(
        operations in proptest::collection::vec(any_operation(), 0..50),
    ) {
        let mut world = World::default();
        for operation in operations {
            world.take(operation);
        }
        world.finish();
    }
}
