//! Compaction: what stays, what goes, and that a crash in the middle changes nothing.

use std::collections::BTreeMap;

use super::support::*;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::log::*;
use crate::protocol::batch::{BatchProducer, Batches};
use crate::types::{Isolation, Offset, Sequence, Timestamp};

fn compacting(world: &SimulatedWorld) -> Place {
    let mut place = Place::new(world);
    place.config.cleanup = CleanupPolicy::Compact;
    place.config.segment_bytes = 600;
    place.config.min_cleanable_dirty_ratio = 0.0;
    place.config.delete_retention_ms = 1000;
    place
}

fn put(log: &mut PartitionLog, records: &[(&str, Option<&str>)]) {
    log.put(keyed(records, 5, BatchProducer::Plain)).unwrap();
}

fn put_in_transaction(
    log: &mut PartitionLog,
    id: i64,
    epoch: i16,
    records: &[(&str, Option<&str>)],
) {
    let producer = BatchProducer::Transactional(producer(id, epoch), Sequence(0));
    log.put(keyed(records, 5, producer)).unwrap();
}

/// Seals the active segment, so that it can be compacted.
fn seal(log: &mut PartitionLog) {
    log.roll().unwrap();
    log.sync();
}

/// The latest committed value of each key.
fn latest(log: &PartitionLog) -> BTreeMap<String, String> {
    let pairs = log.committed().into_iter().map(|(_, shown)| {
        let (key, value) = shown.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    let mut latest: BTreeMap<_, _> = pairs.collect();
    latest.retain(|_, value| value != "-");
    latest
}

#[test]
fn below_an_end_no_record_goes_for_the_sake_of_one_behind_it() {
    let world = SimulatedWorld::new(1);
    let place = compacting(&world);
    let mut log = place.create();
    put(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    seal(&mut log);
    put(&mut log, &[("a", Some("2"))]);
    seal(&mut log);
    let held = log.log_end_offset();
    put(&mut log, &[("a", Some("3")), ("b", Some("2"))]);
    seal(&mut log);
    put(&mut log, &[("c", Some("1"))]);
    // One offset less, and the second segment is none of it.
    let plan = log.plan_compaction_below(Offset(held.0 - 1), Timestamp(10));
    let compacted = plan.unwrap().unwrap().execute(&|| true).unwrap();
    log.finish_compaction(compacted).unwrap();
    assert_eq!(log.committed().len(), 6);
    let plan = log.plan_compaction_below(held, Timestamp(10));
    let compacted = plan.unwrap().unwrap().execute(&|| true).unwrap();
    log.finish_compaction(compacted).unwrap();
    let shown: Vec<_> = log.committed().into_iter().map(|it| it.1).collect();
    assert_eq!(shown, ["b=1", "a=2", "a=3", "b=2", "c=1"]);
    assert_eq!(log.cleaned_end(), held);
    assert!(
        log.plan_compaction_below(held, Timestamp(10))
            .unwrap()
            .is_none()
    );
}

#[test]
fn only_the_latest_record_of_a_key_stays_at_its_offset() {
    let world = SimulatedWorld::new(1);
    let place = compacting(&world);
    let mut log = place.create();
    for round in 0..20 {
        put(&mut log, &[("a", Some("old")), ("b", Some("old"))]);
        if round == 10 {
            put(&mut log, &[("c", Some("only"))]);
        }
    }
    put(&mut log, &[("a", Some("new"))]);
    seal(&mut log);
    let before = latest(&log);
    let end = log.log_end_offset();
    let report = log.compact(Timestamp(10)).unwrap().unwrap();
    assert!(report.after_bytes < report.before_bytes / 4);
    assert_eq!(report.cleaned_end, end);
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(latest(&log), before);
    assert_eq!(
        log.committed(),
        [
            (22, "c=only".into()),
            (40, "b=old".into()),
            (41, "a=new".into())
        ]
    );
    for from in 0..42 {
        let seen = log
            .seen_from(Offset(from), 0, Isolation::ReadCommitted)
            .unwrap();
        let expected: Vec<_> = log
            .committed()
            .into_iter()
            .filter(|(offset, _)| *offset >= from)
            .collect();
        assert_eq!(seen, expected, "from {from}");
    }
    assert!(
        log.compact(Timestamp(10)).unwrap().is_none(),
        "nothing is dirty"
    );
    drop(log);
    let log = place
        .open_with(RecoveryMarks {
            durable_end: end,
            ..RecoveryMarks::default()
        })
        .unwrap()
        .0;
    assert_eq!(latest(&log), before);
    assert_eq!(log.log_end_offset(), end);
}

#[test]
fn a_tombstone_stays_until_its_delete_horizon_has_passed() {
    let world = SimulatedWorld::new(1);
    let place = compacting(&world);
    let mut log = place.create();
    put(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&mut log, &[("a", None)]);
    seal(&mut log);
    for (now, expected) in [
        (10, vec!["b=1", "a=-"]),
        (500, vec!["b=1", "a=-", "z=1"]),
        (1010, vec!["b=1", "z=1", "z=1"]),
    ] {
        log.compact(Timestamp(now)).unwrap().unwrap();
        let seen: Vec<_> = log
            .committed()
            .into_iter()
            .map(|(_, shown)| shown)
            .collect();
        assert!(
            expected
                .iter()
                .all(|shown| seen.contains(&(*shown).to_owned())),
            "{now}: {seen:?}"
        );
        assert_eq!(
            seen.contains(&"a=-".to_owned()),
            now < 1010,
            "{now}: {seen:?}"
        );
        put(&mut log, &[("z", Some("1"))]);
        seal(&mut log);
    }
}

#[test]
fn aborted_records_go_and_committed_ones_stay_committed() {
    let world = SimulatedWorld::new(1);
    let place = compacting(&world);
    let mut log = place.create();
    put(&mut log, &[("a", Some("kept"))]);
    put_in_transaction(&mut log, 1, 0, &[("a", Some("aborted"))]);
    put_in_transaction(&mut log, 2, 0, &[("b", Some("committed"))]);
    log.append_marker(producer(1, 1), abort()).unwrap();
    log.append_marker(producer(2, 1), commit()).unwrap();
    put_in_transaction(&mut log, 1, 1, &[("c", Some("committed"))]);
    log.append_marker(producer(1, 2), commit()).unwrap();
    seal(&mut log);
    let before = latest(&log);
    for now in [10, 2000, 4000] {
        log.compact(Timestamp(now)).unwrap().unwrap();
        assert_eq!(latest(&log), before);
        assert!(
            !log.uncommitted()
                .iter()
                .any(|(_, shown)| shown == "a=aborted")
        );
        put(&mut log, &[("z", Some("1"))]);
        seal(&mut log);
        let expected: BTreeMap<_, _> = before
            .clone()
            .into_iter()
            .chain([("z".into(), "1".into())])
            .collect();
        drop(log);
        log = place.open();
        assert_eq!(latest(&log), expected);
        assert!(log.open_transactions().is_empty());
        let (b, z) = (log.compact(Timestamp(now)).unwrap(), latest(&log));
        assert!(b.is_some());
        assert_eq!(z, expected);
        put(&mut log, &[("z", None)]);
        seal(&mut log);
    }
}

#[test]
fn c26_an_open_transaction_holds_compaction_retention_and_deletion_back() {
    let world = SimulatedWorld::new(1);
    let mut place = compacting(&world);
    place.config.cleanup = CleanupPolicy::CompactAndDelete;
    place.config.retention_ms = Some(1);
    let mut log = place.create();
    put(&mut log, &[("a", Some("1"))]);
    put(&mut log, &[("a", Some("2"))]);
    put_in_transaction(&mut log, 1, 0, &[("a", Some("open"))]);
    seal(&mut log);
    put(&mut log, &[("a", Some("3"))]);
    seal(&mut log);
    let now = Timestamp(i64::MAX / 2);
    let before = log.uncommitted();
    assert!(log.compact(now).unwrap().is_none());
    assert!(log.apply_retention(now).unwrap().is_empty());
    assert!(log.delete_records(Offset(3)).is_err());
    assert_eq!(log.uncommitted(), before);
    assert_eq!(
        log.producers().len(),
        1,
        "a producer with an open transaction is never forgotten"
    );
    log.append_marker(producer(1, 1), commit()).unwrap();
    log.sync();
    assert!(!log.apply_retention(now).unwrap().is_empty());
    assert!(log.producers().is_empty());
}

#[test]
fn c20_the_window_of_a_living_producer_survives_compaction_without_any_snapshot() {
    let world = SimulatedWorld::new(1);
    let place = compacting(&world);
    let mut log = place.create();
    let batch = |n: i32| {
        let producer = BatchProducer::Idempotent(producer(1, 0), Sequence(n));
        keyed(&[("a", Some("v"))], 5, producer)
    };
    for n in 0..8 {
        log.put(batch(n)).unwrap();
    }
    for _ in 0..9 {
        put(&mut log, &[("a", Some("later"))]);
    }
    seal(&mut log);
    log.compact(Timestamp(10)).unwrap().unwrap();
    log.close().unwrap();
    for entry in place.env.files.read_dir(&place.dir).unwrap() {
        if entry.name.ends_with(".snapshot") {
            place
                .env
                .files
                .remove_file(&place.dir.join(entry.name))
                .unwrap();
        }
    }
    let mut log = place.open();
    for n in 3..8 {
        let again = log.put(batch(n)).unwrap();
        assert!(again.is_duplicate && again.base_offset == Offset(i64::from(n)));
    }
    assert!(!log.put(batch(8)).unwrap().is_duplicate);
}

#[test]
fn compaction_in_little_memory_goes_on_where_it_stopped() {
    let world = SimulatedWorld::new(1);
    let mut place = compacting(&world);
    place.config.compaction_memory_bytes = 200;
    let mut log = place.create();
    for round in 0..5 {
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            put(&mut log, &[(key, Some(["0", "1", "2", "3", "4"][round]))]);
        }
    }
    seal(&mut log);
    let before = latest(&log);
    let mut rounds = 0;
    while let Some(report) = log.compact(Timestamp(10)).unwrap() {
        assert_eq!(latest(&log), before);
        assert_eq!(report.cleaned_end, log.cleaned_end);
        rounds += 1;
    }
    assert!(rounds > 2);
    assert_eq!(log.committed().len(), 8);
    let reopened = place.open();
    assert_eq!(latest(&reopened), before);
}

#[test]
fn c9_f10_a_power_loss_at_any_step_of_a_compaction_changes_nothing() {
    let world = SimulatedWorld::new(3);
    let place = compacting(&world);
    let mut log = place.create();
    for round in 0..12 {
        put(&mut log, &[("a", Some("x")), ("b", Some("y"))]);
        if round % 4 == 0 {
            put_in_transaction(&mut log, 1, round / 4, &[("t", Some("committed"))]);
            log.append_marker(producer(1, round / 4 + 1), commit())
                .unwrap();
            put_in_transaction(&mut log, 2, round / 4, &[("t", Some("aborted"))]);
            log.append_marker(producer(2, round / 4 + 1), abort())
                .unwrap();
        }
    }
    seal(&mut log);
    let before = latest(&log);
    let end = log.log_end_offset();
    world.start_recording();
    log.compact(Timestamp(10)).unwrap().unwrap();
    log.apply_retention(Timestamp(10)).unwrap();
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    let marks = RecoveryMarks {
        durable_end: end,
        ..RecoveryMarks::default()
    };
    loop {
        for loss in PowerLoss::every_mode(replay.done_count() as u64) {
            let place = place.on(&replay.after_power_loss(loss));
            let opened = place.open_with(marks);
            let (mut log, _) = opened
                .unwrap_or_else(|e| panic!("after {} changes, {loss:?}: {e}", replay.done_count()));
            assert_eq!(latest(&log), before);
            assert_eq!(log.log_end_offset(), end);
            assert!(log.open_transactions().is_empty());
            log.compact(Timestamp(10)).unwrap();
            assert_eq!(latest(&log), before);
        }
        if !replay.step() {
            break;
        }
    }
}

#[test]
fn c9_f10_a_power_loss_during_a_compaction_beside_which_others_append_loses_nothing() {
    let world = SimulatedWorld::new(4);
    let place = compacting(&world);
    let mut log = place.create();
    for _ in 0..12 {
        put(&mut log, &[("a", Some("x")), ("b", Some("y"))]);
    }
    put_in_transaction(&mut log, 1, 0, &[("t", Some("committed"))]);
    log.append_marker(producer(1, 1), commit()).unwrap();
    seal(&mut log);
    world.start_recording();
    // The number of changes after which a synced end, and what was then committed, was promised.
    let mut promises = vec![(0, log.synced_end(), latest(&log))];
    let mut put_synced = |log: &mut PartitionLog, value: &str| {
        put(log, &[("a", Some(value)), ("n", Some(value))]);
        log.sync();
        promises.push((world.changes_count(), log.synced_end(), latest(log)));
    };
    put_synced(&mut log, "before");
    let plan = log.plan_compaction(Timestamp(10)).unwrap().unwrap();
    put_synced(&mut log, "planned");
    put_in_transaction(&mut log, 1, 1, &[("t", Some("open"))]);
    let compacted = plan.execute(&|| true).unwrap();
    for round in 0..8 {
        put_synced(&mut log, ["executed", "rolled"][round % 2]);
    }
    log.finish_compaction(compacted).unwrap();
    put_synced(&mut log, "finished");
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    loop {
        let done = replay.done_count();
        let passed = promises.iter().rev().find(|(changes, ..)| *changes <= done);
        let (_, synced_end, before) = passed.unwrap();
        for loss in PowerLoss::every_mode(done as u64).step_by(3) {
            let place = place.on(&replay.after_power_loss(loss));
            let marks = RecoveryMarks {
                durable_end: *synced_end,
                ..RecoveryMarks::default()
            };
            let opened = place.open_with(marks);
            let (log, _) = opened.unwrap_or_else(|e| panic!("after {done} changes, {loss:?}: {e}"));
            assert!(log.log_end_offset() >= *synced_end);
            let found = latest(&log);
            let next = promises.iter().find(|(changes, ..)| *changes > done);
            // What was written and not synced may have survived too.
            assert!(
                found == *before || next.is_some_and(|(.., after)| found == *after),
                "after {done} changes, {loss:?}: {found:?}, not {before:?}"
            );
        }
        if !replay.step() {
            break;
        }
    }
}

#[test]
fn a_compaction_that_nobody_wants_changes_nothing() {
    let world = SimulatedWorld::new(3);
    let place = compacting(&world);
    let mut log = place.create();
    for _ in 0..12 {
        put(&mut log, &[("a", Some("x")), ("b", Some("y"))]);
    }
    seal(&mut log);
    let before = log.uncommitted();
    for asked_count in 0..4 {
        let left = std::cell::Cell::new(asked_count);
        let is_wanted = || left.replace(left.get() - 1) > 0;
        let error = log
            .plan_compaction(Timestamp(10))
            .unwrap()
            .unwrap()
            .execute(&is_wanted)
            .unwrap_err();
        assert!(matches!(error, LogError::Cancelled { .. }), "{error}");
        assert_eq!(log.uncommitted(), before);
    }
    let names = place.env.files.read_dir(&place.dir).unwrap();
    assert!(!names.iter().any(|entry| entry.name.ends_with(".cleaned")));
    assert!(log.compact(Timestamp(10)).unwrap().is_some());
}

#[test]
fn f13_a_full_disk_during_compaction_leaves_the_log_as_it_was() {
    let world = SimulatedWorld::new(3);
    let place = compacting(&world);
    let mut log = place.create();
    for _ in 0..12 {
        put(&mut log, &[("a", Some("x")), ("b", Some("y"))]);
    }
    seal(&mut log);
    let before = log.uncommitted();
    world.set_capacity(Some(world.used_bytes()));
    let error = log.compact(Timestamp(10)).unwrap_err();
    assert!(matches!(error, LogError::StorageFull { .. }), "{error}");
    assert_eq!(log.uncommitted(), before);
    world.set_capacity(None);
    assert!(log.compact(Timestamp(10)).unwrap().is_some());
    let batches = Batches::new(
        log.plan_read(Offset(0), 1 << 20, Isolation::ReadCommitted)
            .unwrap()
            .execute()
            .unwrap()
            .records,
    );
    assert!(batches.count() < 12);
}

#[test]
fn x16_records_older_than_max_compaction_lag_ms_are_compacted_whatever_the_ratio() {
    let world = SimulatedWorld::new(1);
    let mut place = compacting(&world);
    place.config.min_cleanable_dirty_ratio = 1.0;
    place.config.max_compaction_lag_ms = 100;
    let mut log = place.create();
    // All of it is dirty once; then only a small part.
    for _ in 0..12 {
        put(&mut log, &[("a", Some("x")), ("b", Some("y"))]);
    }
    seal(&mut log);
    assert!(log.compact(Timestamp(10)).unwrap().is_some());
    put(&mut log, &[("a", Some("z"))]);
    seal(&mut log);
    assert!(log.compact(Timestamp(105)).unwrap().is_none());
    assert!(log.compact(Timestamp(106)).unwrap().is_some());
    // No record stays in the active segment, which is not compacted, for longer than that either.
    let segments_count = log.segments_count();
    put(&mut log, &[("c", Some("1"))]);
    log.put(keyed(&[("c", Some("2"))], 106, BatchProducer::Plain))
        .unwrap();
    assert_eq!(log.segments_count(), segments_count + 1);
}
