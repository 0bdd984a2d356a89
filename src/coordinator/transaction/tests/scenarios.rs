//! The rows of the failure catalogue about requests that race, repeat, or come too late, one history each.

use std::time::Duration;

use super::clients::init_request;
use super::driver::{ABORT, COMMIT, Driver};
use super::world::id;
use crate::coordinator::transaction::state::may_follow;
use crate::coordinator::transaction::*;
use crate::protocol::ErrorCode;
use crate::protocol::messages::*;
use crate::types::*;

#[test]
fn only_the_legal_transitions_are_legal() {
    use TransactionState::*;
    let all = [
        Empty,
        Ongoing,
        PrepareCommit,
        PrepareAbort,
        CompleteCommit,
        CompleteAbort,
        Dead,
        PrepareEpochFence,
    ];
    let legal = [
        (Empty, vec![Empty, CompleteCommit, CompleteAbort]),
        (Ongoing, vec![Ongoing, Empty, CompleteCommit, CompleteAbort]),
        (PrepareCommit, vec![Ongoing]),
        (
            PrepareAbort,
            vec![Ongoing, Empty, CompleteCommit, CompleteAbort],
        ),
        (CompleteCommit, vec![PrepareCommit]),
        (CompleteAbort, vec![PrepareAbort]),
        (Dead, vec![Empty, CompleteCommit, CompleteAbort]),
        (PrepareEpochFence, vec![]),
    ];
    for (to, predecessors) in legal {
        for from in all {
            assert_eq!(
                may_follow(to, from),
                predecessors.contains(&from),
                "{from:?} to {to:?}"
            );
        }
    }
}

#[test]
fn c11_a_second_init_aborts_the_open_transaction_and_fences_the_first_holder() {
    let mut driver = Driver::new();
    let zombie = driver.init();
    driver.write(zombie, 0).unwrap();
    let owner = driver.init();
    assert_eq!(
        driver.markers(0),
        [ABORT],
        "answered after the abort is complete"
    );
    assert_eq!(owner.epoch, ProducerEpoch(zombie.epoch.0 + 2));
    assert_eq!(driver.write(zombie, 0), Err(ErrorCode::ProducerFenced));
    assert_eq!(driver.add(zombie, 1), Err(ErrorCode::ProducerFenced));
    assert_eq!(driver.end(zombie, COMMIT), Err(ErrorCode::ProducerFenced));
    assert_eq!(driver.end(zombie, ABORT), Err(ErrorCode::ProducerFenced));
    driver.write(owner, 0).unwrap();
    driver.end(owner, COMMIT).unwrap();
}

#[test]
fn c11_a_repeated_init_of_the_owner_does_not_bump_again_and_a_foreign_one_is_fenced() {
    let mut driver = Driver::new();
    let first = driver.init();
    let with_current = |driver: &mut Driver, current| {
        let request = driver.send(|request| Input::Init {
            request,
            message: InitProducerIdRequest {
                current: Some(current),
                ..init_request()
            },
            holder: Residence::Remote,
        });
        driver.finish(request)
    };
    let second = with_current(&mut driver, first).unwrap();
    assert_eq!(with_current(&mut driver, first), Ok(second));
    let third = driver.init();
    assert!(third.epoch > second.epoch);
    assert_eq!(
        with_current(&mut driver, second),
        Err(ErrorCode::ProducerFenced)
    );
}

#[test]
fn c13_delayed_produce_after_abort_is_refused() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let next = driver.end(producer, ABORT).unwrap();
    assert_eq!(
        driver.write(producer, 0),
        Err(ErrorCode::InvalidProducerEpoch)
    );
    driver.write(next, 0).unwrap();
    assert_eq!(
        driver.write(producer, 1),
        Err(ErrorCode::InvalidProducerEpoch)
    );
    assert_eq!(driver.end(next, ABORT).map(|_| ()), Ok(()));
    assert_eq!(driver.world.open_transactions(), []);
}

#[test]
fn c13_nothing_joins_a_transaction_that_is_ending() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let request = driver.send_end(producer, COMMIT);
    while driver.reply(request).is_none() {
        assert_eq!(
            driver.write(producer, 0),
            Err(ErrorCode::ConcurrentTransactions)
        );
        assert_eq!(
            driver.add(producer, 1),
            Err(ErrorCode::ConcurrentTransactions)
        );
        driver.world.run_effect();
    }
}

#[test]
fn c14_a_late_end_does_not_touch_the_next_transaction() {
    let mut driver = Driver::new();
    let first = driver.init();
    driver.write(first, 0).unwrap();
    let second = driver.end(first, COMMIT).unwrap();
    driver.write(second, 0).unwrap();
    for result in [COMMIT, ABORT] {
        assert_eq!(
            driver.end(first, result),
            Err(ErrorCode::InvalidProducerEpoch)
        );
        assert_eq!(driver.state(), TransactionState::Ongoing);
    }
    driver.end(second, ABORT).unwrap();
    assert_eq!(driver.markers(0), [COMMIT, ABORT]);
}

#[test]
fn c15_commit_and_timeout_race_and_the_loser_is_told() {
    // The timeout comes first.
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    driver.pass(Duration::from_secs(61));
    driver.world.settle();
    assert_eq!(
        driver.end(producer, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
    let next = driver.end(producer, ABORT).expect("it may go on");
    // The commit comes first.
    driver.write(next, 0).unwrap();
    let request = driver.send_end(next, COMMIT);
    driver.pass(Duration::from_secs(61));
    driver.finish(request).unwrap();
    assert_eq!(driver.markers(0), [ABORT, COMMIT]);
}

#[test]
fn c16_a_commit_asked_for_again_gets_the_same_answer() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let next = driver.end(producer, COMMIT).unwrap();
    assert_eq!(driver.end(producer, COMMIT), Ok(next));
    driver.crash(false);
    driver.world.settle();
    assert_eq!(
        driver.end(producer, COMMIT),
        Ok(next),
        "also after a restart"
    );
    assert_eq!(driver.end(producer, ABORT), Err(ErrorCode::InvalidTxnState));
    assert_eq!(driver.markers(0), [COMMIT]);
}

#[test]
fn c19_worn_out_epochs_change_the_producer_id_and_never_reach_the_reserved_one() {
    let mut driver = Driver::new();
    driver.world = driver.world.with_epoch_max(2);
    let mut producer = driver.init();
    let mut seen = vec![producer];
    for round in 0..12 {
        driver.write(producer, 0).unwrap();
        let before = producer;
        let result = if round % 3 == 0 { ABORT } else { COMMIT };
        producer = match driver.end(producer, result) {
            // The next producer id is being reserved: the same request succeeds afterwards.
            Err(ErrorCode::CoordinatorNotAvailable) => driver.end(producer, result).unwrap(),
            ended => ended.unwrap(),
        };
        assert!(producer.epoch <= ProducerEpoch(2), "{producer:?}");
        assert!(!seen.contains(&producer), "{producer:?} was given twice");
        seen.push(producer);
        if before.id != producer.id {
            assert_eq!(
                driver.end(before, result),
                Ok(producer),
                "C16 across the change"
            );
        }
    }
    assert!(seen.iter().any(|it| it.id != seen[0].id));
}

#[test]
fn c24_a_jumping_wall_clock_neither_ends_nor_prolongs_a_transaction() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.world.now.wall = Timestamp(86_400_000 + 1_000_000);
    driver.write(producer, 0).unwrap();
    driver.world.now.wall = Timestamp(0);
    driver.pass(Duration::from_secs(59));
    assert_eq!(driver.state(), TransactionState::Ongoing);
    driver.world.now.wall = Timestamp(i64::MAX);
    driver.pass(Duration::from_millis(500));
    assert_eq!(driver.state(), TransactionState::Ongoing);
    driver.world.now.wall = Timestamp(0);
    driver.pass(Duration::from_secs(1));
    driver.world.settle();
    assert_eq!(driver.state(), TransactionState::CompleteAbort);
}

#[test]
fn c28_empty_transactions_are_cheap_and_still_bump_the_epoch() {
    for result in [COMMIT, ABORT] {
        let mut driver = Driver::new();
        let producer = driver.init();
        let records = driver.world.journal.items.len();
        let next = driver.end(producer, result).unwrap();
        assert_eq!(next.epoch, ProducerEpoch(producer.epoch.0 + 1));
        assert_eq!(driver.world.journal.items.len(), records + 1);
        assert!((0..3).all(|at| driver.world.partitions[at].items.is_empty()));
        assert_eq!(driver.end(producer, result), Ok(next));
    }
}

#[test]
fn c28_offsets_only_and_records_only_commit() {
    for at in [0, 2] {
        let mut driver = Driver::new();
        let producer = driver.init();
        driver.write(producer, at).unwrap();
        driver.end(producer, COMMIT).unwrap();
        assert_eq!(driver.markers(at), [COMMIT]);
        assert_eq!(driver.state(), TransactionState::CompleteCommit);
    }
}

#[test]
fn an_identity_from_before_a_restart_may_only_abort() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    // Power loss takes the data and the record that the partition joined.
    driver.crash(false);
    driver.world.settle();
    assert_eq!(
        driver.write(producer, 1),
        Err(ErrorCode::InvalidProducerEpoch)
    );
    assert_eq!(
        driver.end(producer, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
    let next = driver.end(producer, ABORT).unwrap();
    driver.write(next, 0).unwrap();
    driver.end(next, COMMIT).unwrap();
}

#[test]
fn an_operator_aborts_an_open_transaction() {
    let mut driver = Driver::new();
    let abort = |driver: &mut Driver| {
        let request = driver.send(|request| Input::Abort {
            request,
            transactional_id: id(),
        });
        driver.finish(request)
    };
    assert_eq!(abort(&mut driver), Err(ErrorCode::TransactionalIdNotFound));
    let producer = driver.init();
    assert_eq!(abort(&mut driver), Err(ErrorCode::InvalidTxnState));
    driver.write(producer, 0).unwrap();
    let next = abort(&mut driver).unwrap();
    assert_eq!(driver.markers(0), [ABORT]);
    assert_eq!(driver.end(producer, ABORT), Ok(next));
    assert_eq!(driver.world.coordinator.list().count(), 1);
}

#[test]
fn an_idle_id_is_forgotten_once_its_last_markers_are_durable() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.write(producer, 0).unwrap();
    let next = driver.end(producer, COMMIT).unwrap();
    driver.pass(Duration::from_hours(7 * 24) - Duration::from_secs(1));
    assert_eq!(driver.state(), TransactionState::CompleteCommit);
    driver.pass(Duration::from_secs(1));
    assert!(matches!(
        driver.world.queue.front(),
        Some(Effect::SyncData { .. })
    ));
    driver.world.settle();
    assert_eq!(driver.world.coordinator.describe(&id()), None);
    assert_eq!(
        driver.end(next, COMMIT),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
    assert_ne!(driver.init().id, producer.id);
}

#[test]
fn a_timeout_that_is_zero_or_too_long_is_refused() {
    let mut driver = Driver::new();
    for timeout in [
        Duration::ZERO,
        Duration::from_mins(15) + Duration::from_millis(1),
    ] {
        let request = driver.send(|request| Input::Init {
            request,
            message: InitProducerIdRequest {
                transaction_timeout: timeout,
                ..init_request()
            },
            holder: Residence::Remote,
        });
        assert_eq!(
            driver.finish(request),
            Err(ErrorCode::InvalidTransactionTimeout)
        );
    }
}

#[test]
fn idempotent_producers_get_ids_that_no_restart_repeats() {
    let mut driver = Driver::new();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..10 {
        let request = driver.send(|request| Input::Init {
            request,
            message: InitProducerIdRequest {
                transactional_id: None,
                ..init_request()
            },
            holder: Residence::Remote,
        });
        let producer = driver.finish(request).unwrap();
        assert!(seen.insert(producer.id), "{producer:?} was given twice");
        assert_eq!(producer.epoch, ProducerEpoch::ZERO);
        if round % 3 == 0 {
            driver.crash(false);
        }
    }
}
