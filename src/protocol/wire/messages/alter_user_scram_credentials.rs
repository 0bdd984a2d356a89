//! AlterUserScramCredentials (key 51): sets and deletes users' SCRAM credentials.

use bytes::Bytes;

use crate::protocol::wire::schema::structs;

structs! {
    AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion> [0..],
        upsertions: Vec<ScramCredentialUpsertion> [0..],
    }
    ScramCredentialDeletion {
        name: String [0..],
        mechanism: i8 [0..],
    }
    ScramCredentialUpsertion {
        name: String [0..],
        mechanism: i8 [0..],
        iterations: i32 [0..],
        salt: Bytes [0..],
        salted_password: Bytes [0..],
    }
    AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterUserScramCredentialsResult> [0..],
    }
    AlterUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
}
