//! Sizes and reads that a store tells.

use std::time::Duration;

use super::support::*;
use crate::state::{FlushUrgency, StateConfig, StoreReads};

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
