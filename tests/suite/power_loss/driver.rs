//! Drives a broker on simulated files, call by call: every reply is there when the call returns.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use onceflow::broker::{Broker, BrokerConfig, BrokerError, Reply, SyncMode};
use onceflow::internals::protocol::batch::{BatchProducer, Batches};
use onceflow::internals::protocol::messages::{
    Acks, CommittedOffset, EndTxnRequest, FetchPartition, FetchRequest, FetchedRecords,
    GroupMember, InitProducerIdRequest, NewTopic, OffsetCommitRequest, OffsetFetchRequest,
    OffsetSpec, ProduceRequest, TransactionResult, TransactionState, TxnOffsetCommitRequest,
};
use onceflow::testing::SimulatedWorld;
use onceflow::types::{
    GroupId, Isolation, Offset, ProducerIdentity, Sequence, TopicName, TopicPartition,
    TransactionalId,
};

use crate::support::records::{Seen, batch, committed_records};

/// The group whose positions the transactions commit.
pub(super) const GROUP: &str = "job";

/// Opens the broker of a world. It syncs in the call, so that a run repeats.
pub(super) fn open(world: &SimulatedWorld) -> Result<Broker, BrokerError> {
    let config = BrokerConfig {
        sync_mode: SyncMode::Inline,
        ballast_bytes: 8 << 10,
        ..BrokerConfig::default()
    };
    Broker::open(world.env(), Path::new("/data"), config)
}

pub(super) fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), index)
}

pub(super) fn group() -> GroupId {
    GroupId::new(GROUP).unwrap()
}

pub(super) fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId::new(id).unwrap()
}

/// A reply that an inline broker has given already.
pub(super) fn now<T>(reply: Reply<T>) -> Result<T, BrokerError> {
    match reply.now() {
        Ok(result) => result,
        Err(_) => panic!("an inline broker replies in the call"),
    }
}

/// The topic that is compacted as soon as there is something to compact, as a changelog is.
pub(super) const CHANGELOG: &str = "changelog";

/// A topic whose partitions roll segments of 700 bytes.
pub(super) fn create_topic(
    broker: &Broker,
    name: &str,
    partitions_count: i32,
) -> Result<(), BrokerError> {
    let mut configs = vec![("segment.bytes", "700")];
    if name == CHANGELOG {
        configs.push(("cleanup.policy", "compact"));
        configs.push(("min.cleanable.dirty.ratio", "0"));
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let topic = NewTopic {
        name: TopicName::new(name).unwrap(),
        partitions_count,
        configs: configs.into_iter().map(owned).collect(),
    };
    broker.create_topic(&topic).map(drop)
}

/// Appends outside any transaction; durable when told.
pub(super) fn produce_plain(
    broker: &Broker,
    partition: &TopicPartition,
    value: &str,
) -> Result<Seen, BrokerError> {
    let response = now(broker.produce(ProduceRequest {
        partition: partition.clone(),
        records: batch(BatchProducer::Plain, &[value]).into(),
        acks: Acks::All,
        transactional_id: None,
    }))?;
    let value = value.to_owned();
    let offset = response.base_offset;
    Ok(Seen { offset, value })
}

/// Commits positions outside any transaction; durable when told.
pub(super) fn commit_plainly(
    broker: &Broker,
    partition: &TopicPartition,
    offset: i64,
) -> Result<(), BrokerError> {
    now(broker.offset_commit(OffsetCommitRequest {
        group: group(),
        member: GroupMember::default(),
        offsets: vec![(partition.clone(), position(offset))],
    }))
}

fn position(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

/// A transactional producer without a client: its identity and its sequences.
pub(super) struct Transactor {
    pub(super) id: TransactionalId,
    pub(super) identity: ProducerIdentity,
    sequences: BTreeMap<TopicPartition, Sequence>,
}

impl Transactor {
    /// One that lives in the broker's process.
    pub(super) fn init(broker: &Broker, id: &str) -> Result<Self, BrokerError> {
        Self::with(id, |request| broker.init_producer_id(request))
    }

    /// One that outlives the broker.
    pub(super) fn init_remote(broker: &Broker, id: &str) -> Result<Self, BrokerError> {
        Self::with(id, |request| broker.init_remote_producer_id(request))
    }

    fn with(
        id: &str,
        ask: impl FnOnce(InitProducerIdRequest) -> Reply<ProducerIdentity>,
    ) -> Result<Self, BrokerError> {
        let id = transactional_id(id);
        let identity = now(ask(InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout: Duration::from_secs(60),
            current: None,
        }))?;
        Ok(Self {
            id,
            identity,
            sequences: BTreeMap::new(),
        })
    }

    pub(super) fn produce<V: AsRef<str>>(
        &mut self,
        broker: &Broker,
        partition: &TopicPartition,
        values: &[V],
    ) -> Result<Vec<Seen>, BrokerError> {
        let sequence = self
            .sequences
            .entry(partition.clone())
            .or_insert(Sequence::ZERO);
        let producer = BatchProducer::Transactional(self.identity, *sequence);
        let response = now(broker.produce(ProduceRequest {
            partition: partition.clone(),
            records: batch(producer, values).into(),
            acks: Acks::Leader,
            transactional_id: Some(self.id.clone()),
        }))?;
        *sequence = sequence.plus(i32::try_from(values.len()).unwrap());
        let offsets = (response.base_offset.0..).map(Offset);
        let values = values.iter().map(|value| value.as_ref().to_owned());
        Ok(offsets
            .zip(values)
            .map(|(offset, value)| Seen { offset, value })
            .collect())
    }

    pub(super) fn send_offset(
        &self,
        broker: &Broker,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<(), BrokerError> {
        now(broker.txn_offset_commit(TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            producer: self.identity,
            group: group(),
            member: GroupMember::default(),
            offsets: vec![(partition.clone(), position(offset))],
        }))
    }

    pub(super) fn end(
        &mut self,
        broker: &Broker,
        result: TransactionResult,
    ) -> Result<(), BrokerError> {
        self.identity = now(broker.end_txn(EndTxnRequest {
            transactional_id: self.id.clone(),
            producer: self.identity,
            result,
        }))?;
        self.sequences.clear();
        Ok(())
    }
}

/// View of `read_committed` readers of a broker, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The topics with their numbers of partitions, but for the coordinators' own.
    pub(super) topics: BTreeMap<String, i32>,
    /// The records by offset; partitions without records are left out.
    pub(super) records: BTreeMap<TopicPartition, Vec<Seen>>,
    /// The group's committed positions.
    pub(super) positions: BTreeMap<TopicPartition, i64>,
}

impl View {
    pub(super) fn read(broker: &Broker) -> Self {
        let mut view = Self::default();
        for topic in broker.topics().unwrap() {
            if topic.is_internal {
                continue;
            }
            let name = topic.name.as_str().to_owned();
            for index in 0..topic.partitions_count {
                let partition = partition(&name, index);
                let seen = read_partition(broker, &partition);
                if !seen.is_empty() {
                    view.insert(&partition, &seen);
                }
            }
            view.topics.insert(name, topic.partitions_count);
        }
        let request = OffsetFetchRequest {
            group: group(),
            partitions: None,
            require_stable: true,
        };
        for (partition, committed) in broker.offset_fetch(&request).unwrap() {
            if let Some(committed) = committed {
                view.positions.insert(partition, committed.offset.0);
            }
        }
        view
    }

    /// Adds records where their offsets belong. Of a changelog, the last one of each key stays: the
    /// others may be there or not, as compaction likes.
    pub(super) fn insert(&mut self, partition: &TopicPartition, seen: &[Seen]) {
        let records = self.records.entry(partition.clone()).or_default();
        records.extend_from_slice(seen);
        records.sort();
        if partition.topic.as_str() == CHANGELOG {
            let key = |seen: &Seen| seen.value.split_once('=').unwrap().0.to_owned();
            let last: BTreeMap<String, Offset> = records
                .iter()
                .map(|seen| (key(seen), seen.offset))
                .collect();
            records.retain(|seen| last[&key(seen)] == seen.offset);
        }
    }
}

pub(super) fn read_partition(broker: &Broker, partition: &TopicPartition) -> Vec<Seen> {
    let isolation = Isolation::ReadCommitted;
    let earliest = broker
        .list_offset(partition, OffsetSpec::Earliest, isolation)
        .unwrap();
    let mut from = earliest.unwrap().offset;
    let first = from;
    let mut seen = Vec::new();
    loop {
        let fetched = fetch(broker, partition, from);
        let Some(last) = Batches::new(fetched.records.clone()).last() else {
            let visible = |seen: &Seen| seen.offset >= first;
            return seen.into_iter().filter(visible).collect();
        };
        from = last.unwrap().header().next_offset();
        seen.extend(committed_records(&fetched));
    }
}

fn fetch(broker: &Broker, partition: &TopicPartition, offset: Offset) -> FetchedRecords {
    let fetch = broker.fetch(FetchRequest {
        partitions: vec![FetchPartition {
            partition: partition.clone(),
            offset,
            max_bytes: 600,
        }],
        isolation: Isolation::ReadCommitted,
        min_bytes: 0,
        max_bytes: 600,
        max_wait: Duration::ZERO,
    });
    let mut answers = onceflow::internals::env::block_on(fetch).unwrap();
    answers.pop().unwrap().result.unwrap()
}

/// No transaction is left open or undecided, and nothing hides behind one.
pub(super) fn assert_settled(broker: &Broker) {
    for transaction in broker.list_transactions().unwrap() {
        let is_settled = matches!(
            transaction.state,
            TransactionState::Empty
                | TransactionState::CompleteCommit
                | TransactionState::CompleteAbort
        );
        assert!(is_settled, "left unsettled: {transaction:?}");
    }
    for topic in broker.topics().unwrap() {
        for described in broker.describe_partitions(&topic.name).unwrap() {
            assert_eq!(described.offline, None);
            let partition = TopicPartition::new(topic.name.clone(), described.partition);
            let producers = broker.describe_producers(&partition).unwrap();
            let mut open = producers.iter().map(|it| it.current_transaction_start);
            assert!(open.all(|it| it.is_none()), "{partition} {producers:?}");
        }
    }
}

/// Whether bytes of an old identity are refused.
pub(super) fn is_refused(
    broker: &Broker,
    old: &mut Transactor,
    partition: &TopicPartition,
) -> bool {
    let bytes: Bytes = batch(
        BatchProducer::Transactional(old.identity, Sequence::ZERO),
        &["zombie"],
    );
    let request = ProduceRequest {
        partition: partition.clone(),
        records: bytes.into(),
        acks: Acks::Leader,
        transactional_id: Some(old.id.clone()),
    };
    now(broker.produce(request)).is_err()
}
