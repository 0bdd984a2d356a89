//! The topics and the heartbeats of members of the consumer protocol.

use std::time::Duration;

use crate::coordinator::RequestId;
pub(super) use crate::coordinator::group::tests::world::{World, group};
use crate::coordinator::group::{Config, Input, Response};
use crate::protocol::ErrorCode;
use crate::protocol::messages::TopicMetadata;
pub(super) use crate::protocol::messages::groups::AssignedTopic;
use crate::protocol::messages::groups::{
    ClientIdentity, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupState,
    JoinGroupProtocol, JoinGroupRequest,
};
use crate::types::{TopicId, TopicName};

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

/// The identity of a topic that was never created anew.
fn id(topic: &str) -> TopicId {
    TopicId(u128::from(topic.as_bytes()[0]))
}

pub(super) fn topic(topic: &str, partitions: &[i32]) -> AssignedTopic {
    AssignedTopic {
        topic_id: id(topic),
        topic: Some(name(topic)),
        partitions: partitions.to_vec(),
    }
}

pub(super) fn joining(member_id: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        rebalance_timeout: Some(Duration::from_secs(60)),
        subscribed_topic_names: Some(topics.iter().map(|it| name(it)).collect()),
        topic_partitions: Some(Vec::new()),
        ..staying(member_id, 0)
    }
}

pub(super) fn matching(member_id: &str, expression: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(expression.to_owned()),
        ..joining(member_id, &[])
    }
}

pub(super) fn hidden(topic: &str) -> Vec<TopicName> {
    vec![name(topic)]
}

pub(super) fn staying(member_id: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group: group(),
        client: ClientIdentity::default(),
        member_id: member_id.to_owned(),
        member_epoch,
        group_instance_id: None,
        rack_id: None,
        rebalance_timeout: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        hidden_topics: Vec::new(),
        server_assignor: None,
        topic_partitions: None,
    }
}

pub(super) fn owning(
    member_id: &str,
    member_epoch: i32,
    owned: Option<Vec<AssignedTopic>>,
) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        topic_partitions: owned,
        ..staying(member_id, member_epoch)
    }
}

pub(super) fn owned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(String, i32)>> {
    let assignment = response.assignment.as_ref()?;
    let places = assignment.iter().flat_map(|it| {
        let topic = it
            .topic
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        it.partitions.iter().map(move |at| (topic.clone(), *at))
    });
    Some(places.collect())
}

impl World {
    pub(super) fn with_topics(config: Config, topics: &[(&str, i32)]) -> Self {
        let mut world = Self::new(config);
        for (topic, partitions_count) in topics {
            let metadata = TopicMetadata {
                name: name(topic),
                id: id(topic),
                partitions_count: *partitions_count,
                is_internal: false,
            };
            world.topics.insert((*topic).to_owned(), metadata);
        }
        world.tell_topics();
        world
    }

    pub(super) fn create(&mut self, topic: &str, partitions_count: i32) {
        let metadata = TopicMetadata {
            name: name(topic),
            id: id(topic),
            partitions_count,
            is_internal: false,
        };
        self.topics.insert(topic.to_owned(), metadata);
        self.tell_topics();
    }

    pub(super) fn delete(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.tell_topics();
    }

    pub(super) fn grow(&mut self, topic: &str, partitions_count: i32) {
        self.topics.get_mut(topic).unwrap().partitions_count = partitions_count;
        self.tell_topics();
    }

    pub(super) fn recreate(&mut self, topic: &str, partitions_count: i32) {
        let metadata = self.topics.get_mut(topic).unwrap();
        metadata.partitions_count = partitions_count;
        metadata.id = TopicId(metadata.id.0 + 1000);
        self.tell_topics();
    }

    pub(super) fn send(&mut self, message: ConsumerGroupHeartbeatRequest) -> RequestId {
        let unique = self.unique();
        self.ask(|request| Input::ConsumerHeartbeat {
            request,
            message,
            unique,
        })
    }

    /// A heartbeat, and its answer once everything is durable.
    pub(super) fn beat(
        &mut self,
        message: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, ErrorCode> {
        let request = self.send(message);
        self.flush();
        self.response(request)
    }

    pub(super) fn response(
        &self,
        request: RequestId,
    ) -> Result<ConsumerGroupHeartbeatResponse, ErrorCode> {
        match self.answer(request).unwrap()? {
            Response::ConsumerHeartbeat(response) => Ok(response),
            response => panic!("{response:?}"),
        }
    }

    pub(super) fn join_classic(&mut self) -> Result<(), ErrorCode> {
        let protocol = JoinGroupProtocol {
            name: "range".into(),
            metadata: bytes::Bytes::new(),
        };
        let message = JoinGroupRequest {
            group: group(),
            client: ClientIdentity::default(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(10),
            member_id: String::new(),
            group_instance_id: None,
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            reason: None,
            requires_known_member_id: false,
            supports_skipping_assignment: false,
        };
        let request = self.ask(|request| Input::Join {
            request,
            message,
            unique: 1,
        });
        self.answer(request).unwrap().map(drop)
    }

    pub(super) fn state_of_consumers(&self) -> GroupState {
        let shown = self.coordinator.describe_consumer(&group());
        shown.unwrap().state
    }

    pub(super) fn target(&self, member_id: &str) -> Vec<AssignedTopic> {
        let shown = self.coordinator.describe_consumer(&group()).unwrap();
        let mut members = shown.members.into_iter();
        let member = members.find(|it| it.member_id == member_id);
        member.unwrap().target_assignment
    }
}
