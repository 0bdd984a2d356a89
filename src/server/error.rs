//! `ServerError`: why a server did not start, or a setting of its security was refused.

use std::path::PathBuf;

use crate::broker::BrokerError;
use crate::net::NetError;
use crate::protocol::ErrorKind;
use crate::protocol::sasl::SaslError;

/// Reason why a server did not start, or refused a setting of its security.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Others could reach it unprotected.
    #[error(
        "{address} can be reached from other machines, and {lacking}: give it TLS and authentication (certificate, key, and SASL or client certificates), listen on 127.0.0.1, or say that it is to be open (--allow-insecure)"
    )]
    Insecure {
        /// Where it was to listen.
        address: String,
        /// The missing part.
        lacking: &'static str,
    },
    /// A setting, a user or a rule is not valid.
    #[error("{what}")]
    Invalid {
        /// The fault, and what to do.
        what: String,
    },
    /// A file cannot be locked or read.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The network's part failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The data directory's part failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A password is not usable.
    #[error(transparent)]
    Sasl(#[from] SaslError),
    /// The operating system gives no threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(std::io::Error),
}

impl ServerError {
    /// Returns what a caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Net(error) => error.kind(),
            Self::Broker(error) => error.kind(),
            Self::Insecure { .. }
            | Self::Invalid { .. }
            | Self::File { .. }
            | Self::Sasl(_)
            | Self::Threads(_) => ErrorKind::Fatal,
        }
    }
}
