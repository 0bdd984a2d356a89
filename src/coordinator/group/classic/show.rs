//! Views of a classic group.

use bytes::Bytes;

use super::{ClassicGroup, Phase};
use crate::protocol::messages::groups::{DescribedGroup, DescribedMember, GroupState};

impl ClassicGroup {
    pub(in crate::coordinator::group) fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing { .. } => GroupState::CompletingRebalance,
            Phase::Stable { .. } => GroupState::Stable,
        }
    }

    pub(in crate::coordinator::group) fn protocol_type(&self) -> String {
        self.protocol_type.clone().unwrap_or_default()
    }

    pub(in crate::coordinator::group) fn show(&self) -> DescribedGroup {
        let is_stable = matches!(self.phase, Phase::Stable { .. });
        let protocol = self.protocol.as_deref().filter(|_| is_stable);
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            client: member.client.clone(),
            metadata: member.metadata(protocol),
            assignment: match is_stable {
                true => member.assignment.clone(),
                false => Bytes::new(),
            },
        });
        DescribedGroup {
            group: self.id.clone(),
            state: self.state(),
            protocol_type: self.protocol_type(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        }
    }
}
