//! `Positions`: committed positions, and those pending in open transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{CommittedOffset, OffsetFetchRequest, TransactionResult};
use crate::types::{GroupId, Offset, ProducerId, TopicName, TopicPartition};

/// A position, and the record that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) committed: CommittedOffset,
    /// Where its record stands in the journal: the later one wins.
    pub(super) journal_offset: Offset,
    /// Time without renewal before this process took it up.
    pub(super) idle_before: Duration,
    pub(super) idle_since: Instant,
}

type OfGroup = BTreeMap<TopicPartition, Position>;

/// The positions of all groups.
#[derive(Debug, Clone, Default)]
pub(super) struct Positions {
    committed: BTreeMap<GroupId, OfGroup>,
    /// By the producer of the open transaction.
    pending: BTreeMap<ProducerId, BTreeMap<GroupId, OfGroup>>,
}

impl Positions {
    /// I8: a position of a transaction is pending until its marker.
    pub(super) fn take_in(
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

    /// A transaction has ended.
    pub(super) fn end_transaction(&mut self, producer_id: ProducerId, result: TransactionResult) {
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

    /// A tombstone at `journal_offset` removes what stands before it, pending or not.
    pub(super) fn forget(
        &mut self,
        group: &GroupId,
        partition: &TopicPartition,
        journal_offset: Offset,
    ) {
        forget_in(&mut self.committed, group, partition, journal_offset);
        self.pending.retain(|_, groups| {
            forget_in(groups, group, partition, journal_offset);
            !groups.is_empty()
        });
    }

    /// Whether an open transaction holds a position of `group`, in one of `partitions` if they are given.
    pub(super) fn has_pending(
        &self,
        group: &GroupId,
        partitions: Option<&[TopicPartition]>,
    ) -> bool {
        self.pending
            .values()
            .filter_map(|groups| groups.get(group))
            .any(|positions| match partitions {
                None => !positions.is_empty(),
                Some(partitions) => partitions.iter().any(|it| positions.contains_key(it)),
            })
    }

    /// Whether the group has any position, committed or pending.
    pub(super) fn is_known(&self, group: &GroupId) -> bool {
        self.committed.contains_key(group) || self.has_pending(group, None)
    }

    /// The partitions of which the group has a committed position.
    pub(super) fn partitions(&self, group: &GroupId) -> Vec<TopicPartition> {
        let positions = self.committed.get(group).into_iter();
        positions.flat_map(BTreeMap::keys).cloned().collect()
    }

    /// The committed positions asked for. See [`super::GroupCoordinator::fetch`].
    pub(super) fn fetch(
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

    /// Every group that has a position, committed or pending.
    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupId> + '_ {
        let pending = self.pending.values().flat_map(BTreeMap::keys);
        self.committed.keys().chain(pending)
    }

    /// The committed positions of a group.
    pub(super) fn committed_of(&self, group: &GroupId) -> Vec<(TopicPartition, CommittedOffset)> {
        let positions = self.committed.get(group).into_iter().flatten();
        let positions = positions.map(|(at, it)| (at.clone(), it.committed.clone()));
        positions.collect()
    }

    /// The pending positions of a group.
    pub(super) fn pending_of(
        &self,
        group: &GroupId,
    ) -> Vec<(ProducerId, TopicPartition, CommittedOffset)> {
        let pending = self.pending.iter().flat_map(|(producer_id, groups)| {
            let positions = groups.get(group).into_iter().flatten();
            positions.map(|(at, position)| (*producer_id, at.clone(), position.committed.clone()))
        });
        pending.collect()
    }

    /// The positions in a topic, committed and pending.
    pub(super) fn in_topic(&self, topic: &TopicName) -> Vec<(GroupId, TopicPartition)> {
        let pending = self.pending.values().flatten();
        let all = self.committed.iter().chain(pending);
        let keys: BTreeSet<(GroupId, TopicPartition)> = all
            .flat_map(|(group, positions)| positions.keys().map(move |it| (group, it)))
            .filter(|(_, partition)| partition.topic == *topic)
            .map(|(group, partition)| (group.clone(), partition.clone()))
            .collect();
        keys.into_iter().collect()
    }

    /// The committed positions not renewed for `retention` that no open transaction holds.
    pub(super) fn older_than(
        &self,
        retention: Duration,
        now: Instant,
    ) -> Vec<(GroupId, TopicPartition)> {
        let is_old = |position: &Position| {
            position.idle_before + now.since(position.idle_since) >= retention
        };
        self.committed
            .iter()
            .flat_map(|(group, positions)| positions.iter().map(move |it| (group, it)))
            .filter(|(_, (_, position))| is_old(position))
            .map(|(group, (partition, _))| (group.clone(), partition.clone()))
            .filter(|(group, partition)| {
                !self.has_pending(group, Some(std::slice::from_ref(partition)))
            })
            .collect()
    }
}

/// The record that stands later in the journal wins, whenever it is reported.
fn install(positions: &mut OfGroup, partition: TopicPartition, position: Position) {
    let is_newer = positions
        .get(&partition)
        .is_none_or(|old| old.journal_offset < position.journal_offset);
    if is_newer {
        positions.insert(partition, position);
    }
}

fn forget_in(
    groups: &mut BTreeMap<GroupId, OfGroup>,
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
