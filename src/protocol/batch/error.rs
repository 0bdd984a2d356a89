//! Errors of record batches.

use super::{BadRecord, Compression};
use crate::protocol::{ErrorCode, ErrorKind};

/// Fault of a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There are fewer bytes than a batch (or its header) needs: a torn tail, or a read that ended early.
    #[error(
        "a record batch needs {need_bytes} bytes, but only {have_bytes} are there: read on, or treat it as torn"
    )]
    TooShort {
        /// Bytes that are needed.
        need_bytes: usize,
        /// Bytes that are there.
        have_bytes: usize,
    },
    /// There are bytes behind the batch where exactly one batch was expected.
    #[error("{excess_bytes} bytes follow the record batch: pass exactly one batch")]
    TrailingBytes {
        /// The number.
        excess_bytes: usize,
    },
    /// The format is not v2.
    #[error(
        "record batch format {found} is not supported, only format 2: use a client of Kafka 0.11 or later"
    )]
    BadMagic {
        /// The format number found.
        found: i8,
    },
    /// The length field is smaller than the rest of a header.
    #[error(
        "a record batch says that {length_bytes} bytes follow; at least 49 must: the bytes are damaged"
    )]
    BadLength {
        /// The length field's value.
        length_bytes: i32,
    },
    /// The header's fields contradict each other.
    #[error("the header of a record batch is not possible: {why}; the bytes are damaged")]
    BadHeader {
        /// Which rule is broken.
        why: &'static str,
    },
    /// The checksum does not fit the bytes.
    #[error(
        "a record batch fails its checksum (CRC-32C {found:#010x}, its header says {expected:#010x}): the bytes are damaged"
    )]
    BadCrc {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A record cannot be read.
    #[error(
        "record {index} of a record batch cannot be read: {why}; whoever wrote the batch is at fault"
    )]
    BadRecord {
        /// The record's place in the batch, from 0.
        index: i32,
        /// The fault in it.
        why: &'static str,
    },
    /// The compression is none of Kafka's five.
    #[error("compression type {id} is unknown: use none, gzip, snappy, lz4 or zstd")]
    UnknownCompression {
        /// The number found.
        id: u8,
    },
    /// The compressed records cannot be decompressed.
    #[error(
        "the {compression} records of a record batch cannot be decompressed: {why}; whoever wrote the batch is at fault"
    )]
    Decompression {
        /// The compression.
        compression: Compression,
        /// The decompressor's words.
        why: String,
    },
    /// The records would be larger than allowed when decompressed.
    #[error(
        "the records of a record batch are larger than {limit_bytes} bytes when decompressed: send smaller batches"
    )]
    TooLarge {
        /// The ceiling for these bytes.
        limit_bytes: usize,
    },
    /// The batch is sound, but a client may not send it.
    #[error("a client may not send this record batch: {why}")]
    Refused {
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The batch is sound, but some of its records break a rule of the topic, so that none of them is taken.
    #[error("{}", bad_records(bad, *bad_count))]
    BadRecords {
        /// The first of them; never empty.
        bad: Vec<BadRecord>,
        /// The number of them.
        bad_count: usize,
    },
}

/// The sentence about records that break a rule, with the first one.
fn bad_records(bad: &[BadRecord], bad_count: usize) -> String {
    match bad {
        [] => format!("{bad_count} records break a rule of the topic"),
        [first, ..] => format!(
            "{bad_count} of the batch's records break a rule of the topic; the first is record {}: {}",
            first.index, first.fault
        ),
    }
}

impl BatchError {
    /// The records that break a rule of the topic.
    #[must_use]
    pub fn bad_records(&self) -> &[BadRecord] {
        match self {
            Self::BadRecords { bad, .. } => bad,
            _ => &[],
        }
    }

    /// Returns what a caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownCompression { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::BadRecords { .. } => ErrorKind::Fatal,
            _ => ErrorKind::Corrupt,
        }
    }

    /// The error that a client is answered with.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCompression { .. } => ErrorCode::UnsupportedCompressionType,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::BadRecords { bad, .. } => match bad.iter().any(BadRecord::is_of_timestamp) {
                true => ErrorCode::InvalidTimestamp,
                false => ErrorCode::InvalidRecord,
            },
            // Clients send the batch again: its bytes were damaged on the way.
            Self::BadCrc { .. } | Self::BadLength { .. } => ErrorCode::CorruptMessage,
            // Sent again, the others would be refused again.
            _ => ErrorCode::InvalidRecord,
        }
    }
}
