//! LeaveGroup (key 13): takes members out of a classic group.

use crate::protocol::wire::schema::structs;

structs! {
    LeaveGroupRequest {
        group_id: String [0..],
        member_id: String [0..=2] or refuse,
        members: Vec<MemberIdentity> [3..] or refuse,
    }
    MemberIdentity {
        member_id: String [3..] or refuse,
        group_instance_id: Option<String> [3..] or refuse,
        reason: Option<String> [5..],
    }
    LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        members: Vec<MemberResponse> [3..],
    }
    MemberResponse {
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        error_code: i16 [3..],
    }
}
