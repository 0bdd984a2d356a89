//! OffsetFetch (key 9): reads a group's committed positions.

use crate::protocol::wire::schema::structs;

structs! {
    OffsetFetchRequest {
        group_id: String [0..=7] or refuse,
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7] null [2..=7] or refuse,
        groups: Vec<OffsetFetchRequestGroup> [8..] or refuse,
        require_stable: bool [7..] or refuse,
    }
    OffsetFetchRequestTopic {
        name: String [0..=7] or refuse,
        partition_indexes: Vec<i32> [0..=7] or refuse,
    }
    OffsetFetchRequestGroup {
        group_id: String [8..] or refuse,
        member_id: Option<String> [9..],
        member_epoch: i32 [9..] = -1,
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..] or refuse,
    }
    OffsetFetchRequestTopics {
        name: String [8..] or refuse,
        partition_indexes: Vec<i32> [8..] or refuse,
    }
    OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        error_code: i16 [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }
    OffsetFetchResponseTopic {
        name: String [0..=7],
        partitions: Vec<OffsetFetchResponsePartition> [0..=7],
    }
    OffsetFetchResponsePartition {
        partition_index: i32 [0..=7],
        committed_offset: i64 [0..=7],
        committed_leader_epoch: i32 [5..=7] = -1,
        metadata: Option<String> [0..=7],
        error_code: i16 [0..=7],
    }
    OffsetFetchResponseGroup {
        group_id: String [8..],
        topics: Vec<OffsetFetchResponseTopics> [8..],
        error_code: i16 [8..],
    }
    OffsetFetchResponseTopics {
        name: String [8..],
        partitions: Vec<OffsetFetchResponsePartitions> [8..],
    }
    OffsetFetchResponsePartitions {
        partition_index: i32 [8..],
        committed_offset: i64 [8..],
        committed_leader_epoch: i32 [8..] = -1,
        metadata: Option<String> [8..],
        error_code: i16 [8..],
    }
}
