//! OffsetCommit (key 8): commits a group's positions outside any transaction.

use crate::protocol::wire::schema::structs;

structs! {
    OffsetCommitRequest {
        group_id: String [0..],
        generation_id_or_member_epoch: i32 [1..] = -1,
        member_id: String [1..],
        group_instance_id: Option<String> [7..] or refuse,
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }
    OffsetCommitRequestTopic {
        name: String [0..],
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }
    OffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [6..] = -1,
        committed_metadata: Option<String> [0..],
    }
    OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }
    OffsetCommitResponseTopic {
        name: String [0..],
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }
    OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}
