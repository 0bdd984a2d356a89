//! InitProducerId (key 22): gives a producer its identity, and fences earlier holders of a transactional id.

use crate::protocol::wire::schema::structs;

structs! {
    InitProducerIdRequest {
        transactional_id: Option<String> [0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..] or refuse = -1,
        producer_epoch: i16 [3..] or refuse = -1,
    }
    InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        producer_id: i64 [0..] = -1,
        producer_epoch: i16 [0..],
    }
}
