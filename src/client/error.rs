//! Errors of a client, and what to do about them.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::CodecError;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Offset, PartitionIndex, TopicName, TopicPartition};

/// Failure of a client's call. Cheap to clone: one failed batch tells all its records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The broker refused a request; nothing of it took effect.
    #[error("{request} was refused: {message}")]
    Refused {
        /// Kafka's name of the request.
        request: &'static str,
        /// Kafka's error.
        code: ErrorCode,
        /// The broker's own words.
        message: String,
        /// The kind that the caller acts on.
        kind: ErrorKind,
    },
    /// No answer came, or none that says whether the request took effect.
    #[error(
        "{request} had no clear answer ({why}): its outcome is unknown: read back what is committed before going on"
    )]
    Unanswered {
        /// Kafka's name of the request.
        request: &'static str,
        /// The evidence.
        why: String,
        /// `Retriable` if the same request may be sent again, `Fenced` if somebody else has taken over meanwhile,
        /// `Fatal` if no answer will come from this broker.
        kind: ErrorKind,
    },
    /// A broker could not be reached, or did not let us in; the request was not sent.
    #[error("cannot reach Kafka at {address}: {why}")]
    Connect {
        /// Where it was tried.
        address: String,
        /// The fault.
        why: String,
        /// `Retriable` if it may be reached later, `Fatal` if the settings or the cluster must change first.
        kind: ErrorKind,
    },
    /// A setting does not exist, does not parse, or contradicts another one.
    #[error("the setting {name} = {value:?} is not possible: {why}")]
    Config {
        /// Kafka's name of the setting.
        name: String,
        /// The value given.
        value: String,
        /// The mistake in it, and what is allowed.
        why: String,
    },
    /// The record is too large. It was refused before it entered the transaction, which stays usable (S15).
    #[error(
        "the record is {size_bytes} bytes, encoded; {limit} allows {limit_bytes}: raise that limit or split the value"
    )]
    RecordTooLarge {
        /// The record's size with its batch header.
        size_bytes: usize,
        /// The limit's value.
        limit_bytes: usize,
        /// Kafka's name of the limit.
        limit: &'static str,
    },
    /// The accumulator stayed full for `max.block.ms`. The record was not taken.
    #[error(
        "no room for the record within {waited:?}: buffer.memory ({buffer_memory_bytes} bytes) is full of unsent records; send more slowly, or raise buffer.memory or max.block.ms"
    )]
    BufferExhausted {
        /// Wait of the call.
        waited: Duration,
        /// The bound.
        buffer_memory_bytes: usize,
    },
    /// The batch was not acknowledged within `delivery.timeout.ms`. It may have been written.
    #[error(
        "{partition} did not acknowledge the batch within delivery.timeout.ms ({timeout:?}); last error: {last}. It may have been written"
    )]
    DeliveryTimeout {
        /// Where the batch was bound.
        partition: TopicPartition,
        /// The setting.
        timeout: Duration,
        /// The error of the last attempt, in words.
        last: String,
    },
    /// The record was given up, unsent, because its transaction was aborted or an earlier batch of it failed.
    #[error("the record was not sent: {why}")]
    NotSent {
        /// The reason.
        why: String,
    },
    /// The client was closed.
    #[error("the {client} is closed: open a new one")]
    Closed {
        /// Which kind of client.
        client: &'static str,
    },
    /// A key or value could not be encoded or decoded.
    #[error("the record's {part} ({place}): {source}")]
    Codec {
        /// `key` or `value`.
        part: &'static str,
        /// Topic, and partition and offset where they are known.
        place: String,
        /// The codec's error.
        source: CodecError,
    },
    /// A batch that was read is damaged.
    #[error(
        "{partition} at offset {offset}: the record batch is damaged: {why}; run `onceflow log verify`"
    )]
    Corrupt {
        /// Where it was read.
        partition: TopicPartition,
        /// The reader's position.
        offset: Offset,
        /// The fault.
        why: String,
    },
    /// A batch that was read is as its producer sent it, but from some record on nobody can read it.
    #[error(
        "{partition} at offset {offset}: {why}; nothing was skipped: to go on behind the batch, seek to {next_offset}"
    )]
    Unreadable {
        /// Where it was read.
        partition: TopicPartition,
        /// The first offset that cannot be read.
        offset: Offset,
        /// One past the batch's last offset.
        next_offset: Offset,
        /// The fault.
        why: String,
    },
    /// The position is outside the partition, for example because retention deleted what is
    /// there (S14). Nothing is skipped unless the reader seeks.
    #[error(
        "position {position} is outside {partition}, which holds {log_start_offset} to {end_offset}: records may have been deleted by retention; seek to where you want to go on"
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The reader's position.
        position: Offset,
        /// The partition's first offset.
        log_start_offset: Offset,
        /// One past the last offset that the reader may see.
        end_offset: Offset,
    },
    /// A new leader of the partition lacks records that were read: it was not in sync when it was elected (KIP-320).
    #[error(
        "position {position} is not in {partition} any more: the leader that was elected there holds what was read only up to {}; records are lost; seek to where you want to go on, and keep unclean.leader.election.enable=false",
        end_offset.map_or_else(|| "an unknown offset".to_owned(), |end| end.to_string())
    )]
    LogTruncated {
        /// The partition.
        partition: TopicPartition,
        /// The reader's position.
        position: Offset,
        /// Up to where the new leader holds what was read, if it knows.
        end_offset: Option<Offset>,
    },
    /// The topic was deleted, and another one got its name: the position means something else there.
    #[error(
        "topic {} was deleted and created anew: position {position} of {partition} was one of the old one; seek to where you want to go on in the new one",
        partition.topic
    )]
    TopicRecreated {
        /// The partition.
        partition: TopicPartition,
        /// The reader's position.
        position: Offset,
    },
    /// The reader has no position: nothing is committed and `auto.offset.reset` is `none`.
    #[error(
        "there is no committed position for {partition} and auto.offset.reset is none: seek first"
    )]
    NoPosition {
        /// The partition.
        partition: TopicPartition,
    },
    /// The consumer has not been assigned the partition.
    #[error("{partition} is not assigned to this consumer: assign it first")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}, it has {partitions_count}: use 0 to {}", partitions_count - 1)]
    NoSuchPartition {
        /// The topic.
        topic: TopicName,
        /// The partition asked for.
        partition: PartitionIndex,
        /// The number of them.
        partitions_count: i32,
    },
    /// The call does not fit the client's state.
    #[error("{call} is not possible now: {state}")]
    WrongState {
        /// The call.
        call: &'static str,
        /// The state, and which call is to come first.
        state: &'static str,
    },
    /// Something of the open transaction failed: it cannot be committed any more.
    #[error("the transaction must be aborted: {cause}")]
    MustAbort {
        /// The failure.
        cause: Arc<ClientError>,
    },
    /// The client could not start its thread.
    #[error("cannot start the thread {name}: {why}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The operating system's words.
        why: String,
    },
}

impl ClientError {
    /// Returns what the caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { kind, .. }
            | Self::Unanswered { kind, .. }
            | Self::Connect { kind, .. } => *kind,
            Self::BufferExhausted { .. } => ErrorKind::Retriable,
            Self::DeliveryTimeout { .. } | Self::NotSent { .. } | Self::MustAbort { .. } => {
                ErrorKind::Abortable
            }
            Self::Corrupt { .. } | Self::Unreadable { .. } => ErrorKind::Corrupt,
            _ => ErrorKind::Fatal,
        }
    }

    /// Whether the request may have taken effect although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::DeliveryTimeout { .. })
    }

    /// Kafka's error, if the broker gave one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::MustAbort { cause } => cause.code(),
            _ => None,
        }
    }

    /// A refusal by the broker in Kafka's standard words.
    #[must_use]
    pub fn refused(request: &'static str, code: ErrorCode) -> Self {
        Self::Refused {
            request,
            code,
            message: code.to_string(),
            kind: code.kind(),
        }
    }

    /// This refusal, where an earlier attempt had no clear answer: the outcome is unknown all the same. Who took over
    /// meanwhile is known, though (I4).
    #[must_use]
    pub(crate) fn into_unanswered(self, request: &'static str) -> Self {
        match self {
            Self::Unanswered { .. } => self,
            other => Self::Unanswered {
                request,
                kind: match other.kind() {
                    ErrorKind::Fenced => ErrorKind::Fenced,
                    _ => ErrorKind::Fatal,
                },
                why: format!("an earlier attempt had no clear answer, a later one failed: {other}"),
            },
        }
    }

    /// This failure as the reason why a transaction can only be aborted.
    #[must_use]
    pub(crate) fn into_must_abort(self) -> Self {
        match self {
            Self::MustAbort { .. } => self,
            cause => Self::MustAbort {
                cause: Arc::new(cause),
            },
        }
    }
}
