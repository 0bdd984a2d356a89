//! Metadata (key 3): names the brokers, the topics and who leads each partition.

use crate::protocol::wire::schema::structs;
use crate::types::TopicId;

structs! {
    MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [0..] null [1..],
        allow_auto_topic_creation: bool [4..] or refuse = true,
        include_cluster_authorized_operations: bool [8..=10] or refuse,
        include_topic_authorized_operations: bool [8..] or refuse,
    }
    MetadataRequestTopic {
        topic_id: TopicId [10..],
        name: Option<String> [0..] null [10..],
    }
    MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<String> [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error_code: i16 [13..],
    }
    MetadataResponseBroker {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [1..],
    }
    MetadataResponseTopic {
        error_code: i16 [0..],
        name: Option<String> [0..] null [12..],
        topic_id: TopicId [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }
    MetadataResponsePartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..] = -1,
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
}
