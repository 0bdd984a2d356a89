//! Errors of one partition's log.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::is_out_of_files;
use crate::protocol::batch::BatchError;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::Offset;

/// An error of one partition's log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused a call. If it was a write or a sync, the log is poisoned.
    #[error("cannot {action} {}: {source}; check the disk, then reopen the log", path.display())]
    Io {
        /// The attempt.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is full. Nothing was written; the log stays usable.
    #[error("the disk is full: nothing was appended to {}; free some space and retry", path.display())]
    StorageFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// This process may open no more files. Nothing was changed; the log stays usable.
    #[error("no file handle is left to open {}: nothing was changed; close something, or raise the limit (ulimit -n), and retry", path.display())]
    TooManyFiles {
        /// The file or directory that could not be opened.
        path: PathBuf,
    },
    /// Stored bytes are damaged. Nothing was changed.
    #[error("{} is damaged at byte {position}: {why}; nothing was changed: restore the file from a copy, or inspect it with `onceflow log verify`", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage begins, in bytes from the file's start.
        position: u64,
        /// The damage.
        why: String,
    },
    /// An earlier write or sync failed, so nothing more is acknowledged (F11).
    #[error("{} stopped after a failure ({why}): close the log and open it again", dir.display())]
    Poisoned {
        /// The partition's directory.
        dir: PathBuf,
        /// The first failure.
        why: String,
    },
    /// A compaction was given up, because nobody wants its result any more. The log stands as it was.
    #[error("the compaction of {} was given up: the log is closed or deleted", dir.display())]
    Cancelled {
        /// The partition's directory.
        dir: PathBuf,
    },
    /// The offset is not in the log.
    #[error(
        "offset {offset} is outside the log, which holds {start} up to {end}: seek to its start or end"
    )]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log start offset.
        start: Offset,
        /// The end that the reader may see.
        end: Offset,
    },
    /// The log's rules for producers forbid the append; nothing was written.
    #[error("append refused: {why} ({code})")]
    Refused {
        /// Kafka's error.
        code: ErrorCode,
        /// Which rule, with the numbers.
        why: String,
    },
    /// The batch is not valid; nothing was written.
    #[error("append refused: {0}")]
    InvalidBatch(#[from] BatchError),
    /// The partition's directory was written by a newer release.
    #[error("{} has format version {found}, but this release reads up to {supported}: use a newer release", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        supported: i64,
    },
}

impl LogError {
    /// Returns what a caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::StorageFull { .. } | Self::TooManyFiles { .. } | Self::Cancelled { .. } => {
                ErrorKind::Retriable
            }
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Refused { code, .. } => code.kind(),
            Self::InvalidBatch(error) => error.kind(),
            Self::Io { .. }
            | Self::Poisoned { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::NewerFormat { .. } => ErrorKind::Fatal,
        }
    }

    /// Kafka's nearest error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Refused { code, .. } => *code,
            Self::InvalidBatch(error) => error.code(),
            Self::Io { .. }
            | Self::StorageFull { .. }
            | Self::TooManyFiles { .. }
            | Self::Cancelled { .. }
            | Self::Corrupt { .. }
            | Self::Poisoned { .. }
            | Self::NewerFormat { .. } => ErrorCode::KafkaStorageError,
        }
    }

    /// A closure that wraps an I/O error with what was attempted on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match is_out_of_files(&source) {
            true => Self::TooManyFiles {
                path: path.to_owned(),
            },
            false => Self::Io {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }

    pub(crate) fn corrupt(file: &Path, position: u64, why: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            position,
            why: why.into(),
        }
    }

    pub(crate) fn refused(code: ErrorCode, why: impl Into<String>) -> Self {
        Self::Refused {
            code,
            why: why.into(),
        }
    }
}
