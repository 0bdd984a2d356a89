//! The settings of one partition's log, with Kafka's names and defaults.

use std::time::Duration;

use crate::protocol::batch::Compression;
use crate::types::{Durability, TimestampType};

/// Treatment of old records (Kafka's `cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CleanupPolicy {
    /// Whole segments are deleted by time and size.
    #[default]
    Delete,
    /// Only the latest record of each key is kept.
    Compact,
    /// Both.
    CompactAndDelete,
    /// Nothing is ever removed, except by DeleteRecords.
    None,
}

impl CleanupPolicy {
    /// Whether segments are compacted.
    #[must_use]
    pub fn is_compacting(self) -> bool {
        matches!(self, Self::Compact | Self::CompactAndDelete)
    }

    /// Whether segments are deleted by time and size.
    #[must_use]
    pub fn is_deleting(self) -> bool {
        matches!(self, Self::Delete | Self::CompactAndDelete)
    }
}

/// Settings of one partition's log. The default is Kafka's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogConfig {
    /// A segment is rolled before it grows past so many bytes (`segment.bytes`).
    pub segment_bytes: u32,
    /// A segment is rolled when record timestamps in it span more than so many milliseconds (`segment.ms`).
    pub segment_ms: i64,
    /// `segment_ms` is shortened by a part of so many milliseconds, another one in each segment, so that partitions do
    /// not roll at the same moment (`segment.jitter.ms`).
    pub segment_jitter_ms: i64,
    /// A segment is rolled when its offset index reaches so many bytes (`segment.index.bytes`).
    pub segment_index_bytes: u32,
    /// An index entry is made for every so many bytes appended (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Segments whose records are all older than so many milliseconds are deleted; `None` keeps them (`retention.ms`).
    pub retention_ms: Option<i64>,
    /// The oldest segments are deleted while the log is larger than so many bytes; `None` keeps them (`retention.bytes`).
    pub retention_bytes: Option<i64>,
    /// Treatment of old records (`cleanup.policy`).
    pub cleanup: CleanupPolicy,
    /// The largest batch accepted from a client, in bytes (`max.message.bytes`).
    pub max_message_bytes: u32,
    /// Compression of clients' batches on the disk; `None` as they came (`compression.type`).
    pub compression: Option<Compression>,
    /// The level of gzip; `None` for its default (`compression.gzip.level`).
    pub gzip_level: Option<i32>,
    /// The level of zstd; `None` for that of the library (`compression.zstd.level`).
    pub zstd_level: Option<i32>,
    /// Who sets record timestamps (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// A record's timestamp may lie so many milliseconds behind the clock (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: i64,
    /// A record's timestamp may lie so many milliseconds ahead of the clock (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: i64,
    /// Records younger than so many milliseconds are not compacted (`min.compaction.lag.ms`).
    pub min_compaction_lag_ms: i64,
    /// Records older than so many milliseconds are compacted whatever the share of dirty bytes (`max.compaction.lag.ms`).
    pub max_compaction_lag_ms: i64,
    /// Compaction begins when the share of bytes never compacted reaches this (`min.cleanable.dirty.ratio`).
    pub min_cleanable_dirty_ratio: f64,
    /// A tombstone is kept for so many milliseconds after it was first compacted (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// A producer that has no open transaction is forgotten after so long without an append (`producer.id.expiration.ms`).
    pub producer_id_expiration: Duration,
    /// The log's owner syncs it after so many records (`flush.messages`).
    pub flush_messages: i64,
    /// The log's owner syncs it so many milliseconds after an append (`flush.ms`).
    pub flush_ms: i64,
    /// Most memory of one compaction for its keys, in bytes (`log.cleaner.dedupe.buffer.size`).
    pub compaction_memory_bytes: usize,
    /// Meaning of an acknowledgement, and so where the high watermark stands (design D5).
    pub durability: Durability,
    /// The epoch that is stamped into what is appended; batches of a later one are damaged (F7). Its owner sees to it
    /// that no two openings of a log have the same.
    pub leader_epoch: i32,
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            cleanup: CleanupPolicy::Delete,
            max_message_bytes: (1 << 20) + 12,
            compression: None,
            gzip_level: None,
            zstd_level: Some(3),
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            delete_retention_ms: DAY_MS,
            producer_id_expiration: Duration::from_secs(24 * 60 * 60),
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            compaction_memory_bytes: 32 << 20,
            durability: Durability::Fsync,
            leader_epoch: 0,
        }
    }
}
