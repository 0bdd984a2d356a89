//! Rows against a plain join, while messages between homes are on their way in any order that workers can bring about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::operators::join::{Inner, Left};

const KEYS: usize = 4;
/// Number of homes: workers.
const HOMES: usize = 3;

/// A left value: which one it is, and its foreign key.
type L = (u32, Option<usize>);
/// The result of a match.
type Shown = (L, Option<u32>);

#[derive(Debug, Clone)]
enum Happens {
    Left(usize, Option<Option<usize>>),
    Right(usize, bool),
    /// The first message of one of the queues arrives.
    Arrives(usize),
}

fn any_event() -> impl Strategy<Value = Happens> {
    let left = (
        0..KEYS,
        prop::option::weighted(0.8, prop::option::weighted(0.8, 0..KEYS)),
    );
    prop_oneof![
        3 => left.prop_map(|(key, value)| Happens::Left(key, value)),
        2 => (0..KEYS, any::<bool>()).prop_map(|(key, is_set)| Happens::Right(key, is_set)),
        4 => (0usize..64).prop_map(Happens::Arrives),
    ]
}

#[derive(Debug)]
enum Message {
    /// To a foreign key's home: a left key comes or goes.
    Question { to: usize, from: usize, comes: bool },
    /// To a left key's home.
    Answer {
        to: usize,
        of: usize,
        told: Told<u32>,
    },
}

/// Both tables, the rows, and what is on its way: in order from one worker to another.
struct World<J> {
    joiner: J,
    serial: u32,
    left: [Option<L>; KEYS],
    right: [Option<u32>; KEYS],
    known: [BTreeSet<usize>; KEYS],
    rows: [Option<Matched<L, u32>>; KEYS],
    shown: [Option<Shown>; KEYS],
    /// Changes of what is shown, and the most that there may be.
    changes: [(usize, usize); KEYS],
    queues: BTreeMap<(usize, usize), VecDeque<Message>>,
}

impl<J: Joiner<L, u32, Out = Shown>> World<J> {
    fn new(joiner: J) -> Self {
        Self {
            joiner,
            serial: 0,
            left: Default::default(),
            right: Default::default(),
            known: Default::default(),
            rows: Default::default(),
            shown: Default::default(),
            changes: Default::default(),
            queues: BTreeMap::new(),
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let way = (from % HOMES, to % HOMES);
        self.queues.entry(way).or_default().push_back(message);
    }

    fn happens(&mut self, event: &Happens) {
        self.serial += 1;
        match *event {
            Happens::Left(key, value) => self.change_left(key, value.map(|it| (self.serial, it))),
            Happens::Right(key, is_set) => {
                self.right[key] = is_set.then_some(self.serial);
                for to in self.known[key].clone() {
                    self.tell(key, to, false);
                }
            }
            Happens::Arrives(number) => self.arrive(number),
        }
    }

    fn tell(&mut self, of: usize, to: usize, is_answer: bool) {
        let right = self.right[of];
        let told = Told { is_answer, right };
        self.send(of, to, Message::Answer { to, of, told });
    }

    fn change_left(&mut self, key: usize, new: Option<L>) {
        let old = std::mem::replace(&mut self.left[key], new);
        if old.is_none() && new.is_none() {
            return;
        }
        let (before, after) = (old.and_then(|it| it.1), new.and_then(|it| it.1));
        let moves = match after {
            _ if before == after => Move::Stays,
            Some(_) => Move::Asks,
            None => Move::Leaves,
        };
        if before != after {
            let ways = [before.map(|it| (it, false)), after.map(|it| (it, true))];
            for (to, comes) in ways.into_iter().flatten() {
                self.send(
                    key,
                    to,
                    Message::Question {
                        to,
                        from: key,
                        comes,
                    },
                );
            }
        }
        let mut row = self.rows[key].take().unwrap_or_default();
        let change = row.change_left(&Change { old, new }, moves, &self.joiner);
        self.rows[key] = Some(row).filter(|row| !row.is_over(new.is_some()));
        self.changes[key].1 += 1;
        self.show(key, change);
    }

    /// The first message of one of the queues arrives; returns whether there was one.
    fn arrive(&mut self, number: usize) {
        let mut waiting = self.queues.values_mut().filter(|it| !it.is_empty());
        let count = waiting.by_ref().count().max(1);
        let mut waiting = self.queues.values_mut().filter(|it| !it.is_empty());
        match waiting.nth(number % count).and_then(VecDeque::pop_front) {
            None => {}
            Some(Message::Question {
                to,
                from,
                comes: true,
            }) => {
                self.known[to].insert(from);
                self.tell(to, from, true);
            }
            Some(Message::Question { to, from, .. }) => drop(self.known[to].remove(&from)),
            Some(Message::Answer { to, of, told }) => self.hear(to, of, &told),
        }
    }

    fn hear(&mut self, key: usize, of: usize, told: &Told<u32>) {
        let left = self.left[key];
        let is_of_now = left.and_then(|it| it.1) == Some(of);
        let mut row = self.rows[key].take().unwrap_or_default();
        let change = row.hear(told, left.as_ref(), is_of_now, &self.joiner);
        self.rows[key] = Some(row).filter(|row| !row.is_over(left.is_some()));
        self.changes[key].1 += 1;
        self.show(key, change);
    }

    /// J15: each change begins where the last one ended, and nothing is deleted but for a reason.
    fn show(&mut self, key: usize, change: Option<Change<Shown>>) {
        let row = self.rows[key].as_ref();
        let seen = Matched::seen(row, self.left[key].as_ref(), &self.joiner);
        let Some(Change { old, new }) = change else {
            assert_eq!(seen, self.shown[key], "nothing was said");
            return;
        };
        assert_eq!(old, self.shown[key], "what was shown before");
        assert_eq!(new, seen, "readers see what is said");
        if new.is_none() {
            let left = self.left[key];
            let has_right = row.is_some_and(|row| row.right.is_some());
            assert!(left.is_none() || !has_right, "deleted without a reason");
        }
        self.shown[key] = new;
        self.changes[key].0 += 1;
    }

    fn check(mut self, order: &[usize]) {
        let mut turn = 0;
        while self.queues.values().any(|it| !it.is_empty()) {
            self.arrive(
                order
                    .get(turn % order.len().max(1))
                    .copied()
                    .unwrap_or(turn),
            );
            turn += 1;
        }
        for key in 0..KEYS {
            let left = self.left[key].as_ref();
            let right = left.and_then(|it| it.1).and_then(|it| self.right[it]);
            let expected = self
                .joiner
                .of(left, right.as_ref().filter(|_| left.is_some()));
            assert_eq!(self.shown[key], expected, "{key}");
            let (said, heard) = self.changes[key];
            assert!(said <= heard, "{key}: {said} changes of {heard}");
            let row = self.rows[key].as_ref();
            assert!(row.is_none_or(|row| row.due == 0 && left.is_some()));
        }
    }
}

fn run<J: Joiner<L, u32, Out = Shown>>(joiner: J, events: &[Happens], order: &[usize]) {
    let mut world = World::new(joiner);
    events.iter().for_each(|event| world.happens(event));
    world.check(order);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j15_in_whichever_order_messages_come_what_is_shown_is_the_join_and_nothing_is_deleted_without_a_reason(
        events in prop::collection::vec(any_event(), 0..60),
        order in prop::collection::vec(0usize..64, 1..40),
        is_inner in any::<bool>(),
    ) {
        match is_inner {
            true => run(Inner(|left: &L, right: &u32| (*left, Some(*right))), &events, &order),
            false => run(Left(|left: &L, right: Option<&u32>| (*left, right.copied())), &events, &order),
        }
    }
}
