//! Kafka's protocol as types: record batches and error codes, with their bytes.
//!
//! Knows no I/O: bytes in, values out, and back.

pub mod assignor;
pub mod batch;
pub mod consumer_protocol;
mod error;
pub mod messages;
mod murmur2;
#[cfg(feature = "net")]
pub mod sasl;
pub mod varint;
pub mod wire;

pub use error::{ErrorCode, ErrorKind};
pub use murmur2::{murmur2, partition_for_key};
