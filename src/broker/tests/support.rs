//! A broker to test, a producer and a reader for it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::env::block_on;
use bytes::Bytes;

use crate::broker::{Broker, BrokerConfig, BrokerError, Reply, SyncMode};
use crate::env::Env;
use crate::env::simulated::SimulatedWorld;
use crate::protocol::batch::{
    BatchBuilder, BatchProducer, Batches, Compression, ControlType, DecompressionLimit,
};
use crate::protocol::messages::{
    Acks, CommittedOffset, EndTxnRequest, FetchPartition, FetchRequest, FetchedRecords,
    InitProducerIdRequest, NewTopic, OffsetFetchRequest, OffsetSpec, ProduceRequest,
    ProduceResponse, TransactionResult, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Isolation, Offset, ProducerIdentity, Sequence, Timestamp, TopicName, TopicPartition,
    TransactionalId,
};

/// A data directory on real files, and the settings to open it with.
pub(super) struct Home {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: BrokerConfig,
}

impl Home {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            config: BrokerConfig::default(),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn open(&self) -> Broker {
        self.try_open().unwrap()
    }

    pub(super) fn try_open(&self) -> Result<Broker, BrokerError> {
        Broker::open(Env::real(), &self.path(), self.config.clone())
    }
}

/// Opens a broker on simulated files; syncs happen in the call.
pub(super) fn open_simulated(world: &SimulatedWorld) -> Broker {
    try_open_simulated(world).unwrap()
}

pub(super) fn try_open_simulated(world: &SimulatedWorld) -> Result<Broker, BrokerError> {
    let config = BrokerConfig {
        sync_mode: SyncMode::Inline,
        ballast_bytes: 16 << 10,
        ..BrokerConfig::default()
    };
    Broker::open(world.env(), &PathBuf::from("/data"), config)
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(super) fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition::new(topic_name(topic), index)
}

pub(super) fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub(super) fn transactional_id(name: &str) -> TransactionalId {
    TransactionalId::new(name).unwrap()
}

pub(super) fn create(broker: &Broker, topic: &str, partitions_count: i32) {
    // Test records are of 1970: retention would take them.
    create_with(broker, topic, partitions_count, &[("retention.ms", "-1")]);
}

pub(super) fn create_with(
    broker: &Broker,
    topic: &str,
    partitions_count: i32,
    configs: &[(&str, &str)],
) {
    broker
        .create_topic(&new_topic(topic, partitions_count, configs))
        .unwrap();
}

/// As [`create`], where it may fail.
pub(super) fn try_create(broker: &Broker, topic: &str) -> Result<(), BrokerError> {
    broker.create_topic(&new_topic(topic, 1, &[])).map(drop)
}

fn new_topic(topic: &str, partitions_count: i32, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    NewTopic {
        name: topic_name(topic),
        partitions_count,
        configs: configs.collect(),
    }
}

pub(super) fn batch(values: &[&str], producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder.push(Timestamp(1_000), Some(b"key"), Some(value.as_bytes()));
    }
    builder.finish(producer).freeze()
}

pub(super) fn produce_request(to: &TopicPartition, records: Bytes, acks: Acks) -> ProduceRequest {
    ProduceRequest {
        partition: to.clone(),
        records: records.into(),
        acks,
        transactional_id: None,
    }
}

/// Appends plain records, durably.
pub(super) fn try_produce(
    broker: &Broker,
    to: &TopicPartition,
    values: &[&str],
) -> Result<ProduceResponse, BrokerError> {
    let records = batch(values, BatchProducer::Plain);
    block_on(broker.produce(produce_request(to, records, Acks::All)))
}

pub(super) fn produce(broker: &Broker, to: &TopicPartition, values: &[&str]) -> Offset {
    try_produce(broker, to, values).unwrap().base_offset
}

/// A transactional producer without any cleverness.
pub(super) struct Producer {
    pub(super) broker: Broker,
    pub(super) id: TransactionalId,
    pub(super) identity: ProducerIdentity,
    sequences: HashMap<TopicPartition, Sequence>,
}

impl Producer {
    pub(super) fn new(broker: &Broker, id: &str) -> Self {
        Self::with_timeout(broker, id, Duration::from_secs(60))
    }

    /// Begins the next transaction with this identity.
    pub(super) fn begin_as(&mut self, identity: ProducerIdentity) {
        self.identity = identity;
        self.sequences.clear();
    }

    pub(super) fn with_timeout(broker: &Broker, id: &str, timeout: Duration) -> Self {
        Self::try_with_timeout(broker, id, timeout).unwrap()
    }

    pub(super) fn try_new(broker: &Broker, id: &str) -> Result<Self, BrokerError> {
        Self::try_with_timeout(broker, id, Duration::from_secs(60))
    }

    /// One that outlives the broker.
    pub(super) fn remote(broker: &Broker, id: &str) -> Self {
        let timeout = Duration::from_secs(60);
        Self::init(broker, id, timeout, |it| broker.init_remote_producer_id(it)).unwrap()
    }

    fn try_with_timeout(broker: &Broker, id: &str, timeout: Duration) -> Result<Self, BrokerError> {
        Self::init(broker, id, timeout, |it| broker.init_producer_id(it))
    }

    fn init(
        broker: &Broker,
        id: &str,
        timeout: Duration,
        ask: impl FnOnce(InitProducerIdRequest) -> Reply<ProducerIdentity>,
    ) -> Result<Self, BrokerError> {
        let id = transactional_id(id);
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout: timeout,
            current: None,
        };
        Ok(Self {
            broker: broker.clone(),
            identity: block_on(ask(request))?,
            id,
            sequences: HashMap::new(),
        })
    }

    pub(super) fn request(&mut self, to: &TopicPartition, values: &[&str]) -> ProduceRequest {
        let sequence = self.sequences.entry(to.clone()).or_insert(Sequence::ZERO);
        let producer = BatchProducer::Transactional(self.identity, *sequence);
        *sequence = sequence.plus(i32::try_from(values.len()).unwrap());
        ProduceRequest {
            partition: to.clone(),
            records: batch(values, producer).into(),
            acks: Acks::All,
            transactional_id: Some(self.id.clone()),
        }
    }

    pub(super) fn try_send(
        &mut self,
        to: &TopicPartition,
        values: &[&str],
    ) -> Result<ProduceResponse, BrokerError> {
        let request = self.request(to, values);
        block_on(self.broker.produce(request))
    }

    /// Sends the last records once more, as after an answer that never came.
    pub(super) fn send_again(&mut self, to: &TopicPartition, values: &[&str]) -> Offset {
        let count = i32::try_from(values.len()).unwrap();
        if let Some(sequence) = self.sequences.get_mut(to) {
            *sequence = Sequence(sequence.0 - count);
        }
        self.send(to, values)
    }

    pub(super) fn send(&mut self, to: &TopicPartition, values: &[&str]) -> Offset {
        self.try_send(to, values).unwrap().base_offset
    }

    pub(super) fn try_send_offset(
        &self,
        to: &str,
        source: &TopicPartition,
        offset: i64,
    ) -> Result<(), BrokerError> {
        block_on(self.broker.txn_offset_commit(TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            producer: self.identity,
            group: group(to),
            member: Default::default(),
            offsets: vec![(source.clone(), position(offset))],
        }))
    }

    pub(super) fn send_offset(&self, to: &str, source: &TopicPartition, offset: i64) {
        self.try_send_offset(to, source, offset).unwrap();
    }

    pub(super) fn end_request(&self, result: TransactionResult) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: self.id.clone(),
            producer: self.identity,
            result,
        }
    }

    pub(super) fn try_end(&mut self, result: TransactionResult) -> Result<(), BrokerError> {
        let next = block_on(self.broker.end_txn(self.end_request(result)))?;
        self.begin_as(next);
        Ok(())
    }

    pub(super) fn commit(&mut self) {
        self.try_end(TransactionResult::Commit).unwrap();
    }

    pub(super) fn abort(&mut self) {
        self.try_end(TransactionResult::Abort).unwrap();
    }
}

pub(super) fn position(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

/// The committed position of a group, `None` if there is none or it is unstable.
pub(super) fn try_committed(
    broker: &Broker,
    of: &str,
    source: &TopicPartition,
) -> Result<Option<i64>, BrokerError> {
    let request = OffsetFetchRequest {
        group: group(of),
        partitions: Some(vec![source.clone()]),
        require_stable: true,
    };
    let fetched = broker.offset_fetch(&request)?;
    assert_eq!(fetched.len(), 1);
    Ok(fetched[0].1.as_ref().map(|committed| committed.offset.0))
}

pub(super) fn committed(broker: &Broker, of: &str, source: &TopicPartition) -> Option<i64> {
    try_committed(broker, of, source).unwrap()
}

pub(super) fn fetch_request(
    from: &TopicPartition,
    offset: Offset,
    isolation: Isolation,
    max_wait: Duration,
) -> FetchRequest {
    FetchRequest {
        partitions: vec![FetchPartition {
            partition: from.clone(),
            offset,
            max_bytes: 1 << 20,
        }],
        isolation,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_wait,
    }
}

/// The records' values that a reader is shown from the first offset on, without waiting.
pub(super) fn read(broker: &Broker, from: &TopicPartition, isolation: Isolation) -> Vec<String> {
    let start = broker.list_offset(from, OffsetSpec::Earliest, isolation);
    let mut next = start.unwrap().unwrap().offset;
    let mut values = Vec::new();
    loop {
        let request = fetch_request(from, next, isolation, Duration::ZERO);
        let mut fetched = block_on(broker.fetch(request)).unwrap();
        let records = fetched.remove(0).result.unwrap();
        if records.records.is_empty() {
            return values;
        }
        next = take_values(&records, next, &mut values);
    }
}

pub(super) fn read_committed(broker: &Broker, topic: &str) -> Vec<String> {
    read(broker, &partition(topic, 0), Isolation::ReadCommitted)
}

/// Filters as a `read_committed` consumer does (kafka.md 2.9); returns the next offset to read.
fn take_values(fetched: &FetchedRecords, from: Offset, values: &mut Vec<String>) -> Offset {
    let mut next = from;
    let mut to_abort = fetched.aborted_transactions.clone();
    let mut aborted = HashSet::new();
    for batch in Batches::new(fetched.records.clone()) {
        let batch = batch.unwrap();
        let header = *batch.header();
        next = header.next_offset();
        to_abort.retain(|transaction| {
            let begins_later = transaction.first_offset > header.last_offset();
            if !begins_later {
                aborted.insert(transaction.producer_id);
            }
            begins_later
        });
        if let Some(marker) = batch.control().unwrap() {
            if marker.kind == ControlType::Abort {
                aborted.remove(&header.producer.id);
            }
            continue;
        }
        if header.is_transactional() && aborted.contains(&header.producer.id) {
            continue;
        }
        let mut records = batch.records(&DecompressionLimit::default()).unwrap();
        while let Some(record) = records.next() {
            let record = record.unwrap();
            if record.offset >= from {
                let value = record.value.unwrap_or_default();
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
    }
    next
}

/// Tries again until it holds; a test that would wait for ever fails instead.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let env = Env::real();
    let start = env.clock.now();
    while !holds() {
        let waited = env.clock.now().since(start);
        assert!(waited < Duration::from_secs(30), "never came true: {what}");
        std::thread::yield_now();
    }
}
