//! Connections: TCP with or without TLS, and the size-prefixed frames on it.
//!
//! The only layer that touches sockets. Both ends use it: the client to reach a cluster, the server to be reached.
//! Guarantees: a frame's size is checked before anything is allocated, and its buffer grows by the bytes that
//! arrived, not by the size announced (design D13); certificates are verified, names too unless told otherwise.
//! Knows nothing of requests. Waits as long as the caller lets it: timeouts around frames are the caller's.
//!
//! Reading order: `address.rs`, `connection.rs` (connecting and listening), `frame.rs`, `tls.rs`, `pem.rs`, `subject.rs`.

mod address;
mod connection;
mod error;
mod frame;
mod pem;
mod runtime;
mod stream;
mod subject;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use address::Address;
pub(crate) use connection::{
    ConnectTimeouts, Connection, Incoming, Listener, connect, raise_open_files_limit,
};
pub(crate) use error::NetError;
pub(crate) use frame::{FrameReader, FrameWriter};
pub use pem::Pem;
pub(crate) use runtime::OwnRuntime;
#[cfg(feature = "postgres")]
pub(crate) use tls::ClientTlsStream;
pub use tls::{ClientAuth, ServerTlsSettings};
pub(crate) use tls::{ClientTls, ClientTlsSettings, ServerTls};
