//! The way from a client to a broker: one method a request (design D1).
//!
//! Contract of every implementation:
//! - a request is handed over by the call itself, before its future is first polled;
//! - requests of one caller to one partition or one transactional id arrive in the order of the calls;
//! - dropping the future withdraws nothing (C17);
//! - `Unanswered` is returned exactly where the outcome is unknown; every other error means "no effect".

mod in_process;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(test)]
pub(crate) mod scripted;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
pub use in_process::InProcess;
#[cfg(feature = "kafka")]
pub use kafka::{
    EndpointCheck, KafkaSettings, KafkaTransport, SecurityProtocol, TransactionProtocol,
};

use super::ClientError;
use super::consumer::ConsumerConfig;
use super::producer::ProducerConfig;
use crate::broker::{CompactionHold, GroupDescription};
use crate::env::Env;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::protocol::messages::{
    CommittedOffset, ConfigEntry, EndTxnRequest, EndWatch, FetchRequest, FetchedPartition,
    InitProducerIdRequest, ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest,
    OffsetSpec, PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription,
    TopicMetadata, TransactionDescription, TxnOffsetCommitRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{
    GroupId, Isolation, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
};

/// The answer to a request, to be awaited on any executor.
#[doc(hidden)]
pub type Reply<T> = BoxFuture<'static, Result<T, ClientError>>;

/// A position that a group committed, if it did.
#[doc(hidden)]
pub type FetchedOffset = (TopicPartition, Option<CommittedOffset>);

/// The answer of a transport whose broker knows no members.
fn without_groups<T: Send + 'static>(request: &'static str, group: &GroupId) -> Reply<T> {
    let error = ClientError::Refused {
        request,
        code: ErrorCode::UnsupportedVersion,
        message: format!("group {group}: this log has no group membership: assign partitions"),
        kind: ErrorKind::Fatal,
    };
    futures::FutureExt::boxed(futures::future::ready(Err(error)))
}

/// Carries the requests of clients to a broker: [`InProcess`], or a `KafkaTransport`. It is not for others to implement.
pub trait Transport: Send + Sync + 'static {
    #[doc(hidden)]
    /// The clock, threads and random numbers of the clients on this transport.
    fn env(&self) -> &Env;

    #[doc(hidden)]
    /// Whether a request or its answer can get lost on the way, so that a retriable failure is worth sending
    /// the very same request again.
    fn may_lose_answers(&self) -> bool {
        true
    }

    #[doc(hidden)]
    /// Returns the settings of its producers by default.
    ///
    /// # Errors
    /// If the settings that it was given contradict each other.
    fn producer_config(&self) -> Result<ProducerConfig, ClientError> {
        Ok(ProducerConfig::default())
    }

    #[doc(hidden)]
    /// Returns the settings of its consumers by default.
    ///
    /// # Errors
    /// If the settings that it was given contradict each other.
    fn consumer_config(&self) -> Result<ConsumerConfig, ClientError> {
        Ok(ConsumerConfig::default())
    }

    #[doc(hidden)]
    /// Appends batches (Produce).
    fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse>;

    #[doc(hidden)]
    /// Reads batches (Fetch).
    fn fetch(&self, request: FetchRequest) -> Reply<Vec<FetchedPartition>>;

    #[doc(hidden)]
    /// Finds an offset (ListOffsets); `None` if no record has so late a timestamp.
    fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Reply<Option<ListedOffset>>;

    #[doc(hidden)]
    /// Deletes the records below `before` (DeleteRecords); returns the new first offset.
    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Reply<Offset>;

    #[doc(hidden)]
    /// Creates a topic (CreateTopics).
    fn create_topic(&self, topic: NewTopic) -> Reply<TopicMetadata>;

    #[doc(hidden)]
    /// Deletes a topic (DeleteTopics).
    fn delete_topic(&self, topic: &TopicName) -> Reply<()>;

    #[doc(hidden)]
    /// Adds partitions until there are `partitions_count` (CreatePartitions).
    fn create_partitions(&self, topic: &TopicName, partitions_count: i32) -> Reply<()>;

    #[doc(hidden)]
    /// All topics (Metadata).
    fn topics(&self) -> Reply<Vec<TopicMetadata>>;

    #[doc(hidden)]
    /// One topic (Metadata); `None` if there is none of that name.
    fn topic(&self, topic: &TopicName) -> Reply<Option<TopicMetadata>>;

    #[doc(hidden)]
    /// A topic's settings (DescribeConfigs).
    fn describe_configs(&self, topic: &TopicName) -> Reply<Vec<ConfigEntry>>;

    #[doc(hidden)]
    /// Sets a topic's settings, `None` back to the default (IncrementalAlterConfigs).
    fn alter_configs(
        &self,
        topic: &TopicName,
        changes: BTreeMap<String, Option<String>>,
    ) -> Reply<()>;

    #[doc(hidden)]
    /// The marks and sizes of a topic's partitions (DescribeLogDirs and ListOffsets).
    fn describe_partitions(&self, topic: &TopicName) -> Reply<Vec<PartitionDescription>>;

    #[doc(hidden)]
    /// The producers that a partition knows (DescribeProducers).
    fn describe_producers(&self, partition: &TopicPartition) -> Reply<Vec<ProducerDescription>>;

    #[doc(hidden)]
    /// Aborts what a producer has open in one partition, as an operator (WriteTxnMarkers).
    fn abort_in_partition(
        &self,
        _partition: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Reply<()> {
        let error = ClientError::Refused {
            request: "WriteTxnMarkers",
            code: ErrorCode::UnsupportedVersion,
            message: format!("producer {} is not aborted from here", producer.producer.id),
            kind: ErrorKind::Fatal,
        };
        futures::FutureExt::boxed(futures::future::ready(Err(error)))
    }

    #[doc(hidden)]
    /// Gives a producer identity, and fences every earlier holder of the transactional id (InitProducerId).
    fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity>;

    #[doc(hidden)]
    /// Ends a transaction; returns the identity of the next one (EndTxn).
    fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity>;

    #[doc(hidden)]
    /// The same; notes when what was done, where the broker is in this process. A network's answer does not say so.
    fn end_txn_watched(&self, request: EndTxnRequest, _watch: EndWatch) -> Reply<ProducerIdentity> {
        self.end_txn(request)
    }

    #[doc(hidden)]
    /// Commits positions within a transaction (TxnOffsetCommit).
    fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> Reply<()>;

    #[doc(hidden)]
    /// Commits positions outside of transactions (OffsetCommit).
    fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()>;

    #[doc(hidden)]
    /// Reads committed positions (OffsetFetch).
    fn offset_fetch(&self, request: OffsetFetchRequest) -> Reply<Vec<FetchedOffset>>;

    #[doc(hidden)]
    /// The holds on compaction of a group; `None` if this log has no such thing.
    fn compaction_holds(
        &self,
        _group: &GroupId,
    ) -> Result<Option<Vec<CompactionHold>>, ClientError> {
        Ok(None)
    }

    #[doc(hidden)]
    /// Has the compaction of a topic wait for the positions of a group; why not, if that cannot be.
    fn hold_compaction(
        &self,
        _topic: &TopicName,
        _group: &GroupId,
        _table: &str,
    ) -> Result<(), ClientError> {
        Ok(())
    }

    #[doc(hidden)]
    /// Gives up the hold of a group for a table, or all that it has.
    fn release_compaction(
        &self,
        _group: &GroupId,
        _table: Option<&str>,
    ) -> Result<(), ClientError> {
        Ok(())
    }

    #[doc(hidden)]
    /// All transactional ids (ListTransactions).
    fn list_transactions(&self) -> Reply<Vec<TransactionDescription>>;

    #[doc(hidden)]
    /// The transactional ids of these producers (ListTransactions).
    fn transactions_of(&self, producers: &[ProducerId]) -> Reply<Vec<TransactionDescription>> {
        let (all, producers) = (self.list_transactions(), producers.to_vec());
        Box::pin(async move {
            let mut found = all.await?;
            found.retain(|transaction| producers.contains(&transaction.producer_id));
            Ok(found)
        })
    }

    #[doc(hidden)]
    /// One transactional id (DescribeTransactions).
    fn describe_transaction(&self, id: &TransactionalId) -> Reply<TransactionDescription>;

    #[doc(hidden)]
    /// Aborts the open transaction of an id as an operator.
    fn abort_transaction(&self, id: &TransactionalId) -> Reply<()>;

    #[doc(hidden)]
    /// All groups that have members or committed positions (ListGroups).
    fn list_groups(&self) -> Reply<Vec<GroupId>>;

    #[doc(hidden)]
    /// One group with its members, and its committed and pending positions (ConsumerGroupDescribe or DescribeGroups, OffsetFetch).
    fn describe_group(&self, group: &GroupId) -> Reply<GroupDescription>;

    #[doc(hidden)]
    /// Joins a classic group (JoinGroup); answered at the end of the rebalance.
    fn join_group(&self, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        without_groups("JoinGroup", &request.group)
    }

    #[doc(hidden)]
    /// Brings the leader's assignment, and fetches the member's own (SyncGroup).
    fn sync_group(&self, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        without_groups("SyncGroup", &request.group)
    }

    #[doc(hidden)]
    /// Keeps a classic member's session alive (Heartbeat).
    fn heartbeat(&self, request: HeartbeatRequest) -> Reply<()> {
        without_groups("Heartbeat", &request.group)
    }

    #[doc(hidden)]
    /// Removes members from a classic group (LeaveGroup).
    fn leave_group(&self, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        without_groups("LeaveGroup", &request.group)
    }

    #[doc(hidden)]
    /// Joins, stays in and leaves a group of the consumer protocol (ConsumerGroupHeartbeat).
    fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        without_groups("ConsumerGroupHeartbeat", &request.group)
    }

    #[doc(hidden)]
    /// Deletes a group with its positions (DeleteGroups).
    fn delete_group(&self, group: &GroupId) -> Reply<()>;
}
