//! SaslAuthenticate (key 36): carries one message of a SASL conversation.

use bytes::Bytes;

use crate::protocol::wire::schema::structs;

structs! {
    SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }
    SaslAuthenticateResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..],
    }
}
