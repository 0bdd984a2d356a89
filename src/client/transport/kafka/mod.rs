//! `KafkaTransport`: requests over TCP to an Apache Kafka cluster, or to anything that speaks its protocol.
//!
//! Every request runs as a task of the transport's own thread, so that nothing is withdrawn when its caller goes away
//! (C17). Batches of a partition, and the requests about a transactional id, take their turn when they are made and
//! leave in that order. What had no effect is repeated here or told as an error; `Unanswered` is only what may have had one.
//! Transactions are v2 (KIP-890): their epoch changes at each end, and a late request of an earlier one is refused (C13, C14).
//!
//! Reading order: `settings.rs` and `names.rs`, `cluster.rs` (who is asked, and how often), `judge.rs`, `metadata.rs` (what decides),
//! `channel.rs`, `login.rs`, `slots.rs` (connections), `produce.rs` and `outbox.rs`, `fetch.rs` and `epochs.rs`, `transactions.rs`, `topics.rs`, `groups.rs`, `membership.rs`.

mod answers;
mod backoff;
mod channel;
mod cluster;
mod epochs;
mod fetch;
mod groups;
mod judge;
mod login;
mod membership;
mod metadata;
mod names;
mod outbox;
mod produce;
mod settings;
mod slots;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;
mod turns;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;

pub use self::settings::{EndpointCheck, KafkaSettings, SecurityProtocol, TransactionProtocol};

use self::cluster::Cluster;
use self::transactions::Joined;
use self::turns::Turns;
use super::{FetchedOffset, Reply, Transport};
use crate::broker::GroupDescription;
use crate::client::ClientError;
use crate::client::consumer::ConsumerConfig;
use crate::client::producer::ProducerConfig;
use crate::client::wait::wait;
use crate::env::Env;
use crate::net::OwnRuntime;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::protocol::messages::{
    ConfigEntry, EndTxnRequest, FetchRequest, FetchedPartition, InitProducerIdRequest,
    ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec,
    PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription, TopicMetadata,
    TransactionDescription, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Isolation, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
};

/// The name of the thread that carries the requests.
const THREAD: &str = "of-kafka";

/// A Kafka cluster as a transport. Cheap to clone; the last clone's drop closes the connections.
#[derive(Clone)]
pub struct KafkaTransport {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    cluster_id: String,
    runtime: tokio::runtime::Handle,
    /// Its drop ends the thread.
    _is_over: tokio::sync::oneshot::Sender<()>,
    batches: Turns<TopicPartition>,
    transactions: Turns<TransactionalId>,
    joined: Arc<Joined>,
}

impl KafkaTransport {
    /// Connects to the cluster. Blocks until a broker has answered; not for use inside an async task.
    ///
    /// # Errors
    /// If the settings contradict each other, no broker can be reached, or it does not let us in.
    pub fn connect(env: Env, settings: KafkaSettings) -> Result<Self, ClientError> {
        let cluster = Arc::new(Cluster::new(env.clone(), settings)?);
        let (is_over, over) = tokio::sync::oneshot::channel();
        let runtime = start_thread(&env, over)?;
        let asking = Arc::clone(&cluster);
        let first = runtime.spawn(async move { asking.ask_metadata(Some(Vec::new())).await });
        let answer = wait(first).map_err(|_| closed())?;
        let answer = answer.map_err(|error| as_unreachable(&cluster, error))?;
        let inner = Inner {
            cluster,
            cluster_id: answer.cluster_id.unwrap_or_else(|| "kafka".to_owned()),
            runtime,
            _is_over: is_over,
            batches: Turns::new(),
            transactions: Turns::new(),
            joined: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    /// The settings it was connected with.
    #[must_use]
    pub fn settings(&self) -> &KafkaSettings {
        &self.inner.cluster.settings
    }

    /// Runs a request to its end, whether or not anybody waits for it.
    fn run<T, F>(&self, request: impl FnOnce(Arc<Cluster>) -> F) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let task = request(Arc::clone(&self.inner.cluster));
        let running = self.inner.runtime.spawn(task);
        running
            .map(|ended| ended.unwrap_or_else(|_| Err(closed())))
            .boxed()
    }
}

/// The thread of a transport, and the way to give it tasks.
fn start_thread(
    env: &Env,
    over: tokio::sync::oneshot::Receiver<()>,
) -> Result<tokio::runtime::Handle, ClientError> {
    let failed = |e: std::io::Error| ClientError::Thread {
        name: THREAD.to_owned(),
        why: e.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let runtime = OwnRuntime::from(runtime);
    let handle = runtime.handle().clone();
    let body = move || {
        // The sender's drop is the end.
        let _ = runtime.block_on(over);
    };
    env.spawn.spawn(THREAD, Box::new(body)).map_err(failed)?;
    Ok(handle)
}

/// The first question of all has no outcome to be unknown: without its answer there is no way in.
fn as_unreachable(cluster: &Cluster, error: ClientError) -> ClientError {
    match error {
        ClientError::Unanswered { why, kind, .. } => {
            let brokers = cluster.settings.bootstrap_servers.iter();
            let brokers: Vec<_> = brokers.map(ToString::to_string).collect();
            ClientError::Connect {
                address: brokers.join(","),
                why,
                kind,
            }
        }
        other => other,
    }
}

/// The thread ended under a request: what became of it is not known.
fn closed() -> ClientError {
    ClientError::Unanswered {
        request: "a request",
        why: "the client was closed".to_owned(),
        kind: crate::protocol::ErrorKind::Fatal,
    }
}

impl std::fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KafkaTransport")
            .field(&self.inner.cluster_id)
            .finish()
    }
}

impl Transport for KafkaTransport {
    fn env(&self) -> &Env {
        &self.inner.cluster.env
    }

    fn producer_config(&self) -> Result<ProducerConfig, ClientError> {
        self.settings().producer()
    }

    fn consumer_config(&self) -> Result<ConsumerConfig, ClientError> {
        self.settings().consumer()
    }

    fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        let turn = self.inner.batches.take(&request.partition);
        let joined = Arc::clone(&self.inner.joined);
        self.run(|cluster| async move { cluster.produce(request, turn, &joined).await })
    }

    fn fetch(&self, request: FetchRequest) -> Reply<Vec<FetchedPartition>> {
        self.run(|cluster| async move { cluster.fetch(request).await })
    }

    fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Reply<Option<ListedOffset>> {
        let partition = partition.clone();
        self.run(|cluster| async move { cluster.list_offset(&partition, spec, isolation).await })
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Reply<Offset> {
        let partition = partition.clone();
        self.run(|cluster| async move { cluster.delete_records(&partition, before).await })
    }

    fn create_topic(&self, topic: NewTopic) -> Reply<TopicMetadata> {
        self.run(|cluster| async move { cluster.create_topic(topic).await })
    }

    fn delete_topic(&self, topic: &TopicName) -> Reply<()> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.delete_topic(&topic).await })
    }

    fn create_partitions(&self, topic: &TopicName, partitions_count: i32) -> Reply<()> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.create_partitions(&topic, partitions_count).await })
    }

    fn topics(&self) -> Reply<Vec<TopicMetadata>> {
        self.run(|cluster| async move { cluster.topics().await })
    }

    fn topic(&self, topic: &TopicName) -> Reply<Option<TopicMetadata>> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.topic(&topic).await })
    }

    fn describe_configs(&self, topic: &TopicName) -> Reply<Vec<ConfigEntry>> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.describe_configs(&topic).await })
    }

    fn alter_configs(
        &self,
        topic: &TopicName,
        changes: BTreeMap<String, Option<String>>,
    ) -> Reply<()> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.alter_configs(&topic, changes).await })
    }

    fn describe_partitions(&self, topic: &TopicName) -> Reply<Vec<PartitionDescription>> {
        let topic = topic.clone();
        self.run(|cluster| async move { cluster.describe_partitions(&topic).await })
    }

    fn describe_producers(&self, partition: &TopicPartition) -> Reply<Vec<ProducerDescription>> {
        let partition = partition.clone();
        self.run(|cluster| async move { cluster.describe_producers(&partition).await })
    }

    fn abort_in_partition(
        &self,
        partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Reply<()> {
        let (partition, producer) = (partition.clone(), producer.clone());
        self.run(|cluster| async move { cluster.abort_in_partition(&partition, &producer).await })
    }

    fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        self.run(|cluster| async move { cluster.init_producer_id(request).await })
    }

    fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        let turn = self.inner.transactions.take(&request.transactional_id);
        let joined = Arc::clone(&self.inner.joined);
        self.run(|cluster| async move { cluster.end_txn(request, turn, &joined).await })
    }

    fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> Reply<()> {
        let turn = self.inner.transactions.take(&request.transactional_id);
        self.run(|cluster| async move { cluster.txn_offset_commit(request, turn).await })
    }

    fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()> {
        self.run(|cluster| async move { cluster.offset_commit(request).await })
    }

    fn offset_fetch(&self, request: OffsetFetchRequest) -> Reply<Vec<FetchedOffset>> {
        self.run(|cluster| async move { cluster.offset_fetch(request).await })
    }

    fn list_transactions(&self) -> Reply<Vec<TransactionDescription>> {
        self.transactions_of(&[])
    }

    fn transactions_of(&self, producers: &[ProducerId]) -> Reply<Vec<TransactionDescription>> {
        let producers = producers.iter().map(|producer| producer.0).collect();
        self.run(|cluster| async move { cluster.list_transactions(producers).await })
    }

    fn describe_transaction(&self, id: &TransactionalId) -> Reply<TransactionDescription> {
        let id = id.clone();
        self.run(|cluster| async move { cluster.describe_transaction(&id).await })
    }

    fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        let id = id.clone();
        self.run(|cluster| async move { cluster.abort_transaction(&id).await })
    }

    fn list_groups(&self) -> Reply<Vec<GroupId>> {
        self.run(|cluster| async move { cluster.list_groups().await })
    }

    fn describe_group(&self, group: &GroupId) -> Reply<GroupDescription> {
        let group = group.clone();
        self.run(|cluster| async move { cluster.describe_group(&group).await })
    }

    fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        self.run(|cluster| async move { cluster.consumer_group_heartbeat(request).await })
    }

    fn delete_group(&self, group: &GroupId) -> Reply<()> {
        let group = group.clone();
        self.run(|cluster| async move { cluster.delete_group(&group).await })
    }

    fn join_group(&self, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        self.run(|cluster| async move { cluster.join_group(request).await })
    }

    fn sync_group(&self, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        self.run(|cluster| async move { cluster.sync_group(request).await })
    }

    fn heartbeat(&self, request: HeartbeatRequest) -> Reply<()> {
        self.run(|cluster| async move { cluster.heartbeat(request).await })
    }

    fn leave_group(&self, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        self.run(|cluster| async move { cluster.leave_group(request).await })
    }
}
