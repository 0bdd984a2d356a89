//! Ranges through any mix of changes, flushes, evictions and restarts, against a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::env::Env;
use crate::state::{FlushUrgency, StateBackend, StateConfig, StateError, StoreDeclaration};
use crate::types::{Offset, TopicId};

const PARTITIONS: u16 = 4;

fn backend(folder: &std::path::Path, memory_bytes: usize) -> StateBackend {
    let config = StateConfig {
        memory_bytes,
        state_partitions: PARTITIONS,
        stores: vec![StoreDeclaration {
            name: "ordered".to_owned(),
            schema: ordered_schema::<u64, i64, u64>(),
            changelog: TopicId(1),
        }],
        ..StateConfig::default()
    };
    StateBackend::open(&Env::real(), folder, config).unwrap()
}

fn open(backend: &StateBackend) -> OrderedStore<i64, u64> {
    let partitions: Vec<u16> = (0..PARTITIONS).collect();
    let mut store = Store::open(backend, "ordered", &partitions, crate::codec::Bincode).unwrap();
    store.keep_order();
    OrderedStore::of(Rc::new(RefCell::new(store)), PARTITIONS)
}

/// A change: state partition, key, and the value unless the key was deleted.
type Change = (u16, Vec<u8>, Option<Vec<u8>>);

/// Commits; returns what the changelog gets.
fn commit(ordered: &OrderedStore<i64, u64>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut store = ordered.store.borrow_mut();
    let drained: Result<(), StateError> =
        store.drain_cycle(&mut |partition, key: &[u8], value: Option<&[u8]>| {
            changes.push((partition, key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        });
    drained.unwrap();
    changes
}

/// Brings what is committed to RocksDB.
fn flush(backend: &StateBackend, ordered: &OrderedStore<i64, u64>, end: i64) {
    let mut store = ordered.store.borrow_mut();
    if let Some(batch) = store.take_flush(FlushUrgency::Now).unwrap() {
        let ticket = batch.ticket();
        let positions: Vec<_> = (0..PARTITIONS).map(|p| (p, Offset(end))).collect();
        backend.flush(batch, &positions).unwrap();
        store.flushed(ticket);
    }
}

/// Keys that begin each other.
const KEYS: [&[u8]; 4] = [b"", b"a", b"aa", &[255; 300]];

fn key(number: usize) -> Key<'static, u64> {
    Key::new(KEYS[number])
}

fn in_range(
    ordered: &mut OrderedStore<i64, u64>,
    number: usize,
    range: impl RangeBounds<i64>,
) -> Vec<(i64, u64)> {
    let mut found = Vec::new();
    let seen = ordered.visit(key(number), range, |place, value| {
        found.push((place, *value));
        Ok(ControlFlow::Continue(()))
    });
    seen.unwrap();
    found
}

#[test]
fn a_row_has_these_bytes() {
    let mut row = Vec::new();
    put_prefix(b"k", &mut row);
    (-2i64).encode_sorted(&mut row);
    assert_eq!(row, [1, b'k', 0x7f, 255, 255, 255, 255, 255, 255, 254]);
    row.clear();
    put_prefix(&[7; 255], &mut row);
    assert_eq!(row[..6], [255, 0, 0, 0, 255, 7]);
}

#[derive(Debug, Clone)]
enum Operation {
    Put(usize, i64, u64),
    Update(usize, i64, Option<u64>),
    RemoveRange(usize, i64, i64),
    Look(usize, i64, i64),
    Get(usize, i64),
    Commit,
    Flush,
    Reopen,
    Crash,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let (number, place) = (0..KEYS.len(), -20i64..20);
    let two = (number.clone(), place.clone(), place.clone());
    prop_oneof![
        6 => (number.clone(), place.clone(), any::<u64>()).prop_map(|(k, p, v)| Operation::Put(k, p, v)),
        3 => (number.clone(), place.clone(), any::<Option<u64>>()).prop_map(|(k, p, v)| Operation::Update(k, p, v)),
        2 => two.clone().prop_map(|(k, a, b)| Operation::RemoveRange(k, a, b)),
        4 => two.prop_map(|(k, a, b)| Operation::Look(k, a, b)),
        2 => (number, place).prop_map(|(k, p)| Operation::Get(k, p)),
        2 => Just(Operation::Commit),
        2 => Just(Operation::Flush),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
    ]
}

type Model = BTreeMap<(usize, i64), u64>;

struct World {
    _folder: tempfile::TempDir,
    backend: StateBackend,
    ordered: Option<OrderedStore<i64, u64>>,
    model: Model,
    committed: Model,
    changelog: Vec<Change>,
    flushed: usize,
}

impl World {
    fn new(memory_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path(), memory_bytes);
        Self {
            ordered: Some(open(&backend)),
            _folder: folder,
            backend,
            model: Model::new(),
            committed: Model::new(),
            changelog: Vec::new(),
            flushed: 0,
        }
    }

    fn ordered(&mut self) -> &mut OrderedStore<i64, u64> {
        self.ordered.as_mut().unwrap()
    }

    fn commit(&mut self) {
        let changes = commit(self.ordered());
        self.changelog.extend(changes);
        self.committed = self.model.clone();
    }

    fn flush(&mut self) {
        self.commit();
        self.flushed = self.changelog.len();
        let end = i64::try_from(self.flushed).unwrap();
        flush(&self.backend, self.ordered.as_ref().unwrap(), end);
    }

    /// Drops what is not committed, and restores what is not flushed.
    fn restart(&mut self) {
        self.ordered = None;
        let ordered = open(&self.backend);
        for (place, (partition, row, value)) in (1..).zip(&self.changelog).skip(self.flushed) {
            // A restore that does not fit into memory brings a part of it to RocksDB itself.
            let known = self.backend.position("ordered", *partition);
            if known.is_some_and(|known| Offset(place) <= known) {
                continue;
            }
            let mut store = ordered.store.borrow_mut();
            let restored = store.restore(*partition, row, value.as_deref(), Offset(place));
            restored.unwrap();
        }
        self.ordered = Some(ordered);
        self.model = self.committed.clone();
    }

    fn look(&mut self, number: usize, a: i64, b: i64) {
        let model = self.model.clone();
        let of = |range: (Bound<i64>, Bound<i64>)| -> Vec<(i64, u64)> {
            let all = model.iter().filter(|((k, _), _)| *k == number);
            all.filter(|((_, p), _)| range.contains(p))
                .map(|((_, p), v)| (*p, *v))
                .collect()
        };
        let ordered = self.ordered();
        let bounds = [Bound::Unbounded, Bound::Included(a), Bound::Excluded(a)];
        for from in bounds {
            for to in [Bound::Unbounded, Bound::Included(b), Bound::Excluded(b)] {
                let mut expected = of((from, to));
                assert_eq!(in_range(ordered, number, (from, to)), expected);
                let first = ordered.first(key(number), (from, to)).unwrap();
                assert_eq!(first.as_ref(), expected.first());
                let last = ordered.last(key(number), (from, to)).unwrap();
                assert_eq!(last.as_ref(), expected.last());
                let mut back = Vec::new();
                let seen = ordered.visit_back(key(number), (from, to), |place, value| {
                    back.push((place, *value));
                    Ok(ControlFlow::Continue(()))
                });
                seen.unwrap();
                expected.reverse();
                assert_eq!(back, expected);
            }
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Put(k, p, v) => {
                self.ordered().put(key(k), &p, v).unwrap();
                self.model.insert((k, p), v);
            }
            Operation::Update(k, p, v) => {
                let was = self
                    .ordered()
                    .update(key(k), &p, |value| std::mem::replace(value, v));
                let expected = match v {
                    Some(v) => self.model.insert((k, p), v),
                    None => self.model.remove(&(k, p)),
                };
                assert_eq!(was.unwrap(), expected);
            }
            Operation::RemoveRange(k, a, b) => {
                let removed = self.ordered().remove_range(key(k), a..b).unwrap();
                let before = self.model.len();
                let is_gone = |at: &(usize, i64)| at.0 == k && (a..b).contains(&at.1);
                self.model.retain(|at, _| !is_gone(at));
                assert_eq!(removed, before - self.model.len());
            }
            Operation::Look(k, a, b) => self.look(k, a, b),
            Operation::Get(k, p) => {
                let found = self.ordered().get(key(k), &p).unwrap();
                assert_eq!(found, self.model.get(&(k, p)).copied());
            }
            Operation::Commit => self.commit(),
            Operation::Flush => self.flush(),
            Operation::Reopen => {
                self.flush();
                self.restart();
            }
            Operation::Crash => self.restart(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// U11: what is restored from the changelog's tail, from RocksDB, or from both is the same.
    #[test]
    fn u11_ranges_are_those_of_a_sorted_map_whatever_is_in_memory(
        operations in prop::collection::vec(any_operation(), 1..60),
        memory_bytes in prop::sample::select(vec![1usize << 10, 1 << 26]),
    ) {
        let mut world = World::new(memory_bytes);
        for operation in &operations {
            world.apply(operation);
        }
        for number in 0..KEYS.len() {
            world.look(number, -5, 5);
        }
    }
}

/// Each look at a key of three values, among many that are not flushed, meets three entries; a look at all of them each time would take
/// 800 million steps.
#[test]
fn a_range_among_many_shows_its_own() {
    let mut world = World::new(1 << 26);
    for n in 0..50_000u64 {
        let bytes = (n / 3).to_be_bytes();
        let key: Key<'_, u64> = Key::new(&bytes);
        let place = i64::try_from(n).unwrap();
        world.ordered().put(key, &place, n).unwrap();
    }
    for n in 0..16_000u64 {
        let bytes = n.to_be_bytes();
        let key: Key<'_, u64> = Key::new(&bytes);
        let last = world.ordered().last(key, ..).unwrap();
        assert_eq!(last.map(|(_, value)| value), Some(n * 3 + 2));
    }
}
