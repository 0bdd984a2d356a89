//! Views of a group of the consumer protocol.

use std::collections::BTreeSet;

use super::assignor::Assignor;
use super::roster::listed;
use super::{ConsumerGroup, MemberState};
use crate::coordinator::group::topics::Topics;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupDescribedMember, ConsumerGroupDescription, GroupState,
};
use crate::types::TopicName;

impl ConsumerGroup {
    pub(in crate::coordinator::group) fn state(&self) -> GroupState {
        let roster = &self.roster;
        let mut currents = roster.members.values().map(|it| &it.current);
        match () {
            () if roster.members.is_empty() => GroupState::Empty,
            () if roster.epoch > roster.target_epoch => GroupState::Assigning,
            () if currents
                .any(|it| it.state != MemberState::Stable || it.epoch != roster.target_epoch) =>
            {
                GroupState::Reconciling
            }
            () => GroupState::Stable,
        }
    }

    /// Whether members name topics by regular expressions.
    pub(in crate::coordinator::group) fn has_expressions(&self) -> bool {
        !self.roster.expressions.is_empty()
    }

    /// Whether a member with this epoch may read the group's positions; those who are no members may, too.
    pub(in crate::coordinator::group) fn check_reader(
        &self,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> Result<(), ErrorCode> {
        if member_id.is_none_or(str::is_empty) && member_epoch < 0 {
            return Ok(());
        }
        let member = self.roster.members.get(member_id.unwrap_or_default());
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        match member.current.epoch == member_epoch {
            true => Ok(()),
            false => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    pub(in crate::coordinator::group) fn subscribed(&self) -> BTreeSet<TopicName> {
        let topics = self.roster.subscribed_topics();
        topics.into_iter().cloned().collect()
    }

    pub(in crate::coordinator::group) fn show(&self, topics: &Topics) -> ConsumerGroupDescription {
        let name = |id| topics.name(id).cloned();
        let members = self.roster.members.iter().map(|(id, member)| {
            let target = self.roster.target.get(id).cloned().unwrap_or_default();
            ConsumerGroupDescribedMember {
                member_id: id.clone(),
                instance_id: member.record.instance_id.clone(),
                rack_id: member.record.rack_id.clone(),
                member_epoch: member.current.epoch,
                client: member.record.client.clone(),
                subscribed_topic_names: member
                    .record
                    .subscribed_topic_names
                    .iter()
                    .cloned()
                    .collect(),
                subscribed_topic_regex: member.record.subscribed_topic_regex.clone(),
                assignment: listed(&member.current.assigned, name),
                target_assignment: listed(&target, name),
            }
        });
        ConsumerGroupDescription {
            group: self.id.clone(),
            state: self.state(),
            group_epoch: self.roster.epoch,
            assignment_epoch: self.roster.target_epoch,
            assignor_name: Assignor::of(&self.roster).name().to_owned(),
            members: members.collect(),
        }
    }
}
