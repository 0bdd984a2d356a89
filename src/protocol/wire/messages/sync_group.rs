//! SyncGroup (key 14): hands out the assignments of a classic group's generation.

use bytes::Bytes;

use crate::protocol::wire::schema::structs;

structs! {
    SyncGroupRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..] or refuse,
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }
    SyncGroupRequestAssignment {
        member_id: String [0..],
        assignment: Bytes [0..],
    }
    SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignment: Bytes [0..],
    }
}
