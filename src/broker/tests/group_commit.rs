//! Group commit: many producers, few syncs, nothing torn.

use super::support::{Home, Producer, committed, create, partition, read, topic_name};
use crate::broker::{Broker, BrokerConfig};
use crate::env::simulated::{Call, Fault, FaultEffect, SimulatedWorld};
use crate::protocol::ErrorKind;
use crate::protocol::messages::TransactionResult;
use crate::types::{Isolation, Offset};

const PRODUCERS_COUNT: i64 = 16;
const TRANSACTIONS_COUNT: i64 = 25;

/// Each producer writes one record to two partitions, and its position, in each of its transactions; every fifth is aborted.
fn run(broker: &Broker) {
    create(broker, "a", 4);
    create(broker, "b", 1);
    std::thread::scope(|scope| {
        for number in 0..PRODUCERS_COUNT {
            scope.spawn(move || {
                let mut producer = Producer::new(broker, &format!("p{number}"));
                let source = partition("source", i32::try_from(number).unwrap());
                let a = partition("a", i32::try_from(number % 4).unwrap());
                for count in 1..=TRANSACTIONS_COUNT {
                    let value = format!("{number}:{count}");
                    producer.send(&a, &[&value]);
                    producer.send(&partition("b", 0), &[&value]);
                    producer.send_offset("g", &source, count);
                    match count % 5 {
                        0 => producer.abort(),
                        _ => producer.commit(),
                    }
                }
            });
        }
    });
}

fn expected(number: i64) -> Vec<String> {
    let is_committed = |count: &i64| count % 5 != 0;
    let counts = (1..=TRANSACTIONS_COUNT).filter(is_committed);
    counts.map(|count| format!("{number}:{count}")).collect()
}

fn check(broker: &Broker) {
    let in_b = read(broker, &partition("b", 0), Isolation::ReadCommitted);
    let in_a: Vec<_> = (0..4)
        .map(|index| read(broker, &partition("a", index), Isolation::ReadCommitted))
        .collect();
    for number in 0..PRODUCERS_COUNT {
        let own = |values: &[String]| -> Vec<String> {
            let prefix = format!("{number}:");
            values
                .iter()
                .filter(|v| v.starts_with(&prefix))
                .cloned()
                .collect()
        };
        assert_eq!(own(&in_b), expected(number));
        assert_eq!(
            own(&in_a[usize::try_from(number % 4).unwrap()]),
            expected(number)
        );
        let source = partition("source", i32::try_from(number).unwrap());
        assert_eq!(
            committed(broker, "g", &source),
            Some(TRANSACTIONS_COUNT - 1)
        );
    }
}

#[test]
fn concurrent_transactions_are_whole_and_in_order_also_after_a_crash() {
    let home = Home::new();
    let broker = home.open();
    run(&broker);
    check(&broker);
    drop(broker);
    let broker = home.open();
    check(&broker);
    for name in ["a", "b"] {
        for description in broker.describe_partitions(&topic_name(name)).unwrap() {
            assert_eq!(description.last_stable_offset, description.log_end_offset);
            assert!(description.log_end_offset > Offset(0));
        }
    }
}

#[test]
fn many_transactions_share_few_syncs() {
    let world = SimulatedWorld::with_threads(7);
    let config = BrokerConfig {
        ballast_bytes: 0,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(world.env(), "/data".as_ref(), config).unwrap();
    let before = world.calls_count_of(Call::SyncData);
    run(&broker);
    let syncs = world.calls_count_of(Call::SyncData) - before;
    check(&broker);
    // One at a time, each transaction would take four syncs: two partitions, the offsets, the decision.
    let transactions = u64::try_from(PRODUCERS_COUNT * TRANSACTIONS_COUNT).unwrap();
    assert!(
        syncs < 2 * transactions,
        "{syncs} syncs for {transactions} transactions"
    );
}

#[test]
fn f11_a_sync_that_fails_on_another_thread_stops_the_broker_too() {
    let world = SimulatedWorld::with_threads(7);
    let broker = Broker::open(world.env(), "/data".as_ref(), BrokerConfig::default()).unwrap();
    create(&broker, "a", 8);
    let mut producer = Producer::new(&broker, "p");
    for index in 0..8 {
        producer.send(&partition("a", index), &["x"]);
    }
    let fault = Fault::new(FaultEffect::InputOutput).on(&[Call::SyncData]);
    world.inject(fault.in_path("a-5"));
    let refused = producer.try_end(TransactionResult::Commit).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    assert!(broker.topics().is_err());
    drop((broker, producer));
    let after = world.after_kill();
    let broker = super::support::open_simulated(&after);
    for index in 0..8 {
        assert!(read(&broker, &partition("a", index), Isolation::ReadCommitted).is_empty());
    }
}
