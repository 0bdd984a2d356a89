//! Metadata, DescribeTopicPartitions: the topics, and who leads their partitions (this broker).

use std::collections::BTreeMap;

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{NODE_ID, NONE, topic_name};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{NewTopic, TopicMetadata};
use crate::protocol::wire::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::protocol::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use crate::types::{TopicId, TopicName};

/// The most partitions of one page of DescribeTopicPartitions (`max.request.partition.size.limit`).
const PAGE_PARTITIONS_MAX: i32 = 2000;

pub(in crate::server) fn metadata(call: &Call<'_>, request: MetadataRequest) -> MetadataResponse {
    // Version 0 has no null: there an empty list asks for all.
    let asked = request
        .topics
        .filter(|topics| call.version() > 0 || !topics.is_empty());
    let may_create = request.allow_auto_topic_creation && call.dispatch.creates_topics;
    let mut topics = match asked {
        Some(asked) => asked
            .into_iter()
            .map(|topic| asked_topic(call, topic, may_create))
            .collect(),
        None => visible_topics(call),
    };
    if request.include_topic_authorized_operations {
        say_what_is_allowed(call, &mut topics);
    }
    let address = call.session.advertised();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: NODE_ID,
            host: address.host.clone(),
            port: i32::from(address.port),
            rack: None,
        }],
        cluster_id: Some(call.broker().cluster_id().to_string()),
        controller_id: NODE_ID,
        topics,
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => super::cluster::authorized_operations(call),
            false => i32::MIN,
        },
        ..MetadataResponse::default()
    }
}

fn say_what_is_allowed(call: &Call<'_>, topics: &mut [MetadataResponseTopic]) {
    for topic in topics.iter_mut().filter(|topic| topic.error_code == NONE) {
        let name = topic.name.as_deref().unwrap_or_default();
        topic.topic_authorized_operations = call.authorized_operations(Resource::Topic(name));
    }
}

fn visible_topics(call: &Call<'_>) -> Vec<MetadataResponseTopic> {
    let topics = call.broker().topics().unwrap_or_default();
    topics
        .iter()
        .filter(|topic| call.session.may_see(Resource::Topic(topic.name.as_str())))
        .map(|topic| described(call, topic))
        .collect()
}

fn asked_topic(
    call: &Call<'_>,
    asked: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let found = match &asked.name {
        Some(name) => named_topic(call, name, may_create),
        None => call
            .topic_by_id(asked.topic_id)
            // Whether a topic exists is told only to those who may see it.
            .and_then(
                |topic| match call.session.may_see(Resource::Topic(topic.name.as_str())) {
                    true => Ok(topic),
                    false => Err(ErrorCode::UnknownTopicId.into()),
                },
            ),
    };
    match found {
        Ok(topic) => described(call, &topic),
        Err(error) => MetadataResponseTopic {
            error_code: error.code.code(),
            topic_id: asked.topic_id,
            name: asked.name,
            ..MetadataResponseTopic::default()
        },
    }
}

fn named_topic(
    call: &Call<'_>,
    name: &str,
    may_create: bool,
) -> Result<TopicMetadata, BrokerError> {
    call.allow_topic(Operation::Describe, name)?;
    match call.topic(name) {
        Err(error) if error.code == ErrorCode::UnknownTopicOrPartition && may_create => {
            create(call, &topic_name(name)?)
        }
        found => found,
    }
}

/// Creates a topic because somebody asked for it. Its leader is there at once.
fn create(call: &Call<'_>, name: &TopicName) -> Result<TopicMetadata, BrokerError> {
    let may = call
        .session
        .is_allowed(Operation::Create, Resource::Cluster)
        || call
            .session
            .is_allowed(Operation::Create, Resource::Topic(name.as_str()));
    if !may {
        return Err(ErrorCode::TopicAuthorizationFailed.into());
    }
    let created = call.broker().create_topic(&NewTopic {
        name: name.clone(),
        partitions_count: call.dispatch.default_partitions,
        configs: BTreeMap::new(),
    });
    match created {
        // Somebody else was faster.
        Err(error) if error.code == ErrorCode::TopicAlreadyExists => call.topic(name.as_str()),
        created => created,
    }
}

fn described(call: &Call<'_>, topic: &TopicMetadata) -> MetadataResponseTopic {
    let leader_epoch = call.broker().leader_epoch();
    let partition = |index| MetadataResponsePartition {
        error_code: NONE,
        partition_index: index,
        leader_id: NODE_ID,
        leader_epoch,
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        offline_replicas: Vec::new(),
    };
    MetadataResponseTopic {
        error_code: NONE,
        name: Some(topic.name.as_str().to_owned()),
        topic_id: topic.id,
        is_internal: topic.is_internal,
        partitions: (0..topic.partitions_count).map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}

pub(in crate::server) fn pages(
    call: &Call<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<String> = match request.topics.is_empty() {
        true => visible_topics(call)
            .into_iter()
            .filter_map(|topic| topic.name)
            .collect(),
        false => request.topics.into_iter().map(|topic| topic.name).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let mut page = Page {
        left: request
            .response_partition_limit
            .clamp(1, PAGE_PARTITIONS_MAX),
        response: DescribeTopicPartitionsResponse::default(),
    };
    let cursor = request.cursor.unwrap_or_default();
    for name in names.into_iter().filter(|name| *name >= cursor.topic_name) {
        let first = match name == cursor.topic_name {
            true => cursor.partition_index.max(0),
            false => 0,
        };
        if !page.add(call, name, first) {
            break;
        }
    }
    page.response
}

/// One page of topics and partitions.
struct Page {
    left: i32,
    response: DescribeTopicPartitionsResponse,
}

impl Page {
    /// Adds the partitions of a topic from `first` on; whether the page has room for more.
    fn add(&mut self, call: &Call<'_>, name: String, first: i32) -> bool {
        if self.left == 0 {
            return self.end(name, first);
        }
        let found = match call.allow_topic(Operation::Describe, &name) {
            Ok(()) => call.topic(&name),
            Err(error) => Err(error),
        };
        let topic = match found {
            Ok(topic) => topic,
            Err(error) => {
                self.push(
                    error.code.code(),
                    name,
                    TopicId::default(),
                    false,
                    Vec::new(),
                );
                return true;
            }
        };
        let end = topic.partitions_count.min(first.saturating_add(self.left));
        self.left -= (end - first).max(0);
        let partition = |index| DescribeTopicPartitionsResponsePartition {
            partition_index: index,
            leader_id: NODE_ID,
            leader_epoch: call.broker().leader_epoch(),
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
            // The Java client takes lists here and fails on their absence.
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..DescribeTopicPartitionsResponsePartition::default()
        };
        let partitions = (first..end).map(partition).collect();
        self.push(NONE, name.clone(), topic.id, topic.is_internal, partitions);
        if let Some(shown) = self.response.topics.last_mut() {
            shown.topic_authorized_operations = call.authorized_operations(Resource::Topic(&name));
        }
        end >= topic.partitions_count || self.end(name, end)
    }

    fn push(
        &mut self,
        error_code: i16,
        name: String,
        topic_id: TopicId,
        is_internal: bool,
        partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    ) {
        self.response
            .topics
            .push(DescribeTopicPartitionsResponseTopic {
                error_code,
                name: Some(name),
                topic_id,
                is_internal,
                partitions,
                ..DescribeTopicPartitionsResponseTopic::default()
            });
    }

    fn end(&mut self, topic_name: String, partition_index: i32) -> bool {
        self.response.next_cursor = Some(Cursor {
            topic_name,
            partition_index,
        });
        false
    }
}
