//! `Membership`: the members of one group; and which group a request is for.

use std::collections::BTreeSet;
use std::time::Duration;

use super::classic::{ClassicGroup, ClassicWrite, nobody_left};
use super::consumer::{ConsumerGroup, ConsumerWrite, check_heartbeat};
use super::outbox::{Context, Write};
use super::topics::Topics;
use super::{GroupCoordinator, GroupDescription, MemberDescription};
use crate::coordinator::consumer_log::ConsumerKey;
use crate::coordinator::membership_log::ClassicRecord;
use crate::coordinator::{CoordinatorError, JournalRecord, Now, RequestId};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupDescription, ConsumerGroupHeartbeatRequest, DescribedGroup, GroupState, GroupType,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListedGroup,
    SyncGroupRequest,
};
use crate::protocol::messages::{CommittedOffset, GroupMember, OffsetFetchRequest};
use crate::types::{GroupId, TopicName, TopicPartition};

/// The members of a group, by its protocol.
#[derive(Debug, Clone)]
pub(super) enum Membership {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

impl Membership {
    pub(super) fn from_record(group: GroupId, record: ClassicRecord, now: Instant) -> Self {
        Self::Classic(ClassicGroup::from_record(group, record, now))
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_empty(),
            Self::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether it never had a member, nor has one to come: the journal knows nothing of it.
    pub(super) fn is_unborn(&self) -> bool {
        let generation = match self {
            Self::Classic(group) => group.generation(),
            Self::Consumer(group) => group.epoch(),
        };
        self.is_empty() && generation == 0
    }

    pub(super) fn empty_for(&self, now: Instant) -> Duration {
        match self {
            Self::Classic(group) => group.empty_for(now),
            Self::Consumer(group) => group.empty_for(now),
        }
    }

    /// The topics that the members read; `None` if that cannot be known.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<TopicName>> {
        match self {
            Self::Classic(group) => group.subscribed_topics(),
            Self::Consumer(group) => Some(group.subscribed()),
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Classic(group) => group.tick(cx),
            Self::Consumer(group) => group.tick(cx),
        }
    }

    /// The records that forget the group.
    pub(super) fn tombstones(&self) -> Vec<JournalRecord> {
        match self {
            Self::Classic(group) => group.tombstones(),
            Self::Consumer(group) => group.tombstones(),
        }
    }

    fn list(&self, id: &GroupId) -> ListedGroup {
        match self {
            Self::Classic(group) => ListedGroup {
                group: id.clone(),
                protocol_type: group.protocol_type(),
                state: group.state(),
                group_type: GroupType::Classic,
            },
            Self::Consumer(group) => ListedGroup {
                group: id.clone(),
                protocol_type: "consumer".to_owned(),
                state: group.state(),
                group_type: GroupType::Consumer,
            },
        }
    }
}

impl GroupCoordinator {
    /// Lets `act` happen to a classic group; `None` if there is none.
    fn with_classic<T>(
        &mut self,
        group: &GroupId,
        now: Now,
        act: impl FnOnce(&mut ClassicGroup, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let Membership::Classic(group) = self.memberships.get_mut(group)? else {
            return None;
        };
        let mut cx = Context {
            config: &self.config,
            out: &mut self.out,
            now,
        };
        Some(act(group, &mut cx))
    }

    pub(super) fn join(
        &mut self,
        request: RequestId,
        message: JoinGroupRequest,
        unique: u128,
        now: Now,
    ) {
        let id = message.group.clone();
        let before = self.memberships.get(&id);
        if matches!(before, Some(Membership::Classic(_))) {
            self.with_classic(&id, now, |group, cx| {
                group.join(request, message, unique, cx);
            });
            return;
        }
        if before.is_some_and(|it| !it.is_empty()) {
            let other = ErrorCode::InconsistentGroupProtocol;
            return self.out.reply(request, Err(other));
        }
        if !message.member_id.is_empty() {
            return self.out.reply(request, Err(ErrorCode::UnknownMemberId));
        }
        let new = Membership::Classic(ClassicGroup::new(id.clone(), now.instant));
        let before = self.memberships.insert(id.clone(), new);
        self.with_classic(&id, now, |group, cx| {
            group.join(request, message, unique, cx);
        });
        if self.was_refused(&id) {
            return self.put_back(id, before);
        }
        if let Some(records) = before.as_ref().map(Membership::tombstones) {
            let write = Write::Classic(id, ClassicWrite::Empty);
            self.out.journal(write, None, records, false);
        }
    }

    /// Whether the group that was made for a first member did not take it.
    fn was_refused(&self, group: &GroupId) -> bool {
        let membership = self.memberships.get(group);
        membership.is_some_and(Membership::is_unborn)
    }

    /// A refusal leaves no group behind, and the one that was there as it was.
    fn put_back(&mut self, group: GroupId, before: Option<Membership>) {
        match before {
            Some(before) => drop(self.memberships.insert(group, before)),
            None => drop(self.memberships.remove(&group)),
        }
    }

    pub(super) fn sync(&mut self, request: RequestId, message: SyncGroupRequest, now: Now) {
        let id = message.group.clone();
        let found = self.with_classic(&id, now, |group, cx| group.sync(request, message, cx));
        if found.is_none() {
            self.out.reply(request, Err(ErrorCode::UnknownMemberId));
        }
    }

    pub(super) fn heartbeat(&mut self, request: RequestId, message: &HeartbeatRequest, now: Now) {
        let answer = self.with_classic(&message.group, now, |group, cx| {
            group.heartbeat(message, cx)
        });
        let answer = answer.unwrap_or(Err(ErrorCode::UnknownMemberId));
        self.out.reply(request, answer);
    }

    pub(super) fn leave(&mut self, request: RequestId, message: LeaveGroupRequest, now: Now) {
        let LeaveGroupRequest { group, members } = message;
        let nobody = nobody_left(&members);
        let response = self.with_classic(&group, now, |group, cx| group.leave(members, cx));
        self.out.reply(request, Ok(response.unwrap_or(nobody)));
    }

    pub(super) fn check_commit(
        &mut self,
        group: &GroupId,
        member: &GroupMember,
        is_transactional: bool,
        now: Now,
    ) -> Result<(), ErrorCode> {
        match self.memberships.get_mut(group) {
            Some(Membership::Classic(group)) => {
                group.check_commit(member, is_transactional, now.instant)
            }
            Some(Membership::Consumer(group)) => {
                let cx = Context {
                    config: &self.config,
                    out: &mut self.out,
                    now,
                };
                group.check_commit(member, is_transactional, &cx)
            }
            None if member.generation < 0 => Ok(()),
            // A group that has positions only.
            None if self.positions.is_known(group) => Err(ErrorCode::UnknownMemberId),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    pub(super) fn classic_written(&mut self, group: GroupId, write: ClassicWrite, now: Now) {
        let waiting = write.request();
        if waiting.is_some() && !self.memberships.contains_key(&group) {
            // It was deleted meanwhile: whoever waits is answered by the group that is new.
            let new = ClassicGroup::new(group.clone(), now.instant);
            self.memberships
                .insert(group.clone(), Membership::Classic(new));
        }
        let found = self.with_classic(&group, now, |group, cx| group.written(write, cx));
        if let (None, Some(request)) = (found, waiting) {
            // Members of the other protocol came meanwhile.
            let other = ErrorCode::InconsistentGroupProtocol;
            self.out.reply(request, Err(other));
        }
    }

    pub(super) fn classic_failed(
        &mut self,
        group: &GroupId,
        write: ClassicWrite,
        error: ErrorCode,
        now: Now,
    ) {
        let waiting = write.request();
        let found = self.with_classic(group, now, |group, cx| group.write_failed(write, error, cx));
        if let (None, Some(request)) = (found, waiting) {
            self.out.reply(request, Err(error));
        }
    }

    /// A tombstone of the group is in the journal. Members that came meanwhile stay: their record is still to come.
    pub(super) fn forget_membership(&mut self, group: &GroupId) {
        if self
            .memberships
            .get(group)
            .is_some_and(Membership::is_empty)
        {
            self.memberships.remove(group);
        }
    }

    /// Lets `act` happen to a group of the consumer protocol; `None` if there is none.
    fn with_consumer<T>(
        &mut self,
        group: &GroupId,
        now: Now,
        act: impl FnOnce(&mut ConsumerGroup, &Topics, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let Membership::Consumer(group) = self.memberships.get_mut(group)? else {
            return None;
        };
        let mut cx = Context {
            config: &self.config,
            out: &mut self.out,
            now,
        };
        Some(act(group, &self.topics, &mut cx))
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        request: RequestId,
        message: ConsumerGroupHeartbeatRequest,
        unique: u128,
        now: Now,
    ) {
        let id = message.group.clone();
        if let Err(error) = check_heartbeat(&message) {
            return self.out.reply(request, Err(error));
        }
        let before = self.memberships.get(&id);
        if !matches!(before, Some(Membership::Consumer(_))) {
            // Kafka's words for a group that has classic members, too.
            if before.is_some_and(|it| !it.is_empty()) || message.member_epoch != 0 {
                return self.out.reply(request, Err(ErrorCode::GroupIdNotFound));
            }
            let new = ConsumerGroup::new(id.clone(), before.is_some(), now.instant);
            let before = self
                .memberships
                .insert(id.clone(), Membership::Consumer(new));
            self.with_consumer(&id, now, |group, topics, cx| {
                group.heartbeat(request, message, unique, topics, cx);
            });
            if self.was_refused(&id) {
                self.put_back(id, before);
            }
            return;
        }
        self.with_consumer(&id, now, |group, topics, cx| {
            group.heartbeat(request, message, unique, topics, cx);
        });
    }

    pub(super) fn consumer_written(&mut self, group: &GroupId, write: ConsumerWrite, now: Now) {
        self.with_consumer(group, now, |group, topics, cx| {
            group.written(write, topics, cx);
        });
    }

    pub(super) fn consumer_failed(
        &mut self,
        group: &GroupId,
        write: &ConsumerWrite,
        error: ErrorCode,
        now: Now,
    ) {
        self.with_consumer(group, now, |group, topics, cx| {
            group.write_failed(write, error, topics, cx);
        });
    }

    pub(super) fn replay_consumer(
        &mut self,
        group: GroupId,
        key: ConsumerKey,
        value: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), CoordinatorError> {
        let before = self.memberships.get(&group);
        if !matches!(before, Some(Membership::Consumer(_))) {
            if value.is_none() {
                return Ok(());
            }
            let new = ConsumerGroup::new(group.clone(), false, now);
            self.memberships
                .insert(group.clone(), Membership::Consumer(new));
        }
        if let Some(Membership::Consumer(members)) = self.memberships.get_mut(&group)
            && !members.replay(key, value)?
        {
            self.memberships.remove(&group);
        }
        Ok(())
    }

    pub(super) fn replay_classic_tombstone(&mut self, group: &GroupId) {
        if let Some(Membership::Classic(_)) = self.memberships.get(group) {
            self.memberships.remove(group);
        }
    }

    /// The members of a group of the consumer protocol; `None` if there is no such group.
    #[must_use]
    pub(crate) fn describe_consumer(&self, group: &GroupId) -> Option<ConsumerGroupDescription> {
        match self.memberships.get(group) {
            Some(Membership::Consumer(group)) => Some(group.show(&self.topics)),
            _ => None,
        }
    }

    /// Whether members of the group name topics by regular expressions.
    #[must_use]
    pub(crate) fn has_expressions(&self, group: &GroupId) -> bool {
        match self.memberships.get(group) {
            Some(Membership::Consumer(group)) => group.has_expressions(),
            _ => false,
        }
    }

    /// Checks that a member of the consumer protocol that asks for positions is one still. Who says neither name nor
    /// epoch is no member, and is let through; so is everybody in groups that are not of this protocol.
    ///
    /// # Errors
    /// `UnknownMemberId`, `StaleMemberEpoch`.
    pub(crate) fn check_reader(
        &self,
        group: &GroupId,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> Result<(), ErrorCode> {
        match self.memberships.get(group) {
            Some(Membership::Consumer(group)) => group.check_reader(member_id, member_epoch),
            _ => Ok(()),
        }
    }

    /// The committed positions asked for; `None` for a partition without one.
    ///
    /// # Errors
    /// `UnstableOffsetCommit` if stability is required and an open transaction holds one of them (C27).
    pub(crate) fn fetch(
        &self,
        message: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, ErrorCode> {
        self.positions.fetch(message)
    }

    /// Every group that has members or a position, committed or pending, in order.
    pub(crate) fn list(&self) -> impl Iterator<Item = &GroupId> + '_ {
        let all: BTreeSet<&GroupId> = self
            .positions
            .groups()
            .chain(self.memberships.keys())
            .collect();
        all.into_iter()
    }

    /// The groups asked for, in order.
    #[must_use]
    pub(crate) fn list_with(&self, message: &ListGroupsRequest) -> Vec<ListedGroup> {
        let is_among = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let groups = self.list().map(|id| match self.memberships.get(id) {
            Some(membership) => membership.list(id),
            None => ListedGroup {
                group: id.clone(),
                protocol_type: String::new(),
                state: GroupState::Empty,
                group_type: GroupType::Classic,
            },
        });
        let groups = groups.filter(|it| {
            is_among(&message.states, it.state.name())
                && is_among(&message.types, it.group_type.name())
        });
        groups.collect()
    }

    /// One group's members and positions; `None` if it has neither.
    #[must_use]
    pub(crate) fn describe(&self, group: &GroupId) -> Option<GroupDescription> {
        let is_known = self.positions.is_known(group) || self.memberships.contains_key(group);
        is_known.then(|| {
            let mut description = self.describe_members(group);
            description.offsets = self.positions.committed_of(group);
            description.pending = self.positions.pending_of(group);
            description
        })
    }

    fn describe_members(&self, group: &GroupId) -> GroupDescription {
        let (group_type, state, members) = match self.describe_consumer(group) {
            Some(consumers) => {
                let members = consumers.members.into_iter();
                let members = members.map(MemberDescription::from).collect();
                (GroupType::Consumer, consumers.state, members)
            }
            None => {
                let classic = self.describe_classic(group);
                let kind = &classic.protocol_type;
                let members = classic.members.into_iter();
                let members = members.map(|it| MemberDescription::of_classic(it, kind));
                (GroupType::Classic, classic.state, members.collect())
            }
        };
        GroupDescription::new(group.clone(), group_type, state.name().to_owned(), members)
    }

    /// A classic group's members; `Dead` if there is no such group.
    #[must_use]
    pub(crate) fn describe_classic(&self, group: &GroupId) -> DescribedGroup {
        let state = match self.memberships.get(group) {
            Some(Membership::Classic(group)) => return group.show(),
            Some(Membership::Consumer(_)) => GroupState::Dead,
            None if self.positions.is_known(group) => GroupState::Empty,
            None => GroupState::Dead,
        };
        DescribedGroup {
            group: group.clone(),
            state,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }
}
