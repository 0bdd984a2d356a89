//! Producers that outlive the broker: which restarts they notice, and which are taken for a power loss.

use std::path::{Path, PathBuf};

use super::faults::{Told, check, run};
use super::support::*;
use crate::broker::Broker;
use crate::env::OpenMode;
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{OffsetSpec, TransactionResult};
use crate::types::Isolation;

/// A broker with a topic, and a remote producer with two batches in its open transaction.
fn with_open_transaction() -> (SimulatedWorld, Producer) {
    let world = SimulatedWorld::new(15);
    let broker = open_simulated(&world);
    create(&broker, "a", 1);
    let mut producer = Producer::remote(&broker, "p");
    producer.send(&partition("a", 0), &["1"]);
    producer.send(&partition("a", 0), &["2"]);
    producer.send_offset("g", &partition("a", 0), 7);
    (world, producer)
}

/// Where a reader of committed records stands.
fn last_stable(broker: &Broker) -> i64 {
    let found = broker.list_offset(
        &partition("a", 0),
        OffsetSpec::Latest,
        Isolation::ReadCommitted,
    );
    found.unwrap().unwrap().offset.0
}

fn reopen(producer: &mut Producer, world: &SimulatedWorld) {
    producer.broker = open_simulated(world);
}

fn assert_goes_on(producer: &mut Producer, what: &str) {
    let a = partition("a", 0);
    assert_eq!(last_stable(&producer.broker), 0, "{what}: it is still open");
    producer.send(&a, &["3"]);
    producer.commit();
    assert_eq!(
        read_committed(&producer.broker, "a"),
        ["1", "2", "3"],
        "{what}"
    );
    producer.send(&a, &["4"]);
    producer.commit();
}

/// An open transaction is over, and an error says so that is not final.
fn assert_was_aborted(producer: &mut Producer, what: &str) {
    let a = partition("a", 0);
    assert_eq!(read_committed(&producer.broker, "a"), [""; 0], "{what}");
    let error = producer.try_end(TransactionResult::Commit).unwrap_err();
    assert_eq!(error.code, ErrorCode::TransactionAbortable, "{what}");
    producer.abort();
    producer.send(&a, &["next"]);
    producer.commit();
    assert_eq!(read_committed(&producer.broker, "a"), ["next"], "{what}");
}

/// The segment of the topic's only partition.
fn segment() -> PathBuf {
    Path::new("/data/log/a-0/00000000000000000000.log").to_owned()
}

fn length_of(world: &SimulatedWorld, path: &Path) -> u64 {
    let file = world.env().files.open(path, OpenMode::Read).unwrap();
    file.length_bytes().unwrap()
}

#[test]
fn x15_a_transaction_goes_on_over_kills_and_orderly_closes_and_not_over_a_power_loss() {
    let (world, mut producer) = with_open_transaction();
    let killed = world.after_kill();
    reopen(&mut producer, &killed);
    assert_goes_on(&mut producer, "killed");

    let (world, mut producer) = with_open_transaction();
    producer.broker.close().unwrap();
    reopen(&mut producer, &world);
    assert_goes_on(&mut producer, "closed");

    let (world, mut producer) = with_open_transaction();
    producer.broker.close().unwrap();
    // All of it was on the disk.
    reopen(&mut producer, &world.after_power_loss(PowerLoss::STRICT));
    assert_goes_on(&mut producer, "closed before the power was lost");

    for loss in PowerLoss::every_mode(15) {
        let (world, mut producer) = with_open_transaction();
        reopen(&mut producer, &world.after_power_loss(loss));
        assert_was_aborted(&mut producer, &format!("{loss:?}"));
    }
}

#[test]
fn x15_an_idle_producer_goes_on_over_a_kill_and_aborts_once_after_a_power_loss() {
    for is_killed in [true, false] {
        let (world, mut producer) = with_open_transaction();
        producer.commit();
        let after = match is_killed {
            true => world.after_kill(),
            false => world.after_power_loss(PowerLoss::STRICT),
        };
        reopen(&mut producer, &after);
        let a = partition("a", 0);
        let first = producer.try_send_offset("g", &a, 8);
        match is_killed {
            true => first.unwrap(),
            false => {
                let code = first.unwrap_err().code;
                assert_eq!(code, ErrorCode::InvalidProducerEpoch, "on the wire: abort");
                producer.abort();
            }
        }
        producer.send(&a, &["3"]);
        producer.commit();
        assert_eq!(read_committed(&producer.broker, "a"), ["1", "2", "3"]);
    }
}

#[test]
fn x15_a_machine_that_does_not_tell_its_boot_counts_as_one_that_lost_power() {
    let (world, mut producer) = with_open_transaction();
    reopen(&mut producer, &world.after_kill_untold());
    assert_was_aborted(&mut producer, "untold");
}

#[test]
fn x15_f11_after_a_failed_sync_the_page_cache_is_not_trusted() {
    let (world, mut producer) = with_open_transaction();
    let fault = Fault::new(FaultEffect::InputOutput).on(&[Call::SyncData]);
    world.inject(fault.in_path("a-0"));
    let failed = producer.try_end(TransactionResult::Commit).unwrap_err();
    assert_eq!(failed.code, ErrorCode::KafkaStorageError);
    reopen(&mut producer, &world.after_kill());
    assert_was_aborted(&mut producer, "after a failed sync");
}

#[test]
fn x15_a_write_that_was_cut_off_is_no_loss_and_its_repetition_is_taken() {
    let (world, mut producer) = with_open_transaction();
    let whole = length_of(&world, &segment());
    for cut_bytes in [1, 20, 60] {
        let (world, mut again) = with_open_transaction();
        let after = world.after_kill();
        // The second batch was written in part, so nobody was told of it.
        after.truncate(&segment(), whole - cut_bytes).unwrap();
        reopen(&mut again, &after);
        assert_eq!(last_stable(&again.broker), 0, "{cut_bytes}");
        again.send_again(&partition("a", 0), &["2"]);
        assert_goes_on(&mut again, "cut");
    }
    drop(producer.try_end(TransactionResult::Abort));
}

#[test]
fn x15_a_batch_that_is_missing_is_taken_for_a_power_loss_whatever_the_boot_says() {
    let (world, mut producer) = with_open_transaction();
    let after = world.after_kill();
    // In the first of the two batches, behind its header.
    after.flip_bit(&segment(), 70, 3).unwrap();
    reopen(&mut producer, &after);
    assert_was_aborted(&mut producer, "rot in what was never synced");
    // It stays so: the loss is noted in the directory.
    let (world, mut producer) = with_open_transaction();
    let after = world.after_kill();
    after.flip_bit(&segment(), 70, 3).unwrap();
    let recovered = open_simulated(&after);
    drop(recovered);
    reopen(&mut producer, &after.after_kill());
    assert_was_aborted(&mut producer, "rot, and a kill after it");
}

#[test]
fn x15_the_transaction_of_a_producer_in_the_brokers_process_ends_with_it() {
    let (world, producer) = with_open_transaction();
    let mut embedded = Producer::new(&producer.broker, "job-0");
    create(&producer.broker, "b", 1);
    embedded.send(&partition("b", 0), &["1"]);
    let broker = open_simulated(&world.after_kill());
    // Nobody has to wait for a timeout, nor for the next start of the job.
    produce(&broker, &partition("b", 0), &["2"]);
    assert_eq!(read_committed(&broker, "b"), ["2"]);
    assert_eq!(last_stable(&broker), 0, "the remote one is open");
}

#[test]
fn x15_who_was_replaced_stays_fenced_over_a_kill() {
    let (world, mut zombie) = with_open_transaction();
    let mut owner = Producer::remote(&zombie.broker, "p");
    owner.send(&partition("a", 0), &["owner"]);
    let after = world.after_kill();
    reopen(&mut zombie, &after);
    owner.broker = zombie.broker.clone();
    for result in [TransactionResult::Commit, TransactionResult::Abort] {
        let error = zombie.try_end(result).unwrap_err();
        assert_eq!(error.code, ErrorCode::ProducerFenced);
    }
    owner.commit();
    assert_eq!(read_committed(&owner.broker, "a"), ["owner"]);
}

/// A world with two topics whose logs begin new segments often.
fn with_short_segments(seed: u64) -> (SimulatedWorld, Broker) {
    let world = SimulatedWorld::new(seed);
    let broker = open_simulated(&world);
    for topic in ["a", "b"] {
        create_with(
            &broker,
            topic,
            1,
            &[("segment.bytes", "300"), ("retention.ms", "-1")],
        );
    }
    (world, broker)
}

/// Fails one call after the other while transactions are committed; `inspect` gets the machine that stands there, whose
/// page cache shows what the disk does not have, and what the producer was told.
fn fail_every_sync(inspect: impl Fn(&SimulatedWorld, &Told, u64)) {
    for skipped in 0.. {
        let (world, broker) = with_short_segments(skipped);
        let fault = Fault::new(FaultEffect::InputOutput).on(&[Call::SyncData, Call::SyncDir]);
        world.inject(fault.after(skipped));
        let mut told = Told::default();
        let finished = run(&broker, &mut told).is_ok();
        drop(broker);
        world.clear_faults();
        if world.faults_struck() == 0 {
            assert!(finished && skipped > 20, "{skipped} syncs");
            return;
        }
        inspect(&world, &told, skipped);
    }
}

/// The committed records of the two topics.
fn seen(broker: &Broker) -> [Vec<String>; 2] {
    ["a", "b"].map(|topic| read_committed(broker, topic))
}

#[test]
fn f11_what_a_failed_sync_left_in_memory_is_on_the_disk_before_a_restarted_process_builds_on_it() {
    fail_every_sync(|world, told, skipped| {
        let restarted = world.after_kill();
        let broker = open_simulated(&restarted);
        check(&broker, told, &("restarted", skipped));
        let before = seen(&broker);
        drop(broker);
        for loss in [PowerLoss::STRICT]
            .into_iter()
            .chain(PowerLoss::every_mode(skipped))
        {
            let broker = open_simulated(&restarted.after_power_loss(loss));
            assert_eq!(seen(&broker), before, "{skipped}, {loss:?}: power was lost");
        }
    });
}

#[test]
fn f11_c9_a_process_may_die_anywhere_while_it_writes_again_what_a_failed_sync_left_in_memory() {
    fail_every_sync(|world, told, skipped| {
        for step in (skipped % 19..).step_by(19) {
            let restarted = world.after_kill();
            restarted.power_off_after(step);
            let finished = try_open_simulated(&restarted).is_ok();
            let what = (skipped, step);
            // The process alone, and later the machine.
            let again = restarted.after_kill();
            let broker = try_open_simulated(&again).unwrap_or_else(|e| panic!("{what:?}: {e}"));
            check(&broker, told, &what);
            let before = seen(&broker);
            drop(broker);
            let broker = open_simulated(&again.after_power_loss(PowerLoss::STRICT));
            assert_eq!(seen(&broker), before, "{what:?}");
            // The machine at once.
            let again = restarted.after_power_loss(PowerLoss::STRICT);
            let broker = try_open_simulated(&again).unwrap_or_else(|e| panic!("{what:?}: {e}"));
            check(&broker, told, &what);
            if finished {
                return;
            }
        }
    });
}
