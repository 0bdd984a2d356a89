//! AddOffsetsToTxn (key 25): adds a group to a transaction (before transactions v2).

use crate::protocol::wire::schema::structs;

structs! {
    AddOffsetsToTxnRequest {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        group_id: String [0..],
    }
    AddOffsetsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
    }
}
