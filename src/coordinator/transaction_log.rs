//! The records of `__transaction_state`, in Kafka's schemas with fields of our own that Kafka's readers skip.
//!
//! ```text
//! key    i16 version = 0      | string transactional id                    one id's transaction
//!        i16 version = 10000  |                                            the producer ids given out (ours)
//!
//! value  i16 version = 1 | i64 producer id | i16 producer epoch | i32 timeout ms | i8 state
//!        | compact [ compact string topic | compact [ i32 partition ] | tags ]  (null: none)
//!        | i64 last update ms | i64 start ms
//!        | tags: 0 i64 previous producer id · 1 i64 next producer id · 2 i16 client transaction version
//!                10000 i16 last producer epoch
//!                10001 i64 producer id, i16 producer epoch of the last committed transaction
//!                10002 compact [ compact string topic | uuid topic id | compact [ i32 partition | i64 durable end ] ]
//!                10003 i32 opening, i8 holder: 0 remote, 1 in the broker's process (left out where both are 0)
//!
//! value of the producer ids: i16 version = 0 | i64 the first producer id not yet reserved
//! ```
//! `docs/format.md` has the page with the history.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use super::transaction::DurableEnd;
use super::wire::{
    Reader, put_compact_count, put_compact_string, put_string, put_tagged, put_varint,
};
use super::{CoordinatorError, TRANSACTION_STATE_TOPIC};
use crate::protocol::messages::TransactionState;
use crate::types::{
    EpochAtEnd, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

const TRANSACTION_KEY_VERSION: i16 = 0;
const PRODUCER_IDS_KEY_VERSION: i16 = 10_000;
const TRANSACTION_VALUE_VERSION: i16 = 1;
const PRODUCER_IDS_VALUE_VERSION: i16 = 0;
/// Kafka's transaction versions: from 2 on epochs are bumped at every end (KIP-890).
const TRANSACTION_VERSION_KEPT: i16 = 1;
const TRANSACTION_VERSION_BUMPED: i16 = 2;

const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_TRANSACTION_VERSION: u32 = 2;
const TAG_LAST_PRODUCER_EPOCH: u32 = 10_000;
const TAG_LAST_COMMIT: u32 = 10_001;
const TAG_DURABLE_ENDS: u32 = 10_002;
const TAG_HOLDER: u32 = 10_003;

/// Content of a journal's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The transactions of one transactional id.
    Transaction(TransactionalId),
    /// The producer ids given out.
    ProducerIds,
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        match self {
            Self::Transaction(id) => {
                to.put_i16(TRANSACTION_KEY_VERSION);
                put_string(&mut to, id.as_str());
            }
            Self::ProducerIds => to.put_i16(PRODUCER_IDS_KEY_VERSION),
        }
        to.freeze()
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        let mut reader = Reader::new(TRANSACTION_STATE_TOPIC, bytes);
        let key = match reader.int16()? {
            TRANSACTION_KEY_VERSION => Self::Transaction(
                TransactionalId::new(reader.string()?)
                    .map_err(|_| reader.corrupt("the transactional id is not valid"))?,
            ),
            PRODUCER_IDS_KEY_VERSION => Self::ProducerIds,
            version => return Err(reader.newer(version, PRODUCER_IDS_KEY_VERSION)),
        };
        reader.end()?;
        Ok(key)
    }
}

/// Where the owner of a transactional id lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Residence {
    /// In a process of its own, which may outlive the broker's.
    Remote,
    /// In the broker's process: when that ends, nobody goes on with the transaction.
    Embedded,
}

/// All that is durable of one transactional id: the value of its last journal record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TransactionRecord {
    /// Who owns the id. In `PrepareX` the epoch is that of the markers, one above that of the data.
    pub producer: ProducerIdentity,
    /// The owner's identity before this one, if the owner itself moved on from it (by ending a transaction or renewing its
    /// epoch): a repeated request with it is answered like the first. `None` once somebody else took over.
    pub last: Option<ProducerIdentity>,
    /// In `PrepareX` of an exhausted producer id: the one that follows. [`ProducerId::NONE`] otherwise.
    pub next_producer_id: ProducerId,
    /// After so many milliseconds an open transaction is aborted.
    pub timeout_ms: i32,
    /// The state.
    pub state: TransactionState,
    /// The partitions of the open or undecided transaction.
    pub partitions: BTreeSet<TopicPartition>,
    /// When this record was made (wall clock, never moving back).
    pub last_update: Timestamp,
    /// When the open or undecided transaction began, or [`Timestamp::NONE`].
    pub start: Timestamp,
    /// The identity under which the last committed transaction wrote. Its markers may not be durable while
    /// this record is: a partition that still has it open must be rolled forward.
    pub last_commit: Option<ProducerIdentity>,
    /// Durable ends when the transaction was decided (`PrepareCommit` only).
    pub durable_ends: Vec<DurableEnd>,
    /// Effect of the last decision on the epoch. A transaction that keeps it has its markers durable before it is
    /// complete, since its epoch would not tell its data from that of the next one.
    pub epochs: EpochAtEnd,
    /// The opening of the data directory in which the owner was last known to have lost nothing: what it wrote under this
    /// identity, it wrote in this one or later.
    pub opening: i32,
    /// Where the owner lives.
    pub holder: Residence,
}

impl TransactionRecord {
    /// The record's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_i16(TRANSACTION_VALUE_VERSION);
        to.put_i64(self.producer.id.0);
        to.put_i16(self.producer.epoch.0);
        to.put_i32(self.timeout_ms);
        to.put_i8(self.state as i8);
        put_partitions(&mut to, self.state, &self.partitions);
        to.put_i64(self.last_update.0);
        to.put_i64(self.start.0);
        self.put_tags(&mut to);
        to.freeze()
    }

    fn put_tags(&self, to: &mut BytesMut) {
        let mut tags = BytesMut::new();
        let mut count = 0;
        let mut put = |tag, content: &[u8]| {
            put_tagged(&mut tags, tag, content);
            count += 1;
        };
        let previous = self.last.filter(|last| last.id != self.producer.id);
        if let Some(last) = previous {
            put(TAG_PREVIOUS_PRODUCER_ID, &last.id.0.to_be_bytes());
        }
        if self.next_producer_id.is_some() {
            put(TAG_NEXT_PRODUCER_ID, &self.next_producer_id.0.to_be_bytes());
        }
        put(
            TAG_CLIENT_TRANSACTION_VERSION,
            &client_transaction_version(self.epochs).to_be_bytes(),
        );
        if let Some(last) = self.last {
            put(TAG_LAST_PRODUCER_EPOCH, &last.epoch.0.to_be_bytes());
        }
        if let Some(commit) = self.last_commit {
            let mut content = BytesMut::new();
            content.put_i64(commit.id.0);
            content.put_i16(commit.epoch.0);
            put(TAG_LAST_COMMIT, &content);
        }
        if !self.durable_ends.is_empty() {
            put(TAG_DURABLE_ENDS, &encode_ends(&self.durable_ends));
        }
        if self.opening != 0 || self.holder != Residence::Remote {
            let mut content = BytesMut::new();
            content.put_i32(self.opening);
            content.put_i8(i8::from(self.holder == Residence::Embedded));
            put(TAG_HOLDER, &content);
        }
        put_varint(to, count);
        to.put_slice(&tags);
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        let mut reader = Reader::new(TRANSACTION_STATE_TOPIC, bytes);
        match reader.int16()? {
            TRANSACTION_VALUE_VERSION => {}
            version => return Err(reader.newer(version, TRANSACTION_VALUE_VERSION)),
        }
        let producer = read_identity(&mut reader)?;
        let timeout_ms = reader.int32()?;
        let state = reader.int8()?;
        let mut record = Self {
            producer,
            last: None,
            next_producer_id: ProducerId::NONE,
            timeout_ms,
            state: state_from(state).ok_or_else(|| reader.corrupt("no such state"))?,
            partitions: read_partitions(&mut reader)?,
            last_update: Timestamp(reader.int64()?),
            start: Timestamp(reader.int64()?),
            last_commit: None,
            durable_ends: Vec::new(),
            epochs: EpochAtEnd::Bumped,
            opening: 0,
            holder: Residence::Remote,
        };
        record.read_tags(&mut reader)?;
        reader.end()?;
        Ok(record)
    }

    fn read_tags(&mut self, reader: &mut Reader<'_>) -> Result<(), CoordinatorError> {
        let mut previous_id = self.producer.id;
        let mut last_epoch = None;
        reader.tagged_fields(|tag, field| {
            match tag {
                TAG_PREVIOUS_PRODUCER_ID => previous_id = ProducerId(field.int64()?),
                TAG_NEXT_PRODUCER_ID => self.next_producer_id = ProducerId(field.int64()?),
                TAG_CLIENT_TRANSACTION_VERSION => self.epochs = epochs_of(field.int16()?),
                TAG_LAST_PRODUCER_EPOCH => last_epoch = Some(ProducerEpoch(field.int16()?)),
                TAG_LAST_COMMIT => self.last_commit = Some(read_identity(field)?),
                TAG_DURABLE_ENDS => self.durable_ends = read_ends(field)?,
                TAG_HOLDER => {
                    self.opening = field.int32()?;
                    self.holder = match field.int8()? {
                        0 => Residence::Remote,
                        // Also whatever a later release may add: its transactions are aborted rather than kept open.
                        _ => Residence::Embedded,
                    };
                }
                _ => {}
            }
            Ok(())
        })?;
        self.last = last_epoch.map(|epoch| ProducerIdentity {
            id: previous_id,
            epoch,
        });
        Ok(())
    }
}

/// The durable ends that a decision record carries; empty for every other record.
///
/// Recovery folds them over the whole journal, the largest offset of each partition: below it, damage is refused, not cut.
///
/// # Errors
/// If the record is damaged or of a newer version.
pub(crate) fn durable_ends(
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Vec<DurableEnd>, CoordinatorError> {
    match (Key::decode(key)?, value) {
        (Key::Transaction(_), Some(value)) => Ok(TransactionRecord::decode(value)?.durable_ends),
        _ => Ok(Vec::new()),
    }
}

/// The value of the record that reserves every producer id below `next`.
pub(super) fn encode_producer_ids(next: ProducerId) -> Bytes {
    let mut to = BytesMut::new();
    to.put_i16(PRODUCER_IDS_VALUE_VERSION);
    to.put_i64(next.0);
    to.freeze()
}

/// Reads what [`encode_producer_ids`] wrote.
pub(super) fn decode_producer_ids(bytes: &[u8]) -> Result<ProducerId, CoordinatorError> {
    let mut reader = Reader::new(TRANSACTION_STATE_TOPIC, bytes);
    match reader.int16()? {
        PRODUCER_IDS_VALUE_VERSION => {}
        version => return Err(reader.newer(version, PRODUCER_IDS_VALUE_VERSION)),
    }
    let next = ProducerId(reader.int64()?);
    reader.end()?;
    Ok(next)
}

fn client_transaction_version(epochs: EpochAtEnd) -> i16 {
    match epochs {
        EpochAtEnd::Kept => TRANSACTION_VERSION_KEPT,
        EpochAtEnd::Bumped => TRANSACTION_VERSION_BUMPED,
    }
}

fn epochs_of(version: i16) -> EpochAtEnd {
    match version {
        ..TRANSACTION_VERSION_BUMPED => EpochAtEnd::Kept,
        _ => EpochAtEnd::Bumped,
    }
}

fn state_from(code: i8) -> Option<TransactionState> {
    Some(match code {
        0 => TransactionState::Empty,
        1 => TransactionState::Ongoing,
        2 => TransactionState::PrepareCommit,
        3 => TransactionState::PrepareAbort,
        4 => TransactionState::CompleteCommit,
        5 => TransactionState::CompleteAbort,
        _ => return None,
    })
}

fn read_identity(reader: &mut Reader<'_>) -> Result<ProducerIdentity, CoordinatorError> {
    Ok(ProducerIdentity {
        id: ProducerId(reader.int64()?),
        epoch: ProducerEpoch(reader.int16()?),
    })
}

/// Kafka writes null, not an empty array, for an id without a transaction yet.
fn put_partitions(
    to: &mut BytesMut,
    state: TransactionState,
    partitions: &BTreeSet<TopicPartition>,
) {
    if state == TransactionState::Empty {
        assert!(
            partitions.is_empty(),
            "an empty transaction has no partitions"
        );
        return put_varint(to, 0);
    }
    let partitions: Vec<&TopicPartition> = partitions.iter().collect();
    let topics = || partitions.chunk_by(|a, b| a.topic == b.topic);
    put_compact_count(to, topics().count());
    for chunk in topics() {
        put_topic(to, chunk);
    }
}

fn put_topic(to: &mut BytesMut, partitions: &[&TopicPartition]) {
    let Some(first) = partitions.first() else {
        return;
    };
    put_compact_string(to, first.topic.as_str());
    put_compact_count(to, partitions.len());
    for partition in partitions {
        to.put_i32(partition.partition);
    }
    put_varint(to, 0);
}

fn read_topic_name(reader: &mut Reader<'_>) -> Result<TopicName, CoordinatorError> {
    let name = reader.compact_string()?;
    TopicName::new(name).map_err(|_| reader.corrupt("a topic name is not valid"))
}

fn read_partitions(reader: &mut Reader<'_>) -> Result<BTreeSet<TopicPartition>, CoordinatorError> {
    let mut partitions = BTreeSet::new();
    for _ in 0..reader.compact_array(3)? {
        let topic = read_topic_name(reader)?;
        for _ in 0..reader.compact_array(4)? {
            partitions.insert(TopicPartition::new(topic.clone(), reader.int32()?));
        }
        reader.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(partitions)
}

fn encode_ends(ends: &[DurableEnd]) -> BytesMut {
    let mut to = BytesMut::new();
    let topics =
        || ends.chunk_by(|a, b| a.topic_id == b.topic_id && a.partition.topic == b.partition.topic);
    put_compact_count(&mut to, topics().count());
    for chunk in topics() {
        let Some(first) = chunk.first() else { continue };
        put_compact_string(&mut to, first.partition.topic.as_str());
        to.put_u128(first.topic_id.0);
        put_compact_count(&mut to, chunk.len());
        for end in chunk {
            to.put_i32(end.partition.partition);
            to.put_i64(end.offset.0);
        }
    }
    to
}

fn read_ends(reader: &mut Reader<'_>) -> Result<Vec<DurableEnd>, CoordinatorError> {
    let mut ends = Vec::new();
    for _ in 0..reader.compact_array(18)? {
        let topic = read_topic_name(reader)?;
        let topic_id = TopicId(reader.uuid()?);
        for _ in 0..reader.compact_array(12)? {
            ends.push(DurableEnd {
                partition: TopicPartition::new(topic.clone(), reader.int32()?),
                topic_id,
                offset: Offset(reader.int64()?),
            });
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests;
