//! A record on its way through a job: key, value, and where it came from.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::codec::{Codec, CodecError, Datum};
use crate::protocol::batch::Headers;
use crate::state::HashedKey;
use crate::types::{Offset, Timestamp};

/// The key type of streams that have no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkeyed {}

/// Where a record entered the job, kept through every step so that a failure can name its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The number of the split (topic partition, file, …) among all splits of the job.
    pub split: u32,
    /// The offset within the split: a record's number, or a line's first byte.
    pub offset: Offset,
}

impl Origin {
    /// The origin of what is pushed because time went on: no single record is its cause.
    pub const TIME: Self = Self {
        split: u32::MAX,
        offset: Offset::ZERO,
    };
}

/// The runtime's knowledge of a record besides its value. Stateless steps hand it on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The record's event time; [`Timestamp::NONE`] if its source knows none. It is the same whenever the record is read again.
    pub timestamp: Timestamp,
    /// Where it came from.
    pub origin: Origin,
}

/// A key, as the bytes that its codec gives. It is encoded once, where the stream is keyed; the same
/// bytes are the key in the shuffle, in the state store, in its changelog and in an output topic.
#[derive(Debug)]
pub struct Key<'a, K: ?Sized> {
    bytes: &'a [u8],
    partition_hash: u32,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized> Clone for Key<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized> Copy for Key<'_, K> {}

impl<'a, K: ?Sized> Key<'a, K> {
    /// A key of these bytes, whose hash is not known yet.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            partition_hash: crate::protocol::murmur2(bytes),
            key: PhantomData,
        }
    }

    /// A key whose [`partition_hash`](Self::partition_hash) is known: that of the key that it was made of, for example.
    #[must_use]
    #[inline]
    pub fn with_hash(bytes: &'a [u8], partition_hash: u32) -> Self {
        Self {
            bytes,
            partition_hash,
            key: PhantomData,
        }
    }

    /// The encoded key.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// murmur2 of the bytes: the hash by which Kafka's default partitioner places keys.
    #[must_use]
    #[inline]
    pub fn partition_hash(&self) -> u32 {
        self.partition_hash
    }

    /// The key as a state store wants it.
    #[must_use]
    #[inline]
    pub(crate) fn hashed(&self) -> HashedKey<'a> {
        HashedKey::with_partition_hash(self.bytes, self.partition_hash)
    }

    /// The partition of this key among `count` partitions, as the Java client's default partitioner chooses it.
    #[must_use]
    #[inline]
    pub fn partition(&self, count: u32) -> u32 {
        (self.partition_hash & 0x7fff_ffff) % count
    }
}

impl<'a> Key<'a, Unkeyed> {
    /// The absent key.
    #[must_use]
    #[inline]
    pub fn none() -> Self {
        Self {
            bytes: &[],
            partition_hash: 0,
            key: PhantomData,
        }
    }
}

impl<'a, K: Datum + ?Sized> Key<'a, K> {
    /// The key itself; borrowed where its codec allows.
    ///
    /// # Errors
    /// If the bytes are not a key of this type.
    pub fn decode(&self) -> Result<Cow<'a, K>, CodecError> {
        K::DefaultCodec::default().decode(self.bytes)
    }
}

/// One record, borrowed from the batch that it travels in.
#[derive(Debug)]
pub struct Record<'a, K: ?Sized, V: ?Sized> {
    /// Its key.
    pub key: Key<'a, K>,
    /// Its value.
    pub value: &'a V,
    /// Its time and origin.
    pub meta: Meta,
    /// The headers of the topic's record that it began as, or those that a step gave it. Steps hand them on; a topic gets them
    /// if its sink says so (`Topic::keep_headers`).
    pub headers: Headers<'a>,
}

impl<K: ?Sized, V: ?Sized> Clone for Record<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized, V: ?Sized> Copy for Record<'_, K, V> {}

impl<'a, K: ?Sized, V: ?Sized> Record<'a, K, V> {
    /// A record without headers.
    #[must_use]
    #[inline]
    pub fn new(key: Key<'a, K>, value: &'a V, meta: Meta) -> Self {
        Self {
            key,
            value,
            meta,
            headers: Headers::NONE,
        }
    }

    /// A record that no other one caused but time, such as what a timer gives.
    #[must_use]
    pub fn at(key: Key<'a, K>, value: &'a V, timestamp: Timestamp) -> Self {
        let origin = Origin::TIME;
        Self::new(key, value, Meta { timestamp, origin })
    }

    /// The same record with another value.
    #[must_use]
    #[inline]
    pub fn with_value<'b, U: ?Sized>(self, value: &'b U) -> Record<'b, K, U>
    where
        'a: 'b,
    {
        Record {
            key: Key::with_hash(self.key.bytes, self.key.partition_hash),
            value,
            meta: self.meta,
            headers: self.headers,
        }
    }

    /// The same record with another key.
    #[must_use]
    #[inline]
    pub fn with_key<'b, J: ?Sized>(self, key: Key<'b, J>) -> Record<'b, J, V>
    where
        'a: 'b,
    {
        Record {
            key,
            value: self.value,
            meta: self.meta,
            headers: self.headers,
        }
    }

    /// The same record with other headers.
    #[must_use]
    #[inline]
    pub fn with_headers<'b>(self, headers: Headers<'b>) -> Record<'b, K, V>
    where
        'a: 'b,
    {
        Record {
            key: Key::with_hash(self.key.bytes, self.key.partition_hash),
            value: self.value,
            meta: self.meta,
            headers,
        }
    }
}
