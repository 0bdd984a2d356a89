//! Errors between bytes and messages.

use super::ApiKey;
use crate::protocol::ErrorKind;

/// Reason why bytes are no message, or a message has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The message ends too early, or announces more than there is.
    #[error(
        "the message needs {wanted_bytes} bytes where {left_bytes} are left: it is cut off or not Kafka's protocol"
    )]
    Truncated {
        /// Bytes that were to be read.
        wanted_bytes: u64,
        /// Bytes that are left.
        left_bytes: u64,
    },
    /// A length is negative (and not −1 for null) or beyond what its encoding can say.
    #[error(
        "the message holds the impossible length {length}: it is damaged or not Kafka's protocol"
    )]
    BadLength {
        /// The length.
        length: i64,
    },
    /// The message would take far more memory than it has bytes.
    #[error(
        "the message announces {count} elements, more than a message of its size may hold in memory: send fewer"
    )]
    TooManyElements {
        /// The number.
        count: u64,
    },
    /// A text is not UTF-8.
    #[error("a text in the message is not UTF-8")]
    NotUtf8,
    /// A variable-length number goes on past its five bytes.
    #[error("a variable-length number in the message is longer than five bytes")]
    BadVarint,
    /// No API has that number.
    #[error("no request has the number {api_key}: the peer speaks a newer or another protocol")]
    UnknownApi {
        /// The number.
        api_key: i16,
    },
    /// That version of the API is not known here.
    #[error("version {version} of {api} is not known: the peer must choose one from ApiVersions")]
    UnsupportedVersion {
        /// Which API.
        api: ApiKey,
        /// Which version.
        version: i16,
    },
    /// A request says something that the version cannot carry and that must not be left out.
    #[error(
        "version {version} of the request has no field {field}: the peer must be newer for this"
    )]
    Unsendable {
        /// The field.
        field: &'static str,
        /// Which version.
        version: i16,
    },
    /// A text or array is longer than its encoding allows.
    #[error("{length} bytes or elements are more than the protocol can say here")]
    TooLong {
        /// The length.
        length: usize,
    },
}

impl WireError {
    /// Returns what a caller may do: nothing but closing the connection or choosing another version.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Fatal
    }
}
