//! A look into topics: records as they lie there, and what became of one of them.
//!
//! [`Records::browse`] shows a page of a partition with everything that readers are never shown: markers, records of open and of aborted
//! transactions. [`Records::follow`] finds the transaction in which a job consumed a record, and what that transaction wrote. Both read a
//! bounded number of bytes, however large the topic is, and say where they stopped.
//!
//! Guarantees: nothing is guessed. What the log does not tell any more (a position that compaction removed, a transaction that keeps its
//! epoch) is said. Nothing is changed. Does not know what a job is, but for its name: its group, and what its topics are called.
//!
//! Reading order: `bytes.rs` (bytes for people), `page.rs` (batches become rows), `bisect.rs` (where to look), `walk.rs` (reads), `commits.rs`
//! (the history of positions), `written.rs` (what a transaction wrote), `follow.rs` (all of it together). All but `walk.rs` decide without I/O.

mod bisect;
mod browse;
mod bytes;
mod commits;
mod follow;
mod page;
mod walk;
mod written;

use std::sync::Arc;

pub(crate) use browse::{From, LIMIT, LIMIT_MAX};
pub(crate) use bytes::json as bytes_json;
pub(crate) use follow::{Follow, ROWS, ROWS_MAX};

use super::{ClientError, Transport};
use crate::types::{GroupId, Offset, TopicName, TopicPartition};

/// Looks into the topics of a log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    transport: Arc<dyn Transport>,
}

/// A look that has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    /// The log could not be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such topic.
    #[error("there is no topic {0}: see `onceflow topic list`")]
    NoTopic(TopicName),
    /// The topic has fewer partitions.
    #[error("topic {} has no partition {}: its partitions are 0 to {last}", .place.topic, .place.partition)]
    NoPartition { place: TopicPartition, last: i32 },
    /// Retention or somebody deleted it.
    #[error(
        "offset {offset} of {place} was deleted, by retention or by a request: the partition begins at {first} and ends before {end}"
    )]
    Deleted {
        place: TopicPartition,
        offset: Offset,
        first: Offset,
        end: Offset,
    },
    /// It was not written yet.
    #[error("offset {offset} of {place} is not written yet: the partition ends before {end}")]
    NotWritten {
        place: TopicPartition,
        offset: Offset,
        end: Offset,
    },
    /// The group has no position there.
    #[error(
        "{job} has committed no position in {place}: it does not read that topic, or has not committed yet; `onceflow group list` lists the jobs and groups that have"
    )]
    NotRead { job: GroupId, place: TopicPartition },
    /// The transaction is not decided.
    #[error(
        "{job} has consumed offset {offset} of {place} in a transaction that is still open (producer {producer}): what it writes is visible to nobody yet; ask again after its commit"
    )]
    StillOpen {
        job: GroupId,
        place: TopicPartition,
        offset: Offset,
        producer: i64,
    },
    /// No commit has it.
    #[error(
        "{job} has not committed offset {offset} of {place} yet: its position is {position}; ask again once it is behind the offset"
    )]
    NotConsumed {
        job: GroupId,
        place: TopicPartition,
        offset: Offset,
        position: Offset,
    },
    /// The history of positions does not reach back.
    #[error(
        "which transaction of {job} consumed offset {offset} of {place} is not known any more: the log keeps the last positions of a group only, and has compacted the older ones away"
    )]
    Forgotten {
        job: GroupId,
        place: TopicPartition,
        offset: Offset,
    },
    /// The history of positions is too large between two places.
    #[error(
        "the commit of offset {offset} of {place} was not found within {mib} MiB of the history of positions: the partition commits seldom there; ask for another offset"
    )]
    TooFar {
        place: TopicPartition,
        offset: Offset,
        mib: usize,
    },
    /// The topics to be searched are too many.
    #[error(
        "the log has {count} partitions, and {max} are searched at most: name the topics that the job writes"
    )]
    TooMany { count: usize, max: usize },
}

impl Records {
    /// A look through `transport`.
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Checks that there is such a partition.
    async fn check(&self, place: &TopicPartition) -> Result<(), LookError> {
        let found = self.transport.topic(&place.topic).await?;
        let found = found.ok_or_else(|| LookError::NoTopic(place.topic.clone()))?;
        match (0..found.partitions_count).contains(&place.partition) {
            true => Ok(()),
            false => Err(LookError::NoPartition {
                place: place.clone(),
                last: found.partitions_count - 1,
            }),
        }
    }
}
