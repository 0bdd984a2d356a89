//! One partition's log through the failure of every single call: an error is told, and nothing acknowledged is lost.

use onceflow::internals::protocol::batch::BatchProducer;
use onceflow::internals::{AppendOrigin, LogError, PartitionLog};
use onceflow::testing::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use onceflow::types::{Offset, Sequence, TopicId};

use super::partition::{config, dir, open, prepared_world, producer, read_all};
use crate::support::records::{Seen, batch};

/// Answers to a run.
struct Told {
    log: PartitionLog,
    /// The records whose append was acknowledged.
    appended: Vec<Seen>,
    /// The records whose append failed with an outcome unknown, which may follow them after a restart.
    doubtful: Vec<Seen>,
    synced_end: Offset,
    errors: Vec<LogError>,
}

impl Told {
    /// Appends until the log refuses everything; a full disk is tried again with the next batch.
    fn run(world: &SimulatedWorld, log: PartitionLog) -> Self {
        let mut told = Self {
            log,
            appended: Vec::new(),
            doubtful: Vec::new(),
            synced_end: Offset::ZERO,
            errors: Vec::new(),
        };
        let mut sequence = Sequence::ZERO;
        for round in 0..14 {
            if told.append(round, sequence) {
                sequence = sequence.plus(2);
            }
            if round % 3 == 2 {
                told.sync();
            }
        }
        assert!(!world.is_off());
        told
    }

    fn append(&mut self, round: usize, sequence: Sequence) -> bool {
        let values = [
            format!("{round}.{}", "y".repeat(round * 60)),
            format!("{round}.z"),
        ];
        let bytes = batch(BatchProducer::Idempotent(producer(1, 0), sequence), &values);
        let was_poisoned = self.log.poisoned().is_some();
        let base_offset = self.log.log_end_offset();
        let seen = (base_offset.0..).zip(values).map(|(offset, value)| {
            let offset = Offset(offset);
            Seen { offset, value }
        });
        match self.log.append(bytes, AppendOrigin::Client) {
            Ok(appended) => {
                assert!(!was_poisoned, "a poisoned log must refuse everything (F11)");
                assert!(!appended.is_duplicate);
                assert_eq!(appended.base_offset, base_offset);
                self.appended.extend(seen);
                true
            }
            Err(error) => {
                if !was_poisoned && self.log.poisoned().is_some() {
                    self.doubtful.extend(seen);
                }
                self.errors.push(error);
                false
            }
        }
    }

    fn sync(&mut self) {
        let Some(plan) = self.log.plan_sync() else {
            return;
        };
        match plan.execute() {
            Ok(()) => {
                self.log.synced(&plan);
                self.synced_end = self.log.synced_end();
            }
            Err(error) => {
                self.log.poison(&error.to_string());
                self.errors.push(error);
            }
        }
    }
}

/// A log in its own world, created before any fault.
fn created() -> (SimulatedWorld, PartitionLog) {
    let world = prepared_world(5);
    let log = PartitionLog::create(&world.env(), dir(), TopicId(9), config()).unwrap();
    (world, log)
}

/// Runs with `fault`, and checks what is told now, after a kill, and after a power loss.
fn check(fault: &Fault) -> Told {
    let (world, log) = created();
    world.inject(fault.clone());
    let told = Told::run(&world, log);
    world.clear_faults();
    if told.log.poisoned().is_none() {
        let visible_end = told.log.high_watermark();
        let is_visible = |seen: &&Seen| seen.offset < visible_end;
        let visible: Vec<Seen> = told.appended.iter().filter(is_visible).cloned().collect();
        assert_eq!(read_all(&told.log), visible, "{fault:?}");
    }
    let killed = world.after_kill();
    let end_of_appended = told
        .appended
        .last()
        .map_or(Offset::ZERO, |seen| seen.offset.plus(1));
    check_reopened(&killed, &told, end_of_appended, fault);
    check_reopened(
        &world.after_power_loss(PowerLoss::STRICT),
        &told,
        told.synced_end,
        fault,
    );
    told
}

fn check_reopened(world: &SimulatedWorld, told: &Told, must_have: Offset, fault: &Fault) {
    let log = match open(&world.env(), told.synced_end) {
        Ok(log) => log,
        Err(error) => panic!("{error} after {fault:?}, told {:?}", told.errors),
    };
    assert!(
        log.log_end_offset() >= must_have,
        "{fault:?}: {:?}",
        told.errors
    );
    let seen = read_all(&log);
    let written: Vec<Seen> = told
        .appended
        .iter()
        .chain(&told.doubtful)
        .cloned()
        .collect();
    assert_eq!(seen, written[..seen.len()], "{fault:?}: {:?}", told.errors);
}

/// Counts a run's calls by kind, without faults.
fn calls_of_a_run() -> Vec<(Call, u64)> {
    let (world, log) = created();
    let count = |call: Call| world.calls_count_of(call);
    let before: Vec<u64> = Call::ALL.into_iter().map(count).collect();
    let told = Told::run(&world, log);
    assert!(told.errors.is_empty());
    assert!(told.log.segments_count() > 2, "the run must roll segments");
    let after = Call::ALL.into_iter().map(count);
    let made = Call::ALL.into_iter().zip(after.zip(before));
    made.map(|(call, (after, before))| (call, after - before))
        .collect()
}

/// Calls `check` with a fault at every single call of a run.
fn at_every_call(effect: FaultEffect, calls: &[Call], mut check: impl FnMut(Fault)) {
    let mut faults_count = 0;
    for (call, count) in calls_of_a_run() {
        if calls.contains(&call) {
            for nth in 0..count {
                check(Fault::new(effect).on(&[call]).after(nth));
                check(Fault::new(effect).on(&[call]).after(nth).for_ever());
                faults_count += 2;
            }
        }
    }
    assert!(faults_count > 0, "no fault was tried");
}

#[test]
fn f11_after_a_failed_sync_a_partition_acknowledges_nothing_until_it_is_reopened() {
    at_every_call(
        FaultEffect::InputOutput,
        &[Call::SyncData, Call::SyncDir],
        |fault| {
            let told = check(&fault);
            let is_derived = told.errors.is_empty();
            assert!(
                is_derived || told.log.poisoned().is_some(),
                "{fault:?}: {:?}",
                told.errors
            );
        },
    );
}

#[test]
fn f11_one_failed_segment_sync_is_never_made_good_by_the_next() {
    let (world, log) = created();
    world.inject(
        Fault::new(FaultEffect::InputOutput)
            .on(&[Call::SyncData])
            .in_path(".log"),
    );
    let told = Told::run(&world, log);
    assert_eq!(world.faults_struck(), 1);
    assert!(told.log.poisoned().is_some());
    assert_eq!(told.synced_end, Offset::ZERO);
    assert!(told.errors.len() > 1, "what follows is refused too");
}

#[test]
fn f11_f15_every_failed_write_is_told_and_loses_nothing() {
    let calls = [
        Call::Write,
        Call::SetLength,
        Call::Open,
        Call::Rename,
        Call::RemoveFile,
    ];
    at_every_call(FaultEffect::InputOutput, &calls, |fault| {
        drop(check(&fault))
    });
}

#[test]
fn f14_no_more_file_handles_is_told_and_loses_nothing() {
    at_every_call(FaultEffect::TooManyFiles, &[Call::Open], |fault| {
        drop(check(&fault))
    });
}

#[test]
fn f13_a_disk_that_is_full_at_any_call_loses_nothing_and_goes_on_with_room() {
    at_every_call(FaultEffect::StorageFull, &Call::CHANGING, |fault| {
        drop(check(&fault))
    });
    // Full once, at the write of a segment: nothing was written, so the next append succeeds.
    let fault = Fault::new(FaultEffect::StorageFull)
        .on(&[Call::Write])
        .in_path(".log")
        .after(3);
    let told = check(&fault);
    assert!(
        matches!(told.errors[..], [LogError::StorageFull { .. }]),
        "{:?}",
        told.errors
    );
    assert_eq!(told.appended.len(), 13 * 2);
}

#[test]
fn f13_a_disk_of_any_size_takes_what_fits() {
    for pages in 1..12 {
        let (world, log) = created();
        world.set_capacity(Some(pages * 4096));
        let told = Told::run(&world, log);
        assert!(!told.errors.is_empty() || pages > 5);
        let fault = Fault::new(FaultEffect::StorageFull);
        world.set_capacity(None);
        let killed = world.after_kill();
        check_reopened(&killed, &told, told.log.log_end_offset(), &fault);
    }
}

#[test]
fn f15_short_and_interrupted_calls_change_nothing() {
    for effect in [
        FaultEffect::Short(1),
        FaultEffect::Short(97),
        FaultEffect::Interrupted,
    ] {
        let told = check(&Fault::new(effect).for_ever());
        assert!(told.errors.is_empty());
        assert_eq!(told.appended.len(), 14 * 2);
    }
}
