//! Requests of group members, handed to the group coordinator.

use super::Reply;
use super::core::Core;
use super::groups::done;
use crate::coordinator::group::{Input, Response};
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeletedOffsets,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use crate::types::{GroupId, TopicPartition};

/// Takes the answer of one kind out of a [`Response`].
macro_rules! unpack {
    ($kind:ident) => {
        |response| match response {
            Response::$kind(answer) => Some(answer),
            _ => None,
        }
    };
}

impl Core {
    pub(super) fn join_group(&self, message: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        let unique = self.env.random.next_u128();
        self.ask_groups(unpack!(Joined), |request| Input::Join {
            request,
            message,
            unique,
        })
    }

    pub(super) fn sync_group(&self, message: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        self.ask_groups(unpack!(Synced), |request| Input::Sync { request, message })
    }

    pub(super) fn heartbeat(&self, message: HeartbeatRequest) -> Reply<()> {
        self.ask_groups(done, |request| Input::Heartbeat { request, message })
    }

    pub(super) fn leave_group(&self, message: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        self.ask_groups(unpack!(Left), |request| Input::Leave { request, message })
    }

    pub(super) fn consumer_group_heartbeat(
        &self,
        message: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        let unique = self.env.random.next_u128();
        self.ask_groups(unpack!(ConsumerHeartbeat), |request| {
            Input::ConsumerHeartbeat {
                request,
                message,
                unique,
            }
        })
    }

    pub(super) fn delete_offsets(
        &self,
        group: GroupId,
        partitions: Vec<TopicPartition>,
    ) -> Reply<DeletedOffsets> {
        self.ask_groups(unpack!(Deleted), |request| Input::DeleteOffsets {
            request,
            group,
            partitions,
        })
    }
}
