//! The clients over the real broker on a temporary directory.

#![allow(
    clippy::let_underscore_future,
    reason = "what becomes of a record is often looked at elsewhere"
)]

mod administration;
mod reading;
mod transactions;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::{Consumer, ConsumerConfig, ConsumerRecords, OffsetReset};
use super::producer::{Producer, ProducerConfig, ProducerRecord};
use super::{Admin, ClientError, CommitOutcome, InProcess, TransactionalWriter, Transport, wait};
use crate::broker::{Broker, BrokerConfig};
use crate::env::Env;
use crate::protocol::ErrorKind;
use crate::protocol::messages::{CommittedOffset, GroupMember};
use crate::types::{
    Durability, GroupId, Isolation, Offset, TopicName, TopicPartition, TransactionalId,
};

/// Long enough for a loaded machine; nothing waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker of its own, with the topic `t` of three partitions.
struct World {
    directory: tempfile::TempDir,
    broker: Broker,
    transport: Arc<InProcess>,
    admin: Admin,
}

impl World {
    fn new() -> Self {
        Self::with_topic(&[])
    }

    fn with_topic(configs: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (broker, transport) = open(&directory);
        let world = Self {
            admin: Admin::new(transport.clone()),
            directory,
            broker,
            transport,
        };
        let configs = configs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let configs: BTreeMap<_, _> = configs.collect();
        wait(world.admin.create_topic_with(&topic(), 3, configs)).unwrap();
        world
    }

    /// Closes the broker and opens it again.
    fn reopen(&mut self) {
        self.broker.close().unwrap();
        (self.broker, self.transport) = open(&self.directory);
        self.admin = Admin::new(self.transport.clone());
    }

    fn producer(&self, config: ProducerConfig) -> Producer<str, str> {
        Producer::new(self.transport.clone(), config).unwrap()
    }

    fn transactional(&self, id: &str) -> Producer<str, str> {
        let producer = self.producer(quick().transactional_id(TransactionalId::new(id).unwrap()));
        wait(producer.init_transactions()).unwrap();
        producer
    }

    fn consumer(&self, config: ConsumerConfig) -> Consumer<str, str> {
        let mut consumer = Consumer::new(self.transport.clone(), config);
        consumer.assign([partition(0)]);
        consumer
    }

    /// Everything that a reader may see in partition 0, with offsets.
    fn read(&self, isolation: Isolation) -> Vec<(i64, String)> {
        let mut consumer = self.consumer(earliest().isolation(isolation));
        let end = wait(consumer.end_offset(&partition(0))).unwrap();
        let mut seen = Vec::new();
        let deadline = self.transport.env().clock.now().plus(PATIENCE);
        while consumer.position(&partition(0)).unwrap() != Some(end) {
            assert!(
                self.transport.env().clock.now() < deadline,
                "the end was not reached"
            );
            let records = wait(consumer.poll(Duration::ZERO)).unwrap();
            seen.extend(offsets_and_values(&records));
        }
        seen
    }

    fn committed_values(&self) -> Vec<String> {
        let seen = self.read(Isolation::ReadCommitted).into_iter();
        seen.map(|(_, value)| value).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.broker.close().unwrap();
        }
    }
}

fn open(directory: &tempfile::TempDir) -> (Broker, Arc<InProcess>) {
    let env = Env::real();
    let config = BrokerConfig {
        // What these tests are about survives processes, not machines.
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(env.clone(), &directory.path().join("data"), config).unwrap();
    let transport = Arc::new(InProcess::new(env, broker.clone()));
    (broker, transport)
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(topic(), number)
}

fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

fn quick() -> ProducerConfig {
    ProducerConfig::default().linger(Duration::ZERO)
}

fn earliest() -> ConsumerConfig {
    ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest)
}

fn record<'a>(value: &'a str) -> ProducerRecord<'a, str, str> {
    ProducerRecord::new(&topic()).partition(0).value(value)
}

fn send(producer: &Producer<str, str>, value: &str) -> i64 {
    let sent = wait(async { producer.send(record(value)).await?.await });
    sent.unwrap().offset.unwrap().0
}

fn position(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn offsets_and_values(records: &ConsumerRecords<str, str>) -> Vec<(i64, String)> {
    let pair = |r: super::consumer::ConsumerRecord<'_, str, str>| {
        (r.offset().0, r.value().unwrap().unwrap().into_owned())
    };
    records.iter().map(pair).collect()
}
