//! Values and topics of these tests.

use onceflow::client::wait;
use onceflow::codec::Raw;
use onceflow::prelude::*;
use onceflow::types::TopicName;
use serde::{Deserialize, Serialize};

use crate::jobs::support::{OFTEN, committed, run};

/// An order as its first program wrote it.
pub(super) const FIRST: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"},
    {"name": "customer", "type": "string"}]}"#;

/// Now there is a field in the middle, and a field has another name.
pub(super) const NOW: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"},
    {"name": "cents", "type": "long", "default": 5},
    {"name": "buyer", "aliases": ["customer"], "type": "string"}]}"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Order")]
pub(super) struct FirstOrder {
    pub(super) id: i64,
    pub(super) customer: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: i64,
    pub(super) cents: i64,
    pub(super) buyer: String,
}

pub(super) fn first_orders(ids: std::ops::Range<i64>) -> Vec<FirstOrder> {
    let order = |id| FirstOrder {
        id,
        customer: format!("customer {id}"),
    };
    ids.map(order).collect()
}

/// Writes values as they are, by a job with this name.
pub(super) fn write(log: &Log, job: &str, topic_name: &str, raw: Vec<Vec<u8>>) {
    let name = TopicName::new(topic_name).unwrap();
    if wait(log.transport().topic(&name)).unwrap().is_none() {
        wait(log.admin().create_topic(&name, 1)).unwrap();
    }
    let job = Job::new(job);
    job.source(values("raw", raw))
        .sink(topic::<Vec<u8>>(topic_name).codec(Raw));
    run(job.exactly_once(Commit::every(OFTEN)).workers(1), log).unwrap();
}

/// The committed values of a topic of text.
pub(super) fn lines(log: &Log, topic: &str) -> Vec<String> {
    let values = committed(log, topic)
        .into_iter()
        .map(|seen| seen.value.unwrap());
    values
        .map(|value| String::from_utf8(value).unwrap())
        .collect()
}
