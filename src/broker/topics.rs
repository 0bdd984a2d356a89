//! The list of topics, as it stands in `topics.json`.
use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::BrokerError;
use crate::types::ClusterId;

/// The content of `topics.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicList {
    /// The data directory that the list belongs to.
    pub(super) cluster_id: String,
    /// By name.
    pub(super) topics: BTreeMap<String, TopicEntry>,
}

/// One topic of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicEntry {
    /// The topic's id, as Kafka prints it.
    pub(super) id: String,
    /// Partitions that exist for readers and writers.
    pub(super) partitions_count: i32,
    /// What an unfinished creation was to reach; its directories are taken back when the broker opens.
    pub(super) growing_to: Option<i32>,
    /// Whether its directories are being removed; the removal is finished when the broker opens.
    pub(super) is_deleting: bool,
    /// Settings that somebody set.
    pub(super) configs: BTreeMap<String, String>,
}

impl TopicList {
    pub(super) fn new(cluster_id: ClusterId) -> Self {
        Self {
            cluster_id: cluster_id.to_string(),
            topics: BTreeMap::new(),
        }
    }

    /// Refuses a list that was copied from another data directory (F23).
    pub(super) fn check(&self, cluster_id: ClusterId, path: &Path) -> Result<(), BrokerError> {
        if self.cluster_id == cluster_id.to_string() {
            return Ok(());
        }
        Err(BrokerError::corrupt(format!(
            "{} belongs to the data directory with cluster id {}, not to this one with {cluster_id}: put the right file back",
            path.display(),
            self.cluster_id
        )))
    }
}
