//! Failures of a question, and what whoever asked does about them.

use crate::codec::{CodecError, Schema};
use crate::state::StateError;
use crate::types::{Timestamp, TopicPartition};

/// Reason for a missing answer. The job goes on in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The job has no such store.
    #[error("the job {job} has no store {store:?}; it has {}", listed(stores))]
    UnknownStore {
        /// The job.
        job: String,
        /// The store that was asked for.
        store: String,
        /// Those that it has.
        stores: Vec<String>,
    },
    /// The store has other types, or is of another kind.
    #[error(
        "the store {store:?} has keys of the type `{}` and values of the type `{}`, not `{}` and `{}`: ask for the types of the \
         step that owns it",
        stored.key, stored.value, asked.key, asked.value
    )]
    WrongType {
        /// The store.
        store: String,
        /// Its types.
        stored: Box<Schema>,
        /// Those that were asked for.
        asked: Box<Schema>,
    },
    /// Another process of the job has the key.
    #[error(
        "the store {store:?} has the key in state partition {state_partition}, which {}",
        whereabouts(instance.as_deref())
    )]
    Elsewhere {
        /// The store.
        store: String,
        /// The state partition of the key.
        state_partition: u16,
        /// The instance that has it, if the group of the job knows one.
        instance: Option<String>,
    },
    /// The job does not read the partition, so it will never have processed a record of it.
    #[error(
        "the job {job} does not read {partition} in this process: ask for a partition of one of its source topics"
    )]
    NotRead {
        /// The job.
        job: String,
        /// The partition that was asked for.
        partition: TopicPartition,
    },
    /// The versions of the time are gone.
    #[error(
        "the store {store:?} has all versions from {begin} on only, and the key has none of {time} or before: ask for a later time, or give \
         `versioned` a longer history"
    )]
    BeforeHistory {
        /// The store.
        store: String,
        /// The time that was asked for.
        time: Timestamp,
        /// The beginning of the history.
        begin: Timestamp,
    },
    /// The range has more rows, or windows, than one answer may have.
    #[error("the range holds {what}, and one answer at most {max}: ask for a smaller one")]
    TooMany {
        /// The things of which there are too many.
        what: &'static str,
        /// The most allowed.
        max: usize,
    },
    /// The store holds no windows, or its owner does not say how they are read.
    #[error(
        "the step that owns the store {store:?} does not say which windows are in it: ask for its rows with `timed` or `store`, or give          an operator of yours `with_open_windows`"
    )]
    NoWindows {
        /// The store.
        store: String,
    },
    /// The question cannot be understood.
    #[error("{why}")]
    Malformed {
        /// The mistake in it, and what to write instead.
        why: String,
    },
    /// A commit came between two reads of one answer, each time that it was tried.
    #[error(
        "the reads of one answer took longer than the job's commits are apart, {attempts} times: read less at once, or commit less often"
    )]
    Overtaken {
        /// Number of tries.
        attempts: u32,
    },
    /// The job has ended, or ends.
    #[error("the job {job} has ended, and its state is not read any more: `finished` says why")]
    Ended {
        /// The job.
        job: String,
    },
    /// A key cannot be written, or a stored value not be read as the type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The state cannot be read from the disk.
    #[error(transparent)]
    State(#[from] StateError),
}

fn listed(stores: &[String]) -> String {
    match stores {
        [] => "none".to_owned(),
        stores => stores.join(", "),
    }
}

fn whereabouts(instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("is with the instance {instance}: ask there"),
        None => "is not in this process and moves just now: ask again".to_owned(),
    }
}
