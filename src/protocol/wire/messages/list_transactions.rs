//! ListTransactions (key 66): lists transactional ids.

use crate::protocol::wire::schema::structs;

structs! {
    ListTransactionsRequest {
        state_filters: Vec<String> [0..],
        producer_id_filters: Vec<i64> [0..],
        duration_filter: i64 [1..] or refuse = -1,
        transactional_id_pattern: Option<String> [2..] or refuse,
    }
    ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        unknown_state_filters: Vec<String> [0..],
        transaction_states: Vec<TransactionState> [0..],
    }
    TransactionState {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        transaction_state: String [0..],
    }
}
