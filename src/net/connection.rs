//! Connecting, listening, and a connection before it is split into its two halves.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_rustls::TlsStream;

use super::address::Address;
use super::error::NetError;
use super::frame::{FrameReader, FrameWriter};
use super::stream::Stream;
use super::subject;
use super::tls::{ClientTls, ServerTls};

/// A silent connection is probed after so long, for the peer may be gone without a word.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Then again and again after so long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer that end it.
const KEEPALIVE_PROBES: u32 = 4;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Timeouts of connecting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectTimeouts {
    /// For each address of the name.
    pub connect: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
}

impl Default for ConnectTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Connects to `address`. The addresses of a name are tried in the resolver's order; the last failure is the one told.
///
/// # Errors
/// [`NetError::Resolve`], [`NetError::Connect`], [`NetError::Timeout`], [`NetError::Handshake`].
pub(crate) async fn connect(
    address: &Address,
    tls: Option<&ClientTls>,
    timeouts: ConnectTimeouts,
) -> Result<Connection, NetError> {
    let stream = connect_tcp(address, timeouts.connect).await?;
    prepare(&stream)?;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => {
            let stream = tls.handshake(&address.host, stream, timeouts.handshake);
            Stream::Tls(Box::new(stream.await?))
        }
    };
    Ok(Connection {
        stream,
        peer,
        local,
    })
}

async fn connect_tcp(address: &Address, limit: Duration) -> Result<TcpStream, NetError> {
    let resolve = |source| NetError::Resolve {
        address: address.clone(),
        source,
    };
    let found = tokio::time::timeout(limit, lookup_host((address.host.as_str(), address.port)));
    let found = match found.await {
        Ok(found) => found.map_err(resolve)?,
        Err(_) => return Err(resolve(io::ErrorKind::TimedOut.into())),
    };
    let mut last = resolve(io::ErrorKind::NotFound.into());
    for candidate in found.take(ADDRESSES_MAX) {
        last = match tokio::time::timeout(limit, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => NetError::Connect {
                address: address.clone(),
                source,
            },
            Err(_) => NetError::Connect {
                address: address.clone(),
                source: io::ErrorKind::TimedOut.into(),
            },
        };
    }
    Err(last)
}

/// No delay of small frames; and a peer that vanished is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Lets this process have as many files and sockets open as the system lets it ask for: often only 1,024 until it asks.
pub(crate) fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Listens on the first address of `address` that can be had. Port 0 takes a free one: see [`Listener::local`]. Does not
    /// await, looks names up itself, and must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Listen`].
    pub(crate) fn bind(address: &Address) -> Result<Self, NetError> {
        let bound = std::net::TcpListener::bind((address.host.as_str(), address.port));
        let listener = bound.and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        match listener {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(NetError::Listen {
                address: address.clone(),
                source,
            }),
        }
    }

    /// Whether an address can be listened on now, which somebody else is to do.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    #[cfg(feature = "cli")]
    pub(crate) fn check(address: &Address) -> Result<(), NetError> {
        match std::net::TcpListener::bind((address.host.as_str(), address.port)) {
            Ok(_) => Ok(()),
            Err(source) => Err(NetError::Listen {
                address: address.clone(),
                source,
            }),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub(crate) fn local(&self) -> Result<SocketAddr, NetError> {
        Ok(self.listener.local_addr()?)
    }

    /// Waits for the next connection. Its TLS handshake, if any, is still to be done ([`Incoming::establish`]), by
    /// another task: a slow one must not hold up those behind it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`NetError::Io`]: often of that one connection, or of too many open files; a listener goes on after a pause.
    pub(crate) async fn accept(&self) -> Result<Incoming, NetError> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(Incoming { stream, peer })
    }
}

/// A connection that was accepted, before its handshake. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Incoming {
    /// Who connects.
    #[must_use]
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sets the socket's options and does the TLS handshake, if there is to be one, within `limit`.
    ///
    /// # Errors
    /// [`NetError::Handshake`], [`NetError::Timeout`], [`NetError::Io`].
    pub(crate) async fn establish(
        self,
        tls: Option<&ServerTls>,
        limit: Duration,
    ) -> Result<Connection, NetError> {
        prepare(&self.stream)?;
        let local = self.stream.local_addr()?;
        let peer = self.peer;
        let stream = match tls {
            None => Stream::Plain(self.stream),
            Some(tls) => {
                let stream = tls.handshake(&peer.to_string(), self.stream, limit).await?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Connection {
            stream,
            peer,
            local,
        })
    }
}

/// An established connection.
pub(crate) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    /// The other side's address.
    #[must_use]
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    #[must_use]
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it is encrypted.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whom the client's certificate names, as `CN=alice,O=example`; `None` if it showed none.
    #[must_use]
    pub(crate) fn peer_subject(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let TlsStream::Server(stream) = stream.as_ref() else {
            return None;
        };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        subject::of_certificate(certificate)
    }

    /// The half that reads frames of up to `frame_bytes_max` bytes, and the half that writes them.
    #[must_use]
    pub(crate) fn split(self, frame_bytes_max: usize) -> (FrameReader, FrameWriter) {
        let (read, write) = self.stream.split();
        (
            FrameReader::new(read, frame_bytes_max),
            FrameWriter::new(write),
        )
    }
}

#[cfg(feature = "http")]
impl Connection {
    /// The bytes of both directions, for a protocol without frames of ours.
    pub(crate) fn into_bytes(self) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {
        let (read, write) = self.stream.split();
        tokio::io::join(read, write)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} -> {})", self.local, self.peer)
    }
}
