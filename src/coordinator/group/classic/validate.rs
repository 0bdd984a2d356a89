//! Who may do what in a classic group: limits of a join, members, generations, and commits.

use std::collections::BTreeSet;

use super::{ClassicGroup, Context, Phase};
use crate::coordinator::membership_log::subscribed_topics;
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::GroupMember;
use crate::protocol::messages::groups::JoinGroupRequest;
use crate::types::TopicName;

/// The longest name that a member may give (client id, host, instance id, protocol), in bytes. Records hold 16-bit lengths.
const NAME_BYTES_MAX: usize = 4096;
/// Most bytes of a member's words about itself in all: one group's record must fit one batch of the journal.
const METADATA_BYTES_MAX: usize = 256 << 10;
/// Most protocols of a member.
const PROTOCOLS_COUNT_MAX: usize = 64;

/// Checks what does not depend on the group.
pub(super) fn check_join(message: &JoinGroupRequest, cx: &Context<'_>) -> Result<(), ErrorCode> {
    let sessions = cx.config.session_timeout_min..=cx.config.session_timeout_max;
    if !sessions.contains(&message.session_timeout) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let protocols = message.protocols.iter().map(|it| it.name.len());
    let names = [
        message.client.client_id.len(),
        message.client.client_host.len(),
        message.group_instance_id.as_ref().map_or(0, String::len),
        message.protocol_type.len(),
    ];
    let metadata: usize = message.protocols.iter().map(|it| it.metadata.len()).sum();
    let is_bounded = names
        .into_iter()
        .chain(protocols)
        .all(|it| it <= NAME_BYTES_MAX)
        && metadata <= METADATA_BYTES_MAX
        && message.protocols.len() <= PROTOCOLS_COUNT_MAX;
    match is_bounded {
        true => Ok(()),
        false => Err(ErrorCode::InvalidRequest),
    }
}

impl ClassicGroup {
    /// Whether there is room for the member of this join.
    pub(super) fn check_room(
        &self,
        message: &JoinGroupRequest,
        cx: &Context<'_>,
    ) -> Result<(), ErrorCode> {
        let is_known = self.members.contains_key(&message.member_id)
            || self.pending.contains_key(&message.member_id)
            || message
                .group_instance_id
                .as_ref()
                .is_some_and(|it| self.static_members.contains_key(it));
        let is_full = self.members.len() + self.pending.len() >= cx.config.group_max_size;
        match is_full && !is_known {
            true => Err(ErrorCode::GroupMaxSizeReached),
            false => Ok(()),
        }
    }

    /// Whether the group could agree on a protocol with this member.
    pub(super) fn check_protocols(&self, message: &JoinGroupRequest) -> Result<(), ErrorCode> {
        let is_first = self.members.is_empty();
        let is_same_type = match is_first {
            true => !message.protocol_type.is_empty(),
            false => self.protocol_type.as_ref() == Some(&message.protocol_type),
        };
        let mut offered = message.protocols.iter();
        let agrees = offered.any(|it| self.members.values().all(|member| member.speaks(&it.name)));
        match is_same_type && agrees {
            true => Ok(()),
            false => Err(ErrorCode::InconsistentGroupProtocol),
        }
    }

    /// Whether `member_id` is a member, and still the holder of its instance id.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(holder) if holder != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), ErrorCode> {
        match generation == self.generation {
            true => Ok(()),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether `member` may commit positions (KIP-447 for those in a transaction). A commit is also a sign of life.
    pub(in crate::coordinator::group) fn check_commit(
        &mut self,
        member: &GroupMember,
        is_transactional: bool,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        if member.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let claims_membership = member.generation >= 0
            || !member.member_id.is_empty()
            || member.group_instance_id.is_some();
        if !claims_membership {
            // Older transactional clients do not say who they are.
            return match is_transactional {
                true => Ok(()),
                false => Err(ErrorCode::UnknownMemberId),
            };
        }
        self.check_member(&member.member_id, member.group_instance_id.as_deref())?;
        self.check_generation(member.generation)?;
        if matches!(self.phase, Phase::Completing { .. }) && !is_transactional {
            return Err(ErrorCode::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(&member.member_id) {
            member.touch(now);
        }
        Ok(())
    }

    /// The topics that members of a consumer group read; `None` if the members are of another kind.
    pub(in crate::coordinator::group) fn subscribed_topics(&self) -> Option<BTreeSet<TopicName>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let protocol = self.protocol.as_deref();
        let topics = self.members.values();
        let topics = topics.filter_map(|it| subscribed_topics(&it.metadata(protocol)).ok());
        Some(topics.flatten().collect())
    }
}
