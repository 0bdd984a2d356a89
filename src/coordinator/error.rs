//! Errors in journal records.

use crate::protocol::ErrorKind;

/// A journal holds something that this version cannot replay.
///
/// A request that is refused gets a [`crate::protocol::ErrorCode`] instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CoordinatorError {
    /// The bytes are not a record of the journal.
    #[error(
        "a record of {journal} is damaged ({why}): restore the data directory from a backup, or cut the journal with `onceflow log verify`'s advice"
    )]
    CorruptRecord {
        /// The journal's topic.
        journal: &'static str,
        /// The fault.
        why: &'static str,
    },
    /// The record was written by a newer version.
    #[error(
        "a record of {journal} has version {version}, and this release reads up to {newest}: use the release that wrote it"
    )]
    NewerVersion {
        /// The journal's topic.
        journal: &'static str,
        /// The record's version.
        version: i16,
        /// The newest version that is understood.
        newest: i16,
    },
}

impl CoordinatorError {
    /// Returns what a caller may do.
    #[must_use]
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::CorruptRecord { .. } => ErrorKind::Corrupt,
            Self::NewerVersion { .. } => ErrorKind::Fatal,
        }
    }
}
