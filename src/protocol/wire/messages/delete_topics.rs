//! DeleteTopics (key 20): deletes topics.

use crate::protocol::wire::schema::structs;
use crate::types::TopicId;

structs! {
    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..] or refuse,
        topic_names: Vec<String> [0..=5],
        timeout_ms: i32 [0..],
    }
    DeleteTopicState {
        name: Option<String> [6..] or refuse,
        topic_id: TopicId [6..] or refuse,
    }
    DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }
    DeletableTopicResult {
        name: Option<String> [0..] null [6..],
        topic_id: TopicId [6..],
        error_code: i16 [0..],
        error_message: Option<String> [5..],
    }
}
