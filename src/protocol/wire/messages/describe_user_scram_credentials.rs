//! DescribeUserScramCredentials (key 50): shows which SCRAM credentials users have.

use crate::protocol::wire::schema::structs;

structs! {
    DescribeUserScramCredentialsRequest {
        users: Option<Vec<UserName>> [0..],
    }
    UserName {
        name: String [0..],
    }
    DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        results: Vec<DescribeUserScramCredentialsResult> [0..],
    }
    DescribeUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        credential_infos: Vec<CredentialInfo> [0..],
    }
    CredentialInfo {
        mechanism: i8 [0..],
        iterations: i32 [0..],
    }
}
