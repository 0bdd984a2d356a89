//! ConsumerGroupHeartbeat (key 68): joins, keeps up and leaves a group of the consumer protocol (KIP-848).

use crate::protocol::wire::schema::structs;
use crate::types::TopicId;

structs! {
    ConsumerGroupHeartbeatRequest {
        group_id: String [0..],
        member_id: String [0..],
        member_epoch: i32 [0..],
        instance_id: Option<String> [0..],
        rack_id: Option<String> [0..],
        rebalance_timeout_ms: i32 [0..] = -1,
        subscribed_topic_names: Option<Vec<String>> [0..],
        subscribed_topic_regex: Option<String> [1..] or refuse,
        server_assignor: Option<String> [0..],
        topic_partitions: Option<Vec<TopicPartitions>> [0..],
    }
    TopicPartitions {
        topic_id: TopicId [0..],
        partitions: Vec<i32> [0..],
    }
    ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        member_id: Option<String> [0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Option<Assignment> [0..],
    }
    Assignment {
        topic_partitions: Vec<TopicPartitions> [0..],
    }
}
