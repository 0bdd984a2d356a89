//! Rows in order through any mix of changes, flushes and restarts, against a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::timed_row::RowCodec;
use super::*;
use crate::codec::{Codec, Schema};
use crate::env::Env;
use crate::state::{StateBackend, StateConfig, StoreDeclaration};
use crate::types::{Offset, TopicId};

const PARTITIONS: u16 = 4;

fn backend(folder: &std::path::Path) -> StateBackend {
    let config = StateConfig {
        state_partitions: PARTITIONS,
        stores: vec![StoreDeclaration {
            name: "timed".to_owned(),
            schema: Schema::of::<u64, u64>(),
            changelog: TopicId(1),
        }],
        ..StateConfig::default()
    };
    StateBackend::open(&Env::real(), folder, config).unwrap()
}

fn open(backend: &StateBackend, index_bytes_max: usize) -> TimedStore<u64> {
    let codec = RowCodec::<crate::codec::Bincode>::default();
    let partitions: Vec<u16> = (0..PARTITIONS).collect();
    let store = Store::open(backend, "timed", &partitions, codec).unwrap();
    TimedStore::open(Rc::new(RefCell::new(store)), PARTITIONS, index_bytes_max).unwrap()
}

/// Commits, and brings what was changed to RocksDB.
fn flush(backend: &StateBackend, timed: &TimedStore<u64>) {
    let mut store = timed.store.borrow_mut();
    let drained: Result<(), StateError> = store.drain_cycle(&mut |_, _, _| Ok(()));
    drained.unwrap();
    if let Some(batch) = store.take_flush(crate::state::FlushUrgency::Now).unwrap() {
        let ticket = batch.ticket();
        let positions: Vec<_> = (0..PARTITIONS).map(|p| (p, Offset(1))).collect();
        backend.flush(batch, &positions).unwrap();
        store.flushed(ticket);
    }
}

fn key(number: &[u8; 1]) -> Key<'_, u64> {
    Key::new(number)
}

fn all_due(timed: &mut TimedStore<u64>, until: i64) -> Vec<(i64, u8, Option<u64>)> {
    let mut found = Vec::new();
    let mut due = Due::default();
    while let Some(came) = timed.next_due(Timestamp(until), &mut due).unwrap() {
        let value = match came {
            Came::Value(value) => Some(value),
            Came::Timer => None,
        };
        found.push((due.time.0, due.key::<u64>().bytes()[0], value));
    }
    found
}

/// The values between two times; asserts that those of a key come in the order of times.
fn all_between(timed: &mut TimedStore<u64>, after: i64, until: i64) -> Vec<(i64, u8, u64)> {
    let mut seen: Vec<(i64, u8, u64)> = Vec::new();
    let (after, until) = (Timestamp(after), Timestamp(until));
    timed
        .visit_between(after, until, &mut Due::default(), |due, value| {
            let key = due.key::<u64>().bytes()[0];
            let before = seen.iter().filter(|it| it.1 == key);
            assert!(before.max().is_none_or(|before| before.0 < due.time.0));
            seen.push((due.time.0, key, *value));
        })
        .unwrap();
    seen
}

#[test]
fn a_row_has_these_bytes() {
    let mut scratch = Vec::new();
    for kind in [2, 3] {
        let row = timed_row(&mut scratch, kind, b"k", Timestamp(-2), 0x0102_0304);
        let rest = [0x7f, 255, 255, 255, 255, 255, 255, 254, b'k', 1, 2, 3, 4];
        assert_eq!(row, [&[kind], &rest[..]].concat());
    }
    let codec = RowCodec::<crate::codec::Bincode>::default();
    for (row, bytes) in [
        (Row::Value(7u64), vec![0, 7]),
        (Row::Time(Timestamp(258)), vec![1, 0, 0, 0, 0, 0, 0, 1, 2]),
        (Row::Timer, vec![2]),
    ] {
        let mut out = Vec::new();
        codec.encode(&row, &mut out).unwrap();
        assert_eq!(out, bytes);
        assert_eq!(*codec.decode(&bytes).unwrap(), row);
    }
    assert!(Codec::<Row<u64>>::decode(&codec, &[3]).is_err());
    assert!(Codec::<Row<u64>>::decode(&codec, &[]).is_err());
}

#[test]
fn a2_a_timer_at_or_before_now_fires_at_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 1 << 20);
    timed.set_timer(key(&[1]), Timestamp(10)).unwrap();
    timed.set_timer(key(&[2]), Timestamp(20)).unwrap();
    let mut due = Due::default();
    assert_eq!(
        timed.next_due(Timestamp(20), &mut due).unwrap(),
        Some(Came::Timer)
    );
    // Set from the callback of the first, for a time that is over.
    timed.set_timer(key(&[3]), Timestamp(5)).unwrap();
    assert_eq!(all_due(&mut timed, 20), [(5, 3, None), (20, 2, None)]);
}

#[test]
fn a3_a_timer_that_is_cancelled_does_not_fire() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 1 << 20);
    timed.set_timer(key(&[1]), Timestamp(10)).unwrap();
    assert!(timed.cancel_timer(key(&[1]), Timestamp(10)).unwrap());
    assert!(!timed.cancel_timer(key(&[1]), Timestamp(10)).unwrap());
    assert_eq!(all_due(&mut timed, 100), []);
    // Set, cancelled and set again fires once.
    for _ in 0..3 {
        timed.set_timer(key(&[1]), Timestamp(200)).unwrap();
        timed.cancel_timer(key(&[1]), Timestamp(200)).unwrap();
        timed.set_timer(key(&[1]), Timestamp(200)).unwrap();
    }
    assert_eq!(all_due(&mut timed, 300), [(200, 1, None)]);
}

#[test]
fn a_timer_and_a_value_of_one_time_are_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 1 << 20);
    for at in [10, 20] {
        timed.set_timer(key(&[1]), Timestamp(at)).unwrap();
        timed
            .update_at(key(&[1]), Timestamp(at), |value| *value = Some(7))
            .unwrap();
    }
    assert!(timed.cancel_timer(key(&[1]), Timestamp(20)).unwrap());
    let expected = [(10, 1, Some(7)), (10, 1, None), (20, 1, Some(7))];
    assert_eq!(all_due(&mut timed, 100), expected);
}

#[derive(Debug, Clone)]
enum Operation {
    Put(u8, i64, u64),
    SetTimer(u8, i64),
    Cancel(u8, i64),
    Remove(u8, i64),
    Visit(i64, i64),
    Advance(i64),
    Flush,
    Reopen,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let time = -30i64..30;
    prop_oneof![
        4 => (0u8..6, time.clone(), any::<u64>()).prop_map(|(k, t, v)| Operation::Put(k, t, v)),
        4 => (0u8..6, time.clone()).prop_map(|(k, t)| Operation::SetTimer(k, t)),
        2 => (0u8..6, time.clone()).prop_map(|(k, t)| Operation::Cancel(k, t)),
        1 => (0u8..6, time.clone()).prop_map(|(k, t)| Operation::Remove(k, t)),
        2 => (time.clone(), time.clone()).prop_map(|(a, b)| Operation::Visit(a, b)),
        2 => time.prop_map(Operation::Advance),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in memory, in RocksDB, or was forgotten by the index: what is due comes once, in order.
    #[test]
    fn a1_a11_what_is_due_comes_once_in_order(
        operations in prop::collection::vec(any_operation(), 1..60),
        index_bytes_max in prop::sample::select(vec![0usize, 500, 1 << 20]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let backend = backend(folder.path());
        let mut timed = open(&backend, index_bytes_max);
        let mut model: BTreeMap<(i64, bool, u8), Option<u64>> = BTreeMap::new();
        for operation in operations {
            match operation {
                Operation::Put(k, t, v) => {
                    timed.update_at(key(&[k]), Timestamp(t), |value| *value = Some(v)).unwrap();
                    model.insert((t, false, k), Some(v));
                }
                Operation::SetTimer(k, t) => {
                    timed.set_timer(key(&[k]), Timestamp(t)).unwrap();
                    model.insert((t, true, k), None);
                }
                Operation::Cancel(k, t) => {
                    let was = timed.cancel_timer(key(&[k]), Timestamp(t)).unwrap();
                    prop_assert_eq!(was, model.remove(&(t, true, k)).is_some());
                }
                Operation::Remove(k, t) => {
                    let was = timed.update_at(key(&[k]), Timestamp(t), Option::take).unwrap();
                    prop_assert_eq!(was, model.remove(&(t, false, k)).flatten());
                }
                Operation::Visit(after, until) => {
                    let mut seen = all_between(&mut timed, after, until);
                    seen.sort_unstable();
                    let held = model.iter().filter(|((t, ..), _)| after < *t && *t <= until);
                    let expected: Vec<_> = held.filter_map(|(&(t, _, k), &v)| Some((t, k, v?))).collect();
                    prop_assert_eq!(seen, expected);
                }
                Operation::Advance(until) => {
                    let due: Vec<_> = model.range(..=(until, true, u8::MAX)).map(|(&(t, _, k), &v)| (t, k, v)).collect();
                    model.retain(|(t, ..), _| *t > until);
                    prop_assert_eq!(all_due(&mut timed, until), due);
                }
                Operation::Flush => flush(&backend, &timed),
                Operation::Reopen => {
                    flush(&backend, &timed);
                    drop(timed);
                    timed = open(&backend, index_bytes_max);
                }
            }
        }
        let left: Vec<_> = model.iter().map(|(&(t, _, k), &v)| (t, k, v)).collect();
        prop_assert_eq!(all_due(&mut timed, i64::MAX), left);
    }
}

#[test]
fn of_more_timers_than_fit_only_the_near_ones_are_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 32 << 10);
    for n in 0..4_000i64 {
        let [.., low] = n.to_be_bytes();
        timed.set_timer(key(&[low]), Timestamp(n)).unwrap();
    }
    assert_eq!(all_due(&mut timed, 1_999).len(), 2_000);
    assert!(timed.indexed_count() < 400, "{}", timed.indexed_count());
    assert_eq!(all_due(&mut timed, i64::MAX).len(), 2_000);
}

#[test]
fn the_rows_that_a_batch_needs_are_read_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 1 << 20);
    for n in 0..3 {
        timed.update(key(&[n]), |value| *value = Some(7)).unwrap();
        let slice = Timestamp(10);
        timed
            .update_at(key(&[n]), slice, |value| *value = Some(9))
            .unwrap();
    }
    flush(&backend, &timed);
    drop(timed);
    let batch = [[0u8], [2], [0]];
    let coming = batch.iter().map(|bytes| {
        let key = key(bytes);
        (key.bytes(), key.partition_hash(), Timestamp(4))
    });
    for at in [
        None,
        Some(Box::new(|t: Timestamp| Some(t.plus_millis(6))) as _),
    ] {
        let mut timed = open(&backend, 1 << 20);
        let is_timed = at.is_some();
        let ahead = timed.ahead(at);
        ahead.read_ahead(&mut coming.clone()).unwrap();
        let before = timed.store.borrow().entries_count();
        for n in [0, 2] {
            let value = match is_timed {
                true => timed.get_at(key(&[n]), Timestamp(10)).unwrap(),
                false => timed.peek(key(&[n]), |value| value.copied()).unwrap(),
            };
            assert_eq!(value, Some(if is_timed { 9 } else { 7 }));
        }
        // Nothing was read that was not read ahead, beside each partition's time.
        assert_eq!(timed.store.borrow().entries_count(), before);
    }
}

#[test]
fn t8_the_time_of_each_partition_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path());
    let mut timed = open(&backend, 1 << 20);
    timed.set_time(Timestamp(25)).unwrap();
    flush(&backend, &timed);
    drop(timed);
    let mut timed = open(&backend, 1 << 20);
    assert_eq!(timed.time(key(&[1])), Timestamp(25));
    timed.set_time(Timestamp(7)).unwrap();
    assert_eq!(timed.time(key(&[1])), Timestamp(25));
    timed.set_time(Timestamp(30)).unwrap();
    assert_eq!(timed.time(key(&[1])), Timestamp(30));
}
