//! Control batches: the markers that end a transaction in one partition.
//!
//! ```text
//! key    version i16 = 0 | type i16: 0 abort, 1 commit
//! value  version i16 = 0 | coordinator epoch i32
//! ```
//! A marker is a batch of 78 bytes: transactional, control, uncompressed, without a sequence.

use bytes::BytesMut;

use super::{Attributes, BatchBuilder, BatchError, Compression, HEADER_BYTES, Record};
use crate::types::{ProducerIdentity, Sequence, Timestamp};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// Of the record: 7 one-byte fields, the key and the value.
const MARKER_RECORD_BYTES: usize = 7 + 4 + 6;

/// The size of a marker, in bytes.
pub const MARKER_BYTES: usize = HEADER_BYTES + MARKER_RECORD_BYTES;

/// End of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// Its records never become visible.
    Abort,
    /// Its records are visible.
    Commit,
}

/// The content of an end-of-transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ControlRecord {
    /// End of the transaction.
    pub kind: ControlType,
    /// The epoch of the coordinator that wrote the marker; a marker of an older one is refused.
    pub coordinator_epoch: i32,
}

/// Builds the marker that ends `producer`'s transaction: one whole batch of [`MARKER_BYTES`].
#[must_use]
pub fn encode_marker(
    producer: ProducerIdentity,
    record: ControlRecord,
    timestamp: Timestamp,
) -> BytesMut {
    let kind = match record.kind {
        ControlType::Abort => ABORT,
        ControlType::Commit => COMMIT,
    };
    let mut key = [0; 4];
    key[..2].copy_from_slice(&VERSION.to_be_bytes());
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VERSION.to_be_bytes());
    value[2..].copy_from_slice(&record.coordinator_epoch.to_be_bytes());

    let attributes = Attributes::new(Compression::None).transactional().control();
    let mut builder = BatchBuilder::with_capacity(Compression::None, None, MARKER_BYTES);
    builder.push(timestamp, Some(&key), Some(&value));
    let marker = builder.finish_as(attributes, producer, Sequence::NONE);
    assert_eq!(marker.len(), MARKER_BYTES, "a marker has one size");
    marker
}

/// Reads the record of a control batch; `None` if it is not an end-of-transaction marker.
pub(super) fn decode(record: &Record<'_>) -> Result<Option<ControlRecord>, BatchError> {
    let bad = |why| BatchError::BadRecord { index: 0, why };
    let key = record.key.ok_or(bad("a control record has no key"))?;
    let [v0, v1, k0, k1, ..] = *key else {
        return Err(bad("a control record's key is too short"));
    };
    if i16::from_be_bytes([v0, v1]) < VERSION {
        return Err(bad("a control record's version is negative"));
    }
    let kind = match i16::from_be_bytes([k0, k1]) {
        ABORT => ControlType::Abort,
        COMMIT => ControlType::Commit,
        _ => return Ok(None),
    };
    let value = record.value.ok_or(bad("a marker has no value"))?;
    let [v0, v1, e0, e1, e2, e3, ..] = *value else {
        return Err(bad("a marker's value is too short"));
    };
    if i16::from_be_bytes([v0, v1]) < VERSION {
        return Err(bad("a marker's version is negative"));
    }
    Ok(Some(ControlRecord {
        kind,
        coordinator_epoch: i32::from_be_bytes([e0, e1, e2, e3]),
    }))
}
