//! `Topics`: which topics there are, as the broker told the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::messages::TopicMetadata;
use crate::types::{PartitionIndex, TopicId, TopicName};

/// The topics, by name and by identity.
#[derive(Debug, Clone, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<TopicName, (TopicId, PartitionIndex)>,
    names: BTreeMap<TopicId, TopicName>,
    version: u64,
}

impl Topics {
    /// All topics, as they are now.
    pub(super) fn replace(&mut self, topics: Vec<TopicMetadata>) {
        let by_name = topics.iter();
        let by_name = by_name.map(|it| (it.name.clone(), (it.id, it.partitions_count)));
        self.by_name = by_name.collect();
        self.names = topics.into_iter().map(|it| (it.id, it.name)).collect();
        self.version += 1;
    }

    /// Grows with each change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A topic's identity and how many partitions it has.
    pub(super) fn find(&self, name: &TopicName) -> Option<(TopicId, PartitionIndex)> {
        self.by_name.get(name).copied()
    }

    /// The names of all topics.
    pub(super) fn names(&self) -> impl Iterator<Item = &TopicName> {
        self.by_name.keys()
    }

    /// The name of a topic.
    pub(super) fn name(&self, id: TopicId) -> Option<&TopicName> {
        self.names.get(&id)
    }

    /// A number that changes when one of these topics is created, deleted or grows; 0 if there is none.
    pub(super) fn hash(&self, topics: BTreeSet<&TopicName>) -> i64 {
        let found = topics.into_iter().filter_map(|it| self.find(it));
        let bytes = found.flat_map(|(id, count)| {
            let count = count.to_be_bytes();
            id.0.to_be_bytes().into_iter().chain(count)
        });
        fnv_1a(bytes)
    }
}

/// The 64-bit FNV-1a hash; 0 for no bytes.
fn fnv_1a(bytes: impl Iterator<Item = u8>) -> i64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    match hash {
        OFFSET_BASIS => 0,
        hash => hash.cast_signed(),
    }
}
