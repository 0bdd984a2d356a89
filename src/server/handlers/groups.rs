//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup; the consumer protocol's heartbeat; describing, listing, deleting groups.

use std::time::Duration;

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{NONE, broker_code, group_id};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    self as m, ClientIdentity, GroupState, JoinGroupProtocol, LeavingMember,
};
use crate::protocol::wire::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use crate::protocol::wire::messages::describe_groups as dg;
use crate::protocol::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::protocol::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};
use crate::protocol::wire::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberResponse,
};
use crate::protocol::wire::messages::list_groups::{
    ListGroupsRequest, ListGroupsResponse, ListedGroup,
};
use crate::protocol::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

/// From this version on a first join is answered with a member id to join with.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From this version on a static leader that returns understands that there is nothing to assign.
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// From this version on several members may leave at once.
const LEAVE_BATCHED_FROM: i16 = 3;
/// From this version on a group that is not there is an error; before, it was a dead one.
const NOT_FOUND_FROM: i16 = 6;

pub(super) fn client(call: &Call<'_>) -> ClientIdentity {
    ClientIdentity {
        client_id: call.header.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", call.session.peer().ip()),
    }
}

pub(super) fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

pub(in crate::server) async fn join(
    call: &Call<'_>,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let asked = request.member_id.clone();
    let refused = |code: ErrorCode, member_id| JoinGroupResponse {
        error_code: code.code(),
        member_id,
        protocol_name: (call.version() < 7).then(String::new),
        ..JoinGroupResponse::default()
    };
    match join_one(call, request).await {
        Ok(m::JoinGroupResponse::Joined(joined)) => joined_response(joined),
        Ok(m::JoinGroupResponse::MemberIdRequired { member_id }) => {
            refused(ErrorCode::MemberIdRequired, member_id)
        }
        Err(error) => refused(error.code, asked),
    }
}

async fn join_one(
    call: &Call<'_>,
    request: JoinGroupRequest,
) -> Result<m::JoinGroupResponse, BrokerError> {
    call.allow_group(Operation::Read, &request.group_id)?;
    // Version 0 had one timeout for both.
    let rebalance_timeout_ms = match request.rebalance_timeout_ms {
        -1 => request.session_timeout_ms,
        given => given,
    };
    let protocols = request
        .protocols
        .into_iter()
        .map(|protocol| JoinGroupProtocol {
            name: protocol.name,
            metadata: protocol.metadata,
        });
    let join = m::JoinGroupRequest {
        group: group_id(&request.group_id)?,
        client: client(call),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance_timeout_ms),
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocols: protocols.collect(),
        reason: request.reason,
        requires_known_member_id: call.version() >= MEMBER_ID_REQUIRED_FROM,
        supports_skipping_assignment: call.version() >= SKIP_ASSIGNMENT_FROM,
    };
    call.broker().join_group(join).await
}

fn joined_response(joined: m::JoinedGroup) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|member| JoinGroupResponseMember {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            metadata: member.metadata,
        });
    JoinGroupResponse {
        error_code: NONE,
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        protocol_name: joined.protocol_name,
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

pub(in crate::server) async fn sync(
    call: &Call<'_>,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    match sync_one(call, request).await {
        Ok(synced) => SyncGroupResponse {
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol_name,
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: error.code.code(),
            ..SyncGroupResponse::default()
        },
    }
}

async fn sync_one(
    call: &Call<'_>,
    request: SyncGroupRequest,
) -> Result<m::SyncGroupResponse, BrokerError> {
    call.allow_group(Operation::Read, &request.group_id)?;
    let assignments = request.assignments.into_iter();
    let sync = m::SyncGroupRequest {
        group: group_id(&request.group_id)?,
        generation: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocol_name: request.protocol_name,
        assignments: assignments.map(|a| (a.member_id, a.assignment)).collect(),
    };
    call.broker().sync_group(sync).await
}

pub(in crate::server) async fn heartbeat(
    call: &Call<'_>,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    HeartbeatResponse {
        error_code: broker_code(&heartbeat_one(call, request).await),
        ..HeartbeatResponse::default()
    }
}

async fn heartbeat_one(call: &Call<'_>, request: HeartbeatRequest) -> Result<(), BrokerError> {
    call.allow_group(Operation::Read, &request.group_id)?;
    let heartbeat = m::HeartbeatRequest {
        group: group_id(&request.group_id)?,
        generation: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
    };
    call.broker().heartbeat(heartbeat).await
}

pub(in crate::server) async fn leave(
    call: &Call<'_>,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let is_batched = call.version() >= LEAVE_BATCHED_FROM;
    let left = match leave_all(call, request, is_batched).await {
        Ok(left) => left,
        Err(error) => {
            return LeaveGroupResponse {
                error_code: error.code.code(),
                ..LeaveGroupResponse::default()
            };
        }
    };
    // Before members left in batches, the one's error was the request's.
    let only = left.members.first().and_then(|member| member.error);
    let members = left.members.into_iter().map(|member| MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: member.error.map_or(NONE, ErrorCode::code),
    });
    LeaveGroupResponse {
        error_code: only.filter(|_| !is_batched).map_or(NONE, ErrorCode::code),
        members: members.collect(),
        ..LeaveGroupResponse::default()
    }
}

async fn leave_all(
    call: &Call<'_>,
    request: LeaveGroupRequest,
    is_batched: bool,
) -> Result<m::LeaveGroupResponse, BrokerError> {
    call.allow_group(Operation::Read, &request.group_id)?;
    let members = match is_batched {
        true => {
            let members = request.members.into_iter().map(|member| LeavingMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                reason: member.reason,
            });
            members.collect()
        }
        false => vec![LeavingMember {
            member_id: request.member_id,
            group_instance_id: None,
            reason: None,
        }],
    };
    let group = group_id(&request.group_id)?;
    call.broker()
        .leave_group(m::LeaveGroupRequest { group, members })
        .await
}

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: dg::DescribeGroupsRequest,
) -> dg::DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|group| {
        let described = describe_one(call, &group);
        match described {
            Ok(described) => dg::DescribedGroup {
                authorized_operations: match request.include_authorized_operations {
                    true => call.authorized_operations(Resource::Group(&group)),
                    false => i32::MIN,
                },
                ..described_group(group, described)
            },
            Err(error) => dg::DescribedGroup {
                error_code: error.code.code(),
                error_message: Some(error.message),
                group_state: match error.code {
                    ErrorCode::GroupIdNotFound => GroupState::Dead.name().to_owned(),
                    _ => String::new(),
                },
                group_id: group,
                ..dg::DescribedGroup::default()
            },
        }
    });
    dg::DescribeGroupsResponse {
        groups: groups.collect(),
        ..dg::DescribeGroupsResponse::default()
    }
}

fn describe_one(call: &Call<'_>, group: &str) -> Result<m::DescribedGroup, BrokerError> {
    call.allow_group(Operation::Describe, group)?;
    let described = call.broker().describe_classic_group(&group_id(group)?)?;
    match described.state == GroupState::Dead && call.version() >= NOT_FOUND_FROM {
        true => Err(BrokerError::new(
            ErrorCode::GroupIdNotFound,
            format!("there is no group {group}"),
        )),
        false => Ok(described),
    }
}

fn described_group(group_id: String, described: m::DescribedGroup) -> dg::DescribedGroup {
    let members = described
        .members
        .into_iter()
        .map(|member| dg::DescribedGroupMember {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            client_id: member.client.client_id,
            client_host: member.client.client_host,
            member_metadata: member.metadata,
            member_assignment: member.assignment,
        });
    dg::DescribedGroup {
        error_code: NONE,
        group_id,
        group_state: described.state.name().to_owned(),
        protocol_type: described.protocol_type,
        protocol_data: described.protocol,
        members: members.collect(),
        ..dg::DescribedGroup::default()
    }
}

pub(in crate::server) fn list(call: &Call<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let listed = call.broker().list_groups_with(&m::ListGroupsRequest {
        states: request.states_filter,
        types: request.types_filter,
    });
    let error_code = broker_code(&listed);
    let visible = listed.unwrap_or_default().into_iter();
    let visible =
        visible.filter(|listed| call.session.may_see(Resource::Group(listed.group.as_str())));
    let groups = visible.map(|listed| ListedGroup {
        group_id: listed.group.as_str().to_owned(),
        protocol_type: listed.protocol_type,
        group_state: listed.state.name().to_owned(),
        group_type: listed.group_type.name().to_owned(),
    });
    ListGroupsResponse {
        error_code,
        groups: groups.collect(),
        ..ListGroupsResponse::default()
    }
}

pub(in crate::server) async fn delete(
    call: &Call<'_>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let deleted = match call
            .allow_group(Operation::Delete, &group)
            .and_then(|()| group_id(&group))
        {
            Ok(id) => call.broker().delete_group(&id).await,
            Err(error) => Err(error),
        };
        results.push(DeletableGroupResult {
            error_code: broker_code(&deleted),
            group_id: group,
        });
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}
