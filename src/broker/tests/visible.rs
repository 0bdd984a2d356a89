//! Acknowledged records are visible to those who ask for uncommitted records, at once; nobody else sees it before it is
//! durable.

use std::time::Duration;

use super::support::{
    Home, Producer, batch, create, eventually, fetch_request, open_simulated, partition, produce,
    produce_request, read,
};
use crate::broker::Broker;
use crate::env::block_on;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::log::AppendOrigin;
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchProducer;
use crate::protocol::messages::{Acks, OffsetSpec};
use crate::types::{Isolation, Offset, TopicPartition};

/// The end that a reader is told.
fn end(broker: &Broker, of: &TopicPartition, isolation: Isolation) -> i64 {
    let listed = broker.list_offset(of, OffsetSpec::Latest, isolation);
    listed.unwrap().unwrap().offset.0
}

#[test]
fn x12_whoever_asks_for_uncommitted_records_sees_them_as_soon_as_they_are_acknowledged() {
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["plain"]);
    let seen = || {
        let all = read(&broker, &lines, Isolation::ReadUncommitted);
        assert_eq!(
            end(&broker, &lines, Isolation::ReadUncommitted),
            i64::try_from(all.len()).unwrap()
        );
        assert_eq!(end(&broker, &lines, Isolation::ReadCommitted), 1);
        assert_eq!(read(&broker, &lines, Isolation::ReadCommitted), ["plain"]);
        all
    };
    let mut producer = Producer::new(&broker, "p");
    for count in 2..5 {
        producer.send(&lines, &["open"]);
        assert_eq!(seen().len(), count);
    }
    for (count, acks) in [(5, Acks::Leader), (6, Acks::None)] {
        let plain = batch(&["unsynced"], BatchProducer::Plain);
        block_on(broker.produce(produce_request(&lines, plain, acks))).unwrap();
        assert_eq!(seen().len(), count);
    }
    let described = &broker.describe_partitions(&lines.topic).unwrap()[0];
    assert_eq!(described.high_watermark, Offset(6));
    assert_eq!(described.last_stable_offset, Offset(1));
    // Nothing of it was promised to survive a power loss, and nobody at `read_committed` saw it.
    let after = open_simulated(&world.after_power_loss(PowerLoss::STRICT));
    assert_eq!(read(&after, &lines, Isolation::ReadUncommitted), ["plain"]);
}

#[test]
fn x12_a_record_that_is_not_acknowledged_yet_is_seen_by_nobody() {
    let mut home = Home::new();
    // No thread syncs, so that `acks = all` waits until the flush.
    home.config.flush_interval = Duration::from_secs(3600);
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let log = broker.core.partition(&lines).unwrap();
    log.lock()
        .unwrap()
        .append(
            batch(&["waits"], BatchProducer::Plain),
            AppendOrigin::Client,
        )
        .unwrap();
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        assert_eq!(end(&broker, &lines, isolation), 0);
    }
}

#[test]
fn x12_a_waiting_reader_is_woken_by_an_open_transaction_if_it_asked_for_one() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let mut producer = Producer::new(&broker, "p");
    let request = fetch_request(
        &lines,
        Offset::ZERO,
        Isolation::ReadUncommitted,
        Duration::from_secs(60),
    );
    let reader = std::thread::spawn({
        let broker = broker.clone();
        move || block_on(broker.fetch(request)).unwrap()
    });
    eventually("the reader waits", || {
        broker.core.partition(&lines).unwrap().has_reader_for(true)
    });
    producer.send(&lines, &["a"]);
    let fetched = reader.join().unwrap();
    let records = fetched[0].result.as_ref().unwrap();
    assert_eq!(records.high_watermark, Offset(1));
    assert!(!records.records.is_empty());
    // Nothing was synced for it.
    let synced = broker.core.partition(&lines).unwrap();
    assert_eq!(synced.lock().unwrap().synced_end(), Offset::ZERO);
}

#[test]
fn x12_records_that_were_acknowledged_without_a_sync_can_be_deleted() {
    let world = SimulatedWorld::new(1);
    let broker = open_simulated(&world);
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    let send = |value: &str| {
        let records = batch(&[value], BatchProducer::Plain);
        block_on(broker.produce(produce_request(&lines, records, Acks::Leader))).unwrap();
    };
    send("a");
    send("b");
    let deleted = broker.delete_records(&lines, Offset(1)).unwrap();
    assert_eq!(deleted, Offset(1));
    send("c");
    for offset in [4, -2, -1001] {
        let refused = broker.delete_records(&lines, Offset(offset)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::OffsetOutOfRange, "{offset}");
    }
    assert_eq!(
        broker.delete_records(&lines, Offset(-1)).unwrap(),
        Offset(3)
    );
}
