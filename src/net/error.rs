//! `NetError`: why a connection could not be made, or ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

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
    #[error("no TLS with {peer}: {source}; {}", handshake_advice(source))]
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

/// What to do about a handshake that failed.
fn handshake_advice(source: &io::Error) -> &'static str {
    let cause = source.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
    match cause {
        Some(TlsError::InvalidCertificate(fault)) => match fault {
            CertificateError::UnknownIssuer => {
                "another authority signed its certificate than those trusted here: name that one (ssl.truststore.location)"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew its certificate, or set this machine's clock"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "set this machine's clock, or the other's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "dial it by a name that its certificate holds (bootstrap.servers, and the brokers' advertised.listeners), or give it another certificate"
            }
            _ => "give it another certificate",
        },
        Some(TlsError::InvalidMessage(_)) => {
            "it does not speak TLS there: check the port and security.protocol"
        }
        Some(TlsError::AlertReceived(_)) => "it refused: check the certificate that it was shown",
        None if source.kind() == io::ErrorKind::UnexpectedEof => {
            "it hung up: it may not speak TLS there: check the port and security.protocol"
        }
        _ => "check that it speaks TLS there, and that its certificate is trusted and names it",
    }
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
