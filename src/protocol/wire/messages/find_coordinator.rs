//! FindCoordinator (key 10): finds the broker that coordinates a group or a transactional id.

use crate::protocol::wire::schema::structs;

structs! {
    FindCoordinatorRequest {
        key: String [0..=3] or refuse,
        key_type: i8 [1..] or refuse,
        coordinator_keys: Vec<String> [4..] or refuse,
    }
    FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..=3],
        error_message: Option<String> [1..=3],
        node_id: i32 [0..=3],
        host: String [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }
    Coordinator {
        key: String [4..],
        node_id: i32 [4..],
        host: String [4..],
        port: i32 [4..],
        error_code: i16 [4..],
        error_message: Option<String> [4..],
    }
}
