//! `ProducerRecord`: what is sent; `RecordMetadata`: where it ended up.

use std::borrow::Cow;

use crate::types::{Offset, PartitionIndex, Timestamp, TopicName, TopicPartition};

/// A header's name and value.
pub type RecordHeader<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// A record to be sent. Keys and values are borrowed: nothing is cloned before it is encoded.
///
/// ```
/// # use onceflow::client::producer::ProducerRecord;
/// # use onceflow::types::TopicName;
/// let topic = TopicName::new("orders")?;
/// let record: ProducerRecord<'_, str, u64> =
///     ProducerRecord::new(&topic).key("tea").value(&3).header("source", b"shop");
/// # Ok::<(), onceflow::types::NameError>(())
/// ```
pub struct ProducerRecord<'a, K: ?Sized + ToOwned, V: ?Sized + ToOwned> {
    /// The topic.
    pub topic: TopicName,
    /// The partition; the partitioner chooses if `None`.
    pub partition: Option<PartitionIndex>,
    /// The timestamp; the time of the `send` if `None`.
    pub timestamp: Option<Timestamp>,
    /// The key.
    pub key: Option<Cow<'a, K>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Cow<'a, V>>,
    /// Headers, in order; names may repeat.
    pub headers: Vec<RecordHeader<'a>>,
}

impl<'a, K: ?Sized + ToOwned, V: ?Sized + ToOwned> ProducerRecord<'a, K, V> {
    /// A record for `topic`, yet without key and value.
    #[must_use]
    pub fn new(topic: &TopicName) -> Self {
        Self {
            topic: topic.clone(),
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: &'a K) -> Self {
        self.key = Some(Cow::Borrowed(key));
        self
    }

    /// With this value.
    #[must_use]
    pub fn value(mut self, value: &'a V) -> Self {
        self.value = Some(Cow::Borrowed(value));
        self
    }

    /// For this partition, whatever the partitioner would say.
    #[must_use]
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a [u8]) -> Self {
        let value = Some(Cow::Borrowed(value));
        self.headers.push((Cow::Borrowed(name), value));
        self
    }
}

/// Where a record ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset; `None` with `acks=0`, where nobody knows.
    pub offset: Option<Offset>,
    /// The record's timestamp in the log.
    pub timestamp: Timestamp,
    /// The encoded key's length in bytes.
    pub key_bytes: Option<usize>,
    /// The encoded value's length in bytes.
    pub value_bytes: Option<usize>,
}
