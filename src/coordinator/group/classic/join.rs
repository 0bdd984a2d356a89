//! JoinGroup: a first join, a join anew, and a static member's return.

use bytes::Bytes;

use super::validate::check_join;
use super::{ClassicGroup, ClassicWrite, Context, Gathering, Member, NEW_MEMBER_TIMEOUT, Phase};
use crate::coordinator::RequestId;
use crate::coordinator::group::Response;
use crate::coordinator::membership_log::subscribed_topics;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    JoinGroupMember, JoinGroupRequest, JoinGroupResponse, JoinedGroup,
};
use crate::types::TopicName;

impl ClassicGroup {
    /// Takes in a join. `unique` makes a new member's id unlike any other.
    pub(in crate::coordinator::group) fn join(
        &mut self,
        request: RequestId,
        message: JoinGroupRequest,
        unique: u128,
        cx: &mut Context<'_>,
    ) {
        if let Err(error) = self.try_join(request, message, unique, cx) {
            cx.out.reply(request, Err(error));
        }
    }

    fn try_join(
        &mut self,
        request: RequestId,
        message: JoinGroupRequest,
        unique: u128,
        cx: &mut Context<'_>,
    ) -> Result<(), ErrorCode> {
        check_join(&message, cx)?;
        self.check_room(&message, cx)?;
        if !message.member_id.is_empty() {
            return self.join_with_id(request, &message, cx);
        }
        self.check_protocols(&message)?;
        let member_id = new_member_id(&message, unique);
        match &message.group_instance_id {
            Some(instance_id) if self.static_members.contains_key(instance_id) => {
                self.static_member_returned(request, message, member_id, cx);
            }
            None if message.requires_known_member_id => {
                let end = cx.now.instant.plus(message.session_timeout);
                self.pending.insert(member_id.clone(), end);
                let response = JoinGroupResponse::MemberIdRequired { member_id };
                cx.out.reply(request, Ok(Response::Joined(response)));
            }
            _ => self.add_member(request, &message, member_id, cx),
        }
        Ok(())
    }

    fn join_with_id(
        &mut self,
        request: RequestId,
        message: &JoinGroupRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), ErrorCode> {
        let member_id = &message.member_id;
        if self.pending.contains_key(member_id) {
            self.check_protocols(message)?;
            self.pending.remove(member_id);
            self.add_member(request, message, member_id.clone(), cx);
            return Ok(());
        }
        self.check_member(member_id, message.group_instance_id.as_deref())?;
        self.check_protocols(message)?;
        self.join_anew(request, message, cx);
        Ok(())
    }

    fn add_member(
        &mut self,
        request: RequestId,
        message: &JoinGroupRequest,
        member_id: String,
        cx: &mut Context<'_>,
    ) {
        let mut member = Member::new(message);
        member.joining = Some(request);
        member.deadline = Some(cx.now.instant.plus(NEW_MEMBER_TIMEOUT));
        if self.members.is_empty() {
            self.protocol_type = Some(message.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        if let Some(instance_id) = &message.group_instance_id {
            let id = member_id.clone();
            self.static_members.insert(instance_id.clone(), id);
        }
        self.members.insert(member_id, member);
        if let Phase::Preparing {
            gathering: Gathering::Initial { has_new, .. },
            ..
        } = &mut self.phase
        {
            *has_new = true;
        }
        self.rebalance(cx);
    }

    /// A member joins again: because it was told to, because it wants other topics, or because it missed an answer.
    fn join_anew(&mut self, request: RequestId, message: &JoinGroupRequest, cx: &mut Context<'_>) {
        let id = message.member_id.as_str();
        let Some(member) = self.members.get_mut(id) else {
            return cx.out.reply(request, Err(ErrorCode::UnknownMemberId));
        };
        let is_same = member.protocols == message.protocols;
        let is_leader = self.leader.as_deref() == Some(id);
        let has_missed_the_answer = match self.phase {
            Phase::Completing { .. } => is_same,
            Phase::Stable { .. } => is_same && !is_leader,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        if has_missed_the_answer {
            member.touch(cx.now.instant);
            let response = JoinGroupResponse::Joined(self.joined(id));
            return cx.out.reply(request, Ok(Response::Joined(response)));
        }
        update_member(member, request, message, cx);
        self.rebalance(cx);
    }

    /// Answers a member for this generation.
    pub(super) fn joined(&self, member_id: &str) -> JoinedGroup {
        let is_leader = self.leader.as_deref() == Some(member_id);
        JoinedGroup {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: match is_leader {
                true => self.members_for_leader(),
                false => Vec::new(),
            },
        }
    }

    fn members_for_leader(&self) -> Vec<JoinGroupMember> {
        let members = self.members.iter().map(|(id, member)| JoinGroupMember {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        });
        members.collect()
    }

    /// A static member came back without its member id. In a stable group that goes on as before it takes its
    /// old place, and nobody rebalances; its new id is journalled first (I3).
    fn static_member_returned(
        &mut self,
        request: RequestId,
        message: JoinGroupRequest,
        member_id: String,
        cx: &mut Context<'_>,
    ) {
        if !self.goes_on_with(&message) {
            return self.replace_and_rebalance(request, &message, member_id, cx);
        }
        let mut replaced = self.clone();
        replaced.replace(&message, &member_id, cx);
        let record = replaced.record(|_, member| member.assignment.clone(), cx);
        let write = ClassicWrite::StaticMember {
            request,
            message: Box::new(message),
            member_id,
        };
        self.journal(write, record, true, cx);
    }

    pub(super) fn static_member_written(
        &mut self,
        request: RequestId,
        message: &JoinGroupRequest,
        member_id: String,
        cx: &mut Context<'_>,
    ) {
        let is_static = |it| self.static_members.contains_key(it);
        if !message.group_instance_id.as_ref().is_some_and(is_static) {
            // It was removed meanwhile.
            return self.add_member(request, message, member_id, cx);
        }
        if !self.goes_on_with(message) {
            return self.replace_and_rebalance(request, message, member_id, cx);
        }
        let old_leader = self.leader.clone();
        self.replace(message, &member_id, cx);
        let mut joined = self.joined(&member_id);
        if joined.leader == member_id && !message.supports_skipping_assignment {
            // It must not assign: it is not told that it leads.
            joined.leader = old_leader.unwrap_or_default();
            joined.members = Vec::new();
        } else {
            joined.skip_assignment = joined.leader == member_id;
        }
        let response = JoinGroupResponse::Joined(joined);
        cx.out.reply(request, Ok(Response::Joined(response)));
    }

    /// Whether the group is stable and stays so if this static member comes back.
    fn goes_on_with(&self, message: &JoinGroupRequest) -> bool {
        let instance_id = message.group_instance_id.as_ref();
        let member_id = instance_id.and_then(|it| self.static_members.get(it));
        let before = member_id.and_then(|it| self.members.get(it));
        let metadata = |protocols: &[super::JoinGroupProtocol]| {
            let mut chosen = protocols.iter();
            let chosen = chosen.find(|it| Some(&it.name) == self.protocol.as_ref());
            chosen.map(|it| wants(&it.metadata))
        };
        let is_same = before.is_some_and(|it| {
            let after = metadata(&message.protocols);
            after.is_some() && after == metadata(&it.protocols)
        });
        matches!(self.phase, Phase::Stable { .. }) && is_same
    }

    fn replace_and_rebalance(
        &mut self,
        request: RequestId,
        message: &JoinGroupRequest,
        member_id: String,
        cx: &mut Context<'_>,
    ) {
        self.replace(message, &member_id, cx);
        if let Some(member) = self.members.get_mut(&member_id) {
            update_member(member, request, message, cx);
        }
        self.rebalance(cx);
    }

    /// Gives a static member's place to its new member id; whoever waits under the old one is fenced.
    fn replace(&mut self, message: &JoinGroupRequest, member_id: &str, cx: &mut Context<'_>) {
        let instance_id = message.group_instance_id.clone().unwrap_or_default();
        let old_id = self
            .static_members
            .insert(instance_id, member_id.to_owned());
        let Some((old_id, old)) = old_id.and_then(|it| self.members.remove_entry(&it)) else {
            return;
        };
        for request in old.joining.into_iter().chain(old.syncing) {
            cx.out.reply(request, Err(ErrorCode::FencedInstanceId));
        }
        if self.leader.as_ref() == Some(&old_id) {
            self.leader = Some(member_id.to_owned());
        }
        let member = Member {
            assignment: old.assignment,
            deadline: Some(cx.now.instant.plus(message.session_timeout)),
            ..Member::new(message)
        };
        self.members.insert(member_id.to_owned(), member);
    }
}

fn update_member(
    member: &mut Member,
    request: RequestId,
    message: &JoinGroupRequest,
    cx: &mut Context<'_>,
) {
    member.client = message.client.clone();
    member.protocols.clone_from(&message.protocols);
    member.session_timeout = message.session_timeout;
    member.rebalance_timeout = message.rebalance_timeout;
    member.deadline = None;
    if let Some(earlier) = member.joining.replace(request) {
        cx.out.reply(earlier, Err(ErrorCode::RebalanceInProgress));
    }
}

/// Reads a member's wish: a consumer's topics (what it says of its partitions changes with each start), or all its words.
fn wants(metadata: &Bytes) -> Result<Vec<TopicName>, Bytes> {
    subscribed_topics(metadata).map_err(|_| metadata.clone())
}

/// As Kafka's: the instance id or client id, and something that nobody else has.
fn new_member_id(message: &JoinGroupRequest, unique: u128) -> String {
    let name = message.group_instance_id.as_ref();
    let name = name.unwrap_or(&message.client.client_id);
    let hex = format!("{unique:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("{name}-{}", parts.join("-"))
}
