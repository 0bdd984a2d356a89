//! Builds record batches: the hot path of every sink.

use bytes::BytesMut;

use super::built::{BuiltBatch, RecordTraits};
use super::writer::{Parts, RecordWriter, SLACK_BYTES, headers_size_bytes};
use super::{Attributes, Compression, HEADER_BYTES, Header, Headers};
use crate::types::{Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp};

/// The largest batch that can be built, uncompressed and in bytes; lengths are 32-bit in the format.
pub const BATCH_BYTES_MAX: usize = 1 << 30;
/// The first buffer's size, in bytes, when nothing better is known.
const FIRST_CAPACITY_BYTES: usize = 4096;

/// Who a batch is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchProducer {
    /// Nobody in particular: a lost acknowledgement and a retry make a duplicate.
    Plain,
    /// A producer whose batches are numbered, from the sequence of the first record on.
    Idempotent(ProducerIdentity, Sequence),
    /// The same inside its open transaction. Coordinators' offset commits have no sequence.
    Transactional(ProducerIdentity, Sequence),
}

/// Builds one batch after the other.
///
/// A record is written straight to where it stays, so that a push costs about a copy of its bytes. The
/// buffer is handed over with the batch; the next one is as large as the last batch was.
///
/// ```
/// use onceflow::internals::protocol::batch::{Batch, BatchBuilder, BatchProducer, Compression, DecompressionLimit};
/// use onceflow::types::Timestamp;
///
/// let mut builder = BatchBuilder::new(Compression::Lz4, None);
/// builder.push(Timestamp(7), Some(b"tea"), Some(b"hot"));
/// let batch = Batch::parse(builder.finish(BatchProducer::Plain).freeze())?;
/// batch.check_crc()?;
/// let mut records = batch.records(&DecompressionLimit::default())?;
/// while let Some(record) = records.next() {
///     assert_eq!(record?.value, Some(&b"hot"[..]));
/// }
/// # Ok::<(), onceflow::internals::protocol::batch::BatchError>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    writer: RecordWriter,
    /// First size of the next buffer.
    capacity_bytes: usize,
    records_count: i32,
    base_timestamp: Timestamp,
    traits: RecordTraits,
}

impl BatchBuilder {
    /// A builder that compresses its batches; `level` is the compression's own, `None` its default.
    /// Levels outside its range count as the nearest within.
    #[must_use]
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        Self::with_capacity(compression, level, FIRST_CAPACITY_BYTES)
    }

    /// The same, with a first buffer of `capacity_bytes`. It grows as needed, and is allocated with
    /// the first record.
    #[must_use]
    pub fn with_capacity(
        compression: Compression,
        level: Option<i32>,
        capacity_bytes: usize,
    ) -> Self {
        Self {
            compression,
            level,
            writer: RecordWriter::default(),
            capacity_bytes,
            records_count: 0,
            base_timestamp: Timestamp::NONE,
            traits: RecordTraits::of_none(),
        }
    }

    /// Adds a record without headers.
    ///
    /// # Panics
    /// If the batch would pass [`BATCH_BYTES_MAX`]: check a record's size before.
    #[inline]
    pub fn push(&mut self, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) {
        let parts = self.place(timestamp, key, value);
        self.writer.write(parts);
    }

    /// Adds a record with headers, in this order.
    ///
    /// # Panics
    /// If the batch would pass [`BATCH_BYTES_MAX`]: check a record's size before.
    pub fn push_with_headers(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let parts = self.place(timestamp, key, value);
        self.writer.write_with_headers(parts, as_bytes(headers));
    }

    /// Adds a record with the headers of another, byte for byte.
    ///
    /// # Panics
    /// If the batch would pass [`BATCH_BYTES_MAX`]: check a record's size before.
    pub fn push_with_headers_of(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        let parts = self.place(timestamp, key, value);
        self.writer.write_with_headers(parts, headers.raw());
    }

    /// Gives a record its place in the batch, which it begins if need be.
    #[inline]
    fn place<'a>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Parts<'a> {
        if self.records_count == 0 {
            self.writer.begin(self.capacity_bytes);
            self.base_timestamp = timestamp;
            self.traits = RecordTraits {
                min_timestamp: timestamp,
                max_timestamp: timestamp,
                has_keyless: false,
            };
        }
        let parts = Parts {
            // Wraps as the Java client's does: any two times have a delta.
            timestamp_delta: timestamp.0.wrapping_sub(self.base_timestamp.0),
            offset_delta: self.records_count,
            key,
            value,
        };
        self.records_count += 1;
        self.traits.max_timestamp = self.traits.max_timestamp.max(timestamp);
        self.traits.min_timestamp = self.traits.min_timestamp.min(timestamp);
        self.traits.has_keyless |= key.is_none();
        parts
    }

    /// Counts the records added.
    #[must_use]
    pub fn records_count(&self) -> i32 {
        self.records_count
    }

    /// The size of the batch so far, uncompressed, with its header, in bytes.
    #[inline]
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.writer.size_bytes().max(HEADER_BYTES)
    }

    /// [`BatchBuilder::size_bytes`] as it would be after this record.
    #[must_use]
    pub fn size_bytes_with(
        &self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> usize {
        let timestamp_delta = match self.records_count {
            0 => 0,
            _ => timestamp.0.wrapping_sub(self.base_timestamp.0),
        };
        self.size_bytes()
            + record_size_bytes(timestamp_delta, self.records_count, key, value, headers)
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// The largest timestamp; [`Timestamp::NONE`] if there is no record.
    #[must_use]
    pub fn max_timestamp(&self) -> Timestamp {
        self.traits.max_timestamp
    }

    /// Ends the batch, with base offset 0 and no leader epoch, and leaves the builder empty.
    ///
    /// # Panics
    /// If there is no record.
    #[must_use]
    pub fn finish(&mut self, producer: BatchProducer) -> BytesMut {
        let attributes = Attributes::new(self.compression);
        match producer {
            BatchProducer::Plain => {
                let nobody = ProducerIdentity {
                    id: ProducerId::NONE,
                    epoch: ProducerEpoch::NONE,
                };
                self.finish_as(attributes, nobody, Sequence::NONE)
            }
            BatchProducer::Idempotent(identity, sequence) => {
                self.finish_as(attributes, identity, sequence)
            }
            BatchProducer::Transactional(identity, sequence) => {
                self.finish_as(attributes.transactional(), identity, sequence)
            }
        }
    }

    /// As [`BatchBuilder::finish`], with the proof that the batch came from here, so that a log in this process need not
    /// look into it.
    ///
    /// # Panics
    /// If there is no record.
    #[must_use]
    pub fn build(&mut self, producer: BatchProducer) -> BuiltBatch {
        let traits = self.traits;
        BuiltBatch::new(self.finish(producer), traits)
    }

    pub(super) fn finish_as(
        &mut self,
        attributes: Attributes,
        producer: ProducerIdentity,
        base_sequence: Sequence,
    ) -> BytesMut {
        assert!(!self.is_empty(), "a batch has at least one record");
        let header = Header {
            base_offset: Offset::ZERO,
            length_bytes: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes,
            last_offset_delta: self.records_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.traits.max_timestamp,
            producer,
            base_sequence,
            records_count: self.records_count,
        };
        self.capacity_bytes = self.writer.size_bytes() + SLACK_BYTES;
        self.clear();
        self.writer.seal(header, self.level)
    }

    fn clear(&mut self) {
        self.records_count = 0;
        self.traits = RecordTraits::of_none();
    }
}

/// The size of a record in a batch, in bytes, uncompressed: `offset_delta` records after the first,
/// `timestamp_delta` ms after its timestamp.
#[must_use]
pub fn record_size_bytes(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, Option<&[u8]>)],
) -> usize {
    let parts = Parts {
        timestamp_delta,
        offset_delta,
        key,
        value,
    };
    parts.size_bytes(headers_size_bytes(as_bytes(headers)))
}

/// The size of a record with these headers as the first of a batch, in bytes, uncompressed.
pub(crate) fn first_record_size_bytes(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Headers<'_>,
) -> usize {
    let parts = Parts {
        timestamp_delta: 0,
        offset_delta: 0,
        key,
        value,
    };
    parts.size_bytes(headers_size_bytes(headers.raw()))
}

fn as_bytes<'a>(
    headers: &'a [(&'a str, Option<&'a [u8]>)],
) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone {
    let headers = headers.iter();
    headers.map(|&(name, value)| (name.as_bytes(), value))
}
