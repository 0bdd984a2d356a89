//! Operators end transactions in single partitions; and syncs that a topic's settings ask for.

use std::time::Duration;

use super::support::{
    Home, Producer, batch, create, create_with, eventually, open_simulated, partition, produce,
    produce_request, read_committed,
};
use crate::broker::{Broker, OperatorMarker};
use crate::env::block_on;
use crate::env::simulated::SimulatedWorld;
use crate::log::AppendOrigin;
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchProducer;
use crate::protocol::messages::{Acks, TransactionResult, TransactionState};
use crate::types::{
    Durability, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicPartition,
};

fn marker(producer: ProducerIdentity, result: TransactionResult) -> OperatorMarker {
    OperatorMarker {
        producer,
        coordinator_epoch: 0,
        result,
    }
}

fn write(broker: &Broker, to: &TopicPartition, marker: OperatorMarker) -> Result<(), ErrorCode> {
    block_on(broker.write_marker(to, marker)).map_err(|error| error.code)
}

/// The last stable offset, once everything is synced.
fn stable(broker: &Broker, of: &TopicPartition) -> Offset {
    broker.housekeep();
    let partition = broker.core.partition(of).unwrap();
    let log = partition.lock().unwrap();
    log.last_stable_offset()
}

#[test]
fn x16_an_operators_marker_ends_a_transaction_that_no_coordinator_knows() {
    let broker = open_simulated(&SimulatedWorld::new(1));
    create(&broker, "t", 1);
    let to = partition("t", 0);
    // As a topic brought from elsewhere has it.
    let stranger = ProducerIdentity {
        id: ProducerId(4711),
        epoch: ProducerEpoch(3),
    };
    let records = batch(
        &["hanging"],
        BatchProducer::Transactional(stranger, Sequence(0)),
    );
    let found = broker.core.partition(&to).unwrap();
    let appended = found.lock().unwrap().append(records, AppendOrigin::Client);
    appended.unwrap();
    produce(&broker, &to, &["behind it"]);
    assert_eq!(stable(&broker, &to), Offset(0));

    let older = ProducerIdentity {
        epoch: ProducerEpoch(2),
        ..stranger
    };
    let abort = TransactionResult::Abort;
    let refused = write(&broker, &to, marker(older, abort));
    assert_eq!(refused, Err(ErrorCode::InvalidProducerEpoch));
    let elsewhere = write(&broker, &partition("no", 0), marker(stranger, abort));
    assert_eq!(elsewhere, Err(ErrorCode::UnknownTopicOrPartition));

    assert_eq!(write(&broker, &to, marker(stranger, abort)), Ok(()));
    assert_eq!(stable(&broker, &to), Offset(3));
    assert_eq!(read_committed(&broker, "t"), ["behind it"]);
    let described = broker.describe_producers(&to).unwrap().remove(0);
    assert_eq!(described.coordinator_epoch, 0);
    assert_eq!(described.current_transaction_start, None);
    // Again: nothing is left to end.
    assert_eq!(write(&broker, &to, marker(stranger, abort)), Ok(()));
    assert_eq!(stable(&broker, &to), Offset(3));
}

#[test]
fn x16_an_operators_marker_ends_the_whole_of_a_transaction_that_is_held_open() {
    let broker = open_simulated(&SimulatedWorld::new(1));
    let (a, b) = (partition("a", 0), partition("b", 0));
    create(&broker, "a", 1);
    create(&broker, "b", 1);
    let mut producer = Producer::new(&broker, "id");
    producer.send(&a, &["1"]);
    producer.send(&b, &["2"]);
    let commit = marker(producer.identity, TransactionResult::Commit);
    assert_eq!(write(&broker, &a, commit), Err(ErrorCode::InvalidTxnState));

    let abort = marker(producer.identity, TransactionResult::Abort);
    assert_eq!(write(&broker, &a, abort), Ok(()));
    let state = broker.describe_transaction(&producer.id).unwrap().state;
    assert_eq!(state, TransactionState::CompleteAbort);
    let late = producer.try_end(TransactionResult::Commit).unwrap_err();
    assert_eq!(late.code, ErrorCode::TransactionAbortable);
    assert_eq!(
        (stable(&broker, &a), stable(&broker, &b)),
        (Offset(2), Offset(2))
    );
}

fn synced(broker: &Broker, of: &TopicPartition) -> Offset {
    let partition = broker.core.partition(of).unwrap();
    let log = partition.lock().unwrap();
    log.synced_end()
}

#[test]
fn x16_flush_messages_and_flush_ms_sync_a_partition_that_nobody_waits_for() {
    let mut home = Home::new();
    home.config.durability = Durability::Process;
    home.config.flush_interval = Duration::from_secs(3600);
    let broker = home.open();
    create_with(&broker, "count", 1, &[("flush.messages", "3")]);
    create_with(&broker, "time", 1, &[("flush.ms", "1")]);
    let (count, time) = (partition("count", 0), partition("time", 0));
    let send = |to: &TopicPartition, values: &[&str]| {
        let records = batch(values, BatchProducer::Plain);
        block_on(broker.produce(produce_request(to, records, Acks::Leader))).unwrap();
    };
    send(&count, &["1", "2"]);
    assert_eq!(synced(&broker, &count), Offset(0));
    send(&count, &["3"]);
    eventually("the third record is synced", || {
        synced(&broker, &count) == Offset(3)
    });
    send(&time, &["1"]);
    eventually("its time is over", || synced(&broker, &time) == Offset(1));
    broker.close().unwrap();
}
