//! The group coordinator itself: its memory, its step, and what can be asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Config, Effect, GroupDescription, Input};
use crate::coordinator::offsets_log::{Key, decode_value, encode_key, encode_value};
use crate::coordinator::{CoordinatorError, JournalRecord, Now, RequestId, Ticket};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest, OffsetFetchRequest, TransactionResult,
};
use crate::types::{GroupId, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition};

/// The longest metadata of a position, in bytes (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;

/// A position, and the record that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    committed: CommittedOffset,
    /// Where its record stands in the journal: the later one wins.
    journal_offset: Offset,
    /// How long it had not been renewed when this process took it up.
    idle_before: Duration,
    idle_since: Instant,
}

/// What a journal append will change once it is written.
#[derive(Debug, Clone)]
enum Write {
    Positions {
        request: RequestId,
        producer_id: ProducerId,
        group: GroupId,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    },
    Tombstones {
        request: Option<RequestId>,
        keys: Vec<(GroupId, TopicPartition)>,
    },
}

type Positions = BTreeMap<TopicPartition, Position>;

/// The group coordinator. See the module's documentation for what its caller owes.
#[derive(Debug, Clone)]
pub struct GroupCoordinator {
    config: Config,
    committed: BTreeMap<GroupId, Positions>,
    /// By the producer of the open transaction.
    pending: BTreeMap<ProducerId, BTreeMap<GroupId, Positions>>,
    writes: BTreeMap<Ticket, Write>,
    next_ticket: u64,
    effects: Vec<Effect>,
}

impl GroupCoordinator {
    /// A coordinator that knows no group: replay the journal.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_ticket: 0,
            effects: Vec::new(),
        }
    }

    /// Takes in one record of the journal. `producer_id` is that of its batch if the batch is transactional, else [`ProducerId::NONE`].
    /// Markers in the journal are replayed with [`GroupCoordinator::replay_marker`].
    ///
    /// # Errors
    /// If the record is damaged or of a newer version.
    pub fn replay(
        &mut self,
        producer_id: ProducerId,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
        now: Now,
    ) -> Result<(), CoordinatorError> {
        let Key::Offset(group, partition) = Key::decode(key)? else {
            return Ok(());
        };
        let Some(value) = value else {
            self.forget(&group, &partition, offset);
            return Ok(());
        };
        let (committed, commit) = decode_value(value)?;
        // C24: a stored time that lies in the future counts as now.
        let idle_ms = now.wall.0.saturating_sub(commit.0);
        let position = Position {
            committed,
            journal_offset: offset,
            idle_before: Duration::from_millis(u64::try_from(idle_ms).unwrap_or(0)),
            idle_since: now.instant,
        };
        self.take_in(producer_id, group, partition, position);
        Ok(())
    }

    /// Takes in one marker of the journal.
    pub fn replay_marker(&mut self, producer_id: ProducerId, result: TransactionResult) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if result == TransactionResult::Commit {
            for (group, positions) in pending {
                let committed = self.committed.entry(group).or_default();
                for (partition, position) in positions {
                    install(committed, partition, position);
                }
            }
        }
    }

    /// Takes in what happened and says what is to be done, in this order.
    ///
    /// # Panics
    /// If a ticket is answered twice.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
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
            Input::DeleteGroup { request, group } => self.delete_group(request, &group),
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
            Input::JournalFailed { ticket, error } => self.journal_failed(ticket, error),
            Input::Marker {
                producer_id,
                result,
            } => self.replay_marker(producer_id, result),
            Input::Tick => self.expire(now),
        }
        std::mem::take(&mut self.effects)
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
        let checked = check_member(member).and_then(|()| check_offsets(&offsets));
        if checked.is_err() || offsets.is_empty() {
            return self.reply(request, checked);
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
        self.journal(write, producer, records, sync);
    }

    fn delete_group(&mut self, request: RequestId, group: &GroupId) {
        let keys = match self.committed.get(group) {
            _ if self.has_pending(group, None) => Err(ErrorCode::UnstableOffsetCommit),
            None => Err(ErrorCode::GroupIdNotFound),
            Some(positions) => Ok(positions.keys().cloned().collect()),
        };
        match keys {
            Ok(partitions) => self.delete_offsets(request, group, partitions),
            Err(error) => self.reply(request, Err(error)),
        }
    }

    fn delete_offsets(
        &mut self,
        request: RequestId,
        group: &GroupId,
        mut partitions: Vec<TopicPartition>,
    ) {
        if self.has_pending(group, Some(&partitions)) {
            return self.reply(request, Err(ErrorCode::UnstableOffsetCommit));
        }
        let committed = self.committed.get(group);
        partitions.retain(|partition| committed.is_some_and(|all| all.contains_key(partition)));
        let keys = partitions
            .into_iter()
            .map(|it| (group.clone(), it))
            .collect();
        self.journal_tombstones(Some(request), keys);
    }

    fn topic_deleted(&mut self, topic: &TopicName) {
        let pending = self.pending.values().flatten();
        let all = self.committed.iter().chain(pending);
        let keys: BTreeSet<(GroupId, TopicPartition)> = all
            .flat_map(|(group, positions)| positions.keys().map(move |it| (group, it)))
            .filter(|(_, partition)| partition.topic == *topic)
            .map(|(group, partition)| (group.clone(), partition.clone()))
            .collect();
        self.journal_tombstones(None, keys.into_iter().collect());
    }

    fn expire(&mut self, now: Now) {
        let Some(retention) = self.config.offsets_retention else {
            return;
        };
        // Tombstones on their way would be asked for twice.
        let is_busy = self
            .writes
            .values()
            .any(|write| matches!(write, Write::Tombstones { .. }));
        if is_busy {
            return;
        }
        let is_old = |position: &Position| {
            position.idle_before + now.instant.since(position.idle_since) >= retention
        };
        let keys = self
            .committed
            .iter()
            .flat_map(|(group, positions)| positions.iter().map(move |it| (group, it)))
            .filter(|(_, (_, position))| is_old(position))
            .map(|(group, (partition, _))| (group.clone(), partition.clone()))
            .filter(|(group, partition)| {
                !self.has_pending(group, Some(std::slice::from_ref(partition)))
            })
            .collect();
        self.journal_tombstones(None, keys);
    }

    fn journal_tombstones(
        &mut self,
        request: Option<RequestId>,
        keys: Vec<(GroupId, TopicPartition)>,
    ) {
        if keys.is_empty() {
            if let Some(request) = request {
                self.reply(request, Ok(()));
            }
            return;
        }
        let records = keys.iter().map(|(group, partition)| JournalRecord {
            key: encode_key(group, partition),
            value: None,
        });
        let records = records.collect();
        self.journal(Write::Tombstones { request, keys }, None, records, true);
    }

    fn journal(
        &mut self,
        write: Write,
        producer: Option<ProducerIdentity>,
        records: Vec<JournalRecord>,
        sync: bool,
    ) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.writes.insert(ticket, write);
        self.effects.push(Effect::AppendJournal {
            ticket,
            producer,
            records,
            sync,
        });
    }

    fn reply(&mut self, request: RequestId, result: Result<(), ErrorCode>) {
        self.effects.push(Effect::Reply { request, result });
    }

    fn write_of(&mut self, ticket: Ticket) -> Write {
        match self.writes.remove(&ticket) {
            Some(write) => write,
            None => panic!("{ticket:?} was answered before, or never given"),
        }
    }

    /// I3: the records are in the journal; now memory follows.
    fn journal_written(&mut self, ticket: Ticket, base_offset: Offset, now: Now) {
        match self.write_of(ticket) {
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
                    self.take_in(producer_id, group.clone(), partition, position);
                }
                self.reply(request, Ok(()));
            }
            Write::Tombstones { request, keys } => {
                for ((group, partition), number) in keys.iter().zip(0..) {
                    self.forget(group, partition, base_offset.plus(number));
                }
                if let Some(request) = request {
                    self.reply(request, Ok(()));
                }
            }
        }
    }

    fn journal_failed(&mut self, ticket: Ticket, error: ErrorCode) {
        match self.write_of(ticket) {
            Write::Positions { request, .. }
            | Write::Tombstones {
                request: Some(request),
                ..
            } => self.reply(request, Err(error)),
            Write::Tombstones { request: None, .. } => {}
        }
    }

    /// I8: a position of a transaction is pending until its marker.
    fn take_in(
        &mut self,
        producer_id: ProducerId,
        group: GroupId,
        partition: TopicPartition,
        position: Position,
    ) {
        let groups = match producer_id.is_some() {
            true => self.pending.entry(producer_id).or_default(),
            false => &mut self.committed,
        };
        install(groups.entry(group).or_default(), partition, position);
    }

    /// A tombstone at `journal_offset` removes what stands before it, pending or not.
    fn forget(&mut self, group: &GroupId, partition: &TopicPartition, journal_offset: Offset) {
        forget_in(&mut self.committed, group, partition, journal_offset);
        self.pending.retain(|_, groups| {
            forget_in(groups, group, partition, journal_offset);
            !groups.is_empty()
        });
    }

    /// Whether an open transaction holds a position of `group`, in one of `partitions` if they are given.
    fn has_pending(&self, group: &GroupId, partitions: Option<&[TopicPartition]>) -> bool {
        self.pending
            .values()
            .filter_map(|groups| groups.get(group))
            .any(|positions| match partitions {
                None => !positions.is_empty(),
                Some(partitions) => partitions.iter().any(|it| positions.contains_key(it)),
            })
    }

    /// The committed positions asked for; `None` for a partition without one.
    ///
    /// # Errors
    /// `UnstableOffsetCommit` if stability is required and an open transaction holds one of them (C27).
    pub fn fetch(
        &self,
        message: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, ErrorCode> {
        let OffsetFetchRequest {
            group, partitions, ..
        } = message;
        if message.require_stable && self.has_pending(group, partitions.as_deref()) {
            return Err(ErrorCode::UnstableOffsetCommit);
        }
        let positions = self.committed.get(group);
        let committed =
            |partition| positions.and_then(|all| Some(all.get(partition)?.committed.clone()));
        let partitions: Vec<&TopicPartition> = match partitions {
            Some(partitions) => partitions.iter().collect(),
            None => positions.into_iter().flat_map(BTreeMap::keys).collect(),
        };
        let found = partitions.into_iter().map(|it| (it.clone(), committed(it)));
        Ok(found.collect())
    }

    /// Every group that has a position, committed or pending, in order.
    pub fn list(&self) -> impl Iterator<Item = &GroupId> + '_ {
        let pending = self.pending.values().flat_map(BTreeMap::keys);
        let all: BTreeSet<&GroupId> = self.committed.keys().chain(pending).collect();
        all.into_iter()
    }

    /// One group.
    #[must_use]
    pub fn describe(&self, group: &GroupId) -> Option<GroupDescription> {
        let committed = self.committed.get(group);
        let offsets = committed.into_iter().flatten();
        let pending = self.pending.iter().flat_map(|(producer_id, groups)| {
            let positions = groups.get(group).into_iter().flatten();
            positions.map(|(at, position)| (*producer_id, at.clone(), position.committed.clone()))
        });
        let description = GroupDescription {
            group: group.clone(),
            offsets: offsets
                .map(|(partition, position)| (partition.clone(), position.committed.clone()))
                .collect(),
            pending: pending.collect(),
        };
        let is_known = !description.offsets.is_empty() || !description.pending.is_empty();
        is_known.then_some(description)
    }
}

/// The record that stands later in the journal wins, whenever it is reported.
fn install(positions: &mut Positions, partition: TopicPartition, position: Position) {
    let is_newer = positions
        .get(&partition)
        .is_none_or(|old| old.journal_offset < position.journal_offset);
    if is_newer {
        positions.insert(partition, position);
    }
}

fn forget_in(
    groups: &mut BTreeMap<GroupId, Positions>,
    group: &GroupId,
    partition: &TopicPartition,
    journal_offset: Offset,
) {
    let Some(positions) = groups.get_mut(group) else {
        return;
    };
    if positions
        .get(partition)
        .is_some_and(|position| position.journal_offset < journal_offset)
    {
        positions.remove(partition);
    }
    if positions.is_empty() {
        groups.remove(group);
    }
}

/// Groups have no members yet, so a request that claims to come from one comes from a group that is gone.
fn check_member(member: &GroupMember) -> Result<(), ErrorCode> {
    let claims_membership = member.generation >= 0
        || !member.member_id.is_empty()
        || member.group_instance_id.is_some();
    match claims_membership {
        true => Err(ErrorCode::UnknownMemberId),
        false => Ok(()),
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
