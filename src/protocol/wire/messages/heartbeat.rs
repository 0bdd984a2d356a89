//! Heartbeat (key 12): tells the coordinator that a member of a classic group lives.

use crate::protocol::wire::schema::structs;

structs! {
    HeartbeatRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..] or refuse,
    }
    HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
    }
}
