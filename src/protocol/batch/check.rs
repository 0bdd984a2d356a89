//! The rules for what a client may send beyond being well-formed, as Kafka's `LogValidator` has them: one look at the
//! header, and one pass over the records, which also yields what the log must know of them.

use std::fmt;
use std::ops::RangeInclusive;

use super::record::are_sound;
use super::{Batch, BatchError, DecompressionLimit, Header, Records};
use crate::types::{Timestamp, TimestampType};

/// The most bad records of a batch that are named; a batch may hold a million, and each is answered with a sentence.
const BAD_RECORDS_MAX: usize = 1000;

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

/// The demands of a topic on each record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordRules {
    /// Whether each record must have a key: in compacted topics.
    pub is_key_required: bool,
    /// The timestamps that a record may have, if it has one (`message.timestamp.before.max.ms` and `.after.max.ms`).
    pub timestamps: Option<RangeInclusive<Timestamp>>,
}

impl RecordRules {
    /// The rule that a record with this timestamp and key breaks.
    #[inline]
    fn broken(&self, timestamp: Timestamp, has_key: bool) -> Option<RecordFault> {
        if self.is_key_required && !has_key {
            return Some(RecordFault::NoKey);
        }
        match &self.timestamps {
            Some(allowed) if timestamp != Timestamp::NONE && !allowed.contains(&timestamp) => {
                Some(RecordFault::Timestamp {
                    found: timestamp,
                    earliest: *allowed.start(),
                    latest: *allowed.end(),
                })
            }
            _ => None,
        }
    }
}

/// A record that breaks a rule of its topic (KIP-467).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// The rule that it breaks.
    pub fault: RecordFault,
}

impl BadRecord {
    pub(super) fn is_of_timestamp(&self) -> bool {
        matches!(self.fault, RecordFault::Timestamp { .. })
    }
}

/// A rule of a topic that a record breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordFault {
    /// It has no key, and the topic is compacted by key.
    NoKey,
    /// Its timestamp is outside the topic's bounds.
    Timestamp {
        /// Its timestamp.
        found: Timestamp,
        /// The earliest that is allowed now.
        earliest: Timestamp,
        /// The latest that is allowed now.
        latest: Timestamp,
    },
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("it has no key, and the topic is compacted by key"),
            Self::Timestamp {
                found,
                earliest,
                latest,
            } => write!(
                f,
                "its timestamp {} is not between {} and {} (message.timestamp.before.max.ms, message.timestamp.after.max.ms)",
                found.0, earliest.0, latest.0
            ),
        }
    }
}

/// Reads each record of a batch that somebody else built, decompressed within `limit`: it can be read, its offset is its
/// place, and it keeps the topic's `rules`. Returns the largest timestamp, [`Timestamp::NONE`] if no record has one.
///
/// # Errors
/// As [`Batch::records`] and reading them; [`BatchError::BadRecords`] with those that break a rule.
pub fn check_client_records(
    batch: &Batch,
    limit: &DecompressionLimit,
    rules: &RecordRules,
) -> Result<Timestamp, BatchError> {
    let header = batch.header();
    let records = batch.records(limit)?;
    let mut max_timestamp = Timestamp::NONE;
    let is_sound = are_sound(header, records.bytes(), |record| {
        max_timestamp = max_timestamp.max(record.timestamp);
        rules.broken(record.timestamp, record.has_key).is_none()
    });
    match is_sound {
        true => Ok(max_timestamp),
        false => Err(fault(&records, rules)),
    }
}

/// The reason why a batch is refused whose records are not all sound.
#[cold]
fn fault(records: &Records, rules: &RecordRules) -> BatchError {
    find_fault(records, rules)
        .err()
        .unwrap_or(BatchError::Refused {
            why: "its records are not sound",
        })
}

fn find_fault(records: &Records, rules: &RecordRules) -> Result<(), BatchError> {
    let header = records.header();
    let mut bad = Vec::new();
    let mut bad_count = 0;
    for (expected, record) in (0i32..).zip(records) {
        let record = record?;
        if record.offset.since(header.base_offset) != i64::from(expected) {
            return Err(BatchError::Refused {
                why: "its records' offsets have gaps",
            });
        }
        if let Some(fault) = rules.broken(record.timestamp, record.key.is_some()) {
            bad_count += 1;
            if bad.len() < BAD_RECORDS_MAX {
                bad.push(BadRecord {
                    index: expected,
                    fault,
                });
            }
        }
    }
    match bad.is_empty() {
        true => Ok(()),
        false => Err(BatchError::BadRecords { bad, bad_count }),
    }
}
