//! Errors of a job, and what its caller does about them.

use std::fmt;
use std::time::Duration;

use crate::broker::BrokerError;
use crate::client::ClientError;
use crate::codec::CodecError;
use crate::protocol::batch::BatchError;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::state::StateError;
use crate::types::{NameError, Offset, TopicName};

/// Reason why a step failed on a record.
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

/// Error that stopped a job or its start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The job as built cannot run.
    #[error("the job {job} cannot run: {why}")]
    Topology {
        /// The job.
        job: String,
        /// The mistake, and what to do.
        why: String,
    },
    /// The job was changed in a way that would lose or misread its state.
    #[error("the job {job} does not fit its state: {why}")]
    Incompatible {
        /// The job.
        job: String,
        /// The change, and what to do.
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
        /// The words of the codec or the user's function.
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
    /// A broadcast table takes more memory than it may.
    #[error(
        "the broadcast table {table} takes {bytes} bytes with its {keys} keys, and may take {bytes_max} in each process: give it more with `Broadcast::memory_bytes_max`, or use `join_table` or `join_on` with a table, whose values are on disk"
    )]
    TableTooLarge {
        /// The table's source: the name of its topic.
        table: String,
        /// The keys that it had by then.
        keys: usize,
        /// The bytes that they took.
        bytes: usize,
        /// The bytes that they may take.
        bytes_max: usize,
    },
    /// Another instance of the job took over, or one is running.
    #[error("the job {job} is run by another instance: {why}")]
    Fenced {
        /// The job.
        job: String,
        /// The evidence.
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
        /// Time that it was open.
        lasted: Duration,
        /// The transaction timeout.
        timeout: Duration,
    },
    /// The job ended before what was waited for.
    #[error("the job {job} has ended before it caught up: `finished` says why")]
    Ended {
        /// The job.
        job: String,
    },
    /// A source could not be read.
    #[error("cannot read the source {source_name}: {why}")]
    Source {
        /// The source.
        source_name: String,
        /// The failure, and what to do.
        why: String,
    },
    /// A sink could not be written.
    #[error("cannot write the sink {sink}: {why}")]
    Sink {
        /// The sink.
        sink: String,
        /// The failure, and what to do.
        why: String,
    },
    /// The target of a sink is away, or cannot serve at the moment. The job starts again from its last commit.
    #[error("the sink {sink} cannot be written at the moment: {why}")]
    SinkUnavailable {
        /// The sink.
        sink: String,
        /// The target's words.
        why: String,
    },
    /// The schema registry of a topic does not answer. The job is not started.
    #[error("the job cannot use the topic {topic} yet: {why}")]
    RegistryUnavailable {
        /// The topic.
        topic: String,
        /// Which registry, its last failure, and what to do.
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
        /// The operating system's words.
        why: String,
    },
    /// A savepoint cannot be taken, read or restored.
    #[error("the savepoint {}: {why}", path.display())]
    Savepoint {
        /// Its directory.
        path: std::path::PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// Letters of a job cannot be read or replayed.
    #[error("letters of the job {job}: {why}")]
    Letters {
        /// The job.
        job: String,
        /// The reason, and what to do.
        why: String,
    },
    /// The job differs from its lock file, or that file cannot be used.
    #[error("the lock file {}: {why}", path.display())]
    Lock {
        /// The file.
        path: std::path::PathBuf,
        /// The difference, and what to do.
        why: String,
    },
    /// The program was started by `onceflow check`, which wants to see its job only.
    #[error("the job {job} was looked at by `onceflow check`, and is not run")]
    OnlyLookedAt {
        /// The job.
        job: String,
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
    /// A thread of the job died, or could not be started.
    #[error("the thread {thread} of the job is not running: {why}")]
    Thread {
        /// Its name: `of-driver`, `of-worker-0`, `of-flush`, `of-member` or `of-replica`.
        thread: String,
        /// Its last words.
        why: String,
    },
}

/// The answer of whoever runs a job that has ended with an error ([`JobError::kind`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// It may run later as it is: start it again, after a pause. It tried a few times by itself.
    Retriable,
    /// A record cannot be processed: mend the data or the function, or have such records sent to a dead-letter topic.
    /// Started again as it is, it stops at the same record.
    Poison,
    /// A function of the job panicked: mend the program.
    Bug,
    /// A disk is full: free some space, then start it again.
    DiskFull,
    /// The job as built does not fit what is there (its settings, its topics, its earlier state), or a source or sink cannot
    /// be used: the message says what to change. Started again as it is, it stops again.
    Setup,
    /// Another instance of the job took over: leave it to that one.
    Fenced,
    /// Stored bytes are damaged: the message says which, and what can be done.
    Corrupt,
    /// None of these: somebody must look at the message.
    Fatal,
}

/// The words that every message of a full disk has, also that of a broker elsewhere.
const DISK_FULL: [&str; 3] = ["disk is full", "No space left on device", "quota exceeded"];

impl JobError {
    pub(crate) fn thread(name: &str, why: impl Into<String>) -> Self {
        Self::Thread {
            thread: name.to_owned(),
            why: why.into(),
        }
    }

    /// The system gave no thread.
    pub(crate) fn no_thread(name: &str, why: &impl fmt::Display) -> Self {
        Self::thread(name, format!("it could not be started: {why}"))
    }

    /// The answer of whoever runs the job.
    #[must_use]
    pub fn kind(&self) -> JobErrorKind {
        if self.is_disk_full() {
            return JobErrorKind::DiskFull;
        }
        match self {
            Self::Poison { .. } => JobErrorKind::Poison,
            Self::RegistryUnavailable { .. } => JobErrorKind::Retriable,
            Self::Panicked { .. } | Self::Thread { .. } => JobErrorKind::Bug,
            Self::Topology { .. }
            | Self::Incompatible { .. }
            | Self::Source { .. }
            | Self::Sink { .. }
            | Self::UnsafeTopic { .. }
            | Self::Folder { .. }
            | Self::Savepoint { .. }
            | Self::Letters { .. }
            | Self::TableTooLarge { .. }
            | Self::Lock { .. }
            | Self::OnlyLookedAt { .. }
            | Self::Name(_) => JobErrorKind::Setup,
            Self::State(
                StateError::StatePartitionsChanged { .. }
                | StateError::CodecChanged { .. }
                | StateError::TypeChanged { .. }
                | StateError::LaterVersion { .. }
                | StateError::NoMigration { .. }
                | StateError::NotToldApart { .. }
                | StateError::StoreMissing { .. }
                | StateError::NewerFormat { .. }
                | StateError::UnknownStore { .. },
            ) => JobErrorKind::Setup,
            _ => match self.cause() {
                ErrorKind::Retriable | ErrorKind::Abortable => JobErrorKind::Retriable,
                ErrorKind::Fenced => JobErrorKind::Fenced,
                ErrorKind::Corrupt => JobErrorKind::Corrupt,
                ErrorKind::Fatal => JobErrorKind::Fatal,
            },
        }
    }

    fn is_disk_full(&self) -> bool {
        let is_of_a_disk = match self {
            Self::State(_)
            | Self::Sink { .. }
            | Self::SinkUnavailable { .. }
            | Self::Folder { .. }
            | Self::Savepoint { .. } => true,
            Self::Broker(e) => e.code == ErrorCode::KafkaStorageError,
            Self::Client(e) => e.code() == Some(ErrorCode::KafkaStorageError),
            _ => false,
        };
        let said = self.to_string();
        is_of_a_disk && DISK_FULL.iter().any(|words| said.contains(words))
    }

    /// The kind that the layer below gives: a job starts again by itself where that mends it.
    pub(crate) fn cause(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::NotCommitted { .. } | Self::TimedOut { .. } => ErrorKind::Abortable,
            Self::SinkUnavailable { .. } => ErrorKind::Retriable,
            Self::Client(e) => e.kind(),
            Self::Broker(e) => e.kind(),
            Self::State(e) => e.kind(),
            Self::Batch(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Fatal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x18_the_kind_of_an_error_tells_a_supervisor_what_to_do() {
        let text = String::new;
        let disk = std::io::Error::from_raw_os_error(28);
        let full = BrokerError::new(
            ErrorCode::KafkaStorageError,
            "the disk is full: nothing was appended to 0.log",
        );
        let refused = ClientError::Refused {
            request: "Produce",
            code: ErrorCode::KafkaStorageError,
            message: full.message.clone(),
            kind: ErrorKind::Retriable,
        };
        let kinds = [
            (
                JobError::Poison {
                    split: text(),
                    offset: Offset::ZERO,
                    why: text(),
                },
                JobErrorKind::Poison,
            ),
            (
                JobError::Panicked {
                    split: text(),
                    offset: Offset::ZERO,
                    message: text(),
                },
                JobErrorKind::Bug,
            ),
            (
                JobError::NotCommitted { job: text() },
                JobErrorKind::Retriable,
            ),
            (
                JobError::Fenced {
                    job: text(),
                    why: text(),
                },
                JobErrorKind::Fenced,
            ),
            (
                JobError::Sink {
                    sink: text(),
                    why: disk.to_string(),
                },
                JobErrorKind::DiskFull,
            ),
            (full.into(), JobErrorKind::DiskFull),
            (refused.into(), JobErrorKind::DiskFull),
            (
                StateError::Io {
                    operation: "write",
                    path: "x".into(),
                    source: disk,
                }
                .into(),
                JobErrorKind::DiskFull,
            ),
            (BrokerError::corrupt("rot").into(), JobErrorKind::Corrupt),
        ];
        for (error, kind) in kinds {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn x18_a_job_that_cannot_run_as_it_is_built_is_a_matter_of_its_setup() {
        let (job, source_name) = (String::new(), String::new());
        let why = String::new;
        let topology = JobError::Topology { job, why: why() };
        let source = JobError::Source {
            source_name,
            why: why(),
        };
        assert_eq!(topology.kind(), JobErrorKind::Setup);
        assert_eq!(source.kind(), JobErrorKind::Setup);
    }
}
