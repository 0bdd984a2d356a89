//! [`GroupDescription`]: a group as an operator sees it, whichever protocol its members speak.

use crate::protocol::consumer_protocol::Assignment;
use crate::protocol::messages::CommittedOffset;
use crate::protocol::messages::groups::{
    ClientIdentity, ConsumerGroupDescribedMember, DescribedMember, GroupType,
};
use crate::types::{GroupId, ProducerId, TopicPartition};

/// Protocol type of classic members that read topics and share them out as Kafka's consumers do.
const CONSUMERS: &str = "consumer";

/// One group, as `group describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The group.
    pub group: GroupId,
    /// Which protocol its members speak.
    pub group_type: GroupType,
    /// Where it stands, by Kafka's name.
    pub state: String,
    /// Its members, by member id.
    pub members: Vec<MemberDescription>,
    /// Its committed positions, by partition.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// Positions pending in open transactions.
    pub pending: Vec<(ProducerId, TopicPartition, CommittedOffset)>,
}

impl GroupDescription {
    /// A group without positions.
    #[must_use]
    pub fn new(
        group: GroupId,
        group_type: GroupType,
        state: String,
        members: Vec<MemberDescription>,
    ) -> Self {
        Self {
            group,
            group_type,
            state,
            members,
            offsets: Vec::new(),
            pending: Vec::new(),
        }
    }
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its member id.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub instance_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its partitions; `None` if only its like can tell.
    pub assignment: Option<Vec<TopicPartition>>,
}

impl MemberDescription {
    /// A member of a classic group of that kind (`protocol_type`).
    #[must_use]
    pub fn of_classic(member: DescribedMember, protocol_type: &str) -> Self {
        let assignment = (protocol_type == CONSUMERS)
            .then(|| Assignment::decode(&member.assignment).ok())
            .flatten();
        Self {
            member_id: member.member_id,
            instance_id: member.group_instance_id,
            client: member.client,
            assignment: assignment.map(|it| it.partitions),
        }
    }
}

impl From<ConsumerGroupDescribedMember> for MemberDescription {
    fn from(member: ConsumerGroupDescribedMember) -> Self {
        let topics = member.assignment.iter();
        // A topic that was deleted has no name any more, and nobody reads it.
        let partitions = topics.flat_map(|topic| {
            let name = topic.topic.iter();
            name.flat_map(move |name| {
                let partitions = topic.partitions.iter();
                partitions.map(move |it| TopicPartition::new(name.clone(), *it))
            })
        });
        let assignment = partitions.collect();
        Self {
            member_id: member.member_id,
            instance_id: member.instance_id,
            client: member.client,
            assignment: Some(assignment),
        }
    }
}
