//! Requests and responses of group membership: the classic protocol and the consumer protocol (KIP-848).
//!
//! A request's error is a [`super::ErrorCode`] in place of its response, unless a response says otherwise.

use std::time::Duration;

use bytes::Bytes;

use super::ErrorCode;
use crate::types::{GroupId, PartitionIndex, TopicId, TopicName, TopicPartition};

/// A classic protocol that a member can speak (an assignor of a consumer), with what it tells the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupProtocol {
    /// The assignor's name.
    pub name: String,
    /// The member's subscription, opaque to the broker but for its topics.
    pub metadata: Bytes,
}

/// Who sends a request: for descriptions only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdentity {
    /// The client's name for itself (`client.id`).
    pub client_id: String,
    /// Where it comes from, e.g. `/127.0.0.1`.
    pub client_host: String,
}

/// Joins a classic group, or joins it anew in a rebalance (JoinGroup).
#[derive(Debug, Clone)]
pub struct JoinGroupRequest {
    /// The group.
    pub group: GroupId,
    /// Who asks.
    pub client: ClientIdentity,
    /// Without a heartbeat for so long, the member is removed.
    pub session_timeout: Duration,
    /// So long the group waits for its members to join anew.
    pub rebalance_timeout: Duration,
    /// The member id; empty at first.
    pub member_id: String,
    /// Static membership's instance id.
    pub group_instance_id: Option<String>,
    /// The kind of members, e.g. `consumer`.
    pub protocol_type: String,
    /// Protocols of the member, the preferred one first.
    pub protocols: Vec<JoinGroupProtocol>,
    /// The reason; for the log.
    pub reason: Option<String>,
    /// Whether a first join is answered with a member id to join with (version 4 on).
    pub requires_known_member_id: bool,
    /// Whether a returning static leader understands that there is nothing to assign (version 9 on).
    pub supports_skipping_assignment: bool,
}

/// One member, as the leader learns of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupMember {
    /// Its member id.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<String>,
    /// Its words for the protocol that was chosen.
    pub metadata: Bytes,
}

/// The membership of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedGroup {
    /// The generation.
    pub generation: i32,
    /// The kind of members.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol_name: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// Whether the leader is not to assign anything: the assignment stands.
    pub skip_assignment: bool,
    /// The member's own id.
    pub member_id: String,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinGroupMember>,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinGroupResponse {
    /// The member is in.
    Joined(JoinedGroup),
    /// The member has an id now, and joins with it (Kafka's MEMBER_ID_REQUIRED).
    MemberIdRequired {
        /// The id.
        member_id: String,
    },
}

/// Fetches a member's assignment; the leader's brings everybody's (SyncGroup).
#[derive(Debug, Clone)]
pub struct SyncGroupRequest {
    /// The group.
    pub group: GroupId,
    /// The generation.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<String>,
    /// The kind of members; checked if given.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen; checked if given.
    pub protocol_name: Option<String>,
    /// Member ids with their assignments, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupResponse {
    /// The kind of members.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol_name: Option<String>,
    /// The assignment, as the leader wrote it.
    pub assignment: Bytes,
}

/// Keeps a classic member's session alive (Heartbeat).
#[derive(Debug, Clone)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// The generation.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<String>,
}

/// A member that is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// The member id; empty when an administrator removes a static member.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<String>,
    /// Reason; for the log.
    pub reason: Option<String>,
}

/// Removes members from a group (LeaveGroup).
#[derive(Debug, Clone)]
pub struct LeaveGroupRequest {
    /// The group.
    pub group: GroupId,
    /// Which members.
    pub members: Vec<LeavingMember>,
}

/// Outcome for one leaving member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMember {
    /// The member id of the request.
    pub member_id: String,
    /// The instance id of the request.
    pub group_instance_id: Option<String>,
    /// Error if it stayed.
    pub error: Option<ErrorCode>,
}

/// Outcomes for the members that were to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    /// In the order of the request.
    pub members: Vec<LeftMember>,
}

/// Partitions of one topic, by the topic's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedTopic {
    /// Which topic.
    pub topic_id: TopicId,
    /// Its name, if it is known.
    pub topic: Option<TopicName>,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionIndex>,
}

/// Everything that a member of the consumer protocol says: it joins, stays, changes its mind, and leaves (ConsumerGroupHeartbeat).
#[derive(Debug, Clone)]
pub struct ConsumerGroupHeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// Who asks.
    pub client: ClientIdentity,
    /// The member's id, which it chose itself; empty if it wants one (version 0).
    pub member_id: String,
    /// Its epoch: 0 to join, −1 to leave, −2 to leave for a while as a static member.
    pub member_epoch: i32,
    /// Static membership's instance id.
    pub group_instance_id: Option<String>,
    /// Where the member is; `None`: as before.
    pub rack_id: Option<String>,
    /// So long it may take to give partitions up; `None`: as before.
    pub rebalance_timeout: Option<Duration>,
    /// The topics it wants; `None`: as before.
    pub subscribed_topic_names: Option<Vec<TopicName>>,
    /// A regular expression of the topics it wants (RE2 syntax, matches whole names); `None`: as before, empty: none.
    pub subscribed_topic_regex: Option<String>,
    /// The topics that the member may not know of, which no regular expression names to it. Never on the wire.
    pub hidden_topics: Vec<TopicName>,
    /// The assignor it wants; `None`: as before.
    pub server_assignor: Option<String>,
    /// The partitions it owns; `None`: as before.
    pub topic_partitions: Option<Vec<AssignedTopic>>,
}

/// Answer to a member of the consumer protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatResponse {
    /// The member's id.
    pub member_id: String,
    /// The member's epoch.
    pub member_epoch: i32,
    /// When to come again.
    pub heartbeat_interval: Duration,
    /// The partitions it is to own; `None`: as before.
    pub assignment: Option<Vec<AssignedTopic>>,
}

/// Where a group stands, with Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; perhaps committed positions.
    Empty,
    /// Classic: members are being gathered.
    PreparingRebalance,
    /// Classic: the leader is assigning.
    CompletingRebalance,
    /// Consumer: a new assignment is being computed.
    Assigning,
    /// Consumer: members are giving up and taking over partitions.
    Reconciling,
    /// Everybody has what they are to have.
    Stable,
    /// There is no such group.
    Dead,
}

impl GroupState {
    /// Kafka's name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// Which protocol a group speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupType {
    /// JoinGroup and SyncGroup; also a group that only commits positions.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
}

impl GroupType {
    /// Kafka's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// Lists groups (ListGroups).
#[derive(Debug, Clone, Default)]
pub struct ListGroupsRequest {
    /// Only groups in one of these states, by name, in any case; empty: all.
    pub states: Vec<String>,
    /// Only groups of one of these types, by name, in any case; empty: all.
    pub types: Vec<String>,
}

/// One group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: GroupId,
    /// The kind of members, empty if there never were any.
    pub protocol_type: String,
    /// Where it stands.
    pub state: GroupState,
    /// Which protocol it speaks.
    pub group_type: GroupType,
}

/// One member of a classic group (DescribeGroups).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its member id.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub group_instance_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its words for the protocol that was chosen; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// One classic group (DescribeGroups).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// The group.
    pub group: GroupId,
    /// Where it stands; `Dead` if there is none.
    pub state: GroupState,
    /// The kind of members.
    pub protocol_type: String,
    /// The protocol that was chosen; empty unless the group is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// One member of a group of the consumer protocol (ConsumerGroupDescribe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupDescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack_id: Option<String>,
    /// Its epoch.
    pub member_epoch: i32,
    /// Who it is.
    pub client: ClientIdentity,
    /// The topics it wants.
    pub subscribed_topic_names: Vec<TopicName>,
    /// The regular expression of the topics it wants.
    pub subscribed_topic_regex: Option<String>,
    /// Its assignment.
    pub assignment: Vec<AssignedTopic>,
    /// Its target.
    pub target_assignment: Vec<AssignedTopic>,
}

/// One group of the consumer protocol (ConsumerGroupDescribe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// The group.
    pub group: GroupId,
    /// Where it stands.
    pub state: GroupState,
    /// Its epoch.
    pub group_epoch: i32,
    /// The epoch of its target assignment.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor_name: String,
    /// Its members.
    pub members: Vec<ConsumerGroupDescribedMember>,
}

/// Outcome for each position that was to be forgotten (OffsetDelete).
pub type DeletedOffsets = Vec<(TopicPartition, Result<(), ErrorCode>)>;
