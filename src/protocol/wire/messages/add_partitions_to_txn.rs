//! AddPartitionsToTxn (key 24): adds partitions to a transaction (before transactions v2).

use crate::protocol::wire::schema::structs;

structs! {
    AddPartitionsToTxnTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }
    AddPartitionsToTxnRequest {
        transactional_id: String [0..=3],
        producer_id: i64 [0..=3],
        producer_epoch: i16 [0..=3],
        topics: Vec<AddPartitionsToTxnTopic> [0..=3],
    }
    AddPartitionsToTxnTopicResult {
        name: String [0..],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0..],
    }
    AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0..],
        partition_error_code: i16 [0..],
    }
    AddPartitionsToTxnResponse {
        throttle_time_ms: i32 [0..],
        results_by_topic: Vec<AddPartitionsToTxnTopicResult> [0..=3],
    }
}
