//! Rows of the failure catalogue that need more than the model, and the bound on memory.

use super::support::*;
use crate::codec::Bincode;
use crate::state::{FlushUrgency, HashedKey, StateBackend, StateConfig, StateError, Store};
use crate::types::Offset;

#[test]
#[should_panic(expected = "inside a cycle")]
fn s1_an_open_cycle_cannot_be_flushed() {
    let home = Home::new();
    let mut store = open_store(&home.open(tiny()).unwrap()).unwrap();
    put(&mut store, b"a", "1").unwrap();
    let _ = store.take_flush(FlushUrgency::Now);
}

#[test]
#[should_panic(expected = "without its position")]
fn s1_values_cannot_be_flushed_without_the_position_that_covers_them() {
    let home = Home::new();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    put(&mut store, b"a", "1").unwrap();
    drain(&mut store);
    let batch = store.take_flush(FlushUrgency::Now).unwrap().unwrap();
    flush(&backend, batch, &[(0, Offset(1))]);
}

#[test]
fn s2_what_was_committed_but_not_flushed_is_replayed() {
    let mut home = Home::new();
    let mut changelog = Changelog::default();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    put(&mut store, b"a", "1").unwrap();
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    backend.make_durable().unwrap();
    put(&mut store, b"a", "2").unwrap();
    changelog.append(drain(&mut store));
    home.crash();
    let backend = home.open(tiny()).unwrap();
    assert_eq!(backend.position(STORE, 1), Some(Offset(1)));
    let mut store = recover(&backend, &changelog).unwrap();
    assert_eq!(store.get(key(b"a")).unwrap(), Some(&"2".to_owned()));
}

const SECOND: &str = "second";

fn two_stores() -> StateConfig {
    StateConfig {
        stores: vec![declaration(STORE), declaration(SECOND)],
        ..tiny()
    }
}

/// Sets all keys of a store to the number of the round, which is also the position.
fn write_round(backend: &StateBackend, store: &mut Store<u64>, round: u64) {
    for number in 0..2_000u32 {
        store
            .update(key(&number.to_be_bytes()), |slot| *slot = Some(round))
            .unwrap();
    }
    store
        .drain_cycle::<StateError>(&mut |_, _: &[u8], _: Option<&[u8]>| Ok(()))
        .unwrap();
    let batch = store.take_flush(FlushUrgency::Now).unwrap().unwrap();
    let ticket = batch.ticket();
    flush(
        backend,
        batch,
        &[(0, Offset(i64::try_from(round).unwrap()))],
    );
    store.flushed(ticket);
}

/// RocksDB flushes by itself meanwhile: 50 rounds are more than its memtables hold.
#[test]
fn s3_values_and_positions_of_all_column_families_stay_in_step_through_crashes() {
    let mut home = Home::new();
    let backend = home.open(two_stores()).unwrap();
    let mut stores =
        [STORE, SECOND].map(|name| Store::<u64>::open(&backend, name, &[0], Bincode).unwrap());
    let mut positions_seen = 0;
    for round in 1..=100 {
        for store in &mut stores {
            write_round(&backend, store, round);
        }
        if round % 10 == 0 {
            let mut crashed = Home::new();
            crashed.copy_from(&home);
            positions_seen += check_in_step(&crashed);
        }
    }
    assert!(
        positions_seen > 0,
        "no crash came after a flush of RocksDB's own: write more"
    );
    drop(stores);
    drop(backend);
    home.crash();
    assert_eq!(check_in_step(&home), 2);
}

fn check_in_step(home: &Home) -> usize {
    let backend = home.open(two_stores()).unwrap();
    let mut positions_count = 0;
    for name in [STORE, SECOND] {
        let mut store = Store::<u64>::open(&backend, name, &[0], Bincode).unwrap();
        let position = backend
            .position(name, 0)
            .map(|offset| u64::try_from(offset.0).unwrap());
        let mut keys_count = 0;
        store
            .scan_prefix(0, &[], &mut |_, value| {
                assert_eq!(
                    Some(*value),
                    position,
                    "a value of {name} is not of its position"
                );
                keys_count += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(keys_count, position.map_or(0, |_| 2_000));
        positions_count += usize::from(position.is_some());
    }
    positions_count
}

#[test]
fn s6_a_wiped_partition_is_restored_from_the_start_and_no_deleted_key_comes_back() {
    let mut home = Home::new();
    let mut changelog = Changelog::default();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    for bytes in [&b"a"[..], b"b", b"cc"] {
        put(&mut store, bytes, "1").unwrap();
    }
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    assert!(matches!(
        backend.wipe(STORE, 1),
        Err(StateError::PartitionInUse { .. })
    ));
    drop(store);
    backend.wipe(STORE, 1).unwrap();
    assert_eq!(backend.position(STORE, 1), None);
    assert_eq!(
        backend.position(STORE, 2),
        Some(Offset(1)),
        "other partitions stay"
    );
    backend.make_durable().unwrap();
    home.crash();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    assert_eq!(scan(&mut store, 1).unwrap(), Values::new());
    assert_eq!(scan(&mut store, 2).unwrap().len(), 1);
    drop(store);
    recover(&backend, &changelog).unwrap();
}

#[test]
fn s8_an_interrupted_restore_resumes_where_it_was() {
    let mut home = Home::new();
    let mut changelog = Changelog::default();
    for number in 0..3_000 {
        let value = Some(vec![0]);
        changelog.append(vec![(1, format!("{number:05}").into_bytes(), value)]);
    }
    let mut last = Offset::ZERO;
    for _ in 0..3 {
        let backend = home.open(tiny()).unwrap();
        let mut store = open_store(&backend).unwrap();
        changelog.restore(&backend, &mut store, 1_000).unwrap();
        backend.make_durable().unwrap();
        drop(store);
        drop(backend);
        home.crash();
        let position = home.open(tiny()).unwrap().position(STORE, 1).unwrap();
        assert!(
            position > last,
            "the restore gets on: {position} after {last}"
        );
        last = position;
    }
    recover(&home.open(tiny()).unwrap(), &changelog).unwrap();
}

#[test]
fn s12_a_burst_of_a_hundred_thousand_keys_stays_within_the_bound() {
    const MEMORY_BYTES: usize = 4 << 20;
    let home = Home::new();
    let config = StateConfig {
        memory_bytes: MEMORY_BYTES,
        ..tiny()
    };
    let backend = home.open(config).unwrap();
    let mut store = Store::<u64>::open(&backend, STORE, &[0], Bincode).unwrap();
    for batch in 0..100u64 {
        let keys: Vec<_> = (0..1_000)
            .map(|i| (batch * 1_000 + i).to_be_bytes())
            .collect();
        store.prefetch(keys.iter().map(|bytes| key(bytes))).unwrap();
        for bytes in &keys {
            store
                .update(key(bytes), |slot| *slot.get_or_insert(0) += batch)
                .unwrap();
        }
        store
            .drain_cycle::<StateError>(&mut |_, _: &[u8], _: Option<&[u8]>| Ok(()))
            .unwrap();
        if let Some(flush) = store.take_flush(FlushUrgency::WhenDue).unwrap() {
            let ticket = flush.ticket();
            backend
                .flush(flush, &[(0, Offset(i64::try_from(batch).unwrap()))])
                .unwrap();
            store.flushed(ticket);
        }
        assert!(!store.must_wait_for_flush(), "flushes keep up");
        assert!(
            store.memory_bytes() <= MEMORY_BYTES / 2,
            "{} bytes",
            store.memory_bytes()
        );
    }
    for number in (0..100_000u64).step_by(997) {
        assert_eq!(
            store.get(key(&number.to_be_bytes())).unwrap(),
            Some(&(number / 1_000))
        );
    }
}

#[test]
fn s12_the_very_first_cycle_counts_what_its_values_take() {
    let home = Home::new();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    for number in 0..100u8 {
        put(&mut store, &[number], &"x".repeat(10_000)).unwrap();
    }
    assert!(
        store.overlay_bytes() > 100 * 10_000,
        "{}",
        store.overlay_bytes()
    );
}

/// The changelog of a job whose keys were once spread otherwise holds the same bytes in two partitions, and so does RocksDB.
#[test]
fn x4_the_same_bytes_in_two_state_partitions_are_two_entries_in_memory_as_on_disk() {
    let home = Home::new();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    let in_partition = |partition| HashedKey::with_partition_hash(b"key", partition);
    let mut changelog = Changelog::default();
    for partition in [1, 2] {
        let value = partition.to_string();
        let put = store.update(in_partition(partition), |slot| *slot = Some(value));
        put.unwrap();
    }
    assert_eq!(store.entries_count(), 2);
    let check = |store: &mut Store<String>| {
        for partition in [1, 2] {
            let value = partition.to_string();
            assert_eq!(store.get(in_partition(partition)).unwrap(), Some(&value));
        }
        assert_eq!(store.get(in_partition(3)).unwrap(), None);
    };
    check(&mut store);
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    drop(store);
    // From RocksDB, each by itself and both in one sorted read; then from the changelog alone.
    check(&mut open_store(&backend).unwrap());
    let mut store = open_store(&backend).unwrap();
    store
        .prefetch([1, 2].map(in_partition).into_iter())
        .unwrap();
    check(&mut store);
    drop(store);
    all_partitions()
        .iter()
        .for_each(|p| backend.wipe(STORE, *p).unwrap());
    check(&mut recover(&backend, &changelog).unwrap());
}

#[test]
fn a_value_of_another_type_is_named_and_breaks_the_store_until_it_is_opened_again() {
    let home = Home::new();
    let mut changelog = Changelog::default();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    put(&mut store, b"a", "text").unwrap();
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    drop(store);
    let mut store = Store::<bool>::open(&backend, STORE, &all_partitions(), Bincode).unwrap();
    let error = store.prefetch(std::iter::once(key(b"a"))).unwrap_err();
    assert!(error.to_string().contains("counts"), "{error}");
    assert!(matches!(
        store.prefetch(std::iter::empty()),
        Err(StateError::Broken { .. })
    ));
}

/// The child of the next test: fills its disk until it cannot, and tells how it was told.
#[test]
#[ignore = "run by s5 with a limit on file sizes"]
fn s5_child_with_a_full_disk() {
    let home = Home::new();
    let backend = home.open(tiny()).unwrap();
    let mut store = Store::<Vec<u8>>::open(&backend, STORE, &[0], Bincode).unwrap();
    for round in 1..1_000u32 {
        for number in 0..64u32 {
            // Bytes that do not compress.
            let value: Vec<u8> = (0..4_096u32)
                .map(|i| i.wrapping_mul(round + number * 77).to_le_bytes()[1])
                .collect();
            store
                .update(key(&number.to_be_bytes()), |slot| *slot = Some(value))
                .unwrap();
        }
        store
            .drain_cycle::<StateError>(&mut |_, _: &[u8], _: Option<&[u8]>| Ok(()))
            .unwrap();
        let batch = store.take_flush(FlushUrgency::Now).unwrap().unwrap();
        let ticket = batch.ticket();
        let result = backend
            .flush(batch, &[(0, Offset(i64::from(round)))])
            .and_then(|()| backend.make_durable());
        let Err(error) = result else {
            store.flushed(ticket);
            continue;
        };
        assert!(matches!(error, StateError::Database { .. }), "{error}");
        let later = backend.make_durable().unwrap_err();
        assert!(
            later.to_string().contains("an earlier write failed"),
            "{later}"
        );
        println!("S5 told: {error}");
        return;
    }
    panic!("the disk was never full");
}

#[test]
fn s5_a_full_disk_fails_the_flush_with_the_reason_and_every_later_one() {
    let program = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" --ignored --exact --nocapture state::tests::catalogue::s5_child_with_a_full_disk";
    let output = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("S5 told:") && text.contains("File too large"),
        "{text}"
    );
}
