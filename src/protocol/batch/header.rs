//! The 61 bytes at the head of a record batch.
//!
//! ```text
//!  0        8       12        16      17    21           23
//!  +--------+-------+---------+-------+-----+------------+-------------------+
//!  | base   | bytes | leader  | magic | crc | attributes | last offset delta |  …
//!  | offset | after | epoch   | = 2   | u32 | i16        | i32               |
//!  | i64    | i32   | i32     | i8    |     |            |                   |
//!  +--------+-------+---------+-------+-----+------------+-------------------+
//!     27               35              43            51               53              57         61
//!     +----------------+---------------+-------------+----------------+---------------+----------+
//!  …  | base timestamp | max timestamp | producer id | producer epoch | base sequence | records' |  records …
//!     | i64            | i64           | i64         | i16            | i32           | count i32|
//!     +----------------+---------------+-------------+----------------+---------------+----------+
//! ```
//! All big-endian. The CRC-32C covers everything from the attributes on; what stands before it may be
//! stamped by the log without touching it.

use super::{BatchError, Compression};
use crate::types::{
    Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp, TimestampType,
};

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = LENGTH_AT + 4;
const MAGIC_AT: usize = LEADER_EPOCH_AT + 4;
const CRC_AT: usize = MAGIC_AT + 1;
const ATTRIBUTES_AT: usize = CRC_AT + 4;
const LAST_OFFSET_DELTA_AT: usize = ATTRIBUTES_AT + 2;
const BASE_TIMESTAMP_AT: usize = LAST_OFFSET_DELTA_AT + 4;
const MAX_TIMESTAMP_AT: usize = BASE_TIMESTAMP_AT + 8;
const PRODUCER_ID_AT: usize = MAX_TIMESTAMP_AT + 8;
const PRODUCER_EPOCH_AT: usize = PRODUCER_ID_AT + 8;
const BASE_SEQUENCE_AT: usize = PRODUCER_EPOCH_AT + 2;
const RECORDS_COUNT_AT: usize = BASE_SEQUENCE_AT + 4;

/// The size of a batch's header, in bytes; the records follow.
pub const HEADER_BYTES: usize = RECORDS_COUNT_AT + 4;
/// Bytes before the length field's count begins.
const UNCOUNTED_BYTES: usize = LENGTH_AT + 4;
/// The format's number.
const MAGIC: i8 = 2;

/// The attribute bits of a batch.
///
/// ```text
/// 15 … 7     6               5        4              3               2 1 0
/// reserved   delete horizon  control  transactional  log append time  compression
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(i16);

impl Attributes {
    const COMPRESSION: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;
    const KNOWN: i16 = 0b111_1111;

    /// The attributes of a plain batch with `compression`.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self(i16::from(compression.id()))
    }

    /// The same, transactional.
    #[must_use]
    pub fn transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }

    /// The same, of a control batch.
    #[must_use]
    pub fn control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }

    /// The same, with timestamps set by the log.
    #[must_use]
    pub fn log_append_time(self) -> Self {
        Self(self.0 | Self::LOG_APPEND_TIME)
    }

    /// The same, with a delete horizon in the place of the base timestamp.
    #[must_use]
    pub fn delete_horizon(self) -> Self {
        Self(self.0 | Self::DELETE_HORIZON)
    }

    /// The same, uncompressed.
    pub(super) fn uncompressed(self) -> Self {
        Self(self.0 & !Self::COMPRESSION)
    }

    /// The same, of records that are compressed so.
    pub(super) fn compressed_by(self, compression: Compression) -> Self {
        Self(self.uncompressed().0 | i16::from(compression.id()))
    }

    /// The bits as stored.
    #[must_use]
    pub fn bits(self) -> i16 {
        self.0
    }

    /// Whether a bit is set that the format keeps for later.
    #[must_use]
    pub fn has_reserved(self) -> bool {
        self.0 & !Self::KNOWN != 0
    }

    fn has(self, bit: i16) -> bool {
        self.0 & bit != 0
    }

    fn compression(self) -> Result<Compression, BatchError> {
        let [id, _] = (self.0 & Self::COMPRESSION).to_le_bytes();
        Compression::from_id(id).ok_or(BatchError::UnknownCompression { id })
    }
}

/// The header of a batch, its fields checked against each other (but not against the checksum).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The offset of the first record. Stays when compaction removes that record.
    pub base_offset: Offset,
    /// Bytes that follow the length field itself: [`Header::total_bytes`] − 12.
    pub length_bytes: i32,
    /// The leader epoch under which the batch was appended; −1 before that.
    pub partition_leader_epoch: i32,
    /// The CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type and kind.
    pub attributes: Attributes,
    /// The last record's offset − the base offset. Stays when compaction removes that record.
    pub last_offset_delta: i32,
    /// Base of the records' timestamps; with a delete horizon, that horizon.
    pub base_timestamp: Timestamp,
    /// The largest timestamp of a record; of all of them, under log append time.
    pub max_timestamp: Timestamp,
    /// Who wrote the batch; −1/−1 if neither idempotent nor transactional.
    pub producer: ProducerIdentity,
    /// The sequence of the first record.
    pub base_sequence: Sequence,
    /// Number of records; may be fewer than offsets after compaction, even none.
    pub records_count: i32,
}

impl Header {
    /// Reads the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// If there are fewer than [`HEADER_BYTES`], the format is not v2, the compression is unknown, or
    /// fields contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::TooShort {
                need_bytes: HEADER_BYTES,
                have_bytes: bytes.len(),
            });
        };
        let magic = i8::from_be_bytes(field(head, MAGIC_AT));
        if magic != MAGIC {
            return Err(BatchError::BadMagic { found: magic });
        }
        let header = Self::read(head);
        header.check()?;
        Ok(header)
    }

    fn read(head: &[u8; HEADER_BYTES]) -> Self {
        Self {
            base_offset: Offset(i64::from_be_bytes(field(head, 0))),
            length_bytes: i32::from_be_bytes(field(head, LENGTH_AT)),
            partition_leader_epoch: i32::from_be_bytes(field(head, LEADER_EPOCH_AT)),
            crc: u32::from_be_bytes(field(head, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(field(head, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(field(head, LAST_OFFSET_DELTA_AT)),
            base_timestamp: Timestamp(i64::from_be_bytes(field(head, BASE_TIMESTAMP_AT))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(head, MAX_TIMESTAMP_AT))),
            producer: ProducerIdentity {
                id: ProducerId(i64::from_be_bytes(field(head, PRODUCER_ID_AT))),
                epoch: ProducerEpoch(i16::from_be_bytes(field(head, PRODUCER_EPOCH_AT))),
            },
            base_sequence: Sequence(i32::from_be_bytes(field(head, BASE_SEQUENCE_AT))),
            records_count: i32::from_be_bytes(field(head, RECORDS_COUNT_AT)),
        }
    }

    fn check(&self) -> Result<(), BatchError> {
        if usize::try_from(self.length_bytes).is_ok_and(|l| l >= HEADER_BYTES - UNCOUNTED_BYTES) {
            self.attributes.compression()?;
            return self
                .contradiction()
                .map_or(Ok(()), |why| Err(BatchError::BadHeader { why }));
        }
        Err(BatchError::BadLength {
            length_bytes: self.length_bytes,
        })
    }

    fn contradiction(&self) -> Option<&'static str> {
        let offsets_count = i64::from(self.last_offset_delta) + 1;
        if self.base_offset.0 < 0 {
            Some("its base offset is negative")
        } else if self.last_offset_delta < 0 {
            Some("its last offset lies before its first")
        } else if self.base_offset.0.checked_add(offsets_count).is_none() {
            Some("its last offset is past the largest")
        } else if self.records_count < 0 {
            Some("its count of records is negative")
        } else if i64::from(self.records_count) > offsets_count {
            Some("it has more records than offsets")
        } else {
            None
        }
    }

    /// The header as bytes. `length_bytes` and `crc` are written as they are.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        put(&mut head, 0, self.base_offset.0.to_be_bytes());
        put(&mut head, LENGTH_AT, self.length_bytes.to_be_bytes());
        put(
            &mut head,
            LEADER_EPOCH_AT,
            self.partition_leader_epoch.to_be_bytes(),
        );
        put(&mut head, MAGIC_AT, MAGIC.to_be_bytes());
        put(&mut head, CRC_AT, self.crc.to_be_bytes());
        put(&mut head, ATTRIBUTES_AT, self.attributes.0.to_be_bytes());
        put(
            &mut head,
            LAST_OFFSET_DELTA_AT,
            self.last_offset_delta.to_be_bytes(),
        );
        put(
            &mut head,
            BASE_TIMESTAMP_AT,
            self.base_timestamp.0.to_be_bytes(),
        );
        put(
            &mut head,
            MAX_TIMESTAMP_AT,
            self.max_timestamp.0.to_be_bytes(),
        );
        put(&mut head, PRODUCER_ID_AT, self.producer.id.0.to_be_bytes());
        put(
            &mut head,
            PRODUCER_EPOCH_AT,
            self.producer.epoch.0.to_be_bytes(),
        );
        put(
            &mut head,
            BASE_SEQUENCE_AT,
            self.base_sequence.0.to_be_bytes(),
        );
        put(
            &mut head,
            RECORDS_COUNT_AT,
            self.records_count.to_be_bytes(),
        );
        head
    }

    /// Writes this header over the first bytes of `batch`, with the batch's true length and checksum.
    pub(super) fn seal(mut self, batch: &mut [u8]) {
        let counted = batch.len() - UNCOUNTED_BYTES;
        assert!(
            i32::try_from(counted).is_ok(),
            "a batch is smaller than 2 GiB"
        );
        self.length_bytes = i32::try_from(counted).unwrap_or(i32::MAX);
        put(batch, 0, self.to_bytes());
        put(batch, CRC_AT, checksum(batch).to_be_bytes());
    }

    /// The size of the whole batch, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.length_bytes)
            .map_or(UNCOUNTED_BYTES, |length| UNCOUNTED_BYTES + length)
    }

    /// The offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset behind the last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// The sequence of the last record; [`Sequence::NONE`] if the batch has none.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        match self.base_sequence.0 {
            ..0 => Sequence::NONE,
            _ => self.base_sequence.plus(self.last_offset_delta),
        }
    }

    /// Whether the records belong to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes.has(Attributes::TRANSACTIONAL)
    }

    /// Whether the batch is the log's own, not a user's.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes.has(Attributes::CONTROL)
    }

    /// Returns the records' compression.
    #[must_use]
    pub fn compression(&self) -> Compression {
        // `parse` refused the ids that are none of Kafka's.
        self.attributes.compression().unwrap_or(Compression::None)
    }

    /// Who set the timestamps.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes.has(Attributes::LOG_APPEND_TIME) {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        }
    }

    /// When compaction may remove the batch's tombstones or marker, once it has decided so.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        self.attributes
            .has(Attributes::DELETE_HORIZON)
            .then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote the batch.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer.id.is_some()
    }
}

/// The checksum that belongs into the header of `batch`, which is one whole batch.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES_AT..])
}

/// Gives a batch its place in the log. Leaves the checksum as it is: it does not cover these fields.
///
/// # Panics
/// If `batch` is shorter than a header; [`Header::parse`] it first.
pub fn stamp(batch: &mut [u8], base_offset: Offset, partition_leader_epoch: i32) {
    assert!(
        batch.len() >= HEADER_BYTES,
        "only a parsed batch is stamped"
    );
    put(batch, 0, base_offset.0.to_be_bytes());
    put(batch, LEADER_EPOCH_AT, partition_leader_epoch.to_be_bytes());
}

/// Gives all records of a batch the log's own time, and the batch its new checksum.
///
/// # Panics
/// If `batch` is shorter than a header; [`Header::parse`] it first.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp: Timestamp) {
    assert!(
        batch.len() >= HEADER_BYTES,
        "only a parsed batch is stamped"
    );
    batch[ATTRIBUTES_AT + 1] |= Attributes::LOG_APPEND_TIME.to_be_bytes()[1];
    put(batch, MAX_TIMESTAMP_AT, timestamp.0.to_be_bytes());
    put(batch, CRC_AT, checksum(batch).to_be_bytes());
}

/// Gives a batch the largest timestamp of its records, and its new checksum, if its header says another one.
///
/// # Panics
/// If `batch` is shorter than a header; [`Header::parse`] it first.
pub fn stamp_max_timestamp(batch: &mut [u8], max_timestamp: Timestamp) {
    assert!(
        batch.len() >= HEADER_BYTES,
        "only a parsed batch is stamped"
    );
    let told = &batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8];
    if told != max_timestamp.0.to_be_bytes() {
        put(batch, MAX_TIMESTAMP_AT, max_timestamp.0.to_be_bytes());
        put(batch, CRC_AT, checksum(batch).to_be_bytes());
    }
}

/// The `N` bytes at the constant `at`, which with `N` lies within a header.
fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| head[at + i])
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    batch[at..at + N].copy_from_slice(&value);
}
