//! `ConsumerRecords`: what a poll returned; keys and values are decoded when they are looked at.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::ClientError;
use crate::client::producer::serializer::Serializer;
use crate::codec::{CodecError, Datum};
use crate::protocol::batch::{Record, Records};
use crate::types::{Offset, Timestamp, TopicPartition};

/// Codecs for a consumer's keys and values.
pub(super) struct Codecs<K: ?Sized + Datum, V: ?Sized + Datum> {
    pub(super) keys: Box<dyn Serializer<K>>,
    pub(super) values: Box<dyn Serializer<V>>,
}

/// A record that shares its batch's bytes.
pub(super) struct RawRecord {
    partition: TopicPartition,
    offset: Offset,
    timestamp: Timestamp,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(Bytes, Option<Bytes>)>,
}

impl RawRecord {
    pub(super) fn new(partition: &TopicPartition, record: &Record<'_>, bytes: &Bytes) -> Self {
        let share = |part: &[u8]| bytes.slice_ref(part);
        Self {
            partition: partition.clone(),
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(share),
            value: record.value.map(share),
            headers: record
                .headers
                .raw()
                .map(|(name, value)| (share(name), value.map(share)))
                .collect(),
        }
    }

    pub(super) fn next_offset(&self) -> Offset {
        self.offset.plus(1)
    }
}

/// A batch that is being handed out, with its cursor.
pub(super) struct Cursor {
    pub(super) records: Records,
    pub(super) from: Offset,
}

/// The records of one poll, partition by partition in the order of their offsets.
///
/// They keep the fetched bytes alive; nothing is copied until it is decoded into an owned value.
pub struct ConsumerRecords<K: ?Sized + Datum, V: ?Sized + Datum> {
    records: Vec<RawRecord>,
    codecs: Arc<Codecs<K, V>>,
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> ConsumerRecords<K, V> {
    pub(super) fn new(records: Vec<RawRecord>, codecs: Arc<Codecs<K, V>>) -> Self {
        Self { records, codecs }
    }

    /// Counts them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ConsumerRecord<'_, K, V>> {
        let codecs = &*self.codecs;
        self.records
            .iter()
            .map(move |raw| ConsumerRecord { raw, codecs })
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> std::fmt::Debug for ConsumerRecords<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConsumerRecords({})", self.records.len())
    }
}

/// One record. Cheap to copy.
pub struct ConsumerRecord<'a, K: ?Sized + Datum, V: ?Sized + Datum> {
    raw: &'a RawRecord,
    codecs: &'a Codecs<K, V>,
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Copy for ConsumerRecord<'_, K, V> {}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Clone for ConsumerRecord<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, K: ?Sized + Datum, V: ?Sized + Datum> ConsumerRecord<'a, K, V> {
    /// Where it was read.
    #[must_use]
    pub fn partition(&self) -> &'a TopicPartition {
        &self.raw.partition
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.raw.offset
    }

    /// Its timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.raw.timestamp
    }

    /// Its key, borrowed from the batch where the codec can; `.map(Cow::into_owned)` to keep it.
    ///
    /// # Errors
    /// If the bytes are not a key of the codec; the record can be skipped, or read as bytes.
    pub fn key(&self) -> Result<Option<Cow<'a, K>>, ClientError> {
        let bytes = self.raw.key.as_deref();
        let key = bytes.map(|bytes| self.codecs.keys.decode(bytes));
        key.transpose().map_err(|e| self.undecodable("key", e))
    }

    /// Its value, borrowed from the batch where the codec can; `None` is a tombstone.
    ///
    /// # Errors
    /// If the bytes are not a value of the codec; the record can be skipped, or read as bytes.
    pub fn value(&self) -> Result<Option<Cow<'a, V>>, ClientError> {
        let bytes = self.raw.value.as_deref();
        let value = bytes.map(|bytes| self.codecs.values.decode(bytes));
        value.transpose().map_err(|e| self.undecodable("value", e))
    }

    /// The key's bytes.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&'a Bytes> {
        self.raw.key.as_ref()
    }

    /// The value's bytes.
    #[must_use]
    pub fn value_bytes(&self) -> Option<&'a Bytes> {
        self.raw.value.as_ref()
    }

    /// The headers in order.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'a, str>, Option<&'a [u8]>)> {
        self.raw.headers.iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name);
            (name, value.as_deref())
        })
    }

    fn undecodable(&self, part: &'static str, source: CodecError) -> ClientError {
        ClientError::Codec {
            part,
            place: format!("{} at offset {}", self.raw.partition, self.raw.offset),
            source,
        }
    }
}
