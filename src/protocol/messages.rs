//! Requests and responses, named and shaped as Kafka's, as plain values.
//!
//! In-process they are passed as they are; over TCP a codec turns them into bytes (a layer above this one).
//! Only what both a broker of ours and a client of ours need is here.

pub mod groups;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::ErrorCode;
use super::batch::NewRecords;
use crate::env::Instant;
use crate::types::{
    GroupId, Isolation, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerIdentity,
    Timestamp, TopicId, TopicName, TopicPartition, TransactionalId,
};

/// When a produce request is answered (design D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// As soon as it was handed over; errors are not reported.
    None,
    /// Once the bytes are in the page cache.
    Leader,
    /// Once the bytes are as durable as the log promises (`Durability`).
    #[default]
    All,
}

/// Appends one or more whole record batches to one partition.
#[derive(Debug, Clone)]
pub struct ProduceRequest {
    /// Where to.
    pub partition: TopicPartition,
    /// Concatenated record batches, format v2. A batch whose bytes nobody else holds is stamped in place, without a copy.
    pub records: NewRecords,
    /// When to answer.
    pub acks: Acks,
    /// The transactional id, if the batches are transactional. The partition joins the
    /// transaction by this very request (KIP-890 part 2; there is no separate AddPartitionsToTxn).
    pub transactional_id: Option<TransactionalId>,
}

/// Where a produce request's records ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceResponse {
    /// The offset of the first record; that of the first attempt if the batch was a duplicate.
    pub base_offset: Offset,
    /// The time stamped by the log, if the topic uses log append time; else [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// The partition's first offset.
    pub log_start_offset: Offset,
}

/// Read of one partition.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// Which partition.
    pub partition: TopicPartition,
    /// From which offset. The first batch returned may begin before it.
    pub offset: Offset,
    /// At most so many bytes, but at least one whole batch.
    pub max_bytes: usize,
}

/// Reads from partitions; waits up to `max_wait` until `min_bytes` are there.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Reads, in order of preference.
    pub partitions: Vec<FetchPartition>,
    /// Which records to show.
    pub isolation: Isolation,
    /// Answer once so many bytes are there.
    pub min_bytes: usize,
    /// At most so many bytes in all, but at least one whole batch.
    pub max_bytes: usize,
    /// Answer after so long even with less.
    pub max_wait: Duration,
}

/// An aborted transaction that a `read_committed` reader must leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: ProducerId,
    /// The offset of its first record in the partition.
    pub first_offset: Offset,
}

/// Result of one partition's read.
#[derive(Debug, Clone)]
pub struct FetchedPartition<R = Bytes> {
    /// Which partition.
    pub partition: TopicPartition,
    /// The read itself, or why it failed.
    pub result: Result<FetchedRecords<R>, ErrorCode>,
}

/// Bytes read, or to be read, and the partition's marks at that moment.
#[derive(Debug, Clone)]
pub struct FetchedRecords<R = Bytes> {
    /// Whole record batches.
    pub records: R,
    /// Aborted transactions among them (only at `read_committed`), by first offset. If the records are still to be read,
    /// one that begins right behind them may be named too.
    pub aborted_transactions: Vec<AbortedTransaction>,
    /// One past the last offset that readers may see at `read_uncommitted`.
    pub high_watermark: Offset,
    /// One past the last offset that readers may see at `read_committed`.
    pub last_stable_offset: Offset,
    /// The first offset.
    pub log_start_offset: Offset,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one.
    Earliest,
    /// One past the last visible one at the isolation asked for.
    Latest,
    /// The first record whose timestamp is at least this.
    Timestamp(Timestamp),
    /// The record with the largest timestamp.
    MaxTimestamp,
}

/// An offset found, with its record's timestamp where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Offset,
    /// The timestamp of the record there, or [`Timestamp::NONE`].
    pub timestamp: Timestamp,
}

/// A topic to be created.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Number of partitions; at least 1.
    pub partitions_count: i32,
    /// Settings by Kafka's names (`cleanup.policy`, `retention.ms`, …); absent ones have Kafka's defaults.
    pub configs: BTreeMap<String, String>,
}

/// Known facts of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: TopicName,
    /// Its identity; a new one when a topic of the same name is created again.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions_count: i32,
    /// Whether it belongs to a coordinator.
    pub is_internal: bool,
}

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub name: String,
    /// The value in force.
    pub value: String,
    /// Whether nobody set it.
    pub is_default: bool,
    /// Meaning, in a sentence.
    pub documentation: String,
}

/// Asks for a producer identity.
#[derive(Debug, Clone)]
pub struct InitProducerIdRequest {
    /// The transactional id; `None` for an idempotent producer without transactions.
    pub transactional_id: Option<TransactionalId>,
    /// After so long an open transaction is aborted by the coordinator.
    pub transaction_timeout: Duration,
    /// The identity that the producer has, if it asks for its next epoch (KIP-360).
    pub current: Option<ProducerIdentity>,
}

/// Which group member commits offsets. All `None`/−1 for a reader that assigns partitions itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Generation (classic) or member epoch (KIP-848); −1 without membership.
    pub generation: i32,
    /// Member id; empty without membership.
    pub member_id: String,
    /// Static membership's instance id.
    pub group_instance_id: Option<String>,
}

impl Default for GroupMember {
    fn default() -> Self {
        Self {
            generation: -1,
            member_id: String::new(),
            group_instance_id: None,
        }
    }
}

/// A committed position: the offset of the next record to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// Leader epoch of the last consumed record; −1 if unknown.
    pub leader_epoch: i32,
    /// The committer's own words.
    pub metadata: String,
}

/// Commits positions outside any transaction.
#[derive(Debug, Clone)]
pub struct OffsetCommitRequest {
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: GroupMember,
    /// The positions.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// Commits positions inside a transaction: pending until its marker.
#[derive(Debug, Clone)]
pub struct TxnOffsetCommitRequest {
    /// The transaction's id.
    pub transactional_id: TransactionalId,
    /// The producer.
    pub producer: ProducerIdentity,
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: GroupMember,
    /// The positions.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// Reads committed positions.
#[derive(Debug, Clone)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group: GroupId,
    /// Which partitions; `None` for all that the group has.
    pub partitions: Option<Vec<TopicPartition>>,
    /// Whether to answer `UnstableOffsetCommit` while an open transaction holds one of them (C27).
    pub require_stable: bool,
}

/// End of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionResult {
    /// Its effects become visible.
    Commit,
    /// Its effects never become visible.
    Abort,
}

/// Ends a transaction.
#[derive(Debug, Clone)]
pub struct EndTxnRequest {
    /// The transaction's id.
    pub transactional_id: TransactionalId,
    /// The producer.
    pub producer: ProducerIdentity,
    /// Its end.
    pub result: TransactionResult,
}

/// When the end of a transaction came how far, by the monotonic clock of the broker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMoments {
    /// When the transaction's data was durable, as far as the log promises that.
    pub synced: Instant,
    /// When its decision was.
    pub decided: Instant,
}

/// The place where a broker of the same process notes the [`EndMoments`] of a transaction, before it answers.
#[derive(Debug, Clone, Default)]
pub struct EndWatch(Arc<OnceLock<EndMoments>>);

impl EndWatch {
    /// Notes the moments, unless an earlier answer did.
    pub fn note(&self, moments: EndMoments) {
        let _ = self.0.set(moments);
    }

    /// The moments, if they were noted.
    #[must_use]
    pub fn moments(&self) -> Option<EndMoments> {
        self.0.get().copied()
    }
}

/// The state of a transactional id (Kafka's names and numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum TransactionState {
    /// No transaction yet.
    Empty = 0,
    /// Open.
    Ongoing = 1,
    /// Decided: commit. The commit point.
    PrepareCommit = 2,
    /// Decided: abort.
    PrepareAbort = 3,
    /// Committed, all markers written.
    CompleteCommit = 4,
    /// Aborted, all markers written.
    CompleteAbort = 5,
    /// Expired.
    Dead = 6,
    /// Being fenced; never stored.
    PrepareEpochFence = 7,
}

/// One transactional id, as `txn describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The id.
    pub transactional_id: TransactionalId,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its producer epoch.
    pub producer_epoch: ProducerEpoch,
    /// Its state.
    pub state: TransactionState,
    /// Its timeout.
    pub timeout: Duration,
    /// When the open transaction began (wall clock), or [`Timestamp::NONE`].
    pub start: Timestamp,
    /// The partitions of the open or undecided transaction.
    pub partitions: Vec<TopicPartition>,
}

/// An active producer of a partition (Kafka's DescribeProducers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its identity.
    pub producer: ProducerIdentity,
    /// The last sequence it wrote.
    pub last_sequence: i32,
    /// The timestamp of its last batch or marker.
    pub last_timestamp: Timestamp,
    /// The epoch of the coordinator that wrote its last marker; −1 before the first.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub current_transaction_start: Option<Offset>,
}

/// One partition's marks and size, as `topic describe` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Which.
    pub partition: PartitionIndex,
    /// The first offset.
    pub log_start_offset: Offset,
    /// The last stable offset.
    pub last_stable_offset: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
    /// One past the last offset written.
    pub log_end_offset: Offset,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Reason for the offline state, if it is.
    pub offline: Option<String>,
}
