//! Appending and reading records.

use std::time::Duration;

use super::support::{
    Home, Producer, batch, create, create_with, eventually, fetch_request, open_simulated,
    partition, produce, produce_request, read, read_committed, topic_name, try_produce,
};
use crate::broker::Broker;
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use crate::env::{Env, block_on};
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchProducer;
use crate::protocol::messages::{
    Acks, FetchPartition, FetchRequest, InitProducerIdRequest, OffsetSpec,
};
use crate::types::{
    Durability, Isolation, Offset, ProducerEpoch, ProducerIdentity, Sequence, Timestamp,
};

fn idempotent(broker: &Broker) -> ProducerIdentity {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(60),
        current: None,
    };
    block_on(broker.init_producer_id(request)).unwrap()
}

#[test]
fn records_survive_a_clean_close_and_a_crash() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    assert_eq!(produce(&broker, &lines, &["a", "b"]), Offset(0));
    assert_eq!(produce(&broker, &lines, &["c"]), Offset(2));
    broker.close().unwrap();
    let broker = home.open();
    assert_eq!(produce(&broker, &lines, &["d"]), Offset(3));
    drop(broker);
    assert_eq!(read_committed(&home.open(), "lines"), ["a", "b", "c", "d"]);
}

#[test]
fn i6_a_repeated_batch_is_acknowledged_with_its_first_offset_also_after_a_restart() {
    let home = Home::new();
    let mut broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let identity = idempotent(&broker);
    let send = |broker: &Broker, sequence: i32, value: &str| {
        let producer = BatchProducer::Idempotent(identity, Sequence(sequence));
        let request = produce_request(&lines, batch(&[value], producer), Acks::All);
        block_on(broker.produce(request)).map(|response| response.base_offset.0)
    };
    for sequence in 0..5 {
        assert_eq!(send(&broker, sequence, "x"), Ok(i64::from(sequence)));
    }
    for _ in 0..2 {
        for sequence in 0..5 {
            assert_eq!(send(&broker, sequence, "x"), Ok(i64::from(sequence)));
        }
        let gap = send(&broker, 9, "x").unwrap_err();
        assert_eq!(gap.code, ErrorCode::OutOfOrderSequenceNumber);
        drop(broker);
        broker = home.open();
    }
    assert_eq!(read_committed(&broker, "lines").len(), 5);
    let next = idempotent(&broker);
    assert_ne!(next.id, identity.id, "a producer id was given twice");
    assert_eq!(next.epoch, ProducerEpoch::ZERO);
}

#[test]
fn appends_that_are_not_allowed_change_nothing() {
    let home = Home::new();
    let broker = home.open();
    create_with(&broker, "small", 1, &[("max.message.bytes", "200")]);
    let small = partition("small", 0);
    let code = |name: &str, index, values: &[&str]| {
        try_produce(&broker, &partition(name, index), values)
            .unwrap_err()
            .code
    };
    assert_eq!(
        code("small", 0, &[&"x".repeat(300)]),
        ErrorCode::MessageTooLarge
    );
    assert_eq!(code("small", 1, &["a"]), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(
        code("small", -1, &["a"]),
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(
        code("absent", 0, &["a"]),
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(
        code("__consumer_offsets", 0, &["a"]),
        ErrorCode::InvalidTopicException
    );
    assert_eq!(
        code("__transaction_state", 0, &["a"]),
        ErrorCode::InvalidTopicException
    );
    let garbage = produce_request(&small, bytes::Bytes::from_static(b"not a batch"), Acks::All);
    assert_eq!(
        block_on(broker.produce(garbage)).unwrap_err().code,
        ErrorCode::InvalidRecord
    );
    // A transactional batch without its id, and an id without a transactional batch.
    let mut producer = Producer::new(&broker, "p");
    let mut request = producer.request(&small, &["a"]);
    request.transactional_id = None;
    assert_eq!(
        block_on(broker.produce(request)).unwrap_err().code,
        ErrorCode::InvalidRequest
    );
    let mut request = produce_request(&small, batch(&["a"], BatchProducer::Plain), Acks::All);
    request.transactional_id = Some(producer.id.clone());
    assert_eq!(
        block_on(broker.produce(request)).unwrap_err().code,
        ErrorCode::InvalidRequest
    );
    assert_eq!(produce(&broker, &small, &["first"]), Offset(0));
}

#[test]
fn readers_see_only_what_a_power_loss_cannot_take_back() {
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["synced"]);
    let request = produce_request(
        &lines,
        batch(&["not yet"], BatchProducer::Plain),
        Acks::Leader,
    );
    assert_eq!(
        block_on(broker.produce(request)).unwrap().base_offset,
        Offset(1)
    );
    assert_eq!(read(&broker, &lines, Isolation::ReadCommitted), ["synced"]);
    // The flush interval makes it durable, then visible.
    broker.housekeep();
    assert_eq!(
        read(&broker, &lines, Isolation::ReadCommitted),
        ["synced", "not yet"]
    );
    let never = batch(&["never"], BatchProducer::Plain);
    block_on(broker.produce(produce_request(&lines, never, Acks::Leader))).unwrap();
    let after = open_simulated(&world.after_power_loss(PowerLoss::STRICT));
    assert_eq!(
        read(&after, &lines, Isolation::ReadUncommitted),
        ["synced", "not yet"]
    );
}

#[test]
fn a_waiting_reader_is_woken_by_data() {
    for durability in [Durability::Fsync, Durability::Process] {
        let mut home = Home::new();
        home.config.durability = durability;
        // Long enough that only the waiting reader can be the cause of a sync.
        home.config.flush_interval = Duration::from_secs(3600);
        let broker = home.open();
        create(&broker, "lines", 2);
        let reader = std::thread::spawn({
            let broker = broker.clone();
            move || {
                let request = FetchRequest {
                    partitions: (0..2)
                        .map(|index| FetchPartition {
                            partition: partition("lines", index),
                            offset: Offset::ZERO,
                            max_bytes: 1 << 20,
                        })
                        .collect(),
                    ..fetch_request(
                        &partition("lines", 0),
                        Offset::ZERO,
                        Isolation::ReadCommitted,
                        Duration::from_secs(60),
                    )
                };
                block_on(broker.fetch(request)).unwrap()
            }
        });
        let lines = partition("lines", 1);
        eventually("the reader waits", || {
            broker.core.partition(&lines).unwrap().has_reader_for(false)
        });
        let request = produce_request(&lines, batch(&["a"], BatchProducer::Plain), Acks::Leader);
        block_on(broker.produce(request)).unwrap();
        let fetched = reader.join().unwrap();
        assert!(fetched[0].result.as_ref().unwrap().records.is_empty());
        assert!(!fetched[1].result.as_ref().unwrap().records.is_empty());
        assert!(!broker.core.partition(&lines).unwrap().has_reader_for(false));
    }
}

#[test]
fn a_waiting_reader_is_woken_by_a_commit_and_not_by_an_open_transaction() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&lines, &["a"]);
    let request = fetch_request(
        &lines,
        Offset::ZERO,
        Isolation::ReadCommitted,
        Duration::from_secs(60),
    );
    let reader = std::thread::spawn({
        let broker = broker.clone();
        move || block_on(broker.fetch(request)).unwrap()
    });
    eventually("the reader waits", || {
        broker.core.partition(&lines).unwrap().has_reader_for(false)
    });
    producer.send(&lines, &["b"]);
    assert!(
        broker.core.partition(&lines).unwrap().has_reader_for(false),
        "woken too early"
    );
    producer.commit();
    let fetched = reader.join().unwrap();
    assert!(fetched[0].result.as_ref().unwrap().last_stable_offset >= Offset(2));
}

#[test]
fn a_reader_that_waited_long_enough_gets_nothing() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let env = Env::real();
    let before = env.clock.now();
    let wait = Duration::from_millis(50);
    let request = fetch_request(
        &partition("lines", 0),
        Offset::ZERO,
        Isolation::ReadCommitted,
        wait,
    );
    let fetched = block_on(broker.fetch(request)).unwrap();
    assert!(fetched[0].result.as_ref().unwrap().records.is_empty());
    assert!(env.clock.now().since(before) >= wait);
}

#[test]
fn waiting_readers_are_told_when_the_broker_closes() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let request = fetch_request(
        &lines,
        Offset::ZERO,
        Isolation::ReadCommitted,
        Duration::from_secs(600),
    );
    let reader = std::thread::spawn({
        let fetch = broker.fetch(request);
        move || block_on(fetch)
    });
    eventually("the reader waits", || {
        broker.core.partition(&lines).unwrap().has_reader_for(false)
    });
    broker.close().unwrap();
    assert_eq!(
        reader.join().unwrap().unwrap_err().code,
        ErrorCode::KafkaStorageError
    );
}

#[test]
fn an_answer_is_bounded_but_never_empty_for_want_of_room() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 2);
    let big = "x".repeat(10_000);
    for index in 0..2 {
        for _ in 0..4 {
            produce(&broker, &partition("lines", index), &[&big]);
        }
    }
    let fetch = |max_bytes: usize| {
        let partitions = (0..2).map(|index| FetchPartition {
            partition: partition("lines", index),
            offset: Offset::ZERO,
            max_bytes: 25_000,
        });
        let request = FetchRequest {
            partitions: partitions.collect(),
            isolation: Isolation::ReadCommitted,
            min_bytes: 1,
            max_bytes,
            max_wait: Duration::ZERO,
        };
        let fetched = block_on(broker.fetch(request)).unwrap();
        let size = |i: usize| fetched[i].result.as_ref().unwrap().records.len() / 10_000;
        (size(0), size(1))
    };
    assert_eq!(fetch(1 << 20), (2, 2));
    assert_eq!(fetch(1), (1, 0));
    assert_eq!(fetch(35_000), (2, 1));
}

#[test]
fn s14_an_offset_outside_the_partition_is_an_error_not_a_jump() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["a", "b", "c"]);
    assert_eq!(broker.delete_records(&lines, Offset(2)).unwrap(), Offset(2));
    let fetch = |offset| {
        let request = fetch_request(
            &lines,
            Offset(offset),
            Isolation::ReadCommitted,
            Duration::from_secs(60),
        );
        block_on(broker.fetch(request))
            .unwrap()
            .remove(0)
            .result
            .map(drop)
    };
    assert_eq!(fetch(1), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(fetch(9), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(fetch(2), Ok(()));
    let too_far = broker.delete_records(&lines, Offset(9)).unwrap_err();
    assert_eq!(too_far.code, ErrorCode::OffsetOutOfRange);
    drop(broker);
    // Deleted records do not come back after a crash.
    assert_eq!(read_committed(&home.open(), "lines"), ["c"]);
}

#[test]
fn offsets_are_found_by_place_and_by_time() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["a", "b"]);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&lines, &["open"]);
    let find = |spec, isolation| {
        let found = broker.list_offset(&lines, spec, isolation).unwrap();
        found.map(|found| (found.offset.0, found.timestamp.0))
    };
    let committed = Isolation::ReadCommitted;
    assert_eq!(find(OffsetSpec::Earliest, committed), Some((0, -1)));
    assert_eq!(find(OffsetSpec::Latest, committed), Some((2, -1)));
    assert_eq!(
        find(OffsetSpec::Timestamp(Timestamp(0)), committed),
        Some((0, 1_000))
    );
    assert_eq!(
        find(OffsetSpec::Timestamp(Timestamp(1_001)), committed),
        None
    );
    producer.commit();
    eventually("the commit is visible", || {
        find(OffsetSpec::Latest, committed).unwrap().0 >= 3
    });
}

#[test]
fn f12_an_unreadable_file_is_an_error_and_is_not_skipped() {
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["a"]);
    world.inject(
        Fault::new(FaultEffect::InputOutput)
            .on(&[Call::Read])
            .in_path("lines-0"),
    );
    let fetch = || {
        let request = fetch_request(
            &lines,
            Offset::ZERO,
            Isolation::ReadCommitted,
            Duration::ZERO,
        );
        block_on(broker.fetch(request)).unwrap().remove(0).result
    };
    assert_eq!(fetch().unwrap_err(), ErrorCode::KafkaStorageError);
    // A failed read loses nothing: the log goes on.
    assert!(!fetch().unwrap().records.is_empty());
    produce(&broker, &lines, &["b"]);
    let describe = broker.describe_partitions(&topic_name("lines")).unwrap();
    assert_eq!(describe[0].log_end_offset, Offset(2));
}

#[test]
fn c26_retention_stops_at_an_open_transaction() {
    let home = Home::new();
    let broker = home.open();
    let configs = [
        ("segment.bytes", "256"),
        ("retention.bytes", "0"),
        ("retention.ms", "1"),
    ];
    create_with(&broker, "lines", 1, &configs);
    let lines = partition("lines", 0);
    for _ in 0..4 {
        produce(&broker, &lines, &["old"]);
    }
    let mut producer = Producer::new(&broker, "p");
    let first = producer.send(&lines, &["kept"]);
    for _ in 0..4 {
        produce(&broker, &lines, &["younger"]);
    }
    broker.housekeep();
    let start = |broker: &Broker| {
        broker.describe_partitions(&topic_name("lines")).unwrap()[0].log_start_offset
    };
    assert!(start(&broker) > Offset(0), "nothing was deleted");
    assert!(
        start(&broker) <= first,
        "an open transaction lost its first record"
    );
    producer.commit();
    assert!(read_committed(&broker, "lines").contains(&"kept".to_owned()));
    eventually("all but the active segment goes", || {
        broker.housekeep();
        start(&broker) > first
    });
}
