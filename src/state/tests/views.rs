//! Reads of committed values against a map, at any moment between the steps of two workers, the driver and the flusher.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::support::*;
use crate::codec::Bincode;
use crate::state::{Direction, FlushBatch, FlushUrgency, Found, RangeOf, StateBackend, Store};
use crate::types::Offset;

/// The state partitions of each worker.
const OWNED: [[u16; 2]; 2] = [[0, 1], [2, 3]];

#[derive(Debug, Clone)]
enum Step {
    Update(Vec<u8>, Option<String>),
    /// The cycle closes; `true` if there are readers.
    Close(bool),
    /// A worker lets its part of the cycle run out.
    Drain(usize, bool),
    Decide,
    Abort,
    WriteFlush(usize),
    /// A state partition of a worker leaves and comes back.
    HandOver(usize),
    Read(Vec<u8>),
    ReadRange(u16, u8, u8, bool),
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    (0u8..6, 0usize..4).prop_map(|(first, length)| {
        let length = if length == 3 { 43 } else { length };
        std::iter::once(first).chain(vec![b'k'; length]).collect()
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let value = prop::option::weighted(0.8, "[a-z]{0,30}");
    prop_oneof![
        12 => (keys(), value).prop_map(|(key, value)| Step::Update(key, value)),
        4 => prop::bool::weighted(0.85).prop_map(Step::Close),
        8 => (0usize..2, any::<bool>()).prop_map(|(worker, flushes)| Step::Drain(worker, flushes)),
        6 => Just(Step::Decide),
        1 => Just(Step::Abort),
        4 => (0usize..2).prop_map(Step::WriteFlush),
        1 => (0usize..2).prop_map(Step::HandOver),
        12 => keys().prop_map(Step::Read),
        8 => (0..STATE_PARTITIONS, 0u8..7, 0u8..7, any::<bool>())
            .prop_map(|(partition, from, to, is_forward)| Step::ReadRange(partition, from, to, is_forward)),
    ]
}

type Model = [Values; STATE_PARTITIONS as usize];

struct Worker {
    /// `None` only while it is opened again.
    store: Option<Store<String>>,
    is_drained: bool,
    /// A flush that was taken, and how far it covers the changelog, once its cycle is decided.
    taken: Option<Taken>,
}

/// A flush, and how far it covers the changelog, once its cycle is decided.
type Taken = (FlushBatch, Option<Vec<(u16, Offset)>>);

/// Two workers and their driver.
struct World {
    backend: StateBackend,
    workers: Vec<Worker>,
    changelog: Changelog,
    pending: Vec<Change>,
    is_closing: bool,
    /// Whether stores keep what readers need, from the cycle on that was closed last.
    is_armed: bool,
    is_open: bool,
    live: Model,
    committed: Model,
    epoch: u64,
    epoch_seen: u64,
    /// Goes last: RocksDB does not close without its directory.
    _home: Home,
}

fn open_part(backend: &StateBackend, worker: usize, is_sorted: bool) -> Store<String> {
    let mut store = Store::open(backend, STORE, &OWNED[worker], Bincode).unwrap();
    if is_sorted {
        store.keep_order();
    }
    store
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let backend = home.open(tiny()).unwrap();
        backend.views().begin(0);
        let worker = |number| Worker {
            // Both kinds of stores, so that both kinds of layers are read.
            store: Some(open_part(&backend, number, number == 1)),
            is_drained: false,
            taken: None,
        };
        Self {
            workers: vec![worker(0), worker(1)],
            _home: home,
            backend,
            changelog: Changelog::default(),
            pending: Vec::new(),
            is_closing: false,
            is_armed: false,
            is_open: false,
            live: Model::default(),
            committed: Model::default(),
            epoch: 0,
            epoch_seen: 0,
        }
    }

    fn place(bytes: &[u8]) -> u16 {
        key(bytes).place(STATE_PARTITIONS).state_partition
    }

    fn store(&mut self, worker: usize) -> &mut Store<String> {
        self.workers[worker].store.as_mut().unwrap()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Update(bytes, value) => self.update(&bytes, value),
            Step::Close(is_wanted) => self.close(is_wanted),
            Step::Drain(worker, flushes) => self.drain(worker, flushes),
            Step::Decide => self.decide(),
            Step::Abort => self.abort(),
            Step::WriteFlush(worker) => self.write_flush(worker),
            Step::HandOver(worker) => self.hand_over(worker),
            Step::Read(bytes) => self.read(&bytes),
            Step::ReadRange(partition, from, to, is_forward) => {
                self.read_range(partition, &[from], &[to], is_forward);
            }
        }
    }

    fn update(&mut self, bytes: &[u8], value: Option<String>) {
        let partition = Self::place(bytes);
        let worker = usize::from(partition / 2);
        if self.workers[worker].is_drained {
            return;
        }
        self.store(worker)
            .update(key(bytes), |slot| slot.clone_from(&value))
            .unwrap();
        let live = &mut self.live[usize::from(partition)];
        match value {
            Some(value) => live.insert(bytes.to_vec(), value),
            None => live.remove(bytes),
        };
    }

    fn close(&mut self, is_wanted: bool) {
        if self.is_closing {
            return;
        }
        self.is_closing = true;
        self.backend.views().close_cycle(is_wanted);
        self.is_armed = is_wanted;
        self.is_open &= is_wanted;
    }

    fn drain(&mut self, worker: usize, flushes: bool) {
        if !self.is_closing || self.workers[worker].is_drained {
            return;
        }
        self.workers[worker].is_drained = true;
        let changes = drain(self.store(worker));
        self.pending.extend(changes);
        if flushes && let Some(batch) = self.store(worker).take_flush(FlushUrgency::Now).unwrap() {
            self.workers[worker].taken = Some((batch, None));
        }
    }

    fn decide(&mut self) {
        if self.workers.iter().any(|worker| !worker.is_drained) {
            return;
        }
        self.changelog.append(std::mem::take(&mut self.pending));
        self.backend.views().publish();
        self.epoch += 1;
        self.is_open = self.is_armed;
        self.committed.clone_from(&self.live);
        self.is_closing = false;
        for worker in &mut self.workers {
            worker.is_drained = false;
            if let Some((_, covers)) = &mut worker.taken {
                covers.get_or_insert_with(|| self.changelog.ends());
            }
        }
    }

    fn write_flush(&mut self, worker: usize) {
        let taken = &mut self.workers[worker].taken;
        if let Some((batch, Some(covers))) = taken.take_if(|(_, covers)| covers.is_some()) {
            let ticket = batch.ticket();
            let covers = &covers[worker * 2..worker * 2 + 2];
            self.backend.flush(batch, covers).unwrap();
            self.store(worker).flushed(ticket);
        }
    }

    fn abort(&mut self) {
        self.pending.clear();
        self.backend.views().close();
        for worker in 0..2 {
            self.write_flush(worker);
            self.workers[worker].taken = None;
            self.workers[worker].store = None;
        }
        // An incarnation begins behind all epochs that the last one may have shown.
        self.epoch += 100;
        self.backend.views().begin(self.epoch);
        for worker in 0..2 {
            let mut store = open_part(&self.backend, worker, worker == 1);
            self.changelog
                .restore(&self.backend, &mut store, usize::MAX)
                .unwrap();
            self.workers[worker].store = Some(store);
            self.workers[worker].is_drained = false;
        }
        (self.is_closing, self.is_open, self.is_armed) = (false, false, false);
        self.live.clone_from(&self.committed);
    }

    fn hand_over(&mut self, worker: usize) {
        // Nothing is open and nothing under way.
        let is_quiet = !self.is_closing
            && self.live == self.committed
            && self.workers.iter().all(|worker| worker.taken.is_none())
            && self.store(worker).overlay_bytes() == 0;
        if !is_quiet {
            return;
        }
        let partition = OWNED[worker][0];
        self.store(worker).remove_partitions(&[partition]);
        if let Some(inside) = self.backend.views().enter() {
            let found = self
                .backend
                .committed_value(&inside, STORE, partition, b"k");
            assert_eq!(found.unwrap(), Found::Elsewhere);
        }
        self.changelog.replay(&self.backend, partition).unwrap();
        self.store(worker).add_partitions(&[partition]).unwrap();
    }

    fn read(&mut self, bytes: &[u8]) {
        let partition = Self::place(bytes);
        let inside = self.backend.views().enter();
        assert_eq!(inside.is_some(), self.is_open);
        let Some(inside) = inside else { return };
        assert_eq!(inside.epoch(), self.epoch);
        assert!(self.epoch_seen <= self.epoch);
        self.epoch_seen = self.epoch;
        let found = self
            .backend
            .committed_value(&inside, STORE, partition, bytes);
        let expected = self.committed[usize::from(partition)].get(bytes);
        assert_eq!(found.unwrap(), Found::Value(expected.map(encoded)));
    }

    fn read_range(&self, partition: u16, from: &[u8], to: &[u8], is_forward: bool) {
        let Some(inside) = self.backend.views().enter() else {
            return;
        };
        let mut found = Vec::new();
        let range = RangeOf {
            places: &[(partition, from)],
            to: Some(to),
            direction: match is_forward {
                true => Direction::Forward,
                false => Direction::Backward,
            },
            rows_max: usize::MAX,
        };
        let shown = self
            .backend
            .visit_committed(inside, STORE, range, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
        assert_eq!(shown.unwrap(), None, "the partition is here");
        let rows = self.committed[usize::from(partition)].iter();
        let rows = rows.filter(|(key, _)| &***key >= from && &***key < to);
        let mut expected: Vec<_> = rows.map(|(key, it)| (key.clone(), encoded(it))).collect();
        if !is_forward {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
}

fn encoded(value: &String) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::codec::Codec::<String>::encode(&Bincode, value, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn u12_a_reader_sees_the_last_decided_cycle_and_nothing_of_the_next_at_any_moment(
        steps in prop::collection::vec(steps(), 1..250)
    ) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
    }
}

/// The next commit waits for a reader of single values, and not for one of a long range.
#[test]
fn a_range_that_is_being_read_stays_as_it_was_when_it_began() {
    let mut world = World::new();
    let cycle = |world: &mut World, value: &str| {
        for first in 0..5 {
            world.apply(Step::Update(vec![first, 1], Some(value.to_owned())));
        }
        world.apply(Step::Close(true));
        world.apply(Step::Drain(0, true));
        world.apply(Step::Drain(1, true));
        world.apply(Step::Decide);
        world.apply(Step::WriteFlush(0));
        world.apply(Step::WriteFlush(1));
    };
    cycle(&mut world, "old");
    cycle(&mut world, "older");
    cycle(&mut world, "old");
    let backend = world.backend.clone();
    let inside = backend.views().enter().unwrap();
    let range = RangeOf {
        places: &[(2, &[])],
        to: None,
        direction: Direction::Forward,
        rows_max: usize::MAX,
    };
    let mut found = Vec::new();
    let shown = backend.visit_committed(inside, STORE, range, &mut |_, value| {
        found.push(value.to_vec());
        cycle(&mut world, "new");
        ControlFlow::Continue(())
    });
    assert_eq!(shown.unwrap(), None);
    assert_eq!(found, vec![encoded(&"old".to_owned()); 5]);
}
