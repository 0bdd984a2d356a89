//! The words of the field as types: offsets, partitions, producers, times.
//!
//! Everything here is a small value without behaviour beyond its own rules
//! (validation, ordering, wrapping); nothing here reads a clock or a file.

mod ids;
mod partition;
mod producer;
mod time;

pub use ids::{ClusterId, GroupId, NameError, TopicId, TopicName, TransactionalId};
pub use partition::{Offset, PartitionIndex, TopicPartition};
pub use producer::{EpochAtEnd, ProducerEpoch, ProducerId, ProducerIdentity, Sequence};
pub use time::{Timestamp, TimestampType};

/// Durability of an acknowledged write (design D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Acknowledged after an `fdatasync` of every touched file: survives power loss.
    #[default]
    Fsync,
    /// Acknowledged once the operating system has the bytes: survives the
    /// death of the process, not of the machine.
    Process,
}

/// Which records a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Everything below the high watermark, aborted records too.
    ReadUncommitted,
    /// Only records of committed transactions and plain records, below the last stable offset.
    #[default]
    ReadCommitted,
}
