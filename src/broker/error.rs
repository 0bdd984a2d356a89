//! `BrokerError`: Kafka's error code with a message that says what happened, to what, and what to do.

use std::io;
use std::path::Path;

use crate::env::is_out_of_files;
use crate::log::LogError;
use crate::protocol::batch::BadRecord;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::NameError;

/// Refusal or failure of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct BrokerError {
    /// Kafka's code, which remote clients are given.
    pub code: ErrorCode,
    /// The failure, its object, and what to do.
    pub message: String,
    /// The records of a batch that were bad, if it was refused for them (KIP-467).
    pub bad_records: Vec<BadRecord>,
    kind: ErrorKind,
}

impl BrokerError {
    /// An error of kind `code.kind()`.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            bad_records: Vec::new(),
            kind: code.kind(),
        }
    }

    /// An error that retrying against this open broker cannot cure, whatever its code says.
    #[must_use]
    pub fn fatal(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            bad_records: Vec::new(),
            kind: ErrorKind::Fatal,
        }
    }

    /// Stored bytes are damaged.
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::CorruptMessage, message)
    }

    /// Returns what a caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<ErrorCode> for BrokerError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.to_string())
    }
}

impl From<LogError> for BrokerError {
    fn from(error: LogError) -> Self {
        let message = match &error {
            // The rule that was broken says it all.
            LogError::Refused { why, .. } => why.clone(),
            _ => error.to_string(),
        };
        let bad_records = match &error {
            LogError::InvalidBatch(why) => why.bad_records().to_vec(),
            _ => Vec::new(),
        };
        Self {
            code: error.code(),
            message,
            bad_records,
            kind: error.kind(),
        }
    }
}

impl From<NameError> for BrokerError {
    fn from(error: NameError) -> Self {
        Self::new(ErrorCode::InvalidTopicException, error.to_string())
    }
}

/// The error of a file operation: `doing` is a verb, as in "cannot {doing} /data/lock".
pub(super) fn io_error(error: &io::Error, doing: &str, path: &Path) -> BrokerError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BrokerError::new(
            ErrorCode::KafkaStorageError,
            format!("cannot {doing} {path}: the disk is full; free some space and try again"),
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => BrokerError::fatal(
            ErrorCode::KafkaStorageError,
            format!(
                "cannot {doing} {path}: {error}; give the user of this process the right to write there, or choose another directory"
            ),
        ),
        _ if is_out_of_files(error) => BrokerError::new(
            ErrorCode::KafkaStorageError,
            format!(
                "cannot {doing} {path}: no file handle is left; close something, or raise the limit (ulimit -n), and try again"
            ),
        ),
        _ => BrokerError::fatal(
            ErrorCode::KafkaStorageError,
            format!("cannot {doing} {path}: {error}"),
        ),
    }
}
