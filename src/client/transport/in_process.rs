//! `InProcess`: requests as function calls into a broker of the same process.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::ready;

use super::{FetchedOffset, Reply, Transport};
use crate::broker::{
    Broker, BrokerError, CompactionHold, GroupDescription, OperatorMarker, Reply as BrokerReply,
};
use crate::client::ClientError;
use crate::env::Env;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::protocol::messages::{
    ConfigEntry, EndTxnRequest, EndWatch, FetchRequest, FetchedPartition, InitProducerIdRequest,
    ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec,
    PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription, TopicMetadata,
    TransactionDescription, TransactionResult, TxnOffsetCommitRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{
    GroupId, Isolation, Offset, ProducerIdentity, TopicName, TopicPartition, TransactionalId,
};

/// The embedded log as a transport: no copy, no encoding, no thread of its own. Cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    env: Env,
    broker: Broker,
}

impl InProcess {
    /// Clients of `broker`, with the clock and threads of `env` (the broker's own).
    #[must_use]
    pub fn new(env: Env, broker: Broker) -> Self {
        Self { env, broker }
    }

    /// The broker behind.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

fn refused(request: &'static str, error: BrokerError) -> ClientError {
    ClientError::Refused {
        request,
        code: error.code,
        kind: error.kind(),
        message: error.message,
    }
}

/// For requests that a storage error may have cut off after they took effect: a decision
/// record can be on the disk although its sync failed. (A full disk is refused before, as retriable.)
fn refused_or_unknown(request: &'static str, error: BrokerError) -> ClientError {
    let is_cut_off = error.kind() == ErrorKind::Fatal;
    match error.code {
        ErrorCode::KafkaStorageError if is_cut_off => ClientError::Unanswered {
            request,
            why: error.message,
            kind: ErrorKind::Fatal,
        },
        _ => refused(request, error),
    }
}

fn at_once<T: Send + 'static>(request: &'static str, result: Result<T, BrokerError>) -> Reply<T> {
    ready(result.map_err(|e| refused(request, e))).boxed()
}

fn later<T: Send + 'static>(
    request: &'static str,
    reply: BrokerReply<T>,
    describe: fn(&'static str, BrokerError) -> ClientError,
) -> Reply<T> {
    match reply.now() {
        Ok(result) => ready(result.map_err(|e| describe(request, e))).boxed(),
        Err(reply) => reply
            .map(move |result| result.map_err(|e| describe(request, e)))
            .boxed(),
    }
}

impl Transport for InProcess {
    fn env(&self) -> &Env {
        &self.env
    }

    fn may_lose_answers(&self) -> bool {
        false
    }

    fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        later("Produce", self.broker.produce(request), refused)
    }

    fn fetch(&self, request: FetchRequest) -> Reply<Vec<FetchedPartition>> {
        let fetch = self.broker.fetch(request);
        fetch.map(|r| r.map_err(|e| refused("Fetch", e))).boxed()
    }

    fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Reply<Option<ListedOffset>> {
        let result = self.broker.list_offset(partition, spec, isolation);
        at_once("ListOffsets", result)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Reply<Offset> {
        at_once(
            "DeleteRecords",
            self.broker.delete_records(partition, before),
        )
    }

    fn compaction_holds(
        &self,
        group: &GroupId,
    ) -> Result<Option<Vec<CompactionHold>>, ClientError> {
        let holds = self.broker.compaction_holds(Some(group));
        holds.map(Some).map_err(|e| refused("CompactionHolds", e))
    }

    fn hold_compaction(
        &self,
        topic: &TopicName,
        group: &GroupId,
        table: &str,
    ) -> Result<(), ClientError> {
        let held = self.broker.hold_compaction(topic, group, table);
        held.map_err(|e| refused("HoldCompaction", e))
    }

    fn release_compaction(&self, group: &GroupId, table: Option<&str>) -> Result<(), ClientError> {
        let released = self.broker.release_compaction(group, table);
        released.map_err(|e| refused("ReleaseCompaction", e))
    }

    fn create_topic(&self, topic: NewTopic) -> Reply<TopicMetadata> {
        at_once("CreateTopics", self.broker.create_topic(&topic))
    }

    fn delete_topic(&self, topic: &TopicName) -> Reply<()> {
        at_once("DeleteTopics", self.broker.delete_topic(topic))
    }

    fn create_partitions(&self, topic: &TopicName, partitions_count: i32) -> Reply<()> {
        let result = self.broker.create_partitions(topic, partitions_count);
        at_once("CreatePartitions", result)
    }

    fn topics(&self) -> Reply<Vec<TopicMetadata>> {
        at_once("Metadata", self.broker.topics())
    }

    fn topic(&self, topic: &TopicName) -> Reply<Option<TopicMetadata>> {
        at_once("Metadata", self.broker.topic(topic))
    }

    fn describe_configs(&self, topic: &TopicName) -> Reply<Vec<ConfigEntry>> {
        at_once("DescribeConfigs", self.broker.describe_configs(topic))
    }

    fn alter_configs(
        &self,
        topic: &TopicName,
        changes: BTreeMap<String, Option<String>>,
    ) -> Reply<()> {
        at_once(
            "IncrementalAlterConfigs",
            self.broker.alter_configs(topic, &changes),
        )
    }

    fn describe_partitions(&self, topic: &TopicName) -> Reply<Vec<PartitionDescription>> {
        at_once("DescribeLogDirs", self.broker.describe_partitions(topic))
    }

    fn describe_producers(&self, partition: &TopicPartition) -> Reply<Vec<ProducerDescription>> {
        at_once(
            "DescribeProducers",
            self.broker.describe_producers(partition),
        )
    }

    fn abort_in_partition(
        &self,
        partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Reply<()> {
        let marker = OperatorMarker {
            producer: producer.producer,
            coordinator_epoch: producer.coordinator_epoch.max(0),
            result: TransactionResult::Abort,
        };
        let reply = self.broker.write_marker(partition, marker);
        later("WriteTxnMarkers", reply, refused)
    }

    fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        later(
            "InitProducerId",
            self.broker.init_producer_id(request),
            refused,
        )
    }

    fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        later("EndTxn", self.broker.end_txn(request), refused_or_unknown)
    }

    fn end_txn_watched(&self, request: EndTxnRequest, watch: EndWatch) -> Reply<ProducerIdentity> {
        let reply = self.broker.end_txn_watched(request, watch);
        later("EndTxn", reply, refused_or_unknown)
    }

    fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> Reply<()> {
        let reply = self.broker.txn_offset_commit(request);
        later("TxnOffsetCommit", reply, refused_or_unknown)
    }

    fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()> {
        let reply = self.broker.offset_commit(request);
        later("OffsetCommit", reply, refused_or_unknown)
    }

    fn offset_fetch(&self, request: OffsetFetchRequest) -> Reply<Vec<FetchedOffset>> {
        at_once("OffsetFetch", self.broker.offset_fetch(&request))
    }

    fn list_transactions(&self) -> Reply<Vec<TransactionDescription>> {
        at_once("ListTransactions", self.broker.list_transactions())
    }

    fn describe_transaction(&self, id: &TransactionalId) -> Reply<TransactionDescription> {
        at_once("DescribeTransactions", self.broker.describe_transaction(id))
    }

    fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        let reply = self.broker.abort_transaction(id);
        later("abort of the transaction", reply, refused_or_unknown)
    }

    fn list_groups(&self) -> Reply<Vec<GroupId>> {
        at_once("ListGroups", self.broker.list_groups())
    }

    fn describe_group(&self, group: &GroupId) -> Reply<GroupDescription> {
        at_once("DescribeGroups", self.broker.describe_group(group))
    }

    fn join_group(&self, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        later("JoinGroup", self.broker.join_group(request), refused)
    }

    fn sync_group(&self, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        later("SyncGroup", self.broker.sync_group(request), refused)
    }

    fn heartbeat(&self, request: HeartbeatRequest) -> Reply<()> {
        later("Heartbeat", self.broker.heartbeat(request), refused)
    }

    fn leave_group(&self, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        later("LeaveGroup", self.broker.leave_group(request), refused)
    }

    fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        let reply = self.broker.consumer_group_heartbeat(request);
        later("ConsumerGroupHeartbeat", reply, refused)
    }

    fn delete_group(&self, group: &GroupId) -> Reply<()> {
        later("DeleteGroups", self.broker.delete_group(group), refused)
    }
}
