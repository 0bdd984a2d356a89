//! What can go wrong in a job, and what its caller does about it.

use std::fmt;
use std::time::Duration;

use crate::broker::BrokerError;
use crate::client::ClientError;
use crate::codec::CodecError;
use crate::protocol::ErrorKind;
use crate::protocol::batch::BatchError;
use crate::state::StateError;
use crate::types::{NameError, Offset, TopicName};

/// Why a step could not process a record.
///
/// A *poison* failure is the record's own fault (bytes that do not decode, a user function's error):
/// the job's poison policy decides. Anything else aborts the cycle and stops the job.
pub struct Failure(Box<FailureInner>);

pub(crate) enum FailureInner {
    Poison(String),
    Job(JobError),
}

impl Failure {
    /// The record cannot be processed, now or ever, for the reason given.
    #[must_use]
    pub fn poison(why: impl fmt::Display) -> Self {
        Self(Box::new(FailureInner::Poison(why.to_string())))
    }

    pub(crate) fn into_inner(self) -> FailureInner {
        *self.0
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            FailureInner::Poison(why) => write!(f, "poison record: {why}"),
            FailureInner::Job(e) => write!(f, "{e}"),
        }
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        Self::poison(error)
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self(Box::new(FailureInner::Job(error)))
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        JobError::State(error).into()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        JobError::Client(error).into()
    }
}

/// Why a job could not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The job as built cannot run.
    #[error("the job {job} cannot run: {why}")]
    Topology {
        /// The job.
        job: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The job was changed in a way that would lose or misread its state.
    #[error("the job {job} does not fit its state: {why}")]
    Incompatible {
        /// The job.
        job: String,
        /// What changed, and what to do.
        why: String,
    },
    /// A record could not be processed, and the poison policy is to fail.
    #[error(
        "record {offset} of {split} cannot be processed: {why} (nothing of this cycle was committed; mend the data or the function, or send such records to a dead-letter topic)"
    )]
    Poison {
        /// The topic partition or file.
        split: String,
        /// The record's offset in it.
        offset: Offset,
        /// What the codec or the user's function said.
        why: String,
    },
    /// A user's function panicked.
    #[error(
        "a function of the job panicked at record {offset} of {split}: {message} (nothing of this cycle was committed)"
    )]
    Panicked {
        /// The topic partition or file.
        split: String,
        /// The record's offset in it.
        offset: Offset,
        /// The panic's message.
        message: String,
    },
    /// Another instance of the job took over, or one is running.
    #[error("the job {job} is run by another instance: {why}")]
    Fenced {
        /// The job.
        job: String,
        /// How that is known.
        why: String,
    },
    /// A cycle was aborted (its transaction timed out, say), or its outcome is not known. The job starts again
    /// from the committed positions.
    #[error(
        "a cycle of the job {job} was not committed for certain; it starts again from the last commit"
    )]
    NotCommitted {
        /// The job.
        job: String,
    },
    /// A cycle took longer than the transaction timeout, so that the coordinator aborted it. The job starts again from the
    /// committed positions, with fewer records a cycle.
    #[error(
        "a cycle of the job {job} with {records} records took {} ms and could not be committed: the transaction timeout is {} ms; \
         one record takes too long, or too many are in flight: make the function faster or let it give up earlier, raise \
         `transaction_timeout`, or bound the cycle (`Commit::or_records`)",
        lasted.as_millis(),
        timeout.as_millis()
    )]
    TimedOut {
        /// The job.
        job: String,
        /// The records that were read in it.
        records: u64,
        /// How long it was open.
        lasted: Duration,
        /// The transaction timeout.
        timeout: Duration,
    },
    /// A source could not be read.
    #[error("cannot read the source {source_name}: {why}")]
    Source {
        /// The source.
        source_name: String,
        /// What happened, and what to do.
        why: String,
    },
    /// A sink could not be written.
    #[error("cannot write the sink {sink}: {why}")]
    Sink {
        /// The sink.
        sink: String,
        /// What happened, and what to do.
        why: String,
    },
    /// The log refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The embedded log cannot be opened or closed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A topic of the job has settings with which acknowledged records may be lost.
    #[error("the topic {topic} {why}")]
    UnsafeTopic {
        /// The topic.
        topic: TopicName,
        /// Which setting, and what to do.
        why: &'static str,
    },
    /// The folder of the state cannot be made.
    #[error("cannot create {}: {why}; the data directory must be writable", path.display())]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// Stored records are damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The state store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A name was refused.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A worker of the job died.
    #[error("worker {worker} of the job died: {why}")]
    Worker {
        /// Its number.
        worker: usize,
        /// Its last words.
        why: String,
    },
}

impl JobError {
    /// What a caller may do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::NotCommitted { .. } | Self::TimedOut { .. } => ErrorKind::Abortable,
            Self::Client(e) => e.kind(),
            Self::Broker(e) => e.kind(),
            Self::State(e) => e.kind(),
            Self::Batch(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Fatal,
        }
    }
}
