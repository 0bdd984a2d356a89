//! Power loss and kills at every change of the disk, in every way that the storage model knows.

use super::support::*;
use crate::env::simulated::{DataLoss, NameLoss, PowerLoss, SimulatedWorld};
use crate::log::*;
use crate::types::{Isolation, Offset, Timestamp};

/// State of the run when a change of the disk was made.
#[derive(Clone)]
struct Moment {
    changes_count: usize,
    /// The end that a sync had promised.
    synced_end: Offset,
    log_start: Offset,
    /// All records written so far.
    records: Vec<Seen>,
}

/// A run with two transactional producers, an idempotent one, rolls, an abort, commits, a checkpoint and retention.
fn run(world: &SimulatedWorld, place: &Place) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut log = place.create();
    world.start_recording();
    let mut written: Vec<Seen> = Vec::new();
    let mut note = |log: &PartitionLog, added: &[&str], at: Offset| {
        written.extend((at.0..).zip(added.iter().map(|value| (*value).to_owned())));
        moments.push(Moment {
            changes_count: world.changes_count(),
            synced_end: log.synced_end(),
            log_start: log.log_start_offset(),
            records: written.clone(),
        });
    };
    for round in 0..4i16 {
        let sequence = 3 * i32::from(round);
        for (batch, added) in [
            (plain(&["p"]), &["p"][..]),
            (transactional(1, round, 0, &["a", "b"]), &["a", "b"]),
            (
                idempotent(3, 0, sequence, &["i", "j", "k"]),
                &["i", "j", "k"],
            ),
            (transactional(2, round, 0, &["x"]), &["x"]),
        ] {
            let at = log.put(batch).unwrap().base_offset;
            note(&log, added, at);
        }
        log.sync();
        note(&log, &[], Offset::ZERO);
        log.append_marker(producer(1, round + 1), commit()).unwrap();
        log.append_marker(producer(2, round + 1), abort()).unwrap();
        note(&log, &[], Offset::ZERO);
        if round == 2 {
            log.delete_records(Offset(6)).unwrap();
            log.sync();
            log.apply_retention(Timestamp(0)).unwrap();
            log.write_checkpoint();
        }
        note(&log, &[], Offset::ZERO);
    }
    moments
}

fn small(world: &SimulatedWorld) -> Place {
    let mut place = Place::new(world);
    place.config.segment_bytes = 420;
    place.config.index_interval_bytes = 100;
    place
}

/// Checks a log that was opened after a crash at `moment`.
fn check(log: &PartitionLog, moment: &Moment, all: &Moment) {
    let end = log.log_end_offset();
    assert!(end >= moment.synced_end, "acknowledged records are lost");
    let from = log.log_start_offset();
    let expected: Vec<_> = all
        .records
        .iter()
        .filter(|(offset, _)| *offset >= from.0 && *offset < end.0)
        .cloned()
        .collect();
    assert_eq!(log.uncommitted(), expected);
    for (_, start) in log.open_transactions() {
        assert!(log.last_stable_offset() <= start);
    }
    let committed = log.committed();
    assert!(
        committed.iter().all(|(_, value)| value != "x"),
        "aborted records are visible"
    );
}

/// The log goes on: duplicates are known, open transactions can end, new records can be written.
fn go_on(mut log: PartitionLog) {
    let known = log.producers();
    for (open, _) in log.open_transactions() {
        let next = producer(open.id.0, open.epoch.0 + 1);
        log.append_marker(next, abort()).unwrap();
    }
    let idempotent_known = known.iter().find(|known| known.producer.id.0 == 3);
    let next = idempotent_known.map_or(0, |known| known.last_sequence + 1);
    if next > 0 {
        let again = log
            .put(idempotent(3, 0, next - 3, &["i", "j", "k"]))
            .unwrap();
        assert!(again.is_duplicate);
    }
    log.put(idempotent(3, 0, next, &["end"])).unwrap();
    log.sync();
    assert_eq!(log.last_stable_offset(), log.log_end_offset());
    assert_eq!(log.committed().last().unwrap().1, "end");
    log.close().unwrap();
}

fn marks(moment: &Moment) -> RecoveryMarks {
    RecoveryMarks {
        durable_end: moment.synced_end,
        log_start: moment.log_start,
        ..RecoveryMarks::default()
    }
}

#[test]
fn f1_f3_f4_f10_every_power_loss_leaves_a_log_that_keeps_what_was_synced() {
    let world = SimulatedWorld::new(7);
    let place = small(&world);
    let moments = run(&world, &place);
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    let last = moments.last().unwrap();
    let mut cut_count = 0;
    loop {
        let done = replay.done_count();
        let passed = moments
            .iter()
            .rev()
            .find(|moment| moment.changes_count <= done);
        let first = Moment {
            changes_count: 0,
            synced_end: Offset::ZERO,
            log_start: Offset::ZERO,
            records: Vec::new(),
        };
        let moment = passed.unwrap_or(&first);
        for loss in PowerLoss::every_mode(done as u64) {
            let crashed = place.on(&replay.after_power_loss(loss));
            let opened = crashed.open_with(marks(moment));
            let (log, report) =
                opened.unwrap_or_else(|e| panic!("after {done} changes, {loss:?}: {e}"));
            cut_count += usize::from(report.cut_bytes > 0);
            check(&log, moment, last);
            go_on(log);
        }
        if !replay.step() {
            break;
        }
    }
    assert!(
        cut_count > 50,
        "the run must meet torn tails, not {cut_count}"
    );
}

#[test]
fn a_killed_process_leaves_everything_that_was_written() {
    let world = SimulatedWorld::new(7);
    let place = small(&world);
    let moments = run(&world, &place);
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    let last = moments.last().unwrap();
    while replay.step() {
        let done = replay.done_count();
        let Some(moment) = moments
            .iter()
            .rev()
            .find(|moment| moment.changes_count <= done)
        else {
            continue;
        };
        let (log, _) = place
            .on(&replay.after_kill())
            .open_with(marks(moment))
            .unwrap();
        let end = moment.records.last().map_or(0, |record| record.0 + 1);
        assert!(
            log.log_end_offset().0 >= end,
            "a killed process loses nothing that it wrote"
        );
        check(&log, moment, last);
        go_on(log);
    }
}

#[test]
fn c9_recovery_that_is_itself_interrupted_can_be_run_again() {
    let world = SimulatedWorld::new(9);
    let place = small(&world);
    let moments = run(&world, &place);
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    let last = moments.last().unwrap();
    while replay.step() {
        let done = replay.done_count();
        if !done.is_multiple_of(7) {
            continue;
        }
        let moment = moments
            .iter()
            .rev()
            .find(|moment| moment.changes_count <= done);
        let Some(moment) = moment else { continue };
        let torn = PowerLoss {
            data: DataLoss::Blocks { grain_bytes: 512 },
            names: NameLoss::Some,
            seed: done as u64,
        };
        let crashed = replay.after_power_loss(torn);
        crashed.start_recording();
        let expected = place
            .on(&crashed)
            .open_with(marks(moment))
            .unwrap()
            .0
            .uncommitted();
        let recovery = crashed.stop_recording().unwrap();
        let mut again = recovery.replay();
        loop {
            for loss in PowerLoss::every_mode(1).step_by(5) {
                let place = place.on(&again.after_power_loss(loss));
                let (log, _) = place.open_with(marks(moment)).unwrap();
                check(&log, moment, last);
                assert_eq!(log.uncommitted(), expected);
                go_on(log);
            }
            if !again.step() {
                break;
            }
        }
    }
}

#[test]
fn process_durability_loses_a_suffix_and_never_leaves_a_hole() {
    let world = SimulatedWorld::new(11);
    let mut place = small(&world);
    place.config.durability = crate::types::Durability::Process;
    let mut log = place.create();
    world.start_recording();
    for n in 0..20 {
        log.put(idempotent(1, 0, 2 * n, &["a", "b"])).unwrap();
        assert_eq!(log.high_watermark(), log.log_end_offset());
    }
    let all = log.seen(Isolation::ReadUncommitted);
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    while replay.step() {
        for loss in PowerLoss::every_mode(replay.done_count() as u64).step_by(3) {
            let place = place.on(&replay.after_power_loss(loss));
            let mut log = place.open();
            let end = usize::try_from(log.log_end_offset().0).unwrap();
            assert_eq!(log.uncommitted(), all[..end]);
            let sequence = i32::try_from(end).unwrap();
            log.put(idempotent(1, 0, sequence, &["next"])).unwrap();
            log.sync();
            assert_eq!(log.synced_end(), log.log_end_offset());
        }
    }
}
