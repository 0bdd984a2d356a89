//! ListOffsets (key 2): finds offsets by time, or the first and last of a partition.

use crate::protocol::wire::schema::structs;

structs! {
    ListOffsetsRequest {
        replica_id: i32 [0..],
        isolation_level: i8 [2..] or refuse,
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }
    ListOffsetsTopic {
        name: String [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }
    ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        timestamp: i64 [0..],
    }
    ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }
    ListOffsetsTopicResponse {
        name: String [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }
    ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        timestamp: i64 [1..] = -1,
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }
}
