//! Membership of groups: joining, agreeing, staying and leaving, by the classic protocol and by the consumer protocol (KIP-848).

use std::time::Duration;

use super::cluster::{Cluster, Plan};
use super::groups::coordinator;
use super::judge::error_of;
use crate::client::ClientError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    AssignedTopic, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    JoinGroupMember, JoinGroupRequest, JoinGroupResponse, JoinedGroup, LeaveGroupRequest,
    LeaveGroupResponse, LeftMember, SyncGroupRequest, SyncGroupResponse,
};
use crate::protocol::wire::messages as wire;
use crate::types::GroupId;

/// A request that the coordinator answers when others have come, too.
fn parked(group: &GroupId, wait: Duration) -> Plan {
    coordinator(group).parked(wait)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Cluster {
    pub(super) async fn join_group(
        &self,
        request: JoinGroupRequest,
    ) -> Result<JoinGroupResponse, ClientError> {
        let protocols = request.protocols.into_iter();
        let message = wire::join_group::JoinGroupRequest {
            group_id: request.group.as_str().to_owned(),
            session_timeout_ms: millis(request.session_timeout),
            rebalance_timeout_ms: millis(request.rebalance_timeout),
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            protocol_type: request.protocol_type,
            protocols: protocols
                .map(|protocol| wire::join_group::JoinGroupRequestProtocol {
                    name: protocol.name,
                    metadata: protocol.metadata,
                })
                .collect(),
            reason: request.reason,
        };
        let plan = parked(&request.group, request.rebalance_timeout);
        let answer = self.call(&plan, &message).await?;
        let member_id = answer.member_id;
        if error_of(answer.error_code) == Some(ErrorCode::MemberIdRequired) {
            return Ok(JoinGroupResponse::MemberIdRequired { member_id });
        }
        let members = answer.members.into_iter().map(|member| JoinGroupMember {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            metadata: member.metadata,
        });
        Ok(JoinGroupResponse::Joined(JoinedGroup {
            generation: answer.generation_id,
            protocol_type: answer.protocol_type,
            protocol_name: answer.protocol_name,
            leader: answer.leader,
            skip_assignment: answer.skip_assignment,
            member_id,
            members: members.collect(),
        }))
    }

    pub(super) async fn sync_group(
        &self,
        request: SyncGroupRequest,
    ) -> Result<SyncGroupResponse, ClientError> {
        let assignments = request.assignments.into_iter();
        let message = wire::sync_group::SyncGroupRequest {
            group_id: request.group.as_str().to_owned(),
            generation_id: request.generation,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            protocol_type: request.protocol_type,
            protocol_name: request.protocol_name,
            assignments: assignments
                .map(
                    |(member_id, assignment)| wire::sync_group::SyncGroupRequestAssignment {
                        member_id,
                        assignment,
                    },
                )
                .collect(),
        };
        // The leader's own is answered at once, a follower's when the leader's has come.
        let plan = parked(&request.group, self.settings.request_timeout);
        let answer = self.call(&plan, &message).await?;
        Ok(SyncGroupResponse {
            protocol_type: answer.protocol_type,
            protocol_name: answer.protocol_name,
            assignment: answer.assignment,
        })
    }

    pub(super) async fn heartbeat(&self, request: HeartbeatRequest) -> Result<(), ClientError> {
        let message = wire::heartbeat::HeartbeatRequest {
            group_id: request.group.as_str().to_owned(),
            generation_id: request.generation,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
        };
        let answer = self.call(&coordinator(&request.group), &message).await;
        answer.map(drop)
    }

    pub(super) async fn leave_group(
        &self,
        request: LeaveGroupRequest,
    ) -> Result<LeaveGroupResponse, ClientError> {
        let members = request.members.into_iter();
        let message = wire::leave_group::LeaveGroupRequest {
            group_id: request.group.as_str().to_owned(),
            members: members
                .map(|member| wire::leave_group::MemberIdentity {
                    member_id: member.member_id,
                    group_instance_id: member.group_instance_id,
                    reason: member.reason,
                })
                .collect(),
            ..wire::leave_group::LeaveGroupRequest::default()
        };
        let answer = self.call(&coordinator(&request.group), &message).await?;
        let members = answer.members.into_iter().map(|member| LeftMember {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error: error_of(member.error_code),
        });
        Ok(LeaveGroupResponse {
            members: members.collect(),
        })
    }

    /// Joins, stays in and leaves a group of the consumer protocol (KIP-848). The same said again changes nothing.
    pub(super) async fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, ClientError> {
        let topics = request.topic_partitions.map(|topics| {
            let topics = topics.into_iter();
            topics
                .map(|topic| wire::consumer_group_heartbeat::TopicPartitions {
                    topic_id: topic.topic_id,
                    partitions: topic.partitions,
                })
                .collect()
        });
        let names = request.subscribed_topic_names;
        let message = wire::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
            group_id: request.group.as_str().to_owned(),
            member_id: request.member_id,
            member_epoch: request.member_epoch,
            instance_id: request.group_instance_id,
            rack_id: request.rack_id,
            rebalance_timeout_ms: request.rebalance_timeout.map_or(-1, millis),
            subscribed_topic_names: names
                .map(|names| names.iter().map(ToString::to_string).collect()),
            subscribed_topic_regex: request.subscribed_topic_regex,
            server_assignor: request.server_assignor,
            topic_partitions: topics,
        };
        let answer = self.call(&coordinator(&request.group), &message).await?;
        let interval = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0);
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: answer.member_id.unwrap_or_default(),
            member_epoch: answer.member_epoch,
            heartbeat_interval: Duration::from_millis(interval),
            assignment: match answer.assignment {
                None => None,
                Some(assignment) => Some(self.with_names(assignment.topic_partitions).await?),
            },
        })
    }

    /// The coordinator names topics by their ids only.
    async fn with_names(
        &self,
        topics: Vec<wire::consumer_group_heartbeat::TopicPartitions>,
    ) -> Result<Vec<AssignedTopic>, ClientError> {
        let is_unknown = |topic: &wire::consumer_group_heartbeat::TopicPartitions| {
            self.metadata(|metadata| metadata.name_of(topic.topic_id).is_none())
        };
        if topics.iter().any(is_unknown) {
            self.ask_metadata(None).await?;
        }
        let topics = topics.into_iter().map(|topic| {
            let name = self.metadata(|metadata| metadata.name_of(topic.topic_id));
            AssignedTopic {
                topic_id: topic.topic_id,
                topic: name,
                partitions: topic.partitions,
            }
        });
        Ok(topics.collect())
    }
}
