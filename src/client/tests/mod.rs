//! Consumers as members of a group, and writers that go on, over the real broker on a temporary directory; what both kinds of
//! log must do is in `tests/suite/clients/`.

#![allow(
    clippy::let_underscore_future,
    reason = "what becomes of a record is often looked at elsewhere"
)]

mod commits;
mod groups;
mod resuming;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::{Consumer, ConsumerConfig, ConsumerRecords, OffsetReset};
use super::producer::{Producer, ProducerConfig, ProducerRecord};
use super::{Admin, ClientError, InProcess, Transport, wait};
use crate::broker::{Broker, BrokerConfig, GroupConfig};
use crate::env::Env;
use crate::protocol::messages::{CommittedOffset, GroupMember};
use crate::types::{Durability, GroupId, Offset, TopicName, TopicPartition, TransactionalId};

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
        groups: GroupConfig {
            consumer_heartbeat_interval: Duration::from_millis(20),
            ..GroupConfig::default()
        },
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
