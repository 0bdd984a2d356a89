//! ConsumerGroupHeartbeat, ConsumerGroupDescribe: groups of the consumer protocol (KIP-848).

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::groups::{client, millis};
use super::{NONE, broker_code, group_id, message, topic_name};
use crate::broker::BrokerError;
use crate::protocol::messages::groups as m;
use crate::protocol::wire::messages::{
    consumer_group_describe as cd, consumer_group_heartbeat as ch,
};
use crate::types::TopicName;

pub(in crate::server) async fn heartbeat(
    call: &Call<'_>,
    request: ch::ConsumerGroupHeartbeatRequest,
) -> ch::ConsumerGroupHeartbeatResponse {
    let beaten = beat(call, request).await;
    let mut response = ch::ConsumerGroupHeartbeatResponse {
        error_code: broker_code(&beaten),
        error_message: message(&beaten),
        ..ch::ConsumerGroupHeartbeatResponse::default()
    };
    if let Ok(told) = beaten {
        response.member_id = Some(told.member_id);
        response.member_epoch = told.member_epoch;
        let interval_ms = i32::try_from(told.heartbeat_interval.as_millis());
        response.heartbeat_interval_ms = interval_ms.unwrap_or(i32::MAX);
        response.assignment = told.assignment.map(|topics| {
            let topics = topics.into_iter().map(|topic| ch::TopicPartitions {
                topic_id: topic.topic_id,
                partitions: topic.partitions,
            });
            ch::Assignment {
                topic_partitions: topics.collect(),
            }
        });
    }
    response
}

async fn beat(
    call: &Call<'_>,
    request: ch::ConsumerGroupHeartbeatRequest,
) -> Result<m::ConsumerGroupHeartbeatResponse, BrokerError> {
    call.allow_group(Operation::Read, &request.group_id)?;
    let subscribed = match request.subscribed_topic_names {
        Some(names) => {
            let names: Result<Vec<_>, _> = names
                .iter()
                .map(|name| {
                    call.allow_topic(Operation::Describe, name)?;
                    topic_name(name)
                })
                .collect();
            Some(names?)
        }
        None => None,
    };
    let owned = request.topic_partitions.map(|topics| {
        let topics = topics.into_iter().map(|topic| m::AssignedTopic {
            topic_id: topic.topic_id,
            topic: None,
            partitions: topic.partitions,
        });
        topics.collect()
    });
    let group = group_id(&request.group_id)?;
    let has_expression = request.subscribed_topic_regex.is_some();
    let hidden_topics = match has_expression || call.broker().has_expressions(&group) {
        true => hidden_topics(call)?,
        false => Vec::new(),
    };
    let heartbeat = m::ConsumerGroupHeartbeatRequest {
        group,
        client: client(call),
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        group_instance_id: request.instance_id,
        rack_id: request.rack_id,
        rebalance_timeout: (request.rebalance_timeout_ms >= 0)
            .then(|| millis(request.rebalance_timeout_ms)),
        subscribed_topic_names: subscribed,
        subscribed_topic_regex: request.subscribed_topic_regex,
        hidden_topics,
        server_assignor: request.server_assignor,
        topic_partitions: owned,
    };
    call.broker().consumer_group_heartbeat(heartbeat).await
}

/// The topics that regular expressions must not name to this client; none where there are no rules.
fn hidden_topics(call: &Call<'_>) -> Result<Vec<TopicName>, BrokerError> {
    if call.session.may_see_everything() {
        return Ok(Vec::new());
    }
    let topics = call.broker().topics()?.into_iter().map(|topic| topic.name);
    let is_hidden = |name: &TopicName| !call.session.may_see(Resource::Topic(name.as_str()));
    Ok(topics.filter(is_hidden).collect())
}

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: cd::ConsumerGroupDescribeRequest,
) -> cd::ConsumerGroupDescribeResponse {
    let groups = request.group_ids.into_iter().map(|group| {
        let described = call
            .allow_group(Operation::Describe, &group)
            .and_then(|()| call.broker().describe_consumer_group(&group_id(&group)?));
        match described {
            Ok(described) => cd::DescribedGroup {
                authorized_operations: match request.include_authorized_operations {
                    true => call.authorized_operations(Resource::Group(&group)),
                    false => i32::MIN,
                },
                ..described_consumers(group, described)
            },
            Err(error) => cd::DescribedGroup {
                error_code: error.code.code(),
                error_message: Some(error.message),
                group_id: group,
                ..cd::DescribedGroup::default()
            },
        }
    });
    cd::ConsumerGroupDescribeResponse {
        groups: groups.collect(),
        ..cd::ConsumerGroupDescribeResponse::default()
    }
}

fn described_consumers(
    group_id: String,
    described: m::ConsumerGroupDescription,
) -> cd::DescribedGroup {
    cd::DescribedGroup {
        error_code: NONE,
        group_id,
        group_state: described.state.name().to_owned(),
        group_epoch: described.group_epoch,
        assignment_epoch: described.assignment_epoch,
        assignor_name: described.assignor_name,
        members: described
            .members
            .into_iter()
            .map(described_consumer)
            .collect(),
        ..cd::DescribedGroup::default()
    }
}

fn described_consumer(member: m::ConsumerGroupDescribedMember) -> cd::Member {
    /// Members of the consumer protocol.
    const CONSUMER: i8 = 1;
    let assignment = |topics: Vec<m::AssignedTopic>| {
        let topics = topics.into_iter().map(|topic| cd::TopicPartitions {
            topic_id: topic.topic_id,
            topic_name: topic
                .topic
                .map_or_else(String::new, |name| name.as_str().to_owned()),
            partitions: topic.partitions,
        });
        cd::Assignment {
            topic_partitions: topics.collect(),
        }
    };
    let names = member.subscribed_topic_names.iter();
    cd::Member {
        member_id: member.member_id,
        instance_id: member.instance_id,
        rack_id: member.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.client.client_id,
        client_host: member.client.client_host,
        subscribed_topic_names: names.map(|name| name.as_str().to_owned()).collect(),
        subscribed_topic_regex: member.subscribed_topic_regex,
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target_assignment),
        member_type: CONSUMER,
    }
}
