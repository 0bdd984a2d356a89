//! ApiVersions (key 18): says which requests, versions and features a broker knows.

use crate::protocol::wire::schema::structs;

structs! {
    ApiVersionsRequest {
        client_software_name: String [3..],
        client_software_version: String [3..],
    }
    ApiVersionsResponse {
        error_code: i16 [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..],
        + tagged {
            0 => supported_features: Vec<SupportedFeatureKey> [3..],
            1 => finalized_features_epoch: i64 [3..] = -1,
            2 => finalized_features: Vec<FinalizedFeatureKey> [3..],
            3 => zk_migration_ready: bool [3..],
        }
    }
    ApiVersion {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }
    SupportedFeatureKey {
        name: String [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }
    FinalizedFeatureKey {
        name: String [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
}
