//! `Admin`: topics, settings, offsets, groups and transactions, for people and tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::topics::unknown_topic;
use super::transport::FetchedOffset;
use super::{ClientError, Transport};
use crate::broker::GroupDescription;
use crate::protocol::messages::{
    CommittedOffset, ConfigEntry, GroupMember, ListedOffset, NewTopic, OffsetCommitRequest,
    OffsetFetchRequest, OffsetSpec, PartitionDescription, ProducerDescription, TopicMetadata,
    TransactionDescription,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{
    GroupId, Isolation, Offset, ProducerId, TopicName, TopicPartition, TransactionalId,
};

/// Administration. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use onceflow::broker::{Broker, BrokerConfig};
/// use onceflow::client::{Admin, InProcess, wait};
/// use onceflow::testing::Env;
/// use onceflow::types::TopicName;
///
/// # let directory = tempfile::tempdir()?;
/// let env = Env::real();
/// let broker = Broker::open(env.clone(), &directory.path().join("data"), BrokerConfig::default())?;
/// let admin = Admin::new(Arc::new(InProcess::new(env, broker.clone())));
/// let orders = TopicName::new("orders")?;
/// wait(async {
///     admin.create_topic(&orders, 3).await?;
///     admin.set_config(&orders, "retention.ms", "3600000").await?;
///     assert_eq!(admin.topic(&orders).await?.partitions_count, 3);
///     admin.delete_topic(&orders).await
/// })?;
/// broker.close()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone)]
pub struct Admin {
    transport: Arc<dyn Transport>,
}

impl Admin {
    /// Administration through `transport`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Creates a topic with Kafka's default settings.
    ///
    /// # Errors
    /// If it exists, or the count is not positive.
    pub async fn create_topic(
        &self,
        name: &TopicName,
        partitions_count: i32,
    ) -> Result<TopicMetadata, ClientError> {
        self.create_topic_with(name, partitions_count, BTreeMap::new())
            .await
    }

    /// Creates a topic with settings by Kafka's names (`cleanup.policy`, `retention.ms`, …).
    ///
    /// # Errors
    /// If it exists, the count is not positive, or a setting is not valid.
    pub async fn create_topic_with(
        &self,
        name: &TopicName,
        partitions_count: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<TopicMetadata, ClientError> {
        let topic = NewTopic {
            name: name.clone(),
            partitions_count,
            configs,
        };
        self.transport.create_topic(topic).await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// If there is none of that name, or it is internal.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), ClientError> {
        self.transport.delete_topic(name).await
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn topics(&self) -> Result<Vec<TopicMetadata>, ClientError> {
        self.transport.topics().await
    }

    /// One topic.
    ///
    /// # Errors
    /// If there is none of that name.
    pub async fn topic(&self, name: &TopicName) -> Result<TopicMetadata, ClientError> {
        let topic = self.transport.topic(name).await?;
        topic.ok_or_else(|| unknown_topic(name))
    }

    /// Adds partitions until there are `partitions_count`. Keys are then spread differently.
    ///
    /// # Errors
    /// If there are that many or more, or no such topic.
    pub async fn create_partitions(
        &self,
        name: &TopicName,
        partitions_count: i32,
    ) -> Result<(), ClientError> {
        self.transport
            .create_partitions(name, partitions_count)
            .await
    }

    /// A topic's settings.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn describe_configs(
        &self,
        name: &TopicName,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        self.transport.describe_configs(name).await
    }

    /// Sets one setting of a topic.
    ///
    /// # Errors
    /// If there is no such topic or setting, or the value is not valid.
    pub async fn set_config(
        &self,
        topic: &TopicName,
        name: &str,
        value: &str,
    ) -> Result<(), ClientError> {
        let change = BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]);
        self.transport.alter_configs(topic, change).await
    }

    /// Gives one setting of a topic its default again.
    ///
    /// # Errors
    /// If there is no such topic or setting.
    pub async fn reset_config(&self, topic: &TopicName, name: &str) -> Result<(), ClientError> {
        let change = BTreeMap::from([(name.to_owned(), None)]);
        self.transport.alter_configs(topic, change).await
    }

    /// The marks and sizes of a topic's partitions.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn describe_partitions(
        &self,
        name: &TopicName,
    ) -> Result<Vec<PartitionDescription>, ClientError> {
        self.transport.describe_partitions(name).await
    }

    /// The producers that a partition knows.
    ///
    /// # Errors
    /// If there is no such partition.
    pub async fn describe_producers(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, ClientError> {
        self.transport.describe_producers(partition).await
    }

    /// The open transactions of a partition that no coordinator knows of: nothing will ever end them, and readers of
    /// committed records wait before the first one for good (K8). [`abort_hanging_transaction`](Self::abort_hanging_transaction) ends one.
    ///
    /// # Errors
    /// If there is no such partition, or the log cannot be asked.
    pub async fn hanging_transactions(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, ClientError> {
        let is_open = |producer: &ProducerDescription| producer.current_transaction_start.is_some();
        let mut suspects = self.describe_producers(partition).await?;
        suspects.retain(is_open);
        if suspects.is_empty() {
            return Ok(suspects);
        }
        // A coordinator knows of a partition before it is written to, and until its marker is there.
        let known = self.list_transactions().await?;
        suspects.retain(|suspect| {
            !known.iter().any(|transaction| {
                transaction.producer_id == suspect.producer.id
                    && transaction.partitions.contains(partition)
            })
        });
        // One that ended between the two questions is not open any more.
        let still = self.describe_producers(partition).await?;
        suspects.retain(|suspect| {
            still.iter().any(|producer| {
                producer.producer == suspect.producer
                    && producer.current_transaction_start == suspect.current_transaction_start
            })
        });
        Ok(suspects)
    }

    /// Finds an offset; `None` if no record has so late a timestamp.
    ///
    /// # Errors
    /// If there is no such partition.
    pub async fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, ClientError> {
        self.transport.list_offset(partition, spec, isolation).await
    }

    /// Deletes the records below `before`, or all of them if it is −1; returns the partition's first offset then.
    ///
    /// # Errors
    /// If there is no such partition, or `before` is negative otherwise or beyond what readers may see.
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, ClientError> {
        self.transport.delete_records(partition, before).await
    }

    /// All groups with members or committed positions.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn list_groups(&self) -> Result<Vec<GroupId>, ClientError> {
        self.transport.list_groups().await
    }

    /// One group with its members and its committed and pending positions.
    ///
    /// # Errors
    /// If there is no such group.
    pub async fn describe_group(&self, group: &GroupId) -> Result<GroupDescription, ClientError> {
        self.transport.describe_group(group).await
    }

    /// A group's committed positions, without those of undecided transactions.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn committed(&self, group: &GroupId) -> Result<Vec<FetchedOffset>, ClientError> {
        let request = OffsetFetchRequest {
            group: group.clone(),
            partitions: None,
            require_stable: false,
        };
        self.transport.offset_fetch(request).await
    }

    /// Commits positions of a group from outside of it, as an operator: its members go on there when they come.
    ///
    /// # Errors
    /// `UnknownMemberId` if it has members: they would overwrite them.
    pub async fn alter_committed(
        &self,
        group: &GroupId,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), ClientError> {
        let request = OffsetCommitRequest {
            group: group.clone(),
            member: GroupMember::default(),
            offsets,
        };
        self.transport.offset_commit(request).await
    }

    /// Deletes a group with its positions.
    ///
    /// # Errors
    /// If there is no such group, or it is in use.
    pub async fn delete_group(&self, group: &GroupId) -> Result<(), ClientError> {
        self.transport.delete_group(group).await
    }

    /// All transactional ids.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn list_transactions(&self) -> Result<Vec<TransactionDescription>, ClientError> {
        self.transport.list_transactions().await
    }

    /// One transactional id.
    ///
    /// # Errors
    /// If there is no such id.
    pub async fn describe_transaction(
        &self,
        id: &TransactionalId,
    ) -> Result<TransactionDescription, ClientError> {
        self.transport.describe_transaction(id).await
    }

    /// Aborts the open transaction of `id` and fences its producer.
    ///
    /// # Errors
    /// If there is no such id, or its transaction is decided already.
    pub async fn abort_transaction(&self, id: &TransactionalId) -> Result<(), ClientError> {
        self.transport.abort_transaction(id).await
    }
}

impl Admin {
    /// Aborts a transaction of [`hanging_transactions`](Self::hanging_transactions), in this partition. One that a coordinator knows is not
    /// touched: [`abort_transaction`](Self::abort_transaction) aborts it as a whole.
    ///
    /// # Errors
    /// If none of this producer hangs there, or the log refuses.
    pub async fn abort_hanging_transaction(
        &self,
        partition: &TopicPartition,
        producer: ProducerId,
    ) -> Result<(), ClientError> {
        let hanging = self.hanging_transactions(partition).await?;
        let found = hanging.iter().find(|it| it.producer.id == producer);
        match found {
            Some(found) => self.transport.abort_in_partition(partition, found).await,
            None => Err(ClientError::Refused {
                request: "WriteTxnMarkers",
                code: ErrorCode::InvalidTxnState,
                message: format!(
                    "no transaction of producer {producer} hangs in {partition}: `onceflow txn hanging` lists those that do, and `onceflow txn \
                     abort` ends one that a coordinator knows"
                ),
                kind: ErrorKind::Fatal,
            }),
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}
