//! The broker's calls that concern groups: their members, what they are, and their end.

use super::{Broker, BrokerError, CompactionHold, GroupDescription, Reply};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupDescription, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DeletedOffsets, DescribedGroup, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListedGroup, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::types::{GroupId, TopicName, TopicPartition};

impl Broker {
    /// Whether members of the group name topics by regular expressions, so that it counts what each may know of.
    #[must_use]
    pub(crate) fn has_expressions(&self, group: &GroupId) -> bool {
        self.core.groups.has_expressions(group)
    }

    /// Joins a classic group. The reply comes at the end of the rebalance. Its errors: `InvalidSessionTimeout`,
    /// `InconsistentGroupProtocol`, `GroupMaxSizeReached`, `UnknownMemberId`, `FencedInstanceId`, `RebalanceInProgress`
    /// (a later join of the same member took its place).
    pub(crate) fn join_group(&self, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        self.core.join_group(request)
    }

    /// Brings the leader's assignment, and fetches the member's own. The reply comes once the assignment is durable.
    /// Its errors: `UnknownMemberId`, `IllegalGeneration`, `RebalanceInProgress`, `FencedInstanceId`, `InconsistentGroupProtocol`.
    pub(crate) fn sync_group(&self, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        self.core.sync_group(request)
    }

    /// Keeps a classic member's session alive. The reply's errors: `RebalanceInProgress` (join again), `UnknownMemberId`,
    /// `IllegalGeneration`, `FencedInstanceId`.
    pub(crate) fn heartbeat(&self, request: HeartbeatRequest) -> Reply<()> {
        self.core.heartbeat(request)
    }

    /// Removes members from a group; each has an outcome of its own in the reply.
    pub(crate) fn leave_group(&self, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        self.core.leave_group(request)
    }

    /// Joins, stays in and leaves a group of the consumer protocol (KIP-848). The reply comes once what it says is durable.
    /// Its errors: `InvalidRequest`, `UnsupportedAssignor`, `GroupIdNotFound`, `GroupMaxSizeReached`, `UnknownMemberId` and
    /// `FencedMemberEpoch` (give everything up and join anew), `UnreleasedInstanceId`, `FencedInstanceId`.
    pub(crate) fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        self.core.consumer_group_heartbeat(request)
    }

    /// The members of a group of the consumer protocol.
    ///
    /// # Errors
    /// `GroupIdNotFound`, also for a classic group.
    pub(crate) fn describe_consumer_group(
        &self,
        group: &GroupId,
    ) -> Result<ConsumerGroupDescription, BrokerError> {
        self.core.check_open()?;
        self.core.groups.describe_consumer(group).ok_or_else(|| {
            let message = format!("{group} is not a group of the consumer protocol");
            BrokerError::new(ErrorCode::GroupIdNotFound, message)
        })
    }

    /// Every group that has members or positions.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn list_groups(&self) -> Result<Vec<GroupId>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.groups.list())
    }

    /// The groups of the states and types asked for.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn list_groups_with(
        &self,
        request: &ListGroupsRequest,
    ) -> Result<Vec<ListedGroup>, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.groups.list_with(request))
    }

    /// One group's positions.
    ///
    /// # Errors
    /// `GroupIdNotFound`.
    pub(crate) fn describe_group(&self, group: &GroupId) -> Result<GroupDescription, BrokerError> {
        self.core.check_open()?;
        self.core.groups.describe(group).ok_or_else(|| {
            let message = format!("the group {group} has neither members nor positions");
            BrokerError::new(ErrorCode::GroupIdNotFound, message)
        })
    }

    /// The members of a classic group; its state is `Dead` if there is no such group.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn describe_classic_group(
        &self,
        group: &GroupId,
    ) -> Result<DescribedGroup, BrokerError> {
        self.core.check_open()?;
        Ok(self.core.groups.describe_classic(group))
    }

    /// Forgets a group without members. Refused with `NonEmptyGroup` if it has some, with `UnstableOffsetCommit` while an
    /// open transaction holds one of its positions, and with `GroupIdNotFound`.
    pub(crate) fn delete_group(&self, group: &GroupId) -> Reply<()> {
        self.core.delete_group(group.clone())
    }

    /// Forgets a group's positions for some partitions; each has an outcome of its own in the reply: `GroupSubscribedToTopic`
    /// if a member reads the topic, `UnstableOffsetCommit` while an open transaction holds the position.
    /// Refused as a whole with `GroupIdNotFound`, and with `NonEmptyGroup` if the members are not consumers.
    pub(crate) fn delete_offsets(
        &self,
        group: &GroupId,
        partitions: Vec<TopicPartition>,
    ) -> Reply<DeletedOffsets> {
        self.core.delete_offsets(group.clone(), partitions)
    }

    /// Has the compaction of a topic wait for the positions of a group, for the sake of a table that it makes of the topic.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `PolicyViolation` if the topic is not compacted, or positions may be lost.
    pub(crate) fn hold_compaction(
        &self,
        topic: &TopicName,
        group: &GroupId,
        table: &str,
    ) -> Result<(), BrokerError> {
        self.core.hold_compaction(topic, group, table)
    }

    /// Gives up the hold of a group for a table, or all that it has.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn release_compaction(
        &self,
        group: &GroupId,
        table: Option<&str>,
    ) -> Result<(), BrokerError> {
        self.core.release_compaction(group, table)
    }

    /// The holds of a group, or of all.
    ///
    /// # Errors
    /// As every method.
    pub(crate) fn compaction_holds(
        &self,
        group: Option<&GroupId>,
    ) -> Result<Vec<CompactionHold>, BrokerError> {
        self.core.compaction_holds(group)
    }
}
