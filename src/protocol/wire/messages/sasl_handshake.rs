//! SaslHandshake (key 17): chooses a SASL mechanism.

use crate::protocol::wire::schema::structs;

structs! {
    SaslHandshakeRequest {
        mechanism: String [0..],
    }
    SaslHandshakeResponse {
        error_code: i16 [0..],
        mechanisms: Vec<String> [0..],
    }
}
