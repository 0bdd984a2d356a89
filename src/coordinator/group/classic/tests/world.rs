//! A coordinator with a journal that can lose its end, and the requests of members.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::coordinator::group::{Config, Effect, GroupCoordinator, Input, Response};
use crate::coordinator::{JournalRecord, Now, RequestId, Ticket};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ClientIdentity, GroupState, HeartbeatRequest, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Offset, ProducerEpoch, ProducerId, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
};

type Answer = Result<Response, ErrorCode>;

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) coordinator: GroupCoordinator,
    /// What is durable.
    journal: Vec<JournalRecord>,
    /// What is on its way.
    appends: Vec<(Ticket, Vec<JournalRecord>)>,
    answers: BTreeMap<RequestId, Answer>,
    requests_count: u64,
    now: Now,
    config: Config,
}

pub(super) fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

pub(super) fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), 0)
}

/// A join of a consumer that reads `t`.
pub(super) fn join(client_id: &str, member_id: &str) -> JoinGroupRequest {
    let mut subscription = BytesMut::new();
    subscription.put_i16(0);
    subscription.put_i32(1);
    subscription.put_i16(1);
    subscription.put_slice(b"t");
    subscription.put_i32(-1);
    JoinGroupRequest {
        group: group(),
        client: ClientIdentity {
            client_id: client_id.to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        },
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(30),
        member_id: member_id.to_owned(),
        group_instance_id: None,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupProtocol {
            name: "range".to_owned(),
            metadata: subscription.freeze(),
        }],
        reason: None,
        requires_known_member_id: true,
        supports_skipping_assignment: false,
    }
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            coordinator: GroupCoordinator::new(config.clone()),
            journal: Vec::new(),
            appends: Vec::new(),
            answers: BTreeMap::new(),
            requests_count: 0,
            now: Now::default(),
            config,
        }
    }

    pub(super) fn step(&mut self, input: Input) {
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

    pub(super) fn ask(&mut self, input: impl FnOnce(RequestId) -> Input) -> RequestId {
        self.requests_count += 1;
        let request = RequestId(self.requests_count);
        self.step(input(request));
        request
    }

    /// Makes everything durable that is on its way.
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

    /// Starts anew from the journal. Of what was on its way, `kept` appends reached the disk without anybody being told.
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
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        self.now.instant = Instant(self.now.instant.0 + passed);
        self.step(Input::Tick);
    }

    pub(super) fn answer(&self, request: RequestId) -> Option<Answer> {
        self.answers.get(&request).cloned()
    }

    pub(super) fn error(&self, request: RequestId) -> ErrorCode {
        self.answer(request).unwrap().unwrap_err()
    }

    pub(super) fn join(&mut self, message: JoinGroupRequest) -> RequestId {
        let unique = u128::from(self.requests_count) << 64 | 7;
        self.ask(|request| Input::Join {
            request,
            message,
            unique,
        })
    }

    pub(super) fn new_id(&mut self, client_id: &str) -> String {
        let request = self.join(join(client_id, ""));
        match self.answer(request) {
            Some(Ok(Response::Joined(JoinGroupResponse::MemberIdRequired { member_id }))) => {
                member_id
            }
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn joined(&self, request: RequestId) -> JoinedGroup {
        match self.answer(request) {
            Some(Ok(Response::Joined(JoinGroupResponse::Joined(joined)))) => joined,
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn sync(&mut self, joined: &JoinedGroup, assignments: &[(&str, &str)]) -> RequestId {
        self.sync_as(None, joined, assignments)
    }

    pub(super) fn sync_as(
        &mut self,
        instance: Option<&str>,
        joined: &JoinedGroup,
        assignments: &[(&str, &str)],
    ) -> RequestId {
        let assignments = assignments.iter();
        let assignments = assignments.map(|(id, it)| ((*id).to_owned(), it.to_string().into()));
        let message = SyncGroupRequest {
            group: group(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: instance.map(str::to_owned),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
        };
        self.ask(|request| Input::Sync { request, message })
    }

    pub(super) fn assignment(&self, request: RequestId) -> String {
        match self.answer(request) {
            Some(Ok(Response::Synced(synced))) => {
                String::from_utf8(synced.assignment.to_vec()).unwrap()
            }
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        member_id: &str,
        generation: i32,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        let message = HeartbeatRequest {
            group: group(),
            generation,
            member_id: member_id.to_owned(),
            group_instance_id: instance.map(str::to_owned),
        };
        let request = self.ask(|request| Input::Heartbeat { request, message });
        self.answer(request).unwrap().map(drop)
    }

    pub(super) fn leave(&mut self, member_id: &str) {
        let member = LeavingMember {
            member_id: member_id.to_owned(),
            group_instance_id: None,
            reason: None,
        };
        let message = LeaveGroupRequest {
            group: group(),
            members: vec![member],
        };
        self.ask(|request| Input::Leave { request, message });
    }

    /// Commits a position and waits until that is durable.
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
        let offsets = vec![(partition("t"), committed)];
        let producer = ProducerIdentity {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
        };
        let request = self.ask(|request| match is_transactional {
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
        self.coordinator.describe_classic(&group()).state
    }

    pub(super) fn state_of_first_member(&self) -> String {
        let shown = self.coordinator.describe_classic(&group());
        shown.members[0].member_id.clone()
    }
}
