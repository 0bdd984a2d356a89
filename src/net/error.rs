//! `NetError`: why a connection could not be made, or ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use crate::protocol::ErrorKind;

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Not a `host:port`.
    #[error("`{text}` is not an address: write host:port, with an IPv6 address in brackets")]
    BadAddress {
        /// What was given.
        text: String,
    },
    /// The name has no address.
    #[error("cannot find the address of {address}: {source}; check the name and the resolver")]
    Resolve {
        /// What was to be reached.
        address: Address,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error(
        "cannot connect to {address}: {source}; check that a broker listens there and that nothing between blocks it"
    )]
    Connect {
        /// What was to be reached.
        address: Address,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose a free port and an address of this machine"
    )]
    Listen {
        /// Where.
        address: Address,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The other side took too long.
    #[error(
        "{doing} took longer than {limit:?}; the other side may be overloaded or expect something else"
    )]
    Timeout {
        /// What took long.
        doing: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error(
        "no TLS with {peer}: {source}; check that it speaks TLS there, and that its certificate is trusted and names it"
    )]
    Handshake {
        /// The other side.
        peer: String,
        /// What failed.
        source: io::Error,
    },
    /// The settings of TLS do not fit each other.
    #[error("the TLS settings are not usable: {why}")]
    TlsSettings {
        /// What is wrong, and what to do.
        why: String,
    },
    /// A PEM file cannot be read.
    #[error("cannot read the PEM file {}: {source}", path.display())]
    PemFile {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A frame is larger than this connection takes.
    #[error(
        "the other side announced a frame of {size_bytes} bytes; at most {max_bytes} are taken (it may not speak Kafka's protocol, or speak TLS)"
    )]
    FrameTooLarge {
        /// The size announced, in bytes; negative if it says so.
        size_bytes: i64,
        /// The most taken, in bytes.
        max_bytes: usize,
    },
    /// A frame is too small to hold a header.
    #[error("the other side announced a frame of {size_bytes} bytes, too few for a header")]
    FrameTooSmall {
        /// The size announced, in bytes.
        size_bytes: usize,
    },
    /// The connection ended inside a frame.
    #[error("the other side closed the connection in the middle of a frame")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

impl NetError {
    /// What a caller may do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadAddress { .. }
            | Self::Listen { .. }
            | Self::TlsSettings { .. }
            | Self::PemFile { .. }
            | Self::FrameTooLarge { .. }
            | Self::FrameTooSmall { .. } => ErrorKind::Fatal,
            // A certificate that is refused today is refused tomorrow; a connection cut in the handshake may not be.
            Self::Handshake { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                ErrorKind::Fatal
            }
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Timeout { .. }
            | Self::Closed
            | Self::Io(_) => ErrorKind::Retriable,
        }
    }
}
