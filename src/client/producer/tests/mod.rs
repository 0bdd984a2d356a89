//! The producer against a scripted broker: batching, bounds, retries, order, transactions.

#![allow(
    clippy::let_underscore_future,
    reason = "what becomes of a record is often looked at elsewhere"
)]

mod batching;
mod order;
mod partitioning;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::client::transport::scripted::{Fault, Scripted};
use crate::client::wait;

const TOPIC: &str = "t";

fn topic() -> TopicName {
    TopicName::new(TOPIC).unwrap()
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(topic(), number)
}

/// Settings whose pauses are short enough for tests.
fn quick() -> ProducerConfig {
    ProducerConfig::default()
        .linger(Duration::ZERO)
        .retry_backoff(Duration::from_millis(1))
        .request_timeout(Duration::from_millis(50))
        .delivery_timeout(Duration::from_secs(20))
        .max_block(Duration::from_secs(20))
}

fn producer(broker: &Arc<Scripted>, config: ProducerConfig) -> Producer<str, str> {
    Producer::new(broker.clone(), config).unwrap()
}

fn record<'a>(value: &'a str) -> ProducerRecord<'a, str, str> {
    ProducerRecord::new(&topic()).partition(0).value(value)
}

fn values(broker: &Scripted, number: i32) -> Vec<String> {
    let values = broker.values(&partition(number)).into_iter();
    values.map(|v| String::from_utf8(v).unwrap()).collect()
}

/// Waits until `condition` holds; fails after 20 s.
fn until(broker: &Scripted, what: &str, condition: impl Fn() -> bool) {
    let clock = &broker.env().clock;
    let deadline = clock.now().plus(Duration::from_secs(20));
    while !condition() {
        assert!(clock.now() < deadline, "timed out: {what}");
        clock.sleep(Duration::from_millis(1));
    }
}

fn offset(outcome: Result<RecordMetadata, ClientError>) -> i64 {
    outcome.unwrap().offset.unwrap().0
}
