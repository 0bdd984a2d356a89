//! Transactions through the broker: atomic, fenced, driven to their end.

use std::time::Duration;

use super::support::{
    Home, Producer, committed, create, eventually, group, open_simulated, partition, produce, read,
    read_committed, transactional_id, try_committed,
};
use crate::broker::Broker;
use crate::env::block_on;
use crate::env::simulated::SimulatedWorld;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{InitProducerIdRequest, TransactionResult, TransactionState};
use crate::types::Isolation;

fn state(broker: &Broker, id: &str) -> TransactionState {
    broker
        .describe_transaction(&transactional_id(id))
        .unwrap()
        .state
}

#[test]
fn a_commit_shows_everything_and_an_abort_nothing() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    create(&broker, "b", 1);
    let source = partition("source", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&partition("a", 0), &["1", "2"]);
    producer.send(&partition("b", 0), &["1"]);
    producer.send_offset("g", &source, 5);
    assert!(read_committed(&broker, "a").is_empty());
    assert_eq!(
        try_committed(&broker, "g", &source).unwrap_err().code,
        ErrorCode::UnstableOffsetCommit
    );
    producer.commit();
    assert_eq!(read_committed(&broker, "a"), ["1", "2"]);
    assert_eq!(read_committed(&broker, "b"), ["1"]);
    assert_eq!(committed(&broker, "g", &source), Some(5));

    producer.send(&partition("a", 0), &["never"]);
    producer.send_offset("g", &source, 9);
    producer.abort();
    producer.send(&partition("a", 0), &["3"]);
    producer.commit();
    assert_eq!(read_committed(&broker, "a"), ["1", "2", "3"]);
    assert_eq!(committed(&broker, "g", &source), Some(5));
    let all = read(&broker, &partition("a", 0), Isolation::ReadUncommitted);
    assert_eq!(all, ["1", "2", "never", "3"]);
}

#[test]
fn c1_c2_c3_open_transactions_are_rolled_back_by_the_next_open() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 2);
    let source = partition("source", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&partition("a", 0), &["committed"]);
    producer.send_offset("g", &source, 1);
    producer.commit();
    producer.send(&partition("a", 0), &["open"]);
    producer.send(&partition("a", 1), &["open"]);
    producer.send_offset("g", &source, 2);
    let identity = producer.identity;
    drop((broker, producer));
    let broker = home.open();
    assert_eq!(state(&broker, "p"), TransactionState::CompleteAbort);
    assert_eq!(read_committed(&broker, "a"), ["committed"]);
    assert_eq!(committed(&broker, "g", &source), Some(1));
    // The last stable offset moved on: later records are visible.
    produce(&broker, &partition("a", 1), &["later"]);
    assert_eq!(
        read(&broker, &partition("a", 1), Isolation::ReadCommitted),
        ["later"]
    );
    let producer = Producer::new(&broker, "p");
    assert!(producer.identity.id != identity.id || producer.identity.epoch > identity.epoch);
}

#[test]
fn c11_a_second_producer_fences_the_first() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut first = Producer::new(&broker, "p");
    first.send(&a, &["first"]);
    let mut second = Producer::new(&broker, "p");
    let refused = first.try_send(&a, &["late"]).unwrap_err();
    assert!(is_fencing(refused.code), "{refused:?}");
    let refused = first.try_end(TransactionResult::Commit).unwrap_err();
    assert!(is_fencing(refused.code), "{refused:?}");
    second.send(&a, &["second"]);
    second.commit();
    assert_eq!(read_committed(&broker, "a"), ["second"]);
}

fn is_fencing(code: ErrorCode) -> bool {
    use ErrorCode::{InvalidProducerEpoch, InvalidProducerIdMapping, ProducerFenced};
    matches!(
        code,
        ProducerFenced | InvalidProducerEpoch | InvalidProducerIdMapping
    )
}

#[test]
fn c12_c22_a_zombie_past_its_timeout_makes_nothing_visible() {
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut zombie = Producer::with_timeout(&broker, "p", Duration::from_secs(10));
    zombie.send(&a, &["before"]);
    zombie.send_offset("g", &a, 7);
    world.advance(Duration::from_secs(11));
    broker.housekeep();
    assert_eq!(state(&broker, "p"), TransactionState::CompleteAbort);
    let refusals = [
        zombie.try_send(&a, &["after"]).unwrap_err(),
        zombie.try_send_offset("g", &a, 8).unwrap_err(),
        zombie.try_end(TransactionResult::Commit).unwrap_err(),
    ];
    for refused in refusals {
        // Nobody took the id over, so it may abort and go on; what it wrote is gone either way.
        let is_abortable = refused.code == ErrorCode::TransactionAbortable;
        assert!(is_abortable || is_fencing(refused.code), "{refused:?}");
    }
    assert!(read_committed(&broker, "a").is_empty());
    assert_eq!(committed(&broker, "g", &a), None);
    let mut healthy = Producer::new(&broker, "p");
    healthy.send(&a, &["new life"]);
    healthy.commit();
    assert_eq!(read_committed(&broker, "a"), ["new life"]);
}

#[test]
fn c13_a_delayed_batch_of_an_aborted_transaction_is_refused() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 2);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&partition("a", 0), &["x"]);
    let delayed_here = producer.request(&partition("a", 0), &["delayed"]);
    let delayed_elsewhere = producer.request(&partition("a", 1), &["delayed"]);
    producer.abort();
    for delayed in [delayed_here, delayed_elsewhere] {
        let refused = block_on(broker.produce(delayed)).unwrap_err();
        assert!(is_fencing(refused.code), "{refused:?}");
    }
    for index in 0..2 {
        produce(&broker, &partition("a", index), &["plain"]);
        // No hanging transaction holds the reader back.
        assert_eq!(
            read(&broker, &partition("a", index), Isolation::ReadCommitted),
            ["plain"]
        );
    }
}

#[test]
fn c14_c16_a_repeated_end_gets_the_same_answer_and_never_ends_the_next_transaction() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&a, &["1"]);
    let end = producer.end_request(TransactionResult::Commit);
    let first = block_on(broker.end_txn(end.clone())).unwrap();
    assert_eq!(block_on(broker.end_txn(end.clone())).unwrap(), first);
    producer.begin_as(first);
    producer.send(&a, &["2"]);
    // The old end, late: it must not commit what the next transaction holds.
    let late = block_on(broker.end_txn(end));
    assert!(late.is_err(), "a late end was accepted: {late:?}");
    assert_eq!(read_committed(&broker, "a"), ["1"]);
    producer.commit();
    assert_eq!(read_committed(&broker, "a"), ["1", "2"]);
}

#[test]
fn c17_a_dropped_commit_is_driven_to_its_end() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&partition("a", 0), &["1"]);
    producer.send_offset("g", &partition("a", 0), 3);
    drop(broker.end_txn(producer.end_request(TransactionResult::Commit)));
    eventually("the commit is complete", || {
        state(&broker, "p") == TransactionState::CompleteCommit
    });
    assert_eq!(read_committed(&broker, "a"), ["1"]);
    assert_eq!(committed(&broker, "g", &partition("a", 0)), Some(3));
}

#[test]
fn c23_a_timeout_that_is_too_long_is_refused() {
    let home = Home::new();
    let broker = home.open();
    for (seconds, is_legal) in [(0, false), (901, false), (900, true)] {
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id("p")),
            transaction_timeout: Duration::from_secs(seconds),
            current: None,
        };
        let code = block_on(broker.init_producer_id(request))
            .map_err(|e| e.code)
            .err();
        let expected = (!is_legal).then_some(ErrorCode::InvalidTransactionTimeout);
        assert_eq!(code, expected, "{seconds} s");
    }
}

#[test]
fn c24_a_jumping_wall_clock_neither_aborts_nor_immortalises() {
    const HOUR_MS: i64 = 3_600_000;
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "a", 1);
    let a = partition("a", 0);
    for jump_ms in [24 * HOUR_MS, -25 * HOUR_MS] {
        let mut producer = Producer::with_timeout(&broker, "p", Duration::from_secs(10));
        producer.send(&a, &["in time"]);
        world.jump_wall(jump_ms);
        broker.housekeep();
        producer.commit();
        producer.send(&a, &["too late"]);
        world.jump_wall(jump_ms);
        world.advance(Duration::from_secs(11));
        broker.housekeep();
        assert_eq!(state(&broker, "p"), TransactionState::CompleteAbort);
    }
    assert_eq!(read_committed(&broker, "a"), ["in time", "in time"]);
}

#[test]
fn c27_positions_pending_in_a_transaction_are_unstable_until_it_ends() {
    let home = Home::new();
    let broker = home.open();
    let source = partition("source", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send_offset("g", &source, 4);
    let code = || try_committed(&broker, "g", &source).map_err(|e| e.code);
    assert_eq!(code(), Err(ErrorCode::UnstableOffsetCommit));
    let described = broker.describe_group(&group("g")).unwrap();
    assert_eq!(described.pending.len(), 1);
    let refused = block_on(broker.delete_group(&group("g"))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnstableOffsetCommit);
    producer.commit();
    assert_eq!(code(), Ok(Some(4)));
    assert_eq!(broker.list_groups().unwrap(), [group("g")]);
    block_on(broker.delete_group(&group("g"))).unwrap();
    assert!(broker.list_groups().unwrap().is_empty());
    drop((broker, producer));
    assert!(home.open().list_groups().unwrap().is_empty());
}

#[test]
fn c28_empty_offsets_only_and_records_only_transactions_are_atomic_and_leave_nothing_stuck() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut producer = Producer::new(&broker, "p");
    for result in [TransactionResult::Commit, TransactionResult::Abort] {
        producer.try_end(result).unwrap();
        producer.send_offset("g", &a, 1);
        producer.try_end(result).unwrap();
        producer.send(&a, &["x"]);
        producer.try_end(result).unwrap();
    }
    assert_eq!(read_committed(&broker, "a"), ["x"]);
    assert_eq!(committed(&broker, "g", &a), Some(1));
    let described = broker.describe_transaction(&producer.id).unwrap();
    assert!(described.partitions.is_empty());
}

#[test]
fn an_operator_can_abort_a_transaction() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&a, &["x"]);
    assert_eq!(state(&broker, "p"), TransactionState::Ongoing);
    assert_eq!(broker.list_transactions().unwrap().len(), 1);
    block_on(broker.abort_transaction(&producer.id)).unwrap();
    assert_eq!(state(&broker, "p"), TransactionState::CompleteAbort);
    assert!(producer.try_end(TransactionResult::Commit).is_err());
    assert!(read_committed(&broker, "a").is_empty());
    let absent = broker
        .describe_transaction(&transactional_id("nobody"))
        .unwrap_err();
    assert_eq!(absent.code, ErrorCode::TransactionalIdNotFound);
}

#[test]
fn i5_the_last_stable_offset_stands_at_the_oldest_open_transaction() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "a", 1);
    let a = partition("a", 0);
    let mut older = Producer::new(&broker, "older");
    let mut younger = Producer::new(&broker, "younger");
    older.send(&a, &["o1"]);
    younger.send(&a, &["y1"]);
    younger.commit();
    assert!(read_committed(&broker, "a").is_empty());
    older.send(&a, &["o2"]);
    older.abort();
    eventually("the younger is visible", || {
        read_committed(&broker, "a") == ["y1"]
    });
}
