//! `Versions`: what one broker speaks, and which version of each request is sent to it.

use std::collections::HashMap;

use crate::client::ClientError;
use crate::protocol::wire::ApiKey;
use crate::protocol::wire::messages::api_versions::ApiVersionsResponse;

/// The feature level with which the cluster bumps the producer epoch at each end of a transaction (KIP-890).
const TRANSACTION_VERSION_NEEDED: i16 = 2;
/// The newest version of a request of the older transaction protocol: newer ones ask for transactions v2.
const OLDER_TRANSACTION_VERSIONS: [(ApiKey, i16); 3] = [
    (ApiKey::Produce, 11),
    (ApiKey::EndTxn, 4),
    (ApiKey::TxnOffsetCommit, 4),
];

/// The versions that a broker offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions {
    offered: HashMap<i16, (i16, i16)>,
    transaction_version: i16,
}

impl Versions {
    pub(super) fn new(response: &ApiVersionsResponse) -> Self {
        let offered = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)));
        let transaction_version = response
            .finalized_features
            .iter()
            .find(|feature| feature.name == "transaction.version")
            .map_or(0, |feature| feature.max_version_level);
        Self {
            offered: offered.collect(),
            transaction_version,
        }
    }

    /// Whether transactions v2 are in force.
    pub(super) fn has_transactions_v2(&self) -> bool {
        self.transaction_version >= TRANSACTION_VERSION_NEEDED
    }

    /// The newest version of `api` that both sides speak.
    pub(super) fn choose(&self, api: ApiKey) -> Result<i16, ClientError> {
        let (min, max) = self.offered.get(&api.key()).copied().unwrap_or((0, -1));
        api.choose(min, max)
            .ok_or_else(|| unsupported(api, min, max))
    }

    /// As [`Versions::choose`], within the older transaction protocol.
    pub(super) fn choose_older(&self, api: ApiKey) -> Result<i16, ClientError> {
        let version = self.choose(api)?;
        let bound = OLDER_TRANSACTION_VERSIONS
            .iter()
            .find(|(key, _)| *key == api);
        Ok(bound.map_or(version, |(_, bound)| version.min(*bound)))
    }
}

fn unsupported(api: ApiKey, min: i16, max: i16) -> ClientError {
    let spoken = api.spoken();
    let offered = match max < min {
        true => "the broker does not know it".to_owned(),
        false => format!("the broker offers versions {min} to {max}"),
    };
    ClientError::Refused {
        request: api.name(),
        code: crate::protocol::ErrorCode::UnsupportedVersion,
        message: format!(
            "{offered}, this client speaks {} to {}: use Kafka 4.0 or newer",
            spoken.start(),
            spoken.end()
        ),
        kind: crate::protocol::ErrorKind::Fatal,
    }
}
