//! A coordinator with a journal that can lose its end, topics, and the heartbeats of members.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coordinator::group::{Config, Effect, GroupCoordinator, Input, Response};
use crate::coordinator::{JournalRecord, Now, RequestId, Ticket};
use crate::env::Instant;
use crate::protocol::ErrorCode;
pub(super) use crate::protocol::messages::groups::AssignedTopic;
use crate::protocol::messages::groups::{
    ClientIdentity, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupState,
    JoinGroupProtocol, JoinGroupRequest,
};
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest, TopicMetadata, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Offset, ProducerEpoch, ProducerId, ProducerIdentity, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) coordinator: GroupCoordinator,
    journal: Vec<JournalRecord>,
    appends: Vec<(Ticket, Vec<JournalRecord>)>,
    answers: BTreeMap<RequestId, Result<Response, ErrorCode>>,
    requests_count: u64,
    now: Now,
    config: Config,
    topics: BTreeMap<String, TopicMetadata>,
}

pub(super) fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

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
    pub(super) fn new(config: Config, topics: &[(&str, i32)]) -> Self {
        let mut world = Self {
            coordinator: GroupCoordinator::new(config.clone()),
            journal: Vec::new(),
            appends: Vec::new(),
            answers: BTreeMap::new(),
            requests_count: 0,
            now: Now::default(),
            config,
            topics: BTreeMap::new(),
        };
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

    fn tell_topics(&mut self) {
        let topics = self.topics.values().cloned().collect();
        self.step(Input::TopicsChanged { topics });
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

    fn step(&mut self, input: Input) {
        for effect in self.coordinator.step(input, self.now) {
            match effect {
                Effect::AppendJournal {
                    ticket, records, ..
                } => self.appends.push((ticket, records)),
                Effect::Reply { request, result } => {
                    let earlier = self.answers.insert(request, result);
                    assert_eq!(earlier, None, "a request was answered twice");
                }
            }
        }
    }

    pub(super) fn ask_any(&mut self, input: impl FnOnce(RequestId) -> Input) -> RequestId {
        self.requests_count += 1;
        let request = RequestId(self.requests_count);
        self.step(input(request));
        request
    }

    pub(super) fn ask(&mut self, message: ConsumerGroupHeartbeatRequest) -> RequestId {
        let unique = u128::from(self.requests_count);
        self.ask_any(|request| Input::ConsumerHeartbeat {
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
        let request = self.ask(message);
        self.flush();
        self.response(request)
    }

    pub(super) fn answer(&self, request: RequestId) -> Option<Result<Response, ErrorCode>> {
        self.answers.get(&request).cloned()
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

    pub(super) fn error(&self, request: RequestId) -> ErrorCode {
        self.answer(request).unwrap().unwrap_err()
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
        let request = self.ask_any(|request| Input::Join {
            request,
            message,
            unique: 1,
        });
        self.answer(request).unwrap().map(drop)
    }

    pub(super) fn flush(&mut self) {
        while !self.appends.is_empty() {
            let (ticket, records) = self.appends.remove(0);
            let base_offset = Offset(i64::try_from(self.journal.len()).unwrap());
            self.journal.extend(records);
            self.step(Input::JournalWritten {
                ticket,
                base_offset,
            });
        }
    }

    pub(super) fn fail(&mut self, error: ErrorCode) {
        for (ticket, _) in std::mem::take(&mut self.appends) {
            self.step(Input::JournalFailed { ticket, error });
        }
    }

    /// Starts anew from the journal. Of what was on its way, `kept` batches reached the disk without anybody being told.
    pub(super) fn crash(&mut self, kept: usize) {
        for (_, records) in std::mem::take(&mut self.appends).into_iter().take(kept) {
            self.journal.extend(records);
        }
        self.coordinator = GroupCoordinator::new(self.config.clone());
        for (record, offset) in self.journal.iter().zip(0..) {
            let (key, value) = (&record.key, record.value.as_deref());
            let (none, offset) = (ProducerId::NONE, Offset(offset));
            let replayed = self.coordinator.replay(none, offset, key, value, self.now);
            replayed.unwrap();
        }
        self.tell_topics();
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        // A tick before, so that sessions that began with a replay are known.
        self.step(Input::Tick);
        self.now.instant = Instant(self.now.instant.0 + passed);
        self.step(Input::Tick);
    }

    pub(super) fn commit(
        &mut self,
        member_id: &str,
        generation: i32,
        is_transactional: bool,
    ) -> Result<(), ErrorCode> {
        let member = GroupMember {
            generation,
            member_id: member_id.to_owned(),
            group_instance_id: None,
        };
        let committed = CommittedOffset {
            offset: Offset(1),
            leader_epoch: -1,
            metadata: String::new(),
        };
        let offsets = vec![(TopicPartition::new(name("t"), 0), committed)];
        let producer = ProducerIdentity {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
        };
        let request = self.ask_any(|request| match is_transactional {
            true => Input::TxnCommit {
                request,
                message: TxnOffsetCommitRequest {
                    transactional_id: TransactionalId::new("job").unwrap(),
                    producer,
                    group: group(),
                    member,
                    offsets,
                },
            },
            false => Input::Commit {
                request,
                message: OffsetCommitRequest {
                    group: group(),
                    member,
                    offsets,
                },
            },
        });
        self.flush();
        self.answer(request).unwrap().map(drop)
    }

    pub(super) fn state(&self) -> GroupState {
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
