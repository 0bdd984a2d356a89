//! ApiVersions: which requests, versions and features this broker knows.

use super::super::dispatch::Call;
use super::super::handler::Answer;
use super::NONE;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::protocol::wire::{ApiKey, encode_response};

/// Features that are switched on: groups of the consumer protocol (KIP-848), and transactions that end with a new
/// epoch (KIP-890).
const FEATURES: [(&str, i16); 2] = [("group.version", 1), ("transaction.version", 2)];
/// The lowest level of a feature that is offered. Kafka's is 0, which clients before version 4 take for an error.
const FEATURE_LEVEL_MIN: i16 = 1;
/// From this version on clients say who they are.
const NAMED_CLIENTS_FROM: i16 = 3;

pub(in crate::server) fn api_versions(
    call: &Call<'_>,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let is_named = call.version() < NAMED_CLIENTS_FROM
        || is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version);
    match is_named {
        true => known(),
        false => ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        },
    }
}

/// The answer to a version that we don't know: in version 0, which every client reads, with what we know (KIP-511).
pub(in crate::server) fn unsupported(call: &Call<'_>) -> Answer {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        ..known()
    };
    let frame = encode_response::<ApiVersionsRequest>(0, call.header.correlation_id, &response);
    match frame {
        Ok(frame) => Ok(Some(frame.chunks.into())),
        Err(error) => Err(super::super::handler::Malformed(error.to_string())),
    }
}

fn known() -> ApiVersionsResponse {
    let api_keys = ApiKey::ALL.iter().map(|api| ApiVersion {
        api_key: api.key(),
        min_version: *api.served().start(),
        max_version: *api.served().end(),
    });
    let supported = FEATURES.iter().map(|(name, level)| SupportedFeatureKey {
        name: (*name).to_owned(),
        min_version: FEATURE_LEVEL_MIN,
        max_version: *level,
    });
    let finalized = FEATURES.iter().map(|(name, level)| FinalizedFeatureKey {
        name: (*name).to_owned(),
        max_version_level: *level,
        min_version_level: *level,
    });
    ApiVersionsResponse {
        error_code: NONE,
        api_keys: api_keys.collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: 1,
        finalized_features: finalized.collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Letters and digits, with `-` and `.` between them (KIP-511).
fn is_software_name(name: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let is_outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_outer(bytes.first()) && is_outer(bytes.last()) && bytes.iter().all(|b| is_inner(*b))
}
