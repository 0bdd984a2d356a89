//! The group coordinator itself: its memory, its step, commits and deletions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::membership::Membership;
use super::outbox::{Context, Outbox, Write};
use super::positions::{Position, Positions};
use super::topics::Topics;
use super::{Config, Effect, Input, Response};
use crate::coordinator::membership_log::ClassicRecord;
use crate::coordinator::offsets_log::{Key, decode_value, encode_key, encode_value};
use crate::coordinator::{CoordinatorError, JournalRecord, Now, RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest, TransactionResult,
};
use crate::types::{GroupId, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition};

/// The longest metadata of a position, in bytes (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;

/// A group that has had neither members nor positions for so long is forgotten (Kafka looks every ten minutes).
const EMPTY_GROUP_RETENTION: Duration = Duration::from_secs(10 * 60);

/// The group coordinator. See the module's documentation for what its caller owes.
#[derive(Debug, Clone)]
pub(crate) struct GroupCoordinator {
    pub(super) config: Config,
    pub(super) positions: Positions,
    /// The groups that have or had members.
    pub(super) memberships: BTreeMap<GroupId, Membership>,
    pub(super) topics: Topics,
    pub(super) out: Outbox,
}

impl GroupCoordinator {
    /// A coordinator that knows no group: replay the journal.
    #[must_use]
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            positions: Positions::default(),
            memberships: BTreeMap::new(),
            topics: Topics::default(),
            out: Outbox::default(),
        }
    }

    /// Takes in one record of the journal. `producer_id` is that of its batch if the batch is transactional, else [`ProducerId::NONE`].
    /// Markers in the journal are replayed with [`GroupCoordinator::replay_marker`].
    ///
    /// # Errors
    /// If the record is damaged or of a newer version.
    pub(crate) fn replay(
        &mut self,
        producer_id: ProducerId,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
        now: Now,
    ) -> Result<(), CoordinatorError> {
        match (Key::decode(key)?, value) {
            (Key::Offset(group, partition), None) => {
                self.positions.forget(&group, &partition, offset);
            }
            (Key::Offset(group, partition), Some(value)) => {
                let (committed, commit) = decode_value(value)?;
                // C24: a stored time that lies in the future counts as now.
                let idle_ms = now.wall.0.saturating_sub(commit.0);
                let position = Position {
                    committed,
                    journal_offset: offset,
                    idle_before: Duration::from_millis(u64::try_from(idle_ms).unwrap_or(0)),
                    idle_since: now.instant,
                };
                self.positions
                    .take_in(producer_id, group, partition, position);
            }
            (Key::Consumer(group, key), value) => {
                self.replay_consumer(group, key, value, now.instant)?;
            }
            (Key::Classic(group), None) => self.replay_classic_tombstone(&group),
            (Key::Classic(group), Some(value)) => {
                let record = ClassicRecord::decode(value)?;
                let membership = Membership::from_record(group.clone(), record, now.instant);
                self.memberships.insert(group, membership);
            }
        }
        Ok(())
    }

    /// Takes in one marker of the journal.
    pub(crate) fn replay_marker(&mut self, producer_id: ProducerId, result: TransactionResult) {
        self.positions.end_transaction(producer_id, result);
    }

    /// Takes in what happened and says what is to be done, in this order.
    ///
    /// # Panics
    /// If a ticket is answered twice.
    pub(crate) fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Commit { request, message } => {
                let OffsetCommitRequest {
                    group,
                    member,
                    offsets,
                } = message;
                self.commit(request, None, group, &member, offsets, now);
            }
            Input::TxnCommit { request, message } => {
                let producer = Some(message.producer);
                let (group, member) = (message.group, message.member);
                self.commit(request, producer, group, &member, message.offsets, now);
            }
            Input::Join {
                request,
                message,
                unique,
            } => self.join(request, message, unique, now),
            Input::Sync { request, message } => self.sync(request, message, now),
            Input::Heartbeat { request, message } => self.heartbeat(request, &message, now),
            Input::Leave { request, message } => self.leave(request, message, now),
            Input::ConsumerHeartbeat {
                request,
                message,
                unique,
            } => self.consumer_heartbeat(request, message, unique, now),
            Input::TopicsChanged { topics } => self.topics.replace(topics),
            Input::DeleteGroup { request, group } => self.delete_group(request, group),
            Input::DeleteOffsets {
                request,
                group,
                partitions,
            } => self.delete_offsets(request, &group, partitions),
            Input::TopicDeleted { topic } => self.topic_deleted(&topic),
            Input::JournalWritten {
                ticket,
                base_offset,
            } => self.journal_written(ticket, base_offset, now),
            Input::JournalFailed { ticket, error } => self.journal_failed(ticket, error, now),
            Input::Marker {
                producer_id,
                result,
            } => self.replay_marker(producer_id, result),
            Input::Tick => self.tick(now),
        }
        self.out.take_effects()
    }

    fn commit(
        &mut self,
        request: RequestId,
        producer: Option<ProducerIdentity>,
        group: GroupId,
        member: &GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
        now: Now,
    ) {
        let is_transactional = producer.is_some();
        let checked = self
            .check_commit(&group, member, is_transactional, now)
            .and_then(|()| check_offsets(&offsets));
        if checked.is_err() || offsets.is_empty() {
            return self.out.reply(request, checked.map(|()| Response::Done));
        }
        let records = offsets.iter().map(|(partition, committed)| JournalRecord {
            key: encode_key(&group, partition),
            value: Some(encode_value(committed, now.wall)),
        });
        let records = records.collect();
        // I8: a transactional position becomes durable with its transaction's data, so it need not be synced by itself.
        let sync = producer.is_none();
        let write = Write::Positions {
            request,
            producer_id: producer.map_or(ProducerId::NONE, |producer| producer.id),
            group,
            offsets,
        };
        self.out.journal(write, producer, records, sync);
    }

    fn delete_group(&mut self, request: RequestId, group: GroupId) {
        let membership = self.memberships.get(&group);
        let is_known = membership.is_some() || self.positions.is_known(&group);
        let refusal = match membership {
            _ if !is_known => Some(ErrorCode::GroupIdNotFound),
            Some(membership) if !membership.is_empty() => Some(ErrorCode::NonEmptyGroup),
            _ if self.positions.has_pending(&group, None) => Some(ErrorCode::UnstableOffsetCommit),
            _ => None,
        };
        if let Some(error) = refusal {
            return self.out.reply(request, Err(error));
        }
        let groups = membership.map(|_| group.clone()).into_iter().collect();
        let partitions = self.positions.partitions(&group).into_iter();
        let keys = partitions.map(|it| (group.clone(), it)).collect();
        self.journal_tombstones(Some((request, Response::Done)), keys, groups);
    }

    fn delete_offsets(
        &mut self,
        request: RequestId,
        group: &GroupId,
        partitions: Vec<TopicPartition>,
    ) {
        let membership = self.memberships.get(group);
        if membership.is_none() && !self.positions.is_known(group) {
            return self.out.reply(request, Err(ErrorCode::GroupIdNotFound));
        }
        let members = membership.filter(|it| !it.is_empty());
        let Some(subscribed) = members.map_or(Some(Default::default()), |it| it.subscribed())
        else {
            return self.out.reply(request, Err(ErrorCode::NonEmptyGroup));
        };
        let check = |it: &TopicPartition| match () {
            () if subscribed.contains(&it.topic) => Err(ErrorCode::GroupSubscribedToTopic),
            () if self
                .positions
                .has_pending(group, Some(std::slice::from_ref(it))) =>
            {
                Err(ErrorCode::UnstableOffsetCommit)
            }
            () => Ok(()),
        };
        let results = partitions.into_iter().map(|it| {
            let result = check(&it);
            (it, result)
        });
        let results: Vec<_> = results.collect();
        let mut keys = self.positions.partitions(group);
        keys.retain(|it| {
            results
                .iter()
                .any(|(at, result)| at == it && result.is_ok())
        });
        let keys = keys.into_iter().map(|it| (group.clone(), it)).collect();
        self.journal_tombstones(
            Some((request, Response::Deleted(results))),
            keys,
            Vec::new(),
        );
    }

    fn topic_deleted(&mut self, topic: &TopicName) {
        let keys = self.positions.in_topic(topic);
        self.journal_tombstones(None, keys, Vec::new());
    }

    /// Whether time means anything to the coordinator now: without [`Input::Tick`] nothing is missed until this is true.
    #[must_use]
    pub(crate) fn needs_ticks(&self) -> bool {
        self.config.offsets_retention.is_some() || !self.memberships.is_empty()
    }

    fn tick(&mut self, now: Now) {
        let mut cx = Context {
            config: &self.config,
            out: &mut self.out,
            now,
        };
        let memberships = self.memberships.values_mut();
        memberships.for_each(|it| it.tick(&mut cx));
        self.memberships.retain(|_, it| !it.is_unborn());
        // Tombstones on their way would be asked for twice.
        if !self.out.is_forgetting() {
            self.expire(now);
        }
    }

    fn expire(&mut self, now: Now) {
        let keys = match self.config.offsets_retention {
            Some(retention) => {
                let mut keys = self.positions.older_than(retention, now.instant);
                // A group that has members keeps its positions.
                keys.retain(|(group, _)| {
                    let membership = self.memberships.get(group);
                    membership.is_none_or(|it| it.empty_for(now.instant) >= retention)
                });
                keys
            }
            None => Vec::new(),
        };
        let unused = self.memberships.iter().filter(|(group, it)| {
            it.empty_for(now.instant) >= EMPTY_GROUP_RETENTION && !self.positions.is_known(group)
        });
        let groups = unused.map(|(group, _)| group.clone()).collect();
        self.journal_tombstones(None, keys, groups);
    }

    fn journal_tombstones(
        &mut self,
        answer: Option<(RequestId, Response)>,
        keys: Vec<(GroupId, TopicPartition)>,
        groups: Vec<GroupId>,
    ) {
        if keys.is_empty() && groups.is_empty() {
            if let Some((request, response)) = answer {
                self.out.reply(request, Ok(response));
            }
            return;
        }
        let positions = keys.iter().map(|(group, at)| JournalRecord {
            key: encode_key(group, at),
            value: None,
        });
        let memberships = groups.iter().filter_map(|it| self.memberships.get(it));
        let memberships = memberships.flat_map(Membership::tombstones);
        let records = positions.chain(memberships).collect();
        let write = Write::Tombstones {
            answer,
            keys,
            groups,
        };
        self.out.journal(write, None, records, true);
    }

    /// I3: the records are in the journal; now memory follows.
    fn journal_written(&mut self, ticket: Ticket, base_offset: Offset, now: Now) {
        match self.out.write_of(ticket) {
            Write::Positions {
                request,
                producer_id,
                group,
                offsets,
            } => {
                for ((partition, committed), number) in offsets.into_iter().zip(0..) {
                    let position = Position {
                        committed,
                        journal_offset: base_offset.plus(number),
                        idle_before: Duration::ZERO,
                        idle_since: now.instant,
                    };
                    self.positions
                        .take_in(producer_id, group.clone(), partition, position);
                }
                self.out.reply(request, Ok(Response::Done));
            }
            Write::Tombstones {
                answer,
                keys,
                groups,
            } => {
                for ((group, partition), number) in keys.iter().zip(0..) {
                    self.positions
                        .forget(group, partition, base_offset.plus(number));
                }
                groups
                    .iter()
                    .for_each(|group| self.forget_membership(group));
                if let Some((request, response)) = answer {
                    self.out.reply(request, Ok(response));
                }
            }
            Write::Classic(group, write) => self.classic_written(group, write, now),
            Write::Consumer(group, write) => self.consumer_written(&group, write, now),
        }
    }

    fn journal_failed(&mut self, ticket: Ticket, error: ErrorCode, now: Now) {
        match self.out.write_of(ticket) {
            Write::Positions { request, .. }
            | Write::Tombstones {
                answer: Some((request, _)),
                ..
            } => self.out.reply(request, Err(error)),
            Write::Tombstones { answer: None, .. } => {}
            Write::Classic(group, write) => self.classic_failed(&group, write, error, now),
            Write::Consumer(group, write) => self.consumer_failed(&group, &write, error, now),
        }
    }
}

fn check_offsets(offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), ErrorCode> {
    let is_legal = offsets.iter().all(|(_, committed)| {
        committed.offset >= Offset::ZERO && committed.metadata.len() <= METADATA_BYTES_MAX
    });
    match is_legal {
        true => Ok(()),
        false => Err(ErrorCode::InvalidRequest),
    }
}
