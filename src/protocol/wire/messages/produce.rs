//! Produce (key 0): appends record batches to partitions.

use bytes::Bytes;

use crate::protocol::wire::schema::structs;
use crate::types::TopicId;

structs! {
    ProduceRequest {
        transactional_id: Option<String> [3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topic_data: Vec<TopicProduceData> [0..],
    }
    TopicProduceData {
        name: String [0..=12] or refuse,
        topic_id: TopicId [13..],
        partition_data: Vec<PartitionProduceData> [0..],
    }
    PartitionProduceData {
        index: i32 [0..],
        records: Option<Bytes> [0..],
    }
    ProduceResponse {
        responses: Vec<TopicProduceResponse> [0..],
        throttle_time_ms: i32 [1..],
        + tagged {
            0 => node_endpoints: Vec<NodeEndpoint> [10..],
        }
    }
    TopicProduceResponse {
        name: String [0..=12],
        topic_id: TopicId [13..],
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }
    PartitionProduceResponse {
        index: i32 [0..],
        error_code: i16 [0..],
        base_offset: i64 [0..],
        log_append_time_ms: i64 [2..] = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<BatchIndexAndErrorMessage> [8..],
        error_message: Option<String> [8..],
        + tagged {
            0 => current_leader: LeaderIdAndEpoch [10..],
        }
    }
    BatchIndexAndErrorMessage {
        batch_index: i32 [8..],
        batch_index_error_message: Option<String> [8..],
    }
    LeaderIdAndEpoch {
        leader_id: i32 [10..] = -1,
        leader_epoch: i32 [10..] = -1,
    }
    NodeEndpoint {
        node_id: i32 [10..],
        host: String [10..],
        port: i32 [10..],
        rack: Option<String> [10..],
    }
}
