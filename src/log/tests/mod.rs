//! One partition's log from the outside: appends, reads, transactions, restarts.

mod compaction;
mod faults;
mod foreign;
mod formats;
mod leader_epochs;
mod many_segments;
mod model;

mod power_loss;
mod settings;
mod streams;
pub(super) mod support;
mod times;

use super::*;
use crate::env::simulated::SimulatedWorld;
use crate::protocol::ErrorCode;
use crate::types::{Durability, Isolation, Offset, Timestamp};
use support::*;

fn place() -> (SimulatedWorld, Place) {
    let world = SimulatedWorld::new(1);
    let place = Place::new(&world);
    (world, place)
}

fn refusal(result: Result<Appended, LogError>) -> ErrorCode {
    match result {
        Err(LogError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn appended_records_are_read_back_across_segments_and_restarts() {
    let (_world, mut place) = place();
    place.config.segment_bytes = 400;
    place.config.index_interval_bytes = 1;
    let mut log = place.create();
    let names: Vec<String> = (0..50).map(|n| format!("record {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for pair in names.chunks(2) {
        log.put(plain(pair)).unwrap();
    }
    assert!(
        log.committed().len() < 50,
        "what is not synced is not visible"
    );
    log.sync();
    assert!(log.segments_count() > 5);
    let expected = numbered(&names);
    for max_bytes in [0, 100, 1 << 20] {
        for from in 0..50 {
            let seen = log.seen_from(Offset(from), max_bytes, Isolation::ReadCommitted);
            assert_eq!(seen.unwrap(), expected[usize::try_from(from).unwrap()..]);
        }
    }
    log.close().unwrap();
    let (log, report) = place
        .open_with(RecoveryMarks {
            durable_end: Offset(50),
            log_start: Offset(0),
            clean_shutdown: true,
            ..RecoveryMarks::default()
        })
        .unwrap();
    assert_eq!(log.committed(), expected);
    assert_eq!(report, RecoveryReport::default());
}

#[test]
fn an_aborted_transaction_is_seen_by_no_committed_reader() {
    let (_world, place) = place();
    let mut log = place.create();
    log.put(plain(&["a"])).unwrap();
    log.put(transactional(1, 0, 0, &["x", "y"])).unwrap();
    log.put(transactional(2, 0, 0, &["b"])).unwrap();
    log.put(plain(&["c"])).unwrap();
    log.sync();
    assert_eq!(log.last_stable_offset(), Offset(1));
    assert_eq!(log.committed(), [(0, "a".into())]);
    assert_eq!(log.uncommitted(), numbered(&["a", "x", "y", "b", "c"]));
    assert_eq!(
        log.open_transactions(),
        [(producer(1, 0), Offset(1)), (producer(2, 0), Offset(3))]
    );
    log.append_marker(producer(1, 1), abort()).unwrap();
    assert_eq!(log.last_stable_offset(), Offset(3));
    assert_eq!(log.committed(), [(0, "a".into())]);
    log.append_marker(producer(2, 1), commit()).unwrap();
    log.sync();
    let expected = [(0, "a".into()), (3, "b".into()), (4, "c".into())];
    assert_eq!(log.committed(), expected);
    assert_eq!(log.last_stable_offset(), Offset(7));
    drop(log);
    assert_eq!(place.open().committed(), expected);
}

#[test]
fn a_repeated_marker_changes_nothing() {
    let (_world, place) = place();
    let mut log = place.create();
    log.put(transactional(1, 0, 0, &["x"])).unwrap();
    assert_eq!(
        refusal(log.append_marker(producer(1, 0), abort())),
        ErrorCode::InvalidProducerEpoch
    );
    let first = log.append_marker(producer(1, 1), commit()).unwrap();
    let second = log.append_marker(producer(1, 1), commit()).unwrap();
    assert!(!first.is_duplicate && second.is_duplicate);
    assert_eq!(first.base_offset, second.base_offset);
    assert_eq!(log.log_end_offset(), Offset(2));
    // The next transaction of the same producer is not ended by a late repetition.
    log.put(transactional(1, 1, 0, &["y"])).unwrap();
    assert_eq!(
        refusal(log.append_marker(producer(1, 1), commit())),
        ErrorCode::InvalidProducerEpoch
    );
    assert!(log.has_open_transaction(producer(1, 1)));
    assert!(!log.has_open_transaction(producer(1, 0)));
}

#[test]
fn c13_a_delayed_batch_of_an_ended_transaction_is_refused() {
    let (_world, place) = place();
    let mut log = place.create();
    log.put(transactional(1, 0, 0, &["x"])).unwrap();
    log.append_marker(producer(1, 1), abort()).unwrap();
    for delayed in [
        transactional(1, 0, 0, &["x"]),
        transactional(1, 0, 1, &["y"]),
    ] {
        assert_eq!(refusal(log.put(delayed)), ErrorCode::InvalidProducerEpoch);
    }
}

#[test]
fn c20_a_duplicate_within_the_window_is_acknowledged_once_also_after_a_restart() {
    for is_killed in [false, true] {
        let (_world, place) = place();
        let mut log = place.create();
        let batches: Vec<_> = (0..6)
            .map(|n| idempotent(7, 0, 2 * n, &["a", "b"]))
            .collect();
        for batch in &batches {
            log.put(batch.clone()).unwrap();
        }
        log.sync();
        let mut log = match is_killed {
            true => place.open(),
            false => {
                log.close().unwrap();
                place.open()
            }
        };
        for (n, batch) in batches.iter().enumerate().skip(1) {
            let appended = log.put(batch.clone()).unwrap();
            assert!(appended.is_duplicate);
            assert_eq!(appended.base_offset, Offset(2 * i64::try_from(n).unwrap()));
        }
        assert_eq!(
            refusal(log.put(batches[0].clone())),
            ErrorCode::OutOfOrderSequenceNumber
        );
        assert_eq!(log.log_end_offset(), Offset(12));
        log.put(idempotent(7, 0, 12, &["next"])).unwrap();
    }
}

#[test]
fn log_append_time_is_stamped_and_told_again_to_a_duplicate() {
    let (_world, mut place) = place();
    place.config.timestamp_type = crate::types::TimestampType::LogAppendTime;
    let mut log = place.create();
    let batch = idempotent(7, 0, 0, &["a"]);
    let first = log.put(batch.clone()).unwrap();
    assert!(first.log_append_time > Timestamp(1_000_000_000_000));
    assert_eq!(
        log.put(batch).unwrap().log_append_time,
        first.log_append_time
    );
    log.sync();
    let listed = log
        .max_timestamp_offset(Isolation::ReadUncommitted)
        .unwrap()
        .unwrap();
    assert_eq!(
        (listed.offset, listed.timestamp),
        (Offset(0), first.log_append_time)
    );
}

#[test]
fn offsets_are_found_by_timestamp() {
    let (_world, mut place) = place();
    place.config.segment_bytes = 300;
    place.config.index_interval_bytes = 1;
    place.config.durability = Durability::Process;
    let mut log = place.create();
    let times = [10, 40, 20, 50, 30, 90, 60, 70, 80];
    for time in times {
        log.put(keyed(
            &[("k", Some("v"))],
            time,
            crate::protocol::batch::BatchProducer::Plain,
        ))
        .unwrap();
    }
    assert!(log.segments_count() > 2);
    for wanted in 0..100 {
        let expected = (0..).zip(times).find(|(_, time)| *time >= wanted);
        let found = log
            .offset_for_timestamp(Timestamp(wanted), Isolation::ReadCommitted)
            .unwrap();
        assert_eq!(
            found.map(|found| (found.offset.0, found.timestamp.0)),
            expected,
            "at {wanted}"
        );
    }
    assert_eq!(
        log.max_timestamp_offset(Isolation::ReadUncommitted)
            .unwrap()
            .unwrap()
            .offset,
        Offset(5)
    );
}

#[test]
fn offsets_outside_the_log_are_refused() {
    let (_world, place) = place();
    let mut log = place.create();
    log.put(plain(&["a", "b"])).unwrap();
    log.sync();
    log.delete_records(Offset(1)).unwrap();
    for offset in [0, 3] {
        let result = log.plan_read(Offset(offset), 100, Isolation::ReadCommitted);
        assert!(matches!(result, Err(LogError::OffsetOutOfRange { .. })));
    }
    assert!(
        log.plan_read(Offset(2), 100, Isolation::ReadCommitted)
            .unwrap()
            .is_empty()
    );
    assert_eq!(log.committed(), [(1, "b".into())]);
    assert!(log.delete_records(Offset(3)).is_err());
}

#[test]
fn batches_that_a_client_may_not_send_are_refused() {
    let (_world, mut place) = place();
    place.config.max_message_bytes = 200;
    place.config.cleanup = CleanupPolicy::Compact;
    let mut log = place.create();
    let mut damaged = plain(&["a"]).to_vec();
    damaged[65] ^= 1;
    let large = "x".repeat(300);
    let marker = crate::protocol::batch::encode_marker(producer(1, 0), abort(), Timestamp(0));
    for (batch, code) in [
        (damaged.into(), ErrorCode::CorruptMessage),
        (plain(&["no key"]), ErrorCode::InvalidRecord),
        (plain(&["a"]).slice(..60), ErrorCode::InvalidRecord),
        (plain(&[&large]), ErrorCode::MessageTooLarge),
        (marker.freeze(), ErrorCode::InvalidRecord),
        (bytes::Bytes::new(), ErrorCode::InvalidRecord),
    ] {
        assert_eq!(log.put(batch).unwrap_err().code(), code);
    }
    assert_eq!(log.log_end_offset(), Offset(0));
}

#[test]
fn truncation_cuts_whole_batches_and_what_was_known_of_them() {
    let (_world, mut place) = place();
    place.config.segment_bytes = 300;
    let mut log = place.create();
    for n in 0..9 {
        log.put(idempotent(1, 0, 2 * n, &["a", "b"])).unwrap();
    }
    log.sync();
    log.truncate(Offset(7)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(6));
    log.put(idempotent(1, 0, 6, &["c"])).unwrap();
    log.sync();
    assert_eq!(
        log.committed(),
        numbered(&["a", "b", "a", "b", "a", "b", "c"])
    );
}

#[test]
fn x12_what_was_acknowledged_is_below_the_high_watermark_and_not_below_the_last_stable_offset() {
    let (_world, mut place) = place();
    // The marker's time is no reason to begin a segment, which would sync.
    place.config.segment_ms = i64::MAX;
    let mut log = place.create();
    log.put(plain(&["a"])).unwrap();
    assert_eq!(log.high_watermark(), Offset(0));
    log.acknowledge();
    assert_eq!(log.high_watermark(), Offset(1));
    assert_eq!(log.last_stable_offset(), Offset(0));
    assert_eq!(log.uncommitted().len(), 1);
    assert_eq!(log.committed(), []);
    log.sync();
    assert_eq!(log.last_stable_offset(), Offset(1));
    log.put(transactional(7, 0, 0, &["b"])).unwrap();
    assert_eq!(log.high_watermark(), Offset(1));
    // A marker is written once its transaction is decided.
    log.append_marker(producer(7, 1), commit()).unwrap();
    assert_eq!(log.high_watermark(), Offset(3));
    assert_eq!(log.last_stable_offset(), Offset(1));
}
