//! Asking about positions of groups, topics and settings.

use std::time::{Duration, Instant};

use onceflow::internals::protocol::wire::messages::{
    alter_configs as rc, create_partitions as cp, create_topics as ct, delete_topics as dt,
    describe_configs as dc, incremental_alter_configs as ac, metadata as md, offset_commit as oc,
    offset_delete as od, offset_fetch as of,
};

use onceflow::types::TopicId;

use super::side::{Side, line, name};
use super::steps::{Ask, GROUPS, Step};

/// Longest time that positions in a deleted topic are seen.
const FORGOTTEN_MAX: Duration = Duration::from_secs(5);

impl Side {
    pub(super) fn commit_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::CommitOffsets {
            group,
            partition,
            offset,
            metadata,
            generation,
            member,
        } = &step.ask
        else {
            return None;
        };
        let request = oc::OffsetCommitRequest {
            group_id: self.group(*group),
            generation_id_or_member_epoch: *generation,
            member_id: (*member).to_owned(),
            topics: vec![oc::OffsetCommitRequestTopic {
                name: self.topic(),
                partitions: vec![oc::OffsetCommitRequestPartition {
                    partition_index: *partition,
                    committed_offset: *offset,
                    committed_metadata: metadata.clone(),
                    ..oc::OffsetCommitRequestPartition::default()
                }],
            }],
            ..oc::OffsetCommitRequest::default()
        };
        let code = |it: &oc::OffsetCommitResponse| it.topics[0].partitions[0].error_code;
        let answer = self.ask_until(step.version, &request, code)?;
        Some(format!("{}\n", name(code(&answer))))
    }

    /// Older versions ask for one group; later ones for several.
    fn positions_request(
        &self,
        group: u8,
        partitions: Option<&Vec<i32>>,
        is_old: bool,
        is_stable: bool,
    ) -> of::OffsetFetchRequest {
        let (old, new) = (is_old, !is_old);
        let topic = |indexes: &Vec<i32>| of::OffsetFetchRequestTopic {
            name: self.topic(),
            partition_indexes: indexes.clone(),
        };
        let new_topic = |indexes: &Vec<i32>| of::OffsetFetchRequestTopics {
            name: self.topic(),
            partition_indexes: indexes.clone(),
        };
        let in_group = of::OffsetFetchRequestGroup {
            group_id: self.group(group),
            topics: partitions.map(|it| vec![new_topic(it)]),
            ..of::OffsetFetchRequestGroup::default()
        };
        of::OffsetFetchRequest {
            group_id: if old {
                self.group(group)
            } else {
                String::new()
            },
            topics: match partitions {
                _ if new => None,
                None => None,
                Some(indexes) => Some(vec![topic(indexes)]),
            },
            groups: if new { vec![in_group] } else { Vec::new() },
            require_stable: is_stable,
        }
    }

    pub(super) fn fetch_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::FetchOffsets {
            group,
            partitions,
            is_stable,
        } = &step.ask
        else {
            return None;
        };
        let is_old = step.version < 8;
        let request = self.positions_request(*group, partitions.as_ref(), is_old, *is_stable);
        let code = |it: &of::OffsetFetchResponse| {
            it.groups.first().map_or(it.error_code, |it| it.error_code)
        };
        let answer = self.ask_until(step.version, &request, code)?;
        let mut text = format!("{}\n", name(code(&answer)));
        let mut place = |index: i32, offset: i64, metadata: &Option<String>, code: i16| {
            let metadata = metadata.as_deref().map(str::len);
            line(
                &mut text,
                format_args!(
                    "partition {index}: {offset}, metadata {metadata:?}, {}",
                    name(code)
                ),
            );
        };
        for it in answer.topics.iter().flat_map(|it| &it.partitions) {
            place(
                it.partition_index,
                it.committed_offset,
                &it.metadata,
                it.error_code,
            );
        }
        for it in answer
            .groups
            .iter()
            .flat_map(|it| &it.topics)
            .flat_map(|it| &it.partitions)
        {
            place(
                it.partition_index,
                it.committed_offset,
                &it.metadata,
                it.error_code,
            );
        }
        Some(text)
    }

    pub(super) fn delete_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::DeleteOffsets { group, partitions } = &step.ask else {
            return None;
        };
        let partition = |index: &i32| od::OffsetDeleteRequestPartition {
            partition_index: *index,
        };
        let request = od::OffsetDeleteRequest {
            group_id: self.group(*group),
            topics: vec![od::OffsetDeleteRequestTopic {
                name: self.topic(),
                partitions: partitions.iter().map(partition).collect(),
            }],
        };
        let answer = self.ask_until(step.version, &request, |it| it.error_code)?;
        let mut text = format!("{}\n", name(answer.error_code));
        for it in answer.topics.iter().flat_map(|it| &it.partitions) {
            let (index, code) = (it.partition_index, name(it.error_code));
            line(&mut text, format_args!("partition {index}: {code}"));
        }
        Some(text)
    }

    pub(super) fn alter(&mut self, step: &Step) -> Option<String> {
        let Ask::AlterConfig {
            name: setting,
            operation,
            value,
            is_validation,
        } = &step.ask
        else {
            return None;
        };
        let request = ac::IncrementalAlterConfigsRequest {
            validate_only: *is_validation,
            resources: vec![ac::AlterConfigsResource {
                resource_type: 2,
                resource_name: self.topic(),
                configs: vec![ac::AlterableConfig {
                    name: (*setting).to_owned(),
                    config_operation: *operation,
                    value: value.clone(),
                }],
            }],
        };
        let answer = self.ask(step.version, &request)?;
        Some(format!("{}\n", name(answer.responses[0].error_code)))
    }

    pub(super) fn replace(&mut self, step: &Step) -> Option<String> {
        let Ask::ReplaceConfigs {
            settings,
            is_validation,
        } = &step.ask
        else {
            return None;
        };
        let configs = settings.iter().map(|(name, value)| rc::AlterableConfig {
            name: (*name).to_owned(),
            value: value.clone(),
        });
        let request = rc::AlterConfigsRequest {
            validate_only: *is_validation,
            resources: vec![rc::AlterConfigsResource {
                resource_type: 2,
                resource_name: self.topic(),
                configs: configs.collect(),
            }],
        };
        let answer = self.ask(step.version, &request)?;
        Some(format!("{}\n", name(answer.responses[0].error_code)))
    }

    pub(super) fn describe_configs(&mut self, step: &Step) -> Option<String> {
        let Ask::DescribeConfigs { names } = &step.ask else {
            return None;
        };
        let request = dc::DescribeConfigsRequest {
            resources: vec![dc::DescribeConfigsResource {
                resource_type: 2,
                resource_name: self.topic(),
                configuration_keys: Some(names.iter().map(|it| (*it).to_owned()).collect()),
            }],
            ..dc::DescribeConfigsRequest::default()
        };
        let answer = self.ask(step.version, &request)?;
        let it = &answer.results[0];
        let mut text = format!("{}\n", name(it.error_code));
        let mut lines: Vec<String> = it
            .configs
            .iter()
            .map(|it| {
                format!(
                    "  {}={:?}, source {}, type {}",
                    it.name, it.value, it.config_source, it.config_type
                )
            })
            .collect();
        lines.sort();
        lines
            .iter()
            .for_each(|it| line(&mut text, format_args!("{it}")));
        Some(text)
    }

    pub(super) fn create_topic(&mut self, step: &Step) -> Option<String> {
        let Ask::CreateTopic {
            suffix,
            partitions,
            replication,
            settings,
            is_validation,
        } = &step.ask
        else {
            return None;
        };
        let setting = |(name, value): &(&'static str, Option<String>)| ct::CreatableTopicConfig {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let request = ct::CreateTopicsRequest {
            validate_only: *is_validation,
            topics: vec![ct::CreatableTopic {
                name: format!("{}{suffix}", self.topic()),
                num_partitions: *partitions,
                replication_factor: *replication,
                configs: settings.iter().map(setting).collect(),
                ..ct::CreatableTopic::default()
            }],
            ..ct::CreateTopicsRequest::default()
        };
        let answer = self.ask(step.version, &request)?;
        let it = &answer.topics[0];
        if it.error_code == 0 && suffix.is_empty() && !is_validation {
            let partitions = if *partitions < 0 { 1 } else { *partitions };
            self.until_led(partitions);
            self.until_served(partitions);
        }
        Some(format!(
            "{}, partitions {}, replicas {}\n",
            name(it.error_code),
            it.num_partitions,
            it.replication_factor
        ))
    }

    pub(super) fn grow(&mut self, step: &Step) -> Option<String> {
        let Ask::GrowTopic { to, is_validation } = step.ask else {
            return None;
        };
        let request = cp::CreatePartitionsRequest {
            timeout_ms: 10_000,
            validate_only: is_validation,
            topics: vec![cp::CreatePartitionsTopic {
                name: self.topic(),
                count: to,
                assignments: None,
            }],
        };
        let answer = self.ask(step.version, &request)?;
        Some(format!("{}\n", name(answer.results[0].error_code)))
    }

    pub(super) fn delete_topic(&mut self, step: &Step) -> Option<String> {
        let Ask::DeleteTopic { suffix, is_by_id } = step.ask else {
            return None;
        };
        let topic = format!("{}{suffix}", self.topic());
        let is_by_id = is_by_id && suffix.is_empty();
        let named = dt::DeleteTopicState {
            name: (!is_by_id).then(|| topic.clone()),
            topic_id: if is_by_id {
                self.topic_id
            } else {
                TopicId::default()
            },
        };
        let is_old = step.version < 6;
        let request = dt::DeleteTopicsRequest {
            topics: if is_old { Vec::new() } else { vec![named] },
            topic_names: if is_old {
                vec![topic.clone()]
            } else {
                Vec::new()
            },
            timeout_ms: 10_000,
        };
        let answer = self.ask(step.version, &request)?;
        let code = answer.responses[0].error_code;
        if code == 0 {
            self.until_gone(&topic);
            self.until_forgotten(&topic);
        }
        Some(format!("{}\n", name(code)))
    }

    /// Waits until no group has a position in a deleted topic: Kafka forgets them a moment later. A pending one may stay.
    fn until_forgotten(&mut self, topic: &str) {
        let deadline = Instant::now() + FORGOTTEN_MAX;
        for group in 0..GROUPS {
            let request = self.positions_request(group, None, true, false);
            while Instant::now() < deadline {
                let answer = self.ask(7, &request).expect("positions are answered");
                let topics = answer.topics;
                if !topics.iter().any(|it| it.name == topic) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub(super) fn metadata(&mut self, step: &Step) -> Option<String> {
        let topic = |name: String| md::MetadataRequestTopic {
            name: Some(name),
            ..md::MetadataRequestTopic::default()
        };
        let missing = format!("{}-missing", self.topic());
        let request = md::MetadataRequest {
            topics: Some(vec![topic(self.topic()), topic(missing)]),
            allow_auto_topic_creation: step.version < 4,
            ..md::MetadataRequest::default()
        };
        let answer = self.ask(step.version, &request)?;
        let mut text = String::new();
        for topic in &answer.topics {
            let partitions = topic.partitions.len();
            line(
                &mut text,
                format_args!(
                    "{}, internal: {}, partitions {partitions}",
                    name(topic.error_code),
                    topic.is_internal
                ),
            );
        }
        Some(text)
    }
}
