//! The contract of a source's readers: splits that are read at a position and can be read from there again. The source
//! itself is a [`Source`](crate::runtime::Source), where streams begin: `graph/source.rs`.

mod base64;

use std::task::Waker;
use std::time::Duration;

use super::error::JobError;
use super::record::Key;
use crate::codec::CodecError;
use crate::protocol::batch::Headers;
use crate::protocol::messages::CommittedOffset;
use crate::types::{Offset, Timestamp, TopicPartition};

/// A part of a source that is read in order by one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// A partition of a topic; its position is a committed offset of the job's group.
    Partition(TopicPartition),
    /// Anything else, by a name that stays the same across restarts.
    Named {
        /// The source.
        source: String,
        /// The split within the source.
        name: String,
    },
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Partition(partition) => partition.fmt(f),
            Self::Named { name, .. } => f.write_str(name),
        }
    }
}

/// A position in a split, and what tells later that the input before it is still the one that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The position.
    pub offset: Offset,
    /// Bytes of the source's own; see [`SplitReader::fingerprint`]. Of a partition of a topic between the job's processes, how far
    /// its senders have come.
    pub fingerprint: Vec<u8>,
    /// The split's watermark there, if the job keeps one.
    pub watermark: Option<Timestamp>,
}

/// Stands before a watermark in the metadata of a committed offset.
const WATERMARK: &str = "watermark=";
/// Stands there before the clocks of senders, which are base64 without padding.
const SENDERS: &str = "senders=";
/// The most bytes that the metadata of a committed offset may have, as a broker's `offset.metadata.max.bytes` has it by default.
const METADATA_BYTES_MAX: usize = 4096;

impl Position {
    /// A position as an offset and its metadata keep it.
    pub(crate) fn of_committed(committed: &CommittedOffset) -> Self {
        let millis = committed.metadata.strip_prefix(WATERMARK);
        let clocks = committed.metadata.strip_prefix(SENDERS);
        Self {
            watermark: millis.and_then(|millis| millis.parse().ok()).map(Timestamp),
            fingerprint: clocks.and_then(base64::decode).unwrap_or_default(),
            ..committed.offset.into()
        }
    }

    /// The metadata of the offset of a source's partition as committed.
    pub(crate) fn to_metadata(&self) -> String {
        let metadata = |watermark: Timestamp| format!("{WATERMARK}{watermark}");
        self.watermark.map_or_else(String::new, metadata)
    }

    /// The metadata of the offset of a partition between the job's processes as committed.
    pub(crate) fn to_metadata_of_senders(&self) -> String {
        match self.fingerprint.is_empty() {
            true => String::new(),
            false => format!("{SENDERS}{}", base64::encode(&self.fingerprint)),
        }
    }

    /// Whether clocks of so many bytes can be committed with an offset.
    pub(crate) fn holds_clocks(size_bytes: usize) -> bool {
        SENDERS.len() + base64::encoded_length(size_bytes) <= METADATA_BYTES_MAX
    }
}

impl std::convert::From<Offset> for Position {
    fn from(offset: Offset) -> Self {
        Self {
            offset,
            fingerprint: Vec::new(),
            watermark: None,
        }
    }
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Records were emitted, or at least the position moved.
    Progress,
    /// Nothing is there now; the waker will be called.
    Pending,
    /// Nothing is there now, and nobody will say when there is: ask again after so long.
    Later(Duration),
    /// The split has ended.
    Exhausted,
}

impl Read {
    /// Of two answers without progress, the one that asks for attention sooner.
    pub(crate) fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Later(a), Self::Later(b)) => Self::Later(a.min(b)),
            (Self::Later(_), _) | (Self::Pending, Self::Exhausted) => self,
            _ => other,
        }
    }
}

/// A record's bytes as they were in the source, for a dead-letter topic.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// The bytes that were read, and the headers.
    Bytes {
        /// The key.
        key: Option<&'a [u8]>,
        /// The value; `None` is null, which is not the same as empty.
        value: Option<&'a [u8]>,
        /// The headers; none if the source has no such thing.
        headers: Headers<'a>,
    },
    /// Those of a letter that is replayed.
    Letter {
        /// The key.
        key: Option<&'a [u8]>,
        /// The value.
        value: Option<&'a [u8]>,
        /// The headers of the record.
        headers: Headers<'a>,
        /// All headers, with those of the letter.
        told: Headers<'a>,
    },
    /// The source has values, not bytes; this encodes the value.
    Encode(&'a dyn Fn(&mut Vec<u8>) -> Result<(), CodecError>),
}

impl<'a> Raw<'a> {
    #[inline]
    pub(crate) fn headers(&self) -> Headers<'a> {
        match self {
            Self::Bytes { headers, .. } | Self::Letter { headers, .. } => *headers,
            Self::Encode(_) => Headers::NONE,
        }
    }
}

/// A record as its source found it: decoded, or why it cannot be.
pub struct Emitted<'a, K: ?Sized, V: ?Sized> {
    /// Its key ([`Key::none`] for sources without) and value.
    pub record: Result<(Key<'a, K>, &'a V), CodecError>,
    /// Its event time, the same whenever the record is read again; [`Timestamp::NONE`] if the source knows none.
    pub timestamp: Timestamp,
    /// Its offset in the split.
    pub offset: Offset,
    /// Its bytes.
    pub raw: Raw<'a>,
}

/// Where a reader puts the records that it reads.
pub trait Emit<K: ?Sized, V: ?Sized> {
    /// Hands a record to the job, and says whether the reader may emit the next one in the same call.
    ///
    /// # Errors
    /// Errors that stop the job; to be passed up with `?`.
    fn emit(&mut self, record: Emitted<'_, K, V>) -> Result<Pace, JobError>;
}

/// Reads one split. Used on one worker's thread.
pub trait SplitReader<K: ?Sized, V: ?Sized> {
    /// Emits about one batch of records without blocking, and fewer if it is asked to [`Pause`](Pace::Pause) within it; where
    /// there are none now, arranges for `waker` to be called.
    ///
    /// # Errors
    /// If the split cannot be read, or the job is to stop.
    fn read(&mut self, waker: &Waker, emit: &mut impl Emit<K, V>) -> Result<Read, JobError>;

    /// Whether the split was asked and has nothing, after [`read`](Self::read) found nothing to emit, as against not having answered yet.
    /// Event time goes on without a split only once it has nothing: see [`Watermarks`](crate::runtime::Watermarks).
    fn has_caught_up(&self) -> bool {
        true
    }

    /// The position behind the last record emitted: reading from here again gives what was not emitted yet.
    fn position(&self) -> Offset;

    /// A fingerprint that tells [`Source::resume`](crate::runtime::Source::resume) whether the input before the position is still the one that was read: kept with the
    /// position, where the split is not a partition of a topic. Its first byte is its version.
    fn fingerprint(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// The reader's next step after a record that it emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a reader that emits on holds up the commit"]
pub enum Pace {
    /// It emits the next one.
    GoOn,
    /// It keeps what it has not emitted yet, and answers [`Read::Progress`](crate::runtime::Read::Progress): a commit is due, or the cycle has all
    /// the records that it may have. The next call goes on behind this record.
    Pause,
}

/// A split that this worker is to read.
pub(crate) struct AssignedSplit {
    pub(crate) number: u32,
    pub(crate) split: Split,
    pub(crate) position: Option<Position>,
}
