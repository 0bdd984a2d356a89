//! `meta.json` of a job's state: what it was written by, so that a change that would misread or orphan it is refused.
//!
//! ```json
//! { "format": 1, "state_partitions": 64, "topology": "…",
//!   "stores": { "counts": { "codec": 1, "changelog": "AAAAAAAAAAAAAAAAAAAAAQ" } } }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::StateConfig;
use super::error::StateError;
use crate::codec::CodecId;

/// The format that this version writes.
const FORMAT: u32 = 1;
/// More than a thousand stores with long names.
pub(super) const META_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u32,
    state_partitions: u16,
    /// The topology's fingerprint: it may change, as long as the stores stay; kept for people.
    topology: String,
    stores: BTreeMap<String, StoreMeta>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoreMeta {
    codec: CodecId,
    /// The topic id of the changelog, as text.
    changelog: String,
}

impl Meta {
    pub(super) fn of(config: &StateConfig) -> Self {
        let stores = config.stores.iter().map(|store| {
            let meta = StoreMeta {
                codec: store.codec,
                changelog: store.changelog.to_string(),
            };
            (store.name.clone(), meta)
        });
        Self {
            format: FORMAT,
            state_partitions: config.state_partitions,
            topology: config.topology.clone(),
            stores: stores.collect(),
        }
    }

    /// `None` if the bytes are not a `meta.json`: then nothing is known of the state, and it is rebuilt.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Option<Self>, StateError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        match serde_json::from_slice::<FormatOnly>(bytes) {
            Ok(FormatOnly { format: found }) if found > FORMAT => Err(StateError::NewerFormat {
                path: path.to_owned(),
                found,
                supported: FORMAT,
            }),
            _ => Ok(serde_json::from_slice(bytes).ok()),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Refuses what cannot be read as it is; returns why it must be rebuilt, if it must.
    pub(super) fn check(
        &self,
        config: &StateConfig,
        path: &Path,
    ) -> Result<Option<String>, StateError> {
        if self.state_partitions != config.state_partitions {
            return Err(StateError::StatePartitionsChanged {
                path: path.to_owned(),
                stored: self.state_partitions,
                asked: config.state_partitions,
            });
        }
        let asked = Self::of(config);
        for (name, stored) in &self.stores {
            match asked.stores.get(name) {
                Some(asked) if asked.codec != stored.codec => {
                    return Err(StateError::CodecChanged {
                        store: name.clone(),
                        stored: stored.codec,
                        asked: asked.codec,
                    });
                }
                Some(asked) if asked.changelog != stored.changelog => {
                    return Ok(Some(format!(
                        "the changelog of store {name:?} is another topic"
                    )));
                }
                None if !config.dropped_stores.contains(name) => {
                    return Err(StateError::StoreMissing {
                        store: name.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
