//! What a client may send: rules beyond being well-formed, as Kafka's `LogValidator` has them.

use super::{Batch, BatchError, DecompressionLimit, Header};
use crate::types::TimestampType;

/// Checks the header of a batch that a client sent. Looks at no record and no checksum.
///
/// # Errors
/// [`BatchError::Refused`] with the rule that is broken.
pub fn check_client_batch(header: &Header) -> Result<(), BatchError> {
    broken_rule(header).map_or(Ok(()), |why| Err(BatchError::Refused { why }))
}

fn broken_rule(header: &Header) -> Option<&'static str> {
    if header.attributes.has_reserved() {
        Some("it sets attribute bits that are reserved")
    } else if header.is_control() {
        Some("control batches are the log's own")
    } else if header.timestamp_type() == TimestampType::LogAppendTime {
        Some("log append time is the log's to set")
    } else if header.delete_horizon().is_some() {
        Some("a delete horizon is the log's to set")
    } else if header.records_count == 0 {
        Some("it has no records")
    } else if i64::from(header.records_count) != i64::from(header.last_offset_delta) + 1 {
        Some("its count of records differs from its count of offsets")
    } else if header.has_producer() && header.producer.epoch.0 < 0 {
        Some("it has a producer id without a producer epoch")
    } else if header.has_producer() && header.base_sequence.0 < 0 {
        Some("it has a producer id without a sequence")
    } else if header.is_transactional() && !header.has_producer() {
        Some("it is transactional without a producer id")
    } else {
        None
    }
}

/// What a topic demands of each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordRules {
    /// Whether each record must have a key: in compacted topics.
    pub is_key_required: bool,
}

/// Checks each record of a batch that a client sent: it can be read, its offset is its place, and it
/// keeps the topic's `rules`. Reads (and decompresses) the whole batch.
///
/// # Errors
/// As [`Batch::records`] and reading them; [`BatchError::Refused`] with the rule that is broken.
pub fn check_client_records(
    batch: &Batch,
    limit: &DecompressionLimit,
    rules: RecordRules,
) -> Result<(), BatchError> {
    let header = batch.header();
    for (expected, record) in (0i64..).zip(&batch.records(limit)?) {
        let record = record?;
        if record.offset.since(header.base_offset) != expected {
            return Err(BatchError::Refused {
                why: "its records' offsets have gaps",
            });
        }
        if rules.is_key_required && record.key.is_none() {
            return Err(BatchError::Refused {
                why: "a record has no key, and the topic is compacted by key",
            });
        }
    }
    Ok(())
}
