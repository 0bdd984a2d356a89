//! The rows of the failure catalogue about crashes and failed effects, one history each.

use std::time::Duration;

use super::driver::{ABORT, COMMIT, Driver, ticket_of};
use super::world::{Action, partition};
use crate::coordinator::transaction::*;
use crate::protocol::ErrorCode;
use crate::protocol::messages::*;
use crate::types::*;

#[test]
fn c1_c2_c3_what_was_not_decided_is_rolled_back_at_restart() {
    for (written, keeps_unsynced) in [(0, true), (1, true), (2, true), (1, false), (2, false)] {
        let mut driver = Driver::new();
        let producer = driver.init();
        (0..written).for_each(|at| driver.write(producer, at).unwrap());
        driver.send_end(producer, COMMIT);
        driver.crash(keeps_unsynced);
        driver.world.settle();
        assert!(!driver.world.coordinator.is_recovering());
        assert_eq!(driver.world.open_transactions(), []);
        for at in 0..written {
            assert!(!driver.markers(at).contains(&COMMIT));
        }
        let error = driver.end(producer, COMMIT).unwrap_err();
        assert_eq!(
            error,
            ErrorCode::TransactionAbortable,
            "the outcome is definite"
        );
    }
}

#[test]
fn c4_the_data_is_synced_before_the_decision_is_written() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    driver.write(producer, 2).unwrap();
    let request = driver.send_end(producer, COMMIT);
    let Some(Effect::SyncData { partitions, .. }) = driver.world.queue.front() else {
        panic!("the data comes first: {:?}", driver.world.queue);
    };
    assert_eq!(*partitions, [partition(2), partition(0)]);
    driver.world.run_effect();
    assert_eq!(
        driver.state(),
        TransactionState::Ongoing,
        "undecided until the record is durable"
    );
    assert_eq!(driver.reply(request), None);
    let Some(Effect::AppendJournal {
        key,
        value,
        sync: true,
        ..
    }) = driver.world.queue.front()
    else {
        panic!("then the decision: {:?}", driver.world.queue);
    };
    let ends = crate::coordinator::transaction_log::durable_ends(key, value.as_deref()).unwrap();
    let ends: Vec<_> = ends
        .into_iter()
        .map(|end| (end.partition, end.offset))
        .collect();
    assert_eq!(ends, [(partition(2), Offset(1)), (partition(0), Offset(1))]);
}

#[test]
fn c5_c6_c7_c8_a_decided_transaction_is_rolled_forward_from_every_point() {
    for result in [COMMIT, ABORT] {
        // How many effects run before the crash: the sync (commit only), the decision, a marker each.
        let first = if result == COMMIT { 2 } else { 1 };
        for steps in first..first + 3 {
            for keeps_unsynced in [true, false] {
                let mut driver = Driver::new();
                let producer = driver.init();
                (0..3).for_each(|at| driver.write(producer, at).unwrap());
                driver.send_end(producer, result);
                (0..steps).for_each(|_| driver.world.run_effect());
                driver.crash(keeps_unsynced);
                driver.world.settle();
                for at in 0..3 {
                    let is_there = !driver.world.partitions[at].items.is_empty();
                    assert_eq!(driver.markers(at), vec![result; usize::from(is_there)]);
                }
                let next = driver.end(producer, result).expect("C16: the same answer");
                assert_eq!(next.epoch, ProducerEpoch(producer.epoch.0 + 1));
            }
        }
    }
}

#[test]
fn c9_recovery_that_crashes_five_times_ends_the_same() {
    let mut driver = Driver::new();
    let producer = driver.init();
    (0..3).for_each(|at| driver.write(producer, at).unwrap());
    driver.send_end(producer, COMMIT);
    (0..2).for_each(|_| driver.world.run_effect());
    for crash in 0..5 {
        driver.crash(crash % 2 == 0);
        driver.world.run_effect();
    }
    driver.world.settle();
    for at in 0..3 {
        assert_eq!(driver.markers(at), [COMMIT]);
    }
}

#[test]
fn c7_a_marker_that_power_loss_took_is_written_again_though_the_journal_went_on() {
    let mut driver = Driver::new();
    let first = driver.init();
    driver.write(first, 0).unwrap();
    let second = driver.end(first, COMMIT).unwrap();
    driver.write(second, 1).unwrap();
    // The journal keeps everything, partition 0 loses its marker, partition 1 its data.
    driver.world.crash(1, false);
    driver.world.settle();
    assert_eq!(driver.markers(0), [COMMIT]);
    assert!(!driver.markers(1).contains(&COMMIT));
}

#[test]
fn a_full_disk_refuses_the_commit_and_leaves_the_transaction_open() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let error = ErrorCode::KafkaStorageError;
    let request = driver.send_end(producer, COMMIT);
    let ticket = ticket_of(&mut driver);
    driver.world.step(Input::DataSyncFailed { ticket, error });
    assert_eq!(driver.reply(request), Some(Err(error)));
    let request = driver.send_end(producer, COMMIT);
    driver.world.run_effect();
    let ticket = ticket_of(&mut driver);
    driver.world.step(Input::JournalFailed { ticket, error });
    assert_eq!(driver.reply(request), Some(Err(error)));
    assert_eq!(driver.state(), TransactionState::Ongoing);
    driver.end(producer, COMMIT).expect("there is space again");
}

#[test]
fn a_journal_in_doubt_stops_the_coordinator_until_a_restart_tells() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let request = driver.send_end(producer, COMMIT);
    driver.world.run_effect();
    let ticket = ticket_of(&mut driver);
    driver.world.step(Input::JournalInDoubt { ticket });
    assert_eq!(
        driver.reply(request),
        Some(Err(ErrorCode::UnknownServerError))
    );
    let error = driver.end(producer, ABORT).unwrap_err();
    assert_eq!(error, ErrorCode::KafkaStorageError);
    driver.crash(false);
    driver.world.settle();
    assert_eq!(
        driver.end(producer, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
}

#[test]
fn markers_that_fail_are_written_at_a_later_tick_and_the_commit_is_told() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let request = driver.send_end(producer, COMMIT);
    (0..2).for_each(|_| driver.world.run_effect());
    let ticket = ticket_of(&mut driver);
    driver.world.step(Input::MarkersFailed { ticket });
    let next = driver.finish(request).expect("it is decided");
    assert_eq!(driver.add(next, 0), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(
        driver.world.coordinator.next_deadline(),
        Some(Default::default())
    );
    driver.pass(Duration::from_millis(1));
    driver.world.settle();
    assert_eq!(driver.markers(0), [COMMIT]);
    driver.add(next, 0).unwrap();
}

#[test]
fn requests_wait_for_recovery() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    driver.crash(true);
    assert!(driver.world.coordinator.is_recovering());
    assert_eq!(
        driver.write(producer, 0),
        Err(ErrorCode::CoordinatorLoadInProgress)
    );
    let request = driver.send_init();
    assert_eq!(
        driver.reply(request),
        Some(Err(ErrorCode::CoordinatorLoadInProgress))
    );
    driver.world.apply(Action::RunEffect);
    driver.world.settle();
    assert!(!driver.world.coordinator.is_recovering());
}

#[test]
fn x15_an_open_transaction_goes_on_over_the_end_of_the_process() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    for at in 0..3 {
        driver.kill();
        assert!(!driver.world.coordinator.is_recovering(), "nothing to do");
        assert_eq!(driver.state(), TransactionState::Ongoing);
        driver.write(producer, at).unwrap();
    }
    let next = driver.end(producer, COMMIT).unwrap();
    assert_eq!(next.epoch, ProducerEpoch(producer.epoch.0 + 1));
    for at in 0..3 {
        assert_eq!(driver.markers(at), [COMMIT]);
    }
    driver.kill();
    driver.write(next, 1).unwrap();
    driver.end(next, COMMIT).unwrap();
}

#[test]
fn x15_a_power_loss_is_not_forgotten_when_the_process_ends_next() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    // The data is lost, and the record that the partition joined.
    driver.crash(false);
    driver.world.settle();
    for _ in 0..2 {
        driver.kill();
        assert_eq!(
            driver.end(producer, COMMIT),
            Err(ErrorCode::TransactionAbortable)
        );
    }
    let next = driver.end(producer, ABORT).unwrap();
    driver.write(next, 0).unwrap();
    driver.kill();
    driver.end(next, COMMIT).unwrap();
}

#[test]
fn x15_what_a_power_loss_left_of_an_undone_completion_is_doubted_after_a_kill_too() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let next = driver.end(producer, COMMIT).unwrap();
    // Of the next transaction, and of the completion before it, nothing was synced.
    driver.write(next, 1).unwrap();
    driver.crash(false);
    driver.world.settle();
    driver.kill();
    assert_eq!(
        driver.end(next, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
    assert_eq!(driver.markers(0), [COMMIT]);
}

#[test]
fn x15_the_timeout_goes_on_by_the_wall_clock_over_the_end_of_the_process() {
    // The timeout is 60 s; so much passed before the end, and so much after it.
    for (before_ms, after, is_over) in [
        (30_000, Duration::from_secs(29), false),
        (30_000, Duration::from_secs(30), true),
        (60_000, Duration::ZERO, true),
        (-5_000, Duration::from_secs(59), false),
        (-5_000, Duration::from_secs(60), true),
    ] {
        let mut driver = Driver::new();
        let producer = driver.init();
        driver.write(producer, 0).unwrap();
        driver.world.now.wall.0 += before_ms;
        driver.kill();
        driver.pass(after);
        driver.world.settle();
        let expected = match is_over {
            true => TransactionState::CompleteAbort,
            false => TransactionState::Ongoing,
        };
        assert_eq!(driver.state(), expected, "{before_ms} ms and {after:?}");
        let committed = driver.end(producer, COMMIT);
        assert_eq!(committed.is_ok(), !is_over, "{committed:?}");
    }
}

#[test]
fn x15_a_transaction_in_a_damaged_partition_does_not_go_on() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    driver.write(producer, 1).unwrap();
    driver.world.unreadable.insert(partition(1));
    driver.kill();
    assert!(driver.world.coordinator.is_recovering());
    driver.world.settle();
    assert_eq!(
        driver.end(producer, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
}
