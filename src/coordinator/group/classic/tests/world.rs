//! The requests of members of the classic protocol.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::coordinator::RequestId;
pub(super) use crate::coordinator::group::tests::world::{World, group, partition};
use crate::coordinator::group::{Input, Response};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ClientIdentity, GroupState, HeartbeatRequest, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};

/// A join of a consumer that reads `t`.
pub(super) fn join(client_id: &str, member_id: &str) -> JoinGroupRequest {
    let mut subscription = BytesMut::new();
    subscription.put_i16(0);
    subscription.put_i32(1);
    subscription.put_i16(1);
    subscription.put_slice(b"t");
    subscription.put_i32(-1);
    JoinGroupRequest {
        group: group(),
        client: ClientIdentity {
            client_id: client_id.to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        },
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(30),
        member_id: member_id.to_owned(),
        group_instance_id: None,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupProtocol {
            name: "range".to_owned(),
            metadata: subscription.freeze(),
        }],
        reason: None,
        requires_known_member_id: true,
        supports_skipping_assignment: false,
    }
}

impl World {
    pub(super) fn join(&mut self, message: JoinGroupRequest) -> RequestId {
        let unique = self.unique();
        self.ask(|request| Input::Join {
            request,
            message,
            unique,
        })
    }

    pub(super) fn new_id(&mut self, client_id: &str) -> String {
        let request = self.join(join(client_id, ""));
        match self.answer(request) {
            Some(Ok(Response::Joined(JoinGroupResponse::MemberIdRequired { member_id }))) => {
                member_id
            }
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn joined(&self, request: RequestId) -> JoinedGroup {
        match self.answer(request) {
            Some(Ok(Response::Joined(JoinGroupResponse::Joined(joined)))) => joined,
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn sync(&mut self, joined: &JoinedGroup, assignments: &[(&str, &str)]) -> RequestId {
        self.sync_as(None, joined, assignments)
    }

    pub(super) fn sync_as(
        &mut self,
        instance: Option<&str>,
        joined: &JoinedGroup,
        assignments: &[(&str, &str)],
    ) -> RequestId {
        let assignments = assignments.iter();
        let assignments = assignments.map(|(id, it)| ((*id).to_owned(), it.to_string().into()));
        let message = SyncGroupRequest {
            group: group(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: instance.map(str::to_owned),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
        };
        self.ask(|request| Input::Sync { request, message })
    }

    pub(super) fn assignment(&self, request: RequestId) -> String {
        match self.answer(request) {
            Some(Ok(Response::Synced(synced))) => {
                String::from_utf8(synced.assignment.to_vec()).unwrap()
            }
            answer => panic!("{answer:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        member_id: &str,
        generation: i32,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        let message = HeartbeatRequest {
            group: group(),
            generation,
            member_id: member_id.to_owned(),
            group_instance_id: instance.map(str::to_owned),
        };
        let request = self.ask(|request| Input::Heartbeat { request, message });
        self.answer(request).unwrap().map(drop)
    }

    pub(super) fn leave(&mut self, member_id: &str) {
        let member = LeavingMember {
            member_id: member_id.to_owned(),
            group_instance_id: None,
            reason: None,
        };
        let message = LeaveGroupRequest {
            group: group(),
            members: vec![member],
        };
        self.ask(|request| Input::Leave { request, message });
    }

    pub(super) fn state(&self) -> GroupState {
        self.coordinator.describe_classic(&group()).state
    }

    pub(super) fn state_of_first_member(&self) -> String {
        let shown = self.coordinator.describe_classic(&group());
        shown.members[0].member_id.clone()
    }
}
