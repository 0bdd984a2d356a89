//! Kafka's protocol as types: record batches and error codes, with their bytes.
//!
//! Knows no I/O: bytes in, values out, and back.

pub(crate) mod assignor;
#[doc(hidden)]
pub mod batch;
pub(crate) mod consumer_protocol;
mod error;
pub mod messages;
mod murmur2;
#[cfg(feature = "net")]
#[doc(hidden)]
pub mod sasl;
pub(crate) mod varint;
#[doc(hidden)]
pub mod wire;

pub use batch::{Compression, Headers};
pub use error::{ErrorCode, ErrorKind};
pub use murmur2::{murmur2, partition_for_key};
