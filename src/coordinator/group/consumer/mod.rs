//! One group of the consumer protocol (KIP-848): the coordinator assigns, members only heartbeat.
//!
//! ```text
//! a member comes, goes or wants other topics, or topics change  →  group epoch + 1
//! group epoch > target epoch                                    →  a new target assignment, target epoch = group epoch
//! member's heartbeat:   gives up what is not its target any more   (UnrevokedPartitions, epoch stays)
//!                     → takes over what nobody owns any more       (epoch = target epoch; UnreleasedPartitions, then Stable)
//! ```
//! No partition is owned by two members: a member gets one only when no other member owns it or is still giving it up.
//! A heartbeat computes the roster as it is to be, its difference goes to the journal, and only then does memory follow
//! and the member hear of it (I3); meanwhile further heartbeats of the group wait. Sessions are soft: after a crash every
//! member has a whole one to come back.
//!
//! Reading order: this file, `roster.rs`, `heartbeat.rs`, `regex.rs`, `reconcile.rs`, `assignor.rs`, `show.rs`.

mod assignor;
mod heartbeat;
mod reconcile;
mod regex;
mod roster;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(super) use heartbeat::check_heartbeat;
pub(in crate::coordinator) use roster::{Assignment, MemberState};

use self::regex::Expressions;
use self::roster::{AWAY, Member, Roster};
use super::Response;
use super::outbox::{Context, Write};
use super::topics::Topics;
use crate::coordinator::consumer_log::{
    ConsumerKey, CurrentRecord, ExpressionRecord, GroupRecord, MemberRecord, TargetRecord,
    assignment_epoch,
};
use crate::coordinator::membership_log::classic_key;
use crate::coordinator::{CoordinatorError, JournalRecord, RequestId};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::GroupMember;
use crate::protocol::messages::groups::ConsumerGroupHeartbeatRequest;
use crate::types::GroupId;

/// Most heartbeats of a group that wait for its journal record; members have one in flight each.
const WAITING_COUNT_MAX: usize = 20_000;

/// When a member is removed.
#[derive(Debug, Clone)]
struct Timers {
    session: Instant,
    /// By when it must have given its partitions up.
    revocation: Option<Instant>,
}

/// A heartbeat that waits.
#[derive(Debug, Clone)]
struct Waiting {
    request: RequestId,
    message: ConsumerGroupHeartbeatRequest,
    unique: u128,
}

/// Change that a journal append makes once it is written.
#[derive(Debug, Clone)]
pub(super) struct ConsumerWrite {
    after: Roster,
    answer: Option<(RequestId, Response)>,
}

/// A group of the consumer protocol.
#[derive(Debug, Clone)]
pub(super) struct ConsumerGroup {
    id: GroupId,
    roster: Roster,
    timers: BTreeMap<String, Timers>,
    is_writing: bool,
    waiting: VecDeque<Waiting>,
    /// The version of the topics that the roster takes into account; `None` after a replay.
    topics_version: Option<u64>,
    expressions: Expressions,
    /// A classic group of this id is to be forgotten with the first record.
    replaces_classic: bool,
    empty_since: Instant,
}

impl ConsumerGroup {
    pub(super) fn new(id: GroupId, replaces_classic: bool, now: Instant) -> Self {
        Self {
            id,
            roster: Roster::default(),
            timers: BTreeMap::new(),
            is_writing: false,
            waiting: VecDeque::new(),
            topics_version: None,
            expressions: Expressions::default(),
            replaces_classic,
            empty_since: now,
        }
    }

    /// Takes in a record of the journal. False if nothing is left of the group.
    pub(super) fn replay(
        &mut self,
        key: ConsumerKey,
        value: Option<&[u8]>,
    ) -> Result<bool, CoordinatorError> {
        let roster = &mut self.roster;
        match (key, value) {
            (ConsumerKey::Topics, _) => {}
            (ConsumerKey::Group, Some(value)) => {
                let record = GroupRecord::decode(value)?;
                roster.epoch = record.epoch;
                roster.metadata_hash = record.metadata_hash;
            }
            (ConsumerKey::Group, None) => return Ok(false),
            (ConsumerKey::Target, Some(value)) => roster.target_epoch = assignment_epoch(value)?,
            (ConsumerKey::Target, None) => roster.target_epoch = 0,
            (ConsumerKey::Member(id), Some(value)) => {
                roster.members.entry(id).or_default().record = MemberRecord::decode(value)?;
            }
            (ConsumerKey::Member(id), None) => drop(roster.members.remove(&id)),
            (ConsumerKey::TargetMember(id), Some(value)) => {
                let TargetRecord(target) = TargetRecord::decode(value)?;
                roster.target.insert(id, target);
            }
            (ConsumerKey::TargetMember(id), None) => drop(roster.target.remove(&id)),
            (ConsumerKey::Expression(expression), Some(value)) => {
                let ExpressionRecord(named) = ExpressionRecord::decode(value)?;
                roster.expressions.insert(expression, named);
            }
            (ConsumerKey::Expression(expression), None) => {
                drop(roster.expressions.remove(&expression));
            }
            (ConsumerKey::Current(id), Some(value)) => {
                roster.members.entry(id).or_default().current = CurrentRecord::decode(value)?;
            }
            (ConsumerKey::Current(id), None) => {
                if let Some(member) = roster.members.get_mut(&id) {
                    member.current = CurrentRecord::default();
                }
            }
        }
        Ok(true)
    }

    /// Returns the number of changes.
    pub(super) fn epoch(&self) -> i32 {
        self.roster.epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roster.members.is_empty() && !self.is_writing && self.waiting.is_empty()
    }

    pub(super) fn empty_for(&self, now: Instant) -> Duration {
        match self.is_empty() {
            true => now.since(self.empty_since),
            false => Duration::ZERO,
        }
    }

    /// The records that forget the group.
    pub(super) fn tombstones(&self) -> Vec<JournalRecord> {
        Roster::tombstones(&self.id)
    }

    /// Takes in a heartbeat, now or after the record that is being written.
    pub(super) fn heartbeat(
        &mut self,
        request: RequestId,
        message: ConsumerGroupHeartbeatRequest,
        unique: u128,
        topics: &Topics,
        cx: &mut Context<'_>,
    ) {
        self.touch(&message.member_id, cx);
        if !self.is_writing {
            return self.handle(request, &message, unique, topics, cx);
        }
        if self.waiting.len() >= WAITING_COUNT_MAX {
            let busy = ErrorCode::CoordinatorLoadInProgress;
            return cx.out.reply(request, Err(busy));
        }
        self.waiting.push_back(Waiting {
            request,
            message,
            unique,
        });
    }

    fn handle(
        &mut self,
        request: RequestId,
        message: &ConsumerGroupHeartbeatRequest,
        unique: u128,
        topics: &Topics,
        cx: &mut Context<'_>,
    ) {
        match self.compute(message, unique, topics, cx) {
            Err(error) => cx.out.reply(request, Err(error)),
            Ok((after, response)) => {
                let response = Response::ConsumerHeartbeat(response);
                self.commit(after, Some((request, response)), cx);
            }
        }
    }

    /// Answers at once if nothing changes, else once the change is durable (I3).
    fn commit(
        &mut self,
        after: Option<Roster>,
        answer: Option<(RequestId, Response)>,
        cx: &mut Context<'_>,
    ) {
        let after = after.filter(|after| *after != self.roster);
        let Some(after) = after else {
            return reply(answer, cx);
        };
        let mut records = after.records_since(&self.roster, &self.id);
        if std::mem::take(&mut self.replaces_classic) {
            let key = classic_key(&self.id);
            records.insert(0, JournalRecord { key, value: None });
        }
        self.is_writing = true;
        let write = ConsumerWrite { after, answer };
        let write = Write::Consumer(self.id.clone(), write);
        cx.out.journal(write, None, records, true);
    }

    /// The record is in the journal; now memory follows.
    pub(super) fn written(&mut self, write: ConsumerWrite, topics: &Topics, cx: &mut Context<'_>) {
        let ConsumerWrite { after, answer } = write;
        if after.members.is_empty() && !self.roster.members.is_empty() {
            self.empty_since = cx.now.instant;
        }
        self.roster = after;
        self.is_writing = false;
        self.set_timers(cx);
        reply(answer, cx);
        self.handle_waiting(topics, cx);
    }

    pub(super) fn write_failed(
        &mut self,
        write: &ConsumerWrite,
        error: ErrorCode,
        topics: &Topics,
        cx: &mut Context<'_>,
    ) {
        self.is_writing = false;
        self.topics_version = None;
        if let Some((request, _)) = write.answer {
            cx.out.reply(request, Err(error));
        }
        self.handle_waiting(topics, cx);
    }

    fn handle_waiting(&mut self, topics: &Topics, cx: &mut Context<'_>) {
        while !self.is_writing {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            let Waiting {
                request,
                message,
                unique,
            } = waiting;
            self.handle(request, &message, unique, topics, cx);
        }
    }

    /// A sign of life.
    fn touch(&mut self, member_id: &str, cx: &Context<'_>) {
        let is_away = |it: &Member| it.current.epoch == AWAY;
        if self.roster.members.get(member_id).is_some_and(is_away) {
            return;
        }
        if let Some(timers) = self.timers.get_mut(member_id) {
            timers.session = cx.now.instant.plus(cx.config.consumer_session_timeout);
        }
    }

    /// Every member has a session; those that are to give partitions up have a time for it.
    fn set_timers(&mut self, cx: &Context<'_>) {
        let now = cx.now.instant;
        let members = &self.roster.members;
        self.timers.retain(|id, _| members.contains_key(id));
        for (id, member) in members {
            let timers = self.timers.entry(id.clone()).or_insert_with(|| Timers {
                session: now.plus(cx.config.consumer_session_timeout),
                revocation: None,
            });
            match member.current.state {
                MemberState::UnrevokedPartitions => {
                    let end = now.plus(member.record.rebalance_timeout);
                    timers.revocation.get_or_insert(end);
                }
                _ => timers.revocation = None,
            }
        }
    }

    /// Time has passed: members that are silent or do not give their partitions up are removed.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        if self.is_writing {
            return;
        }
        self.set_timers(cx);
        let now = cx.now.instant;
        let is_over = |it: &Timers| it.session <= now || it.revocation.is_some_and(|it| it <= now);
        let expired = self.timers.iter().filter(|(_, it)| is_over(it));
        let expired: Vec<_> = expired.map(|(id, _)| id.clone()).collect();
        if expired.is_empty() {
            return;
        }
        let mut after = self.roster.clone();
        expired.iter().for_each(|id| after.remove(id));
        self.commit(Some(after), None, cx);
    }

    /// Whether `member` may commit positions (KIP-447 for those in a transaction). A commit is also a sign of life.
    pub(super) fn check_commit(
        &mut self,
        member: &GroupMember,
        is_transactional: bool,
        cx: &Context<'_>,
    ) -> Result<(), ErrorCode> {
        if member.generation < 0 && self.roster.members.is_empty() {
            return Ok(());
        }
        let is_nobody = member.generation == -1
            && member.member_id.is_empty()
            && member.group_instance_id.is_none();
        if is_transactional && is_nobody {
            return Ok(());
        }
        let known = self.roster.members.get(&member.member_id);
        let known = known.ok_or(ErrorCode::UnknownMemberId)?;
        if known.current.epoch != member.generation {
            // Producers know of generations only: as Kafka's `OffsetMetadataManager.validateTransactionalOffsetCommit`.
            return Err(match is_transactional {
                true => ErrorCode::IllegalGeneration,
                false => ErrorCode::StaleMemberEpoch,
            });
        }
        self.touch(&member.member_id, cx);
        Ok(())
    }
}

fn reply(answer: Option<(RequestId, Response)>, cx: &mut Context<'_>) {
    if let Some((request, response)) = answer {
        cx.out.reply(request, Ok(response));
    }
}
