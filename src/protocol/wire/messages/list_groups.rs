//! ListGroups (key 16): lists the groups of a broker.

use crate::protocol::wire::schema::structs;

structs! {
    ListGroupsRequest {
        states_filter: Vec<String> [4..] or refuse,
        types_filter: Vec<String> [5..] or refuse,
    }
    ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        groups: Vec<ListedGroup> [0..],
    }
    ListedGroup {
        group_id: String [0..],
        protocol_type: String [0..],
        group_state: String [4..],
        group_type: String [5..],
    }
}
