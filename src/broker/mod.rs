//! The topics and coordinators of one process, on one data directory.
//!
//! A request is a method call and its answer a value or a [`Reply`]: a future that the broker's own threads complete.
//! Guarantees: invariants 1, 4, 5, 6, 8, 9 of the design; one owner of the directory at a time.
//! Knows nothing of TCP, and nothing of jobs.
//!
//! Reading order: this file (the door), `directory.rs`, `topics.rs`, `produce.rs`, `fetch.rs`, `sync.rs`, `transactions.rs`.

mod directory;
mod error;
mod reply;
mod sealed;
mod topics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use error::BrokerError;
pub use reply::Reply;

use crate::env::Env;
use crate::protocol::messages::{
    CommittedOffset, ConfigEntry, EndTxnRequest, FetchRequest, FetchedPartition,
    InitProducerIdRequest, ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest,
    OffsetSpec, PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription,
    TopicMetadata, TransactionDescription, TxnOffsetCommitRequest,
};
use crate::types::{
    ClusterId, Durability, GroupId, Isolation, Offset, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
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
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// The longest transaction timeout that a producer may ask for (`transaction.max.timeout.ms`).
    pub transaction_max_timeout: Duration,
    /// A transactional id unused for so long is forgotten (`transactional.id.expiration.ms`).
    pub transactional_id_expiration: Duration,
    /// An idempotent producer unheard of for so long is forgotten by a partition (`producer.id.expiration.ms`).
    pub producer_id_expiration: Duration,
    /// Written records that nobody waits for are synced after at most so long.
    pub flush_interval: Duration,
    /// How often retention, compaction, checkpoints and timeouts are looked at.
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
            flush_interval: Duration::from_secs(1),
            housekeeping_interval: Duration::from_millis(500),
            topic_defaults: BTreeMap::new(),
            sync_mode: SyncMode::Thread,
            ballast_bytes: 1 << 20,
        }
    }
}

/// A group's committed positions, as `group describe` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group.
    pub group: GroupId,
    /// Its committed positions, by partition.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The partitions for which an open transaction holds a position.
    pub pending: Vec<TopicPartition>,
}

/// The embedded log. Cheap to clone; the last clone's drop stops its threads without closing its files
/// cleanly, as a crash would: call [`Broker::close`].
#[derive(Clone)]
pub struct Broker {
    inner: Arc<()>,
}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Broker {
    /// Opens the data directory, creating it if it is absent, and finishes what a crash left: decided
    /// transactions are rolled forward and all others back before anything can be read (I1).
    ///
    /// # Errors
    /// If the directory is in use, not ours, of a newer format, not writable, or damaged below what was acknowledged.
    pub fn open(env: Env, data_dir: &Path, config: BrokerConfig) -> Result<Self, BrokerError> {
        todo!()
    }

    /// Answers what is outstanding, stops the threads, and closes all files cleanly. Every later call is refused.
    ///
    /// # Errors
    /// If a file cannot be written or synced.
    pub fn close(&self) -> Result<(), BrokerError> {
        todo!()
    }

    pub fn cluster_id(&self) -> ClusterId {
        todo!()
    }

    pub fn create_topic(&self, topic: &NewTopic) -> Result<TopicMetadata, BrokerError> {
        todo!()
    }

    pub fn delete_topic(&self, topic: &TopicName) -> Result<(), BrokerError> {
        todo!()
    }

    pub fn create_partitions(
        &self,
        topic: &TopicName,
        total_count: i32,
    ) -> Result<(), BrokerError> {
        todo!()
    }

    pub fn topics(&self) -> Result<Vec<TopicMetadata>, BrokerError> {
        todo!()
    }

    pub fn topic(&self, topic: &TopicName) -> Result<Option<TopicMetadata>, BrokerError> {
        todo!()
    }

    pub fn describe_configs(&self, topic: &TopicName) -> Result<Vec<ConfigEntry>, BrokerError> {
        todo!()
    }

    /// `None` removes a setting, which then has its default again.
    pub fn alter_configs(
        &self,
        topic: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), BrokerError> {
        todo!()
    }

    pub fn describe_partitions(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<PartitionDescription>, BrokerError> {
        todo!()
    }

    pub fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, BrokerError> {
        todo!()
    }

    /// Appends in the call, before the reply is polled. The reply is there at once, unless `acks` is
    /// `All`, the batches are not transactional, and the log promises `Fsync`.
    pub fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        todo!()
    }

    /// Reads; there at once if `min_bytes` are, else when they are or `max_wait` is over.
    pub fn fetch(&self, request: FetchRequest) -> Fetch {
        todo!()
    }

    /// `None` if no record has such a timestamp.
    pub fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, BrokerError> {
        todo!()
    }

    /// Moves the partition's first offset up to `before`; returns the first offset then.
    pub fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, BrokerError> {
        todo!()
    }

    pub fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        todo!()
    }

    /// Ends a transaction. The reply holds the identity for the next one.
    pub fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        todo!()
    }

    pub fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> Reply<()> {
        todo!()
    }

    pub fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()> {
        todo!()
    }

    #[allow(clippy::type_complexity)]
    pub fn offset_fetch(
        &self,
        request: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, BrokerError> {
        todo!()
    }

    pub fn list_transactions(&self) -> Result<Vec<TransactionDescription>, BrokerError> {
        todo!()
    }

    pub fn describe_transaction(
        &self,
        id: &TransactionalId,
    ) -> Result<TransactionDescription, BrokerError> {
        todo!()
    }

    /// Aborts the open transaction of `id` and fences its producer, on an operator's word.
    pub fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        todo!()
    }

    pub fn list_groups(&self) -> Result<Vec<GroupId>, BrokerError> {
        todo!()
    }

    pub fn describe_group(&self, group: &GroupId) -> Result<GroupDescription, BrokerError> {
        todo!()
    }

    pub fn delete_group(&self, group: &GroupId) -> Reply<()> {
        todo!()
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

/// A read that waits for data.
#[must_use = "a fetch reads only when it is awaited"]
pub struct Fetch(Broker);

#[allow(clippy::todo)]
impl Future for Fetch {
    type Output = Result<Vec<FetchedPartition>, BrokerError>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let _ = &self.0.inner;
        todo!()
    }
}
