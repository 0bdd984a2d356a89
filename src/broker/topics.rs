//! The topics: the list in `topics.json`, which decides what exists, and the open partitions.
//!
//! A change that takes several steps on disk is announced in the list first and confirmed in it last:
//!
//! ```text
//! create, grow:  list says `growing_to`  →  directories made  →  list says `partitions_count`
//! delete:        list says `is_deleting` →  directories renamed to `<id>-<partition>-delete` and removed  →  gone from the list
//! ```
//! A crash in between is undone (create, grow) or finished (delete) at the next open. Directories that the list does
//! not know are never touched.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::configs::Configs;
use super::partition::Partition;
use crate::protocol::ErrorCode;
use crate::protocol::messages::TopicMetadata;
use crate::types::{ClusterId, PartitionIndex, TopicId, TopicName, TopicPartition};

/// The content of `topics.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicList {
    /// The data directory that the list belongs to.
    pub(super) cluster_id: String,
    /// By name.
    pub(super) topics: BTreeMap<String, TopicEntry>,
}

/// One topic of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicEntry {
    /// The topic's id, as Kafka prints it.
    pub(super) id: String,
    /// Partitions that exist for readers and writers; 0 for a topic whose creation was not finished.
    pub(super) partitions_count: i32,
    /// Target of an unfinished creation or growth.
    pub(super) growing_to: Option<i32>,
    /// Whether its directories are being removed.
    pub(super) is_deleting: bool,
    /// Settings that somebody set.
    pub(super) configs: Configs,
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

impl TopicEntry {
    /// The topic's id.
    pub(super) fn topic_id(&self, name: &str) -> Result<TopicId, BrokerError> {
        self.id.parse().map_err(|_| {
            BrokerError::corrupt(format!(
                "topics.json holds {:?} as the id of topic {name}: restore the file from a backup",
                self.id
            ))
        })
    }
}

/// An open topic. It is replaced, not changed, when the topic changes.
#[derive(Clone)]
pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) id: TopicId,
    pub(super) partitions: Vec<Arc<Partition>>,
    pub(super) configs: Configs,
}

impl Topic {
    pub(super) fn metadata(&self) -> TopicMetadata {
        TopicMetadata {
            name: self.name.clone(),
            id: self.id,
            // Bounded by PARTITIONS_COUNT_MAX.
            partitions_count: i32::try_from(self.partitions.len()).unwrap_or(i32::MAX),
            is_internal: self.name.is_internal(),
        }
    }

    pub(super) fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics of a broker.
pub(super) struct Topics {
    /// As it stands on disk. Held during a change: changes follow one another.
    list: Mutex<TopicList>,
    open: RwLock<Open>,
}

/// The open topics, found by either of their identities.
#[derive(Default)]
struct Open {
    by_name: HashMap<TopicName, Arc<Topic>>,
    /// The same ones.
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl Open {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, topic.clone());
        let before = self.by_name.insert(topic.name.clone(), topic.clone());
        // A topic that was made anew under its name has another id.
        if let Some(before) = before.filter(|before| before.id != topic.id) {
            self.by_id.remove(&before.id);
        }
    }

    fn remove(&mut self, name: &TopicName) -> Option<Arc<Topic>> {
        let topic = self.by_name.remove(name)?;
        self.by_id.remove(&topic.id);
        Some(topic)
    }
}

impl Topics {
    pub(super) fn new(list: TopicList, topics: Vec<Topic>) -> Self {
        let mut open = Open::default();
        for topic in topics {
            open.insert(Arc::new(topic));
        }
        Self {
            list: Mutex::new(list),
            open: RwLock::new(open),
        }
    }

    /// Locks the list for a change.
    pub(super) fn lock_list(&self) -> MutexGuard<'_, TopicList> {
        self.list.lock()
    }

    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(super) fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        let found = self.open.read().by_name.get(name).cloned();
        found.ok_or_else(|| unknown_topic(name))
    }

    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(super) fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>, BrokerError> {
        let open = self.open.read();
        let topic = open
            .by_name
            .get(&name.topic)
            .ok_or_else(|| unknown_topic(&name.topic))?;
        let partition = topic.partition(name.partition);
        partition.cloned().ok_or_else(|| {
            let count = topic.partitions.len();
            BrokerError::new(
                ErrorCode::UnknownTopicOrPartition,
                format!(
                    "topic {} has {count} partitions, numbered from 0: there is no partition {}",
                    name.topic, name.partition
                ),
            )
        })
    }

    /// The topic of that identity.
    pub(super) fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.open.read().by_id.get(&id).cloned()
    }

    /// Every topic, by name.
    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.open.read().by_name.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// Every partition of every topic, by name.
    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        let topics = self.all();
        topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().cloned())
            .collect()
    }

    /// Shows a new or changed topic.
    pub(super) fn insert(&self, topic: Topic) {
        self.open.write().insert(Arc::new(topic));
    }

    /// Hides a topic.
    pub(super) fn remove(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.open.write().remove(name)
    }

    /// Wakes every waiting reader.
    pub(super) fn wake_all(&self) {
        for partition in self.partitions() {
            partition.wake_all();
        }
    }
}

fn unknown_topic(name: &TopicName) -> BrokerError {
    BrokerError::new(
        ErrorCode::UnknownTopicOrPartition,
        format!("there is no topic {name}: create it first, or correct the name"),
    )
}
