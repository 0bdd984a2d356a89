//! Sizes and reads that a store tells.

use std::time::Duration;

use super::support::*;
use crate::codec::{Bincode, Codec};
use crate::state::{FlushUrgency, StateConfig, Store, StoreReads};
use crate::types::Offset;

/// Nothing becomes durable by itself.
fn patient() -> StateConfig {
    StateConfig {
        flush_interval: Duration::from_secs(1 << 20),
        ..tiny()
    }
}

#[test]
fn the_tail_that_a_restart_replays_is_known_until_it_is_on_disk() {
    let home = Home::new();
    let backend = home.open(patient()).unwrap();
    let mut store = open_store(&backend).unwrap();
    put(&mut store, b"a", "1").unwrap();
    let changes = drain(&mut store);
    let bytes = |change: &Change| change.1.len() + change.2.as_ref().map_or(0, Vec::len);
    let tail_bytes = changes.iter().map(bytes).sum::<usize>() as u64;
    let seen = |store: &crate::state::Store<String>| {
        let size = store.size();
        (
            size.tail_bytes,
            size.written_tail_bytes,
            size.dirty_bytes > 0,
        )
    };
    assert_eq!(seen(&store), (tail_bytes, 0, true));
    let mut changelog = Changelog::default();
    changelog.append(changes);
    let batch = store.take_flush(FlushUrgency::Now).unwrap().unwrap();
    assert_eq!(seen(&store), (tail_bytes, 0, true), "it is under way");
    let ticket = batch.ticket();
    flush(&backend, batch, &changelog.ends());
    store.flushed(ticket);
    assert_eq!(seen(&store), (0, tail_bytes, false), "a kill takes it");
    backend.make_durable().unwrap();
    assert_eq!(seen(&store), (0, 0, false));
}

#[test]
fn reads_of_a_store_that_is_larger_than_its_memory_are_counted() {
    let home = Home::new();
    let backend = home.open(patient()).unwrap();
    let mut store = open_store(&backend).unwrap();
    let mut changelog = Changelog::default();
    let keys: Vec<Vec<u8>> = (0..50u8).map(|number| vec![number, 0]).collect();
    for bytes in &keys {
        store.prefetch([key(bytes)].into_iter()).unwrap();
        put(&mut store, bytes, "a value of some length").unwrap();
    }
    assert!(store.is_resident());
    assert_eq!(
        store.take_reads(),
        StoreReads::default(),
        "all is in memory"
    );
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    assert!(!store.is_resident(), "the table holds three or four");
    store.prefetch(keys.iter().map(|bytes| key(bytes))).unwrap();
    let first = store.take_reads();
    assert_eq!(first.hits + first.misses, 50);
    assert!(first.misses > 40, "{first:?}");
    // A batch stays as long as it is worked on.
    store
        .prefetch(keys[..1].iter().map(|bytes| key(bytes)))
        .unwrap();
    let again = store.take_reads();
    assert_eq!(again.hits + again.misses, 1);
    assert_eq!(store.take_reads(), StoreReads::default());
}

/// RocksDB compacts when it has just been opened: a start that waits for a write to it takes seconds.
#[test]
fn a_tail_that_fits_is_replayed_without_a_write_to_rocksdb() {
    const RECORD_BYTES: usize = 1_000;
    let home = Home::new();
    let config = StateConfig {
        memory_bytes: 64 << 20,
        ..tiny()
    };
    // Five sixteenths are the tables'.
    let limit_bytes = (64 << 20) / 16 * 5;
    let backend = home.open(config).unwrap();
    let mut store = open_store(&backend).unwrap();
    let mut value = Vec::new();
    let text = "v".repeat(RECORD_BYTES);
    Codec::<String>::encode(&Bincode, &text, &mut value).unwrap();
    let mut next = Offset::ZERO;
    let mut replay = |store: &mut Store<String>, bytes: usize| {
        for _ in 0..bytes / RECORD_BYTES {
            next = next.plus(1);
            let key = next.0.to_be_bytes();
            store.restore(1, &key, Some(&value), next).unwrap();
        }
    };
    replay(&mut store, limit_bytes / 3);
    assert_eq!(backend.position(STORE, 1), None, "all of it is in memory");
    assert!(
        !store.must_wait_for_flush(),
        "the first cycle opens at once"
    );
    replay(&mut store, limit_bytes / 3);
    let flushed = backend.position(STORE, 1);
    assert!(flushed.is_some(), "more than half of the memory went on");
}
