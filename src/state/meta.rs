//! `meta.json` of a job's state: what it was written by, so that a change that would misread or orphan it is refused.
//!
//! ```json
//! { "format": 2, "state_partitions": 64, "topology": "…",
//!   "stores": { "counts": { "codec": 1, "key": "text", "value": "u64", "changelog": "AAAAAAAAAAAAAAAAAAAAAQ" } } }
//! ```
//!
//! Format 1 had no types: they are taken from the first job that opens it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{StateConfig, StoreDeclaration};
use super::error::StateError;
use crate::codec::{CodecId, Misread, Schema, TypeIdentity, first_version, is_first};

/// The format that this version writes.
const FORMAT: u32 = 2;
/// More than a thousand stores with long names.
pub(super) const META_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u32,
    pub(super) state_partitions: u16,
    /// The topology's fingerprint: it may change, as long as the stores stay; kept for people.
    topology: String,
    pub(super) stores: BTreeMap<String, StoreMeta>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreMeta {
    pub(super) codec: CodecId,
    /// The types of keys and values; unknown in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<TypeIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<TypeIdentity>,
    /// The version of the values.
    #[serde(default = "first_version", skip_serializing_if = "is_first")]
    pub(super) value_version: u8,
    /// The types of values of earlier versions, of which there may be some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) earlier: BTreeMap<u8, TypeIdentity>,
    /// The topic id of the changelog, as text.
    pub(super) changelog: String,
}

impl Meta {
    pub(super) fn of(config: &StateConfig) -> Self {
        let stores = config.stores.iter().map(|store| {
            let meta = StoreMeta {
                codec: store.schema.codec,
                key: Some(store.schema.key.clone()),
                value: Some(store.schema.value.clone()),
                value_version: store.schema.value_version,
                earlier: store.schema.earlier.clone(),
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

    /// The same, where values that `stored` describes are still there.
    pub(super) fn after(mut self, stored: &Self) -> Self {
        for (name, store) in &mut self.stores {
            if let Some(stored) = stored.stores.get(name) {
                let version = store.value_version;
                let earlier = stored.earlier.clone().into_iter();
                let last = stored.value.clone().map(|it| (stored.value_version, it));
                store.earlier = earlier.chain(last).filter(|it| it.0 != version).collect();
            }
        }
        self
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
        if self.state_partitions != config.state_partitions && self.is_of_other_topics(config) {
            let (is, was) = (config.state_partitions, self.state_partitions);
            return Ok(Some(format!(
                "it is cut into {was} parts, and all its changelogs are other topics now, of {is}"
            )));
        }
        self.check_partitions(config, path)?;
        let mut why = None;
        for (name, stored) in &self.stores {
            let Some(declared) = self.declared(name, config)? else {
                continue;
            };
            if declared.changelog.to_string() != stored.changelog {
                // An entry that was written into another topic binds nobody.
                why.get_or_insert_with(|| {
                    format!("the changelog of store {name:?} is another topic")
                });
                continue;
            }
            if stored.value_version > declared.schema.value_version {
                // The log was asked before: a restore took it back to an earlier version.
                why.get_or_insert_with(|| {
                    format!(
                        "the store {name:?} has values of version {}, and the log of version {}",
                        stored.value_version, declared.schema.value_version
                    )
                });
                continue;
            }
            if stored.codec.are_told_apart() != declared.schema.codec.are_told_apart() {
                // The log knows which it is. Nothing was committed since this was written, or a savepoint was restored.
                why.get_or_insert_with(|| {
                    format!("the store {name:?} has another form of its values than the log")
                });
                continue;
            }
            stored.check_schema(name, &declared.schema, config)?;
        }
        Ok(why)
    }

    /// Refuses what cannot be read as it is, whichever topics the changelogs are.
    pub(super) fn check_types(&self, config: &StateConfig, path: &Path) -> Result<(), StateError> {
        self.check_partitions(config, path)?;
        for (name, stored) in &self.stores {
            if let Some(declared) = self.declared(name, config)? {
                stored.check_schema(name, &declared.schema, config)?;
            }
        }
        Ok(())
    }

    /// Whether the job has all its stores, and the changelog of each is another topic now.
    fn is_of_other_topics(&self, config: &StateConfig) -> bool {
        !self.stores.is_empty()
            && self.stores.iter().all(|(name, stored)| {
                let mut declared = config.stores.iter();
                let declared = declared.find(|store| store.name == *name);
                declared.is_some_and(|it| it.changelog.to_string() != stored.changelog)
            })
    }

    fn check_partitions(&self, config: &StateConfig, path: &Path) -> Result<(), StateError> {
        match self.state_partitions == config.state_partitions {
            true => Ok(()),
            false => Err(StateError::StatePartitionsChanged {
                path: path.to_owned(),
                stored: self.state_partitions,
                asked: config.state_partitions,
            }),
        }
    }

    /// The store of that name as the job has it now; `None` if the job gives it up.
    fn declared<'c>(
        &self,
        name: &str,
        config: &'c StateConfig,
    ) -> Result<Option<&'c StoreDeclaration>, StateError> {
        let declared = config.stores.iter().find(|store| store.name == name);
        if declared.is_none() && !config.dropped_stores.iter().any(|it| it == name) {
            return Err(StateError::StoreMissing {
                store: name.to_owned(),
                stored: self.stores.keys().cloned().collect(),
                declared: Self::of(config).stores.into_keys().collect(),
            });
        }
        Ok(declared)
    }
}

impl StoreMeta {
    fn check_schema(
        &self,
        store: &str,
        asked: &Schema,
        config: &StateConfig,
    ) -> Result<(), StateError> {
        if self.codec.of_values() != asked.codec.of_values() {
            return Err(StateError::CodecChanged {
                store: store.to_owned(),
                stored: self.codec,
                asked: asked.codec,
            });
        }
        match self.schema(asked).misread(asked) {
            Some(why)
                if !matches!(why, Misread::Type(_))
                    || !config.retyped_stores.iter().any(|it| it == store) =>
            {
                Err(StateError::misread(store, why))
            }
            _ => Ok(()),
        }
    }

    /// The schema; types that are not known are those of `asked`.
    fn schema(&self, asked: &Schema) -> Schema {
        Schema {
            codec: self.codec,
            key: self.key.clone().unwrap_or_else(|| asked.key.clone()),
            value: self.value.clone().unwrap_or_else(|| asked.value.clone()),
            value_version: self.value_version,
            earlier: self.earlier.clone(),
        }
    }
}
