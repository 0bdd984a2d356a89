//! Record timestamps.

use std::fmt;

/// Milliseconds since the Unix epoch; `-1` means "none", as in Kafka.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The absent timestamp.
    pub const NONE: Self = Self(-1);
    /// Before all times.
    pub const MIN: Self = Self(i64::MIN);
    /// Behind all times: the watermark of an input that has ended.
    pub const MAX: Self = Self(i64::MAX);

    /// This timestamp `millis` milliseconds later, saturating.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who set a batch's timestamps (attribute bit 3 of a record batch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer, per record.
    #[default]
    CreateTime,
    /// The log, once for the whole batch, when it was appended.
    LogAppendTime,
}
