//! `NetError`: why a connection could not be made, or ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use super::address::Address;
use crate::protocol::ErrorKind;

/// Failure or end of a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Not a `host:port`.
    #[error("`{text}` is not an address: write host:port, with an IPv6 address in brackets")]
    BadAddress {
        /// The text given.
        text: String,
    },
    /// The name has no address.
    #[error("cannot find the address of {address}: {source}; check the name and the resolver")]
    Resolve {
        /// The target.
        address: Address,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error(
        "cannot connect to {address}: {source}; check that a broker listens there and that nothing between blocks it"
    )]
    Connect {
        /// The target.
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
        /// The slow step.
        doing: &'static str,
        /// The time allowed.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error("no TLS with {peer}: {source}; {}", handshake_advice(source).of_a_broker)]
    Handshake {
        /// The other side.
        peer: String,
        /// The failure.
        source: io::Error,
    },
    /// The settings of TLS do not fit each other.
    #[error("the TLS settings are not usable: {why}")]
    TlsSettings {
        /// The fault, and what to do.
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

/// Advice on a handshake that failed, in the words of each kind of server.
struct Advice {
    of_a_broker: &'static str,
    of_a_web_server: &'static str,
}

impl Advice {
    const fn of_both(advice: &'static str) -> Self {
        Self {
            of_a_broker: advice,
            of_a_web_server: advice,
        }
    }
}

fn handshake_advice(source: &io::Error) -> Advice {
    let cause = source.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
    match cause {
        Some(TlsError::InvalidCertificate(fault)) => certificate_advice(fault),
        Some(TlsError::InvalidMessage(_)) => Advice {
            of_a_broker: "it does not speak TLS there: check the port and security.protocol",
            of_a_web_server: "it does not speak TLS there: check the port, and whether the URL is to begin with http://",
        },
        Some(TlsError::AlertReceived(_)) => {
            Advice::of_both("it refused: check the certificate that it was shown")
        }
        None if source.kind() == io::ErrorKind::UnexpectedEof => Advice {
            of_a_broker: "it hung up: it may not speak TLS there: check the port and security.protocol",
            of_a_web_server: "it hung up: it may not speak TLS there: check the port",
        },
        _ => Advice::of_both(
            "check that it speaks TLS there, and that its certificate is trusted and names it",
        ),
    }
}

fn certificate_advice(fault: &CertificateError) -> Advice {
    match fault {
        CertificateError::UnknownIssuer => Advice {
            of_a_broker: "another authority signed its certificate than those trusted here: name that one (ssl.truststore.location)",
            of_a_web_server: "another authority signed its certificate than those trusted here: name that one (`trust`)",
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Advice::of_both("renew its certificate, or set this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Advice::of_both("set this machine's clock, or the other's")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Advice {
                of_a_broker: "dial it by a name that its certificate holds (bootstrap.servers, and the brokers' advertised.listeners), or give it another certificate",
                of_a_web_server: "call it by a name that its certificate holds, or give it another certificate",
            }
        }
        _ => Advice::of_both("give it another certificate"),
    }
}

impl NetError {
    /// The reason why there is no connection to a web server, in words about one.
    #[cfg(feature = "http")]
    pub(crate) fn of_a_web_server(&self) -> String {
        match self {
            Self::Resolve { source, .. } => {
                format!("its name has no address ({source}): check the name and the resolver")
            }
            Self::Connect { source, .. } => {
                format!(
                    "{source}: check that a server listens there and that nothing between blocks it"
                )
            }
            Self::Handshake { source, .. } => {
                format!("{source}; {}", handshake_advice(source).of_a_web_server)
            }
            other => other.to_string(),
        }
    }

    /// Returns what a caller may do.
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
