//! Failing disks: errors, a full disk, damage, and power losses during the commit protocol.

use super::support::{
    Producer, committed, create, fetch_request, open_simulated, partition, produce, read_committed,
    topic_name, try_open_simulated, try_produce,
};
use crate::broker::{Broker, BrokerError};
use crate::env::block_on;
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use crate::protocol::messages::TransactionResult;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Isolation, Offset};

/// Answers to a run: the transactions that it may count on, and the one whose end it was not told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) committed: Vec<String>,
    pub(super) in_doubt: Option<String>,
}

/// Commits and aborts transactions over two topics and a position, until the broker refuses.
pub(super) fn run(broker: &Broker, told: &mut Told) -> Result<(), BrokerError> {
    let source = partition("source", 0);
    let mut producer = Producer::try_new(broker, "p")?;
    for count in 1..=4 {
        let value = count.to_string();
        producer.try_send(&partition("a", 0), &[&value, &value])?;
        producer.try_send(&partition("b", 0), &[&value])?;
        producer.try_send_offset("g", &source, count)?;
        if count == 3 {
            producer.try_end(TransactionResult::Abort)?;
            continue;
        }
        told.in_doubt = Some(value.clone());
        producer.try_end(TransactionResult::Commit)?;
        told.in_doubt = None;
        told.committed.push(value);
    }
    Ok(())
}

/// All that was promised is there, wholly, and nothing else; and the log can be worked with.
pub(super) fn check(broker: &Broker, told: &Told, what: &dyn std::fmt::Debug) {
    let in_b = read_committed(broker, "b");
    let mut with_doubt = told.committed.clone();
    with_doubt.extend(told.in_doubt.clone());
    assert!(
        in_b == told.committed || in_b == with_doubt,
        "{what:?}: {in_b:?}, {told:?}"
    );
    let twice: Vec<_> = in_b.iter().flat_map(|v| [v.clone(), v.clone()]).collect();
    assert_eq!(
        read_committed(broker, "a"),
        twice,
        "{what:?}: torn between topics"
    );
    let position = committed(broker, "g", &partition("source", 0)).map(|p| p.to_string());
    assert_eq!(
        position.as_ref(),
        in_b.last(),
        "{what:?}: torn between records and positions"
    );
    let mut producer = Producer::new(broker, "p");
    producer.send(&partition("a", 0), &["end"]);
    producer.commit();
    assert_eq!(
        read_committed(broker, "a").last().unwrap(),
        "end",
        "{what:?}"
    );
}

/// A world with two topics.
pub(super) fn prepared(seed: u64) -> (SimulatedWorld, Broker) {
    let world = SimulatedWorld::new(seed);
    let broker = open_simulated(&world);
    create(&broker, "a", 1);
    create(&broker, "b", 1);
    (world, broker)
}

#[test]
fn c1_to_c10_a_power_loss_at_any_step_of_the_commit_protocol_tears_nothing() {
    lose_power_at_every_step(prepared, run, check);
}

/// Runs the script again and again, and loses power one step later each time. What is left is checked.
pub(super) fn lose_power_at_every_step(
    prepare: impl Fn(u64) -> (SimulatedWorld, Broker),
    run: impl Fn(&Broker, &mut Told) -> Result<(), BrokerError>,
    check: impl Fn(&Broker, &Told, &dyn std::fmt::Debug),
) {
    for step in 0.. {
        let (world, broker) = prepare(step);
        world.power_off_after(step);
        let mut told = Told::default();
        let finished = run(&broker, &mut told).is_ok();
        drop(broker);
        // Some of the modes at each step; the suite's harness walks them all.
        for loss in PowerLoss::every_mode(step)
            .skip(usize::try_from(step % 5).unwrap())
            .step_by(5)
        {
            let after = world.after_power_loss(loss);
            let what = (step, loss);
            let broker = try_open_simulated(&after).unwrap_or_else(|e| panic!("{what:?}: {e}"));
            check(&broker, &told, &what);
        }
        if finished {
            assert!(step > 50, "the script was over after {step} operations");
            return;
        }
    }
}

#[test]
fn c9_a_power_loss_during_recovery_changes_nothing() {
    let (world, broker) = prepared(3);
    // In the middle of a commit: its decision is durable, its markers are not.
    let mut told = Told::default();
    run(&broker, &mut told).unwrap();
    let mut producer = Producer::new(&broker, "q");
    producer.send(&partition("a", 0), &["open"]);
    producer.send(&partition("b", 0), &["open"]);
    drop((broker, producer));
    for step in 0.. {
        let again = world.after_power_loss(PowerLoss::STRICT);
        again.power_off_after(step);
        let finished = try_open_simulated(&again).is_ok();
        for loss in PowerLoss::every_mode(step).step_by(7) {
            let after = again.after_power_loss(loss);
            let what = (step, loss);
            let broker = try_open_simulated(&after).unwrap_or_else(|e| panic!("{what:?}: {e}"));
            check(&broker, &told, &what);
        }
        if finished {
            assert!(step > 20, "recovery was over after {step} operations");
            return;
        }
    }
}

#[test]
fn f11_after_a_failed_sync_nothing_is_acknowledged_until_a_reopening() {
    let (world, broker) = prepared(1);
    produce(&broker, &partition("a", 0), &["durable"]);
    // The sync fails once, having lost its pages; the next one would succeed.
    world.inject(
        Fault::new(FaultEffect::InputOutput)
            .on(&[Call::SyncData])
            .in_path("a-0"),
    );
    let failed = try_produce(&broker, &partition("a", 0), &["lost"]).unwrap_err();
    assert_eq!(failed.code, ErrorCode::KafkaStorageError);
    assert_eq!(world.faults_struck(), 1);
    for _ in 0..2 {
        let refused = try_produce(&broker, &partition("b", 0), &["refused"]).unwrap_err();
        assert_eq!(
            (refused.code, refused.kind()),
            (ErrorCode::KafkaStorageError, ErrorKind::Fatal)
        );
        assert!(
            refused.message.contains("open the data directory again"),
            "{refused}"
        );
    }
    let request = fetch_request(
        &partition("a", 0),
        Offset(0),
        Isolation::ReadCommitted,
        std::time::Duration::ZERO,
    );
    assert!(block_on(broker.fetch(request)).is_err());
    assert!(broker.topics().is_err());
    assert!(broker.close().is_err(), "closed as if all were well");
    drop(broker);
    let broker = open_simulated(&world.after_power_loss(PowerLoss::STRICT));
    assert_eq!(read_committed(&broker, "a"), ["durable"]);
}

#[test]
fn f11_a_failed_sync_of_a_decision_leaves_the_outcome_open_and_nothing_torn() {
    for path in [
        "a-0",
        "b-0",
        "__transaction_state-0",
        "__consumer_offsets-0",
    ] {
        for skip in 0..4 {
            let (world, broker) = prepared(skip);
            let mut told = Told::default();
            let fault = Fault::new(FaultEffect::InputOutput);
            world.inject(fault.on(&[Call::SyncData]).in_path(path).after(skip));
            let failed = run(&broker, &mut told);
            drop(broker);
            if failed.is_err() {
                assert_eq!(world.faults_struck(), 1);
            }
            for loss in [
                PowerLoss::STRICT,
                PowerLoss {
                    seed: skip,
                    ..PowerLoss::STRICT
                },
            ] {
                check(
                    &open_simulated(&world.after_power_loss(loss)),
                    &told,
                    &(path, skip),
                );
            }
            check(
                &open_simulated(&world.after_kill()),
                &told,
                &(path, skip, "killed"),
            );
        }
    }
}

/// Every call of the run fails once, or for ever: the log stops or goes on, and never lies.
#[test]
fn f11_f13_an_error_of_any_call_tears_nothing() {
    for effect in [FaultEffect::InputOutput, FaultEffect::StorageFull] {
        for is_for_ever in [false, true] {
            for call in 0.. {
                let (world, broker) = prepared(call);
                let fault = Fault::new(effect).on(&Call::CHANGING).after(call);
                world.inject(if is_for_ever { fault.for_ever() } else { fault });
                let mut told = Told::default();
                let _ = run(&broker, &mut told);
                drop(broker);
                let struck = world.faults_struck();
                world.clear_faults();
                let what = (effect, is_for_ever, call);
                for after in [
                    world.after_kill(),
                    world.after_power_loss(PowerLoss::STRICT),
                ] {
                    let broker =
                        try_open_simulated(&after).unwrap_or_else(|e| panic!("{what:?}: {e}"));
                    check(&broker, &told, &what);
                }
                if struck == 0 {
                    assert!(call > 30, "the run was over after {call} calls");
                    break;
                }
            }
        }
    }
}

#[test]
fn f13_on_a_full_disk_appends_fail_aborts_finish_and_work_goes_on_later() {
    let (world, broker) = prepared(1);
    let a = partition("a", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&a, &["committed"]);
    producer.commit();
    producer.send(&a, &["small"]);
    world.set_capacity(Some(world.used_bytes()));
    let full = producer.try_send(&a, &[&"x".repeat(8_000)]).unwrap_err();
    assert_eq!(full.code, ErrorCode::KafkaStorageError);
    assert_eq!(full.kind(), ErrorKind::Retriable);
    assert!(full.message.contains("disk is full"), "{full}");
    producer.abort();
    assert_eq!(read_committed(&broker, "a"), ["committed"]);
    world.set_capacity(None);
    broker.housekeep();
    producer.send(&a, &["again"]);
    producer.commit();
    assert_eq!(read_committed(&broker, "a"), ["committed", "again"]);
}

#[test]
fn f13_a_full_disk_at_any_moment_tears_nothing() {
    let used_before = prepared(1).0.used_bytes();
    for room in (0..6_000).step_by(97) {
        let (world, broker) = prepared(1);
        world.set_capacity(Some(used_before + room));
        let mut told = Told::default();
        let _ = run(&broker, &mut told);
        world.set_capacity(None);
        broker.housekeep();
        // Without a reopening, as long as no write failed half way; else after it.
        drop(broker);
        for after in [
            world.after_kill(),
            world.after_power_loss(PowerLoss::STRICT),
        ] {
            check(&open_simulated(&after), &told, &room);
        }
    }
}

#[test]
fn f2_a_damaged_partition_stays_offline_and_the_others_serve() {
    let (world, broker) = prepared(1);
    for name in ["a", "b"] {
        produce(&broker, &partition(name, 0), &["one"]);
        produce(&broker, &partition(name, 0), &["two"]);
    }
    broker.housekeep();
    drop(broker);
    let after = world.after_kill();
    let file = std::path::Path::new("/data/log/a-0/00000000000000000000.log");
    after.flip_bit(file, 70, 3).unwrap();
    let broker = open_simulated(&after);
    assert_eq!(read_committed(&broker, "b"), ["one", "two"]);
    let refused = try_produce(&broker, &partition("a", 0), &["three"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(
        refused.message.contains("00000000000000000000.log"),
        "{refused}"
    );
    let offline = broker
        .describe_partitions(&topic_name("a"))
        .unwrap()
        .remove(0)
        .offline;
    assert!(offline.unwrap().contains("damaged"));
    // Its marks are kept through a clean close: the damage is found again, and not cut.
    broker.close().unwrap();
    let broker = open_simulated(&after);
    let refused = try_produce(&broker, &partition("a", 0), &["three"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}

#[test]
fn f9_a_damaged_journal_refuses_the_directory() {
    let (world, broker) = prepared(1);
    run(&broker, &mut Told::default()).unwrap();
    broker.housekeep();
    drop(broker);
    for journal in ["__transaction_state-0", "__consumer_offsets-0"] {
        let after = world.after_kill();
        let file = format!("/data/log/{journal}/00000000000000000000.log");
        after.flip_bit(file.as_ref(), 80, 0).unwrap();
        let refused = try_open_simulated(&after).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        assert!(refused.message.contains(journal), "{refused}");
    }
}

#[test]
fn f18_a_disk_that_cannot_be_written_is_refused_with_what_to_do() {
    let world = SimulatedWorld::new(1);
    world.inject(
        Fault::new(FaultEffect::StorageFull)
            .on(&[Call::CreateDir])
            .for_ever(),
    );
    let refused = try_open_simulated(&world).unwrap_err();
    assert!(refused.message.contains("disk is full"), "{refused}");
}

#[test]
fn f2_damage_before_a_recorded_orderly_end_is_refused_also_in_the_last_batch() {
    let (world, broker) = prepared(2);
    produce(&broker, &partition("a", 0), &["x", "y"]);
    broker.close().unwrap();
    drop(broker);
    let path = std::path::Path::new("/data/log/a-0/00000000000000000000.log");
    let manifest = std::path::Path::new("/data/log/a-0/00000000000000000000.manifest");
    world.env().files.remove_file(manifest).unwrap();
    world.flip_bit(path, 62, 1).unwrap();
    let broker = open_simulated(&world);
    let refused = try_produce(&broker, &partition("a", 0), &["z"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
}

#[test]
fn f4_a_foreign_tail_behind_an_orderly_end_is_cut_and_nothing_is_lost() {
    for zeros in [1, 60, 61, 5000] {
        let (world, broker) = prepared(zeros);
        produce(&broker, &partition("a", 0), &["x", "y"]);
        broker.close().unwrap();
        drop(broker);
        for name in [
            "a-0",
            "b-0",
            "__transaction_state-0",
            "__consumer_offsets-0",
        ] {
            let path = format!("/data/log/{name}/00000000000000000000.log");
            let path = std::path::Path::new(&path);
            let file = world
                .env()
                .files
                .open(path, crate::env::OpenMode::Write)
                .unwrap();
            let length_bytes = file.length_bytes().unwrap();
            world.truncate(path, length_bytes + zeros).unwrap();
        }
        let broker = open_simulated(&world);
        assert_eq!(read_committed(&broker, "a"), ["x", "y"]);
        assert_eq!(read_committed(&broker, "b"), Vec::<String>::new());
        produce(&broker, &partition("a", 0), &["z"]);
        assert_eq!(read_committed(&broker, "a"), ["x", "y", "z"]);
    }
}
