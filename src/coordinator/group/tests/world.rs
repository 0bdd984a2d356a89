//! A coordinator with a journal that can lose its end. What members ask for is beside the tests of their protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coordinator::group::{Config, Effect, GroupCoordinator, Input, Response};
use crate::coordinator::{JournalRecord, Now, RequestId, Ticket};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest, TopicMetadata, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Offset, ProducerEpoch, ProducerId, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
};

type Answer = Result<Response, ErrorCode>;

#[derive(Debug, Clone)]
pub(in crate::coordinator::group) struct World {
    pub(in crate::coordinator::group) coordinator: GroupCoordinator,
    /// Topics to read.
    pub(in crate::coordinator::group) topics: BTreeMap<String, TopicMetadata>,
    /// Durable records.
    journal: Vec<JournalRecord>,
    /// Appends under way.
    appends: Vec<(Ticket, Vec<JournalRecord>)>,
    answers: BTreeMap<RequestId, Answer>,
    requests_count: u64,
    now: Now,
    config: Config,
}

pub(in crate::coordinator::group) fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

pub(in crate::coordinator::group) fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), 0)
}

impl World {
    pub(in crate::coordinator::group) fn new(config: Config) -> Self {
        Self {
            coordinator: GroupCoordinator::new(config.clone()),
            topics: BTreeMap::new(),
            journal: Vec::new(),
            appends: Vec::new(),
            answers: BTreeMap::new(),
            requests_count: 0,
            now: Now::default(),
            config,
        }
    }

    pub(in crate::coordinator::group) fn tell_topics(&mut self) {
        let topics = self.topics.values().cloned().collect();
        self.step(Input::TopicsChanged { topics });
    }

    pub(in crate::coordinator::group) fn step(&mut self, input: Input) {
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

    /// A request, with a number of its own.
    pub(in crate::coordinator::group) fn ask(
        &mut self,
        input: impl FnOnce(RequestId) -> Input,
    ) -> RequestId {
        self.requests_count += 1;
        let request = RequestId(self.requests_count);
        self.step(input(request));
        request
    }

    /// A number that makes what this request names unlike any other.
    pub(in crate::coordinator::group) fn unique(&self) -> u128 {
        u128::from(self.requests_count) << 64 | 7
    }

    /// Makes everything durable that is on its way.
    pub(in crate::coordinator::group) fn flush(&mut self) {
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

    /// Counts the journal appends under way.
    pub(in crate::coordinator::group) fn unwritten_count(&self) -> usize {
        self.appends.len()
    }

    pub(in crate::coordinator::group) fn fail(&mut self, error: ErrorCode) {
        for (ticket, _) in std::mem::take(&mut self.appends) {
            self.step(Input::JournalFailed { ticket, error });
        }
    }

    /// Starts anew from the journal. Of what was on its way, `kept` appends reached the disk without anybody being told.
    pub(in crate::coordinator::group) fn crash(&mut self, kept: usize) {
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

    pub(in crate::coordinator::group) fn pass(&mut self, seconds: u64) {
        // A tick before, so that sessions that began with a replay are known.
        self.step(Input::Tick);
        let passed = Duration::from_secs(seconds);
        self.now.instant = Instant(self.now.instant.0 + passed);
        self.step(Input::Tick);
    }

    pub(in crate::coordinator::group) fn answer(&self, request: RequestId) -> Option<Answer> {
        self.answers.get(&request).cloned()
    }

    pub(in crate::coordinator::group) fn error(&self, request: RequestId) -> ErrorCode {
        self.answer(request).unwrap().unwrap_err()
    }

    /// Commits a position and waits until that is durable.
    pub(in crate::coordinator::group) fn commit(
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
}
