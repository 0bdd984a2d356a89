//! `Partitioner`: which partition a record without an explicit one goes to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::Random;
use crate::protocol::partition_for_key;
use crate::types::{PartitionIndex, TopicName};

/// Input of a partitioner.
#[derive(Debug, Clone, Copy)]
pub struct Partitioning<'a> {
    /// The topic.
    pub topic: &'a TopicName,
    /// The encoded key.
    pub key: Option<&'a [u8]>,
    /// The encoded value.
    pub value: Option<&'a [u8]>,
    /// The record's size in a batch, in bytes.
    pub size_bytes: usize,
    /// Number of the topic's partitions; at least 1.
    pub partitions_count: i32,
}

/// Chooses partitions. Implemented by closures too. A number outside the topic is refused by `send`.
pub trait Partitioner: Send + Sync + 'static {
    /// The partition of a record.
    fn partition(&self, record: &Partitioning<'_>) -> PartitionIndex;
}

impl<F> Partitioner for F
where
    F: Fn(&Partitioning<'_>) -> PartitionIndex + Send + Sync + 'static,
{
    fn partition(&self, record: &Partitioning<'_>) -> PartitionIndex {
        self(record)
    }
}

/// The default: records with a key go where the Java client's murmur2 sends them; those without
/// stick to a random partition until `batch.size` bytes went there (KIP-794), so that batches fill up.
pub struct DefaultPartitioner {
    random: Arc<dyn Random>,
    stick_bytes: usize,
    sticky: Mutex<HashMap<TopicName, Sticky>>,
}

struct Sticky {
    partition: PartitionIndex,
    bytes: usize,
}

impl DefaultPartitioner {
    /// Sticks to a partition for `stick_bytes`.
    #[must_use]
    pub fn new(random: Arc<dyn Random>, stick_bytes: usize) -> Self {
        Self {
            random,
            stick_bytes,
            sticky: Mutex::default(),
        }
    }

    fn stick(&self, record: &Partitioning<'_>) -> PartitionIndex {
        let mut sticky = self.sticky.lock();
        // A topic may have been created again with fewer partitions.
        if let Some(sticky) = sticky.get_mut(record.topic)
            && sticky.bytes < self.stick_bytes
            && sticky.partition < record.partitions_count
        {
            sticky.bytes += record.size_bytes;
            return sticky.partition;
        }
        let last = sticky.get(record.topic).map(|sticky| sticky.partition);
        let partition = self.other_than(last, record.partitions_count);
        let bytes = record.size_bytes;
        sticky.insert(record.topic.clone(), Sticky { partition, bytes });
        partition
    }

    /// A random partition, but not `last` if there is another one.
    fn other_than(&self, last: Option<PartitionIndex>, count: i32) -> PartitionIndex {
        let below = |bound: i32| {
            let drawn = self.random.below(u64::from(bound.max(1).unsigned_abs()));
            i32::try_from(drawn).unwrap_or(0)
        };
        match last {
            Some(last) if (0..count).contains(&last) && count > 1 => {
                (last + 1 + below(count - 1)) % count
            }
            _ => below(count),
        }
    }
}

impl Partitioner for DefaultPartitioner {
    fn partition(&self, record: &Partitioning<'_>) -> PartitionIndex {
        match record.key {
            Some(key) => partition_for_key(key, record.partitions_count),
            None => self.stick(record),
        }
    }
}

/// Deals records out to the partitions in turn, keys or not.
#[derive(Debug, Default)]
pub struct RoundRobinPartitioner {
    next: Mutex<HashMap<TopicName, PartitionIndex>>,
}

impl Partitioner for RoundRobinPartitioner {
    fn partition(&self, record: &Partitioning<'_>) -> PartitionIndex {
        let mut next = self.next.lock();
        let turn = match next.get_mut(record.topic) {
            Some(turn) => turn,
            None => next.entry(record.topic.clone()).or_insert(0),
        };
        let partition = *turn % record.partitions_count.max(1);
        *turn = partition + 1;
        partition
    }
}
