//! The topics and coordinators of one process, on one data directory.
//!
//! A request is a method call and its answer a value or a [`Reply`]: a future that the broker's own threads complete.
//! Guarantees: invariants 1, 4, 5, 6, 8, 9 of the design; one owner of the directory at a time.
//! Knows nothing of TCP, and nothing of jobs.
//!
//! Reading order: this file (the door), `core.rs` (what all share), `directory.rs`, `topics.rs`, `admin.rs`, `unfinished.rs`
//! (what exists), `produce.rs`, `fetch.rs`, `offsets.rs` (records), `sync.rs`, `sync_helpers.rs` (group commit), `journal.rs`,
//! `transactions.rs`, `groups.rs`, `group_calls.rs`, `membership.rs` (the coordinators, driven), `recovery.rs`, `housekeeping.rs`, `threads.rs`.

mod admin;
mod ballast;
mod checkpoints;
mod configs;
mod core;
mod directory;
mod error;
mod fetch;
mod group_calls;
mod groups;
mod holds;
mod housekeeping;
mod journal;
mod membership;
mod offsets;
mod older_transactions;
mod operator_markers;
mod partition;
mod produce;
mod recovery;
mod reply;
pub(crate) mod sealed;
mod sync;
mod sync_helpers;
#[cfg(test)]
mod tests;
mod threads;
mod timer;
mod topics;
mod transactions;
mod unfinished;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::log::{RecordSource, RecordStream};
pub(crate) use configs::topic_defaults;
pub use error::BrokerError;
pub use holds::{CompactionHold, HeldPartition};
pub(crate) use operator_markers::OperatorMarker;
#[doc(hidden)]
pub use reply::Reply;

use self::core::Core;
use self::older_transactions::Joining;
use self::threads::Threads;
pub use crate::coordinator::group::Config as GroupConfig;
pub use crate::coordinator::group::{GroupDescription, MemberDescription};

/// The records of the groups' journal, for who looks into their history.
#[cfg(feature = "http")]
pub(crate) mod offsets_journal {
    pub(crate) use crate::coordinator::CONSUMER_OFFSETS_TOPIC;
    pub(crate) use crate::coordinator::offsets_log::{Key, decode_value};
}

use crate::coordinator::transaction::Residence;
use crate::env::Env;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, ConfigEntry, EndTxnRequest, EndWatch, InitProducerIdRequest, ListedOffset,
    NewTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec, PartitionDescription,
    ProduceRequest, ProduceResponse, ProducerDescription, TopicMetadata, TransactionDescription,
    TxnOffsetCommitRequest,
};
use crate::types::{
    ClusterId, Durability, GroupId, Isolation, Offset, ProducerIdentity, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

/// Who makes bytes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// A thread, which covers with one sync all that wait for it (group commit).
    #[default]
    Thread,
    /// The calling thread, before its call returns. Every run repeats: for simulations.
    Inline,
}

/// The settings of a broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Faults that an acknowledged write survives.
    pub durability: Durability,
    /// The longest transaction timeout that a producer may ask for (`transaction.max.timeout.ms`).
    pub transaction_max_timeout: Duration,
    /// A transactional id unused for so long is forgotten (`transactional.id.expiration.ms`).
    pub transactional_id_expiration: Duration,
    /// An idempotent producer unheard of for so long is forgotten by a partition (`producer.id.expiration.ms`).
    pub producer_id_expiration: Duration,
    /// Groups: retention of positions, session timeouts, sizes.
    pub groups: GroupConfig,
    /// Written records that nobody waits for are synced after at most so long.
    pub flush_interval: Duration,
    /// Interval of looks at retention, compaction and checkpoints.
    pub housekeeping_interval: Duration,
    /// Settings that new topics have unless they say otherwise, by Kafka's names.
    pub topic_defaults: BTreeMap<String, String>,
    /// Who makes bytes durable.
    pub sync_mode: SyncMode,
    /// The size of the file whose space is given up so that aborts and decided commits still finish on a full disk, in bytes.
    pub ballast_bytes: u64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            transaction_max_timeout: Duration::from_secs(15 * 60),
            transactional_id_expiration: Duration::from_secs(7 * 24 * 3600),
            producer_id_expiration: Duration::from_secs(24 * 3600),
            groups: GroupConfig::default(),
            flush_interval: Duration::from_secs(1),
            housekeeping_interval: Duration::from_secs(15),
            topic_defaults: BTreeMap::new(),
            sync_mode: SyncMode::Thread,
            ballast_bytes: 1 << 20,
        }
    }
}

/// The embedded log. Cheap to clone; the last clone's drop stops its threads without closing its files
/// cleanly, as a crash would: call [`Broker::close`].
///
/// # Errors
/// Every method answers `KafkaStorageError` once the broker is closed, and once a write or sync has failed (F11):
/// then nothing more is acknowledged until the directory is opened again. What else a method refuses, it says itself.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
    threads: Arc<Threads>,
}

impl Broker {
    /// Opens the data directory, creating it if it is absent, and finishes what a crash left: decided
    /// transactions are rolled forward and others back before anything can be read (I1). Only those of producers that
    /// outlived the last process stay open, unless power was lost.
    ///
    /// # Errors
    /// If the directory is in use, not ours, of a newer format, not writable, or damaged below what was acknowledged.
    #[allow(clippy::needless_pass_by_value)]
    pub fn open(env: Env, data_dir: &Path, config: BrokerConfig) -> Result<Self, BrokerError> {
        let core = recovery::open(&env, data_dir, config)?;
        let threads = Threads::start(&core)?;
        Ok(Self {
            core,
            threads: Arc::new(threads),
        })
    }

    /// Answers what is outstanding, stops the threads, and closes all files in order. Every later call is refused.
    ///
    /// # Errors
    /// If a file cannot be written or synced.
    pub fn close(&self) -> Result<(), BrokerError> {
        self.core.refuse_calls();
        self.threads.stop();
        self.core.close_files()
    }

    /// Where the data directory is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.core.directory.root()
    }

    /// The identity of the data directory.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.core.directory.cluster_id()
    }

    #[doc(hidden)]
    /// Creates a topic, wholly or not at all.
    ///
    /// # Errors
    /// `TopicAlreadyExists`, `InvalidPartitions`, `InvalidConfig`, `InvalidTopicException`.
    #[doc(hidden)]
    pub fn create_topic(&self, topic: &NewTopic) -> Result<TopicMetadata, BrokerError> {
        let created = self.core.create_topic(topic)?;
        self.core.tell_groups_of_topics();
        Ok(created)
    }

    /// Says whether a topic could be created now, without doing it.
    ///
    /// # Errors
    /// As [`Broker::create_topic`].
    pub(crate) fn check_topic(&self, topic: &NewTopic) -> Result<(), BrokerError> {
        self.core.check_topic(topic)
    }

    #[doc(hidden)]
    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `InvalidTopicException`.
    #[doc(hidden)]
    pub fn delete_topic(&self, topic: &TopicName) -> Result<(), BrokerError> {
        self.core.delete_topic(topic)?;
        self.core.tell_groups_of_topics();
        Ok(())
    }

    #[doc(hidden)]
    /// Adds partitions until there are `total_count`.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `InvalidPartitions` if there are as many already.
    #[doc(hidden)]
    pub fn create_partitions(
        &self,
        topic: &TopicName,
        total_count: i32,
    ) -> Result<(), BrokerError> {
        self.core.create_partitions(topic, total_count)?;
        self.core.tell_groups_of_topics();
        Ok(())
    }

    #[doc(hidden)]
    /// All topics by name, the coordinators' own included.
    ///
    /// # Errors
    /// As every method.
    #[doc(hidden)]
    pub fn topics(&self) -> Result<Vec<TopicMetadata>, BrokerError> {
        self.core.check_open()?;
        Ok(self
            .core
            .topics
            .all()
            .iter()
            .map(|t| t.metadata())
            .collect())
    }

    /// One topic; `None` if there is none of that name.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn topic(&self, topic: &TopicName) -> Result<Option<TopicMetadata>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.topics.topic(topic).ok().map(|t| t.metadata()))
    }

    /// One topic, by its identity; `None` if there is none.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn topic_by_id(&self, id: TopicId) -> Result<Option<TopicMetadata>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.topics.topic_by_id(id).map(|t| t.metadata()))
    }

    /// The settings of a topic, each with the value in force.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(crate) fn describe_configs(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<ConfigEntry>, BrokerError> {
        self.core.describe_configs(topic)
    }

    /// Changes settings of a topic, all of them or none. `None` removes a setting, which then has its default again.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `InvalidConfig`.
    pub(crate) fn alter_configs(
        &self,
        topic: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), BrokerError> {
        self.core.alter_configs(topic, changes)
    }

    /// Says whether settings could be changed so, without doing it.
    ///
    /// # Errors
    /// As [`Broker::alter_configs`].
    pub(crate) fn check_configs(
        &self,
        topic: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), BrokerError> {
        self.core.check_configs(topic, changes)
    }

    #[doc(hidden)]
    /// The marks and sizes of a topic's partitions.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    #[doc(hidden)]
    pub fn describe_partitions(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<PartitionDescription>, BrokerError> {
        self.core.describe_partitions(topic)
    }

    #[doc(hidden)]
    /// The producers that a partition remembers.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    #[doc(hidden)]
    pub fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.partition(partition)?.lock()?.producers())
    }

    #[doc(hidden)]
    /// Appends in the call, before the reply is polled. The reply is there at once, unless `acks` is
    /// `All`, the batches are not transactional, and the log promises `Fsync`.
    ///
    /// The reply's errors: `UnknownTopicOrPartition`, `MessageTooLarge`, those of the idempotent producer
    /// (`OutOfOrderSequenceNumber`, `InvalidProducerEpoch`…) and of transactions (`ProducerFenced`, `ConcurrentTransactions`…).
    #[doc(hidden)]
    pub fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        self.core.produce(request, Joining::ByAppend)
    }

    #[doc(hidden)]
    /// Finds an offset; `None` if no record has such a timestamp.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    #[doc(hidden)]
    pub fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, BrokerError> {
        self.core.list_offset(partition, spec, isolation)
    }

    #[doc(hidden)]
    /// Moves the partition's first offset up to `before`, or up to the first open transaction if `before` is −1; returns the
    /// first offset then.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, `OffsetOutOfRange`.
    #[doc(hidden)]
    pub fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, BrokerError> {
        self.core.delete_records(partition, before)
    }

    /// The leader epoch of every partition: a number for each opening of the directory, so that a reader whose records
    /// a power loss took (with [`Durability::Process`]) sees that they are gone (KIP-320).
    #[must_use]
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.core.leader_epoch
    }

    /// The largest leader epoch up to `epoch` that wrote something in the partition, and one past its last offset;
    /// `None` if `epoch` is negative or later than [`Broker::leader_epoch`].
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(crate) fn leader_epoch_end(
        &self,
        partition: &TopicPartition,
        epoch: i32,
    ) -> Result<Option<(i32, Offset)>, BrokerError> {
        self.core.check_open()?;
        let partition = self.core.partition(partition)?;
        let end = partition.lock()?.leader_epoch_end(epoch);
        Ok(end)
    }

    /// The leader epoch that wrote `offset`; at the partition's end, the one in force; −1 if nobody remembers.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(crate) fn leader_epoch_at(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<i32, BrokerError> {
        self.core.check_open()?;
        let partition = self.core.partition(partition)?;
        let epoch = partition.lock()?.leader_epoch_at(offset);
        Ok(epoch)
    }

    #[doc(hidden)]
    /// Gives a producer of this process its identity. For a transactional id it fences every earlier holder, and ends what
    /// that left open (I4).
    #[doc(hidden)]
    pub fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        self.core.init_producer_id(request, Residence::Embedded)
    }

    #[doc(hidden)]
    /// Ends a transaction. The reply holds the identity for the next one. The transaction is driven to its end
    /// even if the reply is dropped (C17). `UnknownServerError` means that the outcome is known only after a reopening.
    #[doc(hidden)]
    pub fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        self.core.end_txn(request, None)
    }

    #[doc(hidden)]
    /// The same, and notes when what of it was done.
    pub fn end_txn_watched(
        &self,
        request: EndTxnRequest,
        watch: EndWatch,
    ) -> Reply<ProducerIdentity> {
        self.core.end_txn(request, Some(watch))
    }

    #[doc(hidden)]
    /// Commits positions inside a transaction: they are pending until its marker (I8).
    #[doc(hidden)]
    pub fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> Reply<()> {
        self.core.txn_offset_commit(request, Joining::ByAppend)
    }

    #[doc(hidden)]
    /// Commits positions outside any transaction.
    #[doc(hidden)]
    pub fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()> {
        self.core.offset_commit(request)
    }

    #[doc(hidden)]
    /// The committed positions of a group; `None` for a partition without one.
    ///
    /// # Errors
    /// `UnstableOffsetCommit` if stability is asked for and an open transaction holds one of them (C27).
    #[doc(hidden)]
    #[allow(clippy::type_complexity)]
    pub fn offset_fetch(
        &self,
        request: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, BrokerError> {
        self.core.check_open()?;
        self.core.groups.fetch(request)
    }

    /// Checks that a member of the consumer protocol that asks for positions is one still, with the epoch that it has
    /// (KIP-848). Who says neither is no member, and is let through; so is everybody in other groups.
    ///
    /// # Errors
    /// `UnknownMemberId`, `StaleMemberEpoch`.
    pub(crate) fn check_reader(
        &self,
        group: &GroupId,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> Result<(), BrokerError> {
        self.core.check_open()?;
        self.core
            .groups
            .check_reader(group, member_id, member_epoch)
    }

    /// The settings of the broker.
    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        &self.core.config
    }

    #[doc(hidden)]
    /// Every transactional id.
    ///
    /// # Errors
    /// As every method.
    #[doc(hidden)]
    pub fn list_transactions(&self) -> Result<Vec<TransactionDescription>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.transactions.list())
    }

    /// One transactional id.
    ///
    /// # Errors
    /// `TransactionalIdNotFound`.
    pub(crate) fn describe_transaction(
        &self,
        id: &TransactionalId,
    ) -> Result<TransactionDescription, BrokerError> {
        self.core.check_open()?;
        self.core.transactions.describe(id).ok_or_else(|| {
            let message = format!("no producer has ever had the transactional id {id}");
            BrokerError::new(ErrorCode::TransactionalIdNotFound, message)
        })
    }

    /// Aborts the open transaction of `id` and fences its producer, on an operator's word.
    pub(crate) fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        self.core.abort_transaction(id)
    }

    /// Looks now whether the time of a transaction, a session or a rebalance is over.
    pub(crate) fn tick(&self) {
        self.core.tick();
    }

    #[doc(hidden)]
    /// Does now what the threads do from time to time: timeouts, flushes, retention, compaction, checkpoints.
    /// In [`SyncMode::Inline`] nobody else does it.
    #[doc(hidden)]
    pub fn housekeep(&self) {
        self.core.tick();
        self.core.flush();
        self.core.flush_due(self.core.env.clock.now());
        self.core.housekeep();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}
