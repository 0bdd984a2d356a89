//! Topics, their settings, partitions and offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{Cluster, Plan, Target};
use super::fetch::isolation_level;
use super::judge::{error_of, refused};
use crate::client::ClientError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    ConfigEntry, ListedOffset, NewTopic, OffsetSpec, PartitionDescription, ProducerDescription,
    TopicMetadata,
};
use crate::protocol::wire::messages as wire;
use crate::types::{
    Isolation, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp,
    TopicName, TopicPartition,
};

/// Kafka's number of the resource "topic".
const TOPIC_RESOURCE: i8 = 2;
/// Kafka's number of settings that somebody gave this very topic.
const TOPIC_CONFIG_SOURCE: i8 = 1;
/// Kafka's numbers of "set" and "back to the default".
const SET: i8 = 0;
const DELETE: i8 = 1;
/// Longest wait for changed settings, and for the end of a topic.
const CONFIG_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for a created topic's leaders, as far as the brokers tell.
const CREATION_PATIENCE: Duration = Duration::from_secs(30);

/// Gathers what belongs to one topic, in order.
pub(super) fn by_topic<'a, T>(
    items: impl Iterator<Item = (&'a TopicPartition, T)>,
) -> BTreeMap<&'a TopicName, Vec<(PartitionIndex, T)>> {
    let mut topics = BTreeMap::<_, Vec<_>>::new();
    for (place, item) in items {
        topics
            .entry(&place.topic)
            .or_default()
            .push((place.partition, item));
    }
    topics
}

impl Cluster {
    /// One topic as the cluster knows it now; `None` if there is none.
    pub(super) async fn topic(
        &self,
        name: &TopicName,
    ) -> Result<Option<TopicMetadata>, ClientError> {
        let began = self.now();
        let mut backoff = self.backoff();
        loop {
            let since = self.now();
            let error = match self.ask_metadata(Some(vec![name.clone()])).await {
                Ok(answer) => {
                    let code = answer
                        .topics
                        .first()
                        .and_then(|topic| error_of(topic.error_code));
                    match code {
                        None => return Ok(self.metadata(|metadata| metadata.topic(name, since))),
                        Some(ErrorCode::UnknownTopicOrPartition) => return Ok(None),
                        Some(code) => refused("Metadata", code, name.as_str(), None),
                    }
                }
                Err(error) => error,
            };
            let is_over = self.now().since(began) >= self.settings.default_api_timeout;
            if is_over || error.kind() != crate::protocol::ErrorKind::Retriable {
                return Err(error);
            }
            self.pause(&mut backoff).await;
        }
    }

    /// All topics, by name.
    pub(super) async fn topics(&self) -> Result<Vec<TopicMetadata>, ClientError> {
        let answer = self.ask_metadata(None).await?;
        let topics = answer.topics.iter().filter_map(|topic| {
            Some(TopicMetadata {
                name: TopicName::new(topic.name.as_deref()?).ok()?,
                id: topic.topic_id,
                partitions_count: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
                is_internal: topic.is_internal,
            })
        });
        let mut topics: Vec<_> = topics.collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    pub(super) async fn create_topic(&self, topic: NewTopic) -> Result<TopicMetadata, ClientError> {
        use wire::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
        let configs = topic
            .configs
            .into_iter()
            .map(|(name, value)| CreatableTopicConfig {
                name,
                value: Some(value),
            });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.to_string(),
                num_partitions: topic.partitions_count,
                replication_factor: self.settings.replication_factor,
                configs: configs.collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let plan = Plan::new(Target::Controller).once().about(&topic.name);
        match self.call(&plan, &request).await {
            Ok(_) => {
                self.wait_for_topic(&topic.name, topic.partitions_count)
                    .await
            }
            Err(error) => {
                if error.code() == Some(ErrorCode::TopicAlreadyExists) {
                    // Whoever is told so looks for it next; this error says more than that it is not found.
                    drop(self.wait_for_topic(&topic.name, 0).await);
                }
                Err(error)
            }
        }
    }

    /// A topic is created before every broker has heard of it.
    async fn wait_for_topic(
        &self,
        name: &TopicName,
        partitions_count: i32,
    ) -> Result<TopicMetadata, ClientError> {
        let began = self.now();
        let mut backoff = self.backoff();
        loop {
            if let Some(topic) = self.topic(name).await? {
                let has_leaders = (0..partitions_count).all(|partition| {
                    let place = TopicPartition::new(name.clone(), partition);
                    let (now, age) = (self.now(), self.settings.metadata_max_age);
                    let known = self.metadata(|metadata| metadata.leader(&place, now, age, None));
                    matches!(known, super::metadata::Lookup::Known(_))
                });
                if has_leaders {
                    return Ok(topic);
                }
            }
            if self.now().since(began) >= CREATION_PATIENCE {
                let words = "it was created, but its partitions have no leaders yet".to_owned();
                return Err(refused(
                    "CreateTopics",
                    ErrorCode::LeaderNotAvailable,
                    name.as_str(),
                    Some(words),
                ));
            }
            self.pause(&mut backoff).await;
        }
    }

    pub(super) async fn delete_topic(&self, name: &TopicName) -> Result<(), ClientError> {
        use wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(name.to_string()),
                ..DeleteTopicState::default()
            }],
            topic_names: vec![name.to_string()],
            timeout_ms: self.timeout_ms(),
        };
        let plan = Plan::new(Target::Controller).once().about(name);
        self.call(&plan, &request).await?;
        // A topic is gone before every broker has heard of it.
        let (began, mut backoff) = (self.now(), self.backoff());
        while self.topic(name).await?.is_some() && self.now().since(began) < CONFIG_PATIENCE {
            self.pause(&mut backoff).await;
        }
        Ok(())
    }

    pub(super) async fn create_partitions(
        &self,
        name: &TopicName,
        count: i32,
    ) -> Result<(), ClientError> {
        use wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.to_string(),
                count,
                assignments: None,
            }],
            timeout_ms: self.timeout_ms(),
            validate_only: false,
        };
        let plan = Plan::new(Target::Controller).once().about(name);
        self.call(&plan, &request).await?;
        self.metadata(|metadata| metadata.forget(name));
        self.wait_for_topic(name, count).await.map(drop)
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    pub(super) async fn describe_configs(
        &self,
        name: &TopicName,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        use wire::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: name.to_string(),
                configuration_keys: None,
            }],
            include_synonyms: false,
            include_documentation: true,
        };
        let plan = Plan::new(Target::Any).about(name);
        let answer = self.call(&plan, &request).await?;
        let entries = answer.results.into_iter().flat_map(|result| result.configs);
        let entries = entries.map(|entry| ConfigEntry {
            name: entry.name,
            value: entry.value.unwrap_or_default(),
            is_default: entry.config_source != TOPIC_CONFIG_SOURCE,
            documentation: entry.documentation.unwrap_or_default(),
        });
        Ok(entries.collect())
    }

    pub(super) async fn alter_configs(
        &self,
        name: &TopicName,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<(), ClientError> {
        use wire::incremental_alter_configs::{
            AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
        };
        let configs = changes.iter().map(|(name, value)| AlterableConfig {
            name: name.clone(),
            config_operation: if value.is_some() { SET } else { DELETE },
            value: value.clone(),
        });
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: name.to_string(),
                configs: configs.collect(),
            }],
            validate_only: false,
        };
        let plan = Plan::new(Target::Controller).about(name);
        self.call(&plan, &request).await?;
        self.wait_for_configs(name, &changes).await
    }

    /// Settings are changed before every broker has heard of it. A value that is shown in other words than it was
    /// given is waited for in vain, and not for long.
    async fn wait_for_configs(
        &self,
        name: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ClientError> {
        let (began, mut backoff) = (self.now(), self.backoff());
        while self.now().since(began) < CONFIG_PATIENCE {
            let configs = self.describe_configs(name).await?;
            let is_in_force = changes.iter().all(|(name, value)| {
                let shown = configs.iter().find(|entry| entry.name == *name);
                shown.is_none_or(|shown| match value {
                    Some(value) => shown.value == *value,
                    None => shown.is_default,
                })
            });
            if is_in_force {
                return Ok(());
            }
            self.pause(&mut backoff).await;
        }
        Ok(())
    }

    pub(super) async fn list_offset(
        &self,
        place: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, ClientError> {
        use wire::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
        let timestamp = match spec {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::MaxTimestamp => -3,
            // Negative ones have meanings of their own, and no record has a time before 1970.
            OffsetSpec::Timestamp(timestamp) => timestamp.0.max(0),
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation_level(isolation),
            topics: vec![ListOffsetsTopic {
                name: place.topic.to_string(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: place.partition,
                    current_leader_epoch: -1,
                    timestamp,
                }],
            }],
            timeout_ms: self.timeout_ms(),
        };
        let plan = Plan::new(Target::Leader(place.clone())).about(place);
        let answer = self.call(&plan, &request).await?;
        let found = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let found = found.filter(|found| found.offset >= 0);
        Ok(found.map(|found| ListedOffset {
            offset: Offset(found.offset),
            timestamp: Timestamp(found.timestamp),
        }))
    }

    pub(super) async fn delete_records(
        &self,
        place: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, ClientError> {
        use wire::delete_records::{
            DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
        };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: place.topic.to_string(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: place.partition,
                    offset: before.0,
                }],
            }],
            timeout_ms: self.timeout_ms(),
        };
        let plan = Plan::new(Target::Leader(place.clone())).about(place);
        let answer = self.call(&plan, &request).await?;
        let first = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        Ok(Offset(first.map_or(before.0, |first| first.low_watermark)))
    }

    pub(super) async fn describe_partitions(
        &self,
        name: &TopicName,
    ) -> Result<Vec<PartitionDescription>, ClientError> {
        let topic = self.topic(name).await?;
        let topic = topic.ok_or_else(|| crate::client::topics::unknown_topic(name))?;
        let mut partitions = Vec::new();
        for partition in 0..topic.partitions_count {
            let place = TopicPartition::new(name.clone(), partition);
            let list = async |spec, isolation| {
                let listed = self.list_offset(&place, spec, isolation).await?;
                Ok::<_, ClientError>(listed.map_or(Offset::ZERO, |listed| listed.offset))
            };
            let high_watermark = list(OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
            partitions.push(PartitionDescription {
                partition,
                log_start_offset: list(OffsetSpec::Earliest, Isolation::ReadUncommitted).await?,
                last_stable_offset: list(OffsetSpec::Latest, Isolation::ReadCommitted).await?,
                high_watermark,
                // A client of Kafka's is not told what is beyond the high watermark.
                log_end_offset: high_watermark,
                size_bytes: self.size_bytes(&place).await?,
                offline: None,
            });
        }
        Ok(partitions)
    }

    async fn size_bytes(&self, place: &TopicPartition) -> Result<u64, ClientError> {
        use wire::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
        let request = DescribeLogDirsRequest {
            topics: Some(vec![DescribableLogDirTopic {
                topic: place.topic.to_string(),
                partitions: vec![place.partition],
            }]),
        };
        let plan = Plan::new(Target::Leader(place.clone())).about(place);
        let answer = self.call(&plan, &request).await?;
        let topics = answer
            .results
            .into_iter()
            .flat_map(|directory| directory.topics);
        let sizes = topics
            .flat_map(|topic| topic.partitions)
            .map(|partition| partition.partition_size);
        Ok(sizes.map(|size| u64::try_from(size).unwrap_or(0)).sum())
    }

    pub(super) async fn describe_producers(
        &self,
        place: &TopicPartition,
    ) -> Result<Vec<ProducerDescription>, ClientError> {
        use wire::describe_producers::{DescribeProducersRequest, TopicRequest};
        let request = DescribeProducersRequest {
            topics: vec![TopicRequest {
                name: place.topic.to_string(),
                partition_indexes: vec![place.partition],
            }],
        };
        let plan = Plan::new(Target::Leader(place.clone())).about(place);
        let answer = self.call(&plan, &request).await?;
        let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let producers = partitions.flat_map(|partition| partition.active_producers);
        let producers = producers.map(|producer| ProducerDescription {
            producer: ProducerIdentity {
                id: ProducerId(producer.producer_id),
                epoch: ProducerEpoch(i16::try_from(producer.producer_epoch).unwrap_or(i16::MAX)),
            },
            last_sequence: producer.last_sequence,
            coordinator_epoch: producer.coordinator_epoch,
            last_timestamp: Timestamp(producer.last_timestamp),
            current_transaction_start: (producer.current_txn_start_offset >= 0)
                .then_some(Offset(producer.current_txn_start_offset)),
        });
        Ok(producers.collect())
    }

    /// Writes an abort marker for what a producer has open in a partition. Before its first marker it has no coordinator's epoch: the least one
    /// is good then.
    pub(super) async fn abort_in_partition(
        &self,
        place: &TopicPartition,
        producer: &ProducerDescription,
    ) -> Result<(), ClientError> {
        use wire::write_txn_markers::{
            WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
        };
        let request = WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: producer.producer.id.0,
                producer_epoch: producer.producer.epoch.0,
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic {
                    name: place.topic.to_string(),
                    partition_indexes: vec![place.partition],
                }],
                coordinator_epoch: producer.coordinator_epoch.max(0),
            }],
        };
        let plan = Plan::new(Target::Leader(place.clone())).about(place);
        self.call(&plan, &request).await.map(drop)
    }
}
