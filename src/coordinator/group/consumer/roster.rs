//! `Roster`: the durable part of a group of the consumer protocol, and the difference of two as journal records.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::JournalRecord;
use crate::coordinator::consumer_log::{
    ConsumerKey, CurrentRecord, ExpressionRecord, GroupRecord, MemberRecord, TargetRecord,
    put_assignment_epoch,
};
use crate::protocol::messages::groups::{
    AssignedTopic, ClientIdentity, ConsumerGroupHeartbeatRequest,
};
use crate::types::{GroupId, PartitionIndex, TopicId, TopicName};

/// Partitions by topic. No topic without partitions.
pub(in crate::coordinator) type Assignment = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// The epoch of a static member that has left for a while.
pub(super) const AWAY: i32 = -2;
/// The epoch of a member that leaves for good.
pub(super) const GONE: i32 = -1;

/// State of a member on its way to its target (Kafka's numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i8)]
pub(in crate::coordinator) enum MemberState {
    /// It has what it is to have.
    #[default]
    Stable = 0,
    /// It is to give partitions up first.
    UnrevokedPartitions = 1,
    /// It waits for others to give partitions up.
    UnreleasedPartitions = 2,
}

impl MemberState {
    pub(in crate::coordinator) fn from_number(number: i8) -> Option<Self> {
        [
            Self::Stable,
            Self::UnrevokedPartitions,
            Self::UnreleasedPartitions,
        ]
        .into_iter()
        .find(|it| *it as i8 == number)
    }
}

/// A member of the consumer protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Member {
    pub(super) record: MemberRecord,
    pub(super) current: CurrentRecord,
}

/// The durable part of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Roster {
    /// Raised whenever members, subscriptions or topics change.
    pub(super) epoch: i32,
    /// Of the topics that the members read.
    pub(super) metadata_hash: i64,
    pub(super) members: BTreeMap<String, Member>,
    /// The topics that the members' regular expressions name.
    pub(super) expressions: BTreeMap<String, BTreeSet<TopicName>>,
    /// The epoch that the target was computed for.
    pub(super) target_epoch: i32,
    /// Target of each member.
    pub(super) target: BTreeMap<String, Assignment>,
}

impl Roster {
    /// The member of an instance id.
    pub(super) fn static_member(&self, instance_id: &str) -> Option<&String> {
        let is_it = |member: &Member| member.record.instance_id.as_deref() == Some(instance_id);
        let mut members = self.members.iter();
        members.find(|(_, it)| is_it(it)).map(|(id, _)| id)
    }

    /// The topics that members want.
    pub(super) fn subscribed_topics(&self) -> BTreeSet<&TopicName> {
        let members = self.members.values();
        members.flat_map(|it| self.wanted_by(it)).collect()
    }

    /// The topics that a member wants: those that it names, and those that its expression does.
    pub(super) fn wanted_by<'a>(
        &'a self,
        member: &'a Member,
    ) -> impl Iterator<Item = &'a TopicName> {
        let record = &member.record;
        let expression = record.subscribed_topic_regex.as_ref();
        let named = expression.and_then(|it| self.expressions.get(it));
        let also = named.into_iter().flatten();
        let also = also.filter(|it| !record.subscribed_topic_names.contains(*it));
        record.subscribed_topic_names.iter().chain(also)
    }

    /// The records that turn `before` into this roster, in an order in which each prefix can be replayed.
    pub(super) fn records_since(&self, before: &Self, group: &GroupId) -> Vec<JournalRecord> {
        let mut records = Vec::new();
        let mut put = |key: ConsumerKey, value| {
            let key = key.encode(group);
            records.push(JournalRecord { key, value });
        };
        let gone = before.members.keys();
        for id in gone.filter(|id| !self.members.contains_key(*id)) {
            put(ConsumerKey::Current(id.clone()), None);
            put(ConsumerKey::TargetMember(id.clone()), None);
            put(ConsumerKey::Member(id.clone()), None);
        }
        let old = |id: &String| before.members.get(id);
        for (id, member) in &self.members {
            if old(id).is_none_or(|old| old.record != member.record) {
                let value = member.record.encode();
                put(ConsumerKey::Member(id.clone()), Some(value));
            }
        }
        let expressions = before.expressions.keys();
        for gone in expressions.filter(|it| !self.expressions.contains_key(*it)) {
            put(ConsumerKey::Expression(gone.clone()), None);
        }
        for (expression, named) in &self.expressions {
            if before.expressions.get(expression) != Some(named) {
                let value = ExpressionRecord(named.clone()).encode();
                put(ConsumerKey::Expression(expression.clone()), Some(value));
            }
        }
        if (self.epoch, self.metadata_hash) != (before.epoch, before.metadata_hash) {
            let record = GroupRecord {
                epoch: self.epoch,
                metadata_hash: self.metadata_hash,
            };
            put(ConsumerKey::Group, Some(record.encode()));
        }
        for (id, target) in &self.target {
            if before.target.get(id) != Some(target) {
                let value = TargetRecord(target.clone()).encode();
                put(ConsumerKey::TargetMember(id.clone()), Some(value));
            }
        }
        if self.target_epoch != before.target_epoch {
            let value = put_assignment_epoch(self.target_epoch);
            put(ConsumerKey::Target, Some(value));
        }
        for (id, member) in &self.members {
            if old(id).is_none_or(|old| old.current != member.current) {
                let value = member.current.encode();
                put(ConsumerKey::Current(id.clone()), Some(value));
            }
        }
        records
    }

    /// The records that forget the group, whose members have gone.
    pub(super) fn tombstones(group: &GroupId) -> Vec<JournalRecord> {
        let keys = [ConsumerKey::Target, ConsumerKey::Group];
        let tombstone = |key: ConsumerKey| JournalRecord {
            key: key.encode(group),
            value: None,
        };
        keys.map(tombstone).into()
    }

    /// Removes a member with what it owned.
    pub(super) fn remove(&mut self, member_id: &str) {
        self.members.remove(member_id);
        self.target.remove(member_id);
        let members = self.members.values();
        let used = members.filter_map(|it| it.record.subscribed_topic_regex.as_ref());
        let used: BTreeSet<_> = used.collect();
        self.expressions.retain(|it, _| used.contains(it));
        self.epoch = self.epoch.saturating_add(1);
    }
}

/// The member's record after what a heartbeat says of it.
pub(super) fn updated_record(
    before: &MemberRecord,
    message: &ConsumerGroupHeartbeatRequest,
) -> MemberRecord {
    let topics = message.subscribed_topic_names.as_ref();
    let topics = topics.map(|names| names.iter().cloned().collect());
    let or = |new: &Option<String>, old: &Option<String>| new.clone().or_else(|| old.clone());
    let timeout = message.rebalance_timeout;
    MemberRecord {
        instance_id: or(&message.group_instance_id, &before.instance_id),
        rack_id: or(&message.rack_id, &before.rack_id),
        client: match message.client == ClientIdentity::default() {
            true => before.client.clone(),
            false => message.client.clone(),
        },
        subscribed_topic_names: topics.unwrap_or_else(|| before.subscribed_topic_names.clone()),
        subscribed_topic_regex: match message.subscribed_topic_regex.as_deref() {
            None => before.subscribed_topic_regex.clone(),
            Some("") => None,
            Some(expression) => Some(expression.to_owned()),
        },
        rebalance_timeout: timeout.unwrap_or(before.rebalance_timeout),
        server_assignor: or(&message.server_assignor, &before.server_assignor),
    }
}

/// Partitions as messages list them.
pub(super) fn listed(
    assignment: &Assignment,
    name: impl Fn(TopicId) -> Option<TopicName>,
) -> Vec<AssignedTopic> {
    let topics = assignment.iter().map(|(id, partitions)| AssignedTopic {
        topic_id: *id,
        topic: name(*id),
        partitions: partitions.iter().copied().collect(),
    });
    topics.collect()
}

/// Partitions that a message lists.
pub(super) fn assignment_of(topics: &[AssignedTopic]) -> Assignment {
    let mut assignment = Assignment::new();
    for topic in topics.iter().filter(|it| !it.partitions.is_empty()) {
        let partitions = assignment.entry(topic.topic_id).or_default();
        partitions.extend(&topic.partitions);
    }
    assignment
}
