//! Kafka's protocol as types: record batches and error codes, with their bytes.
//!
//! Knows no I/O: bytes in, values out, and back.

pub mod batch;
mod error;
pub mod messages;

pub use error::{ErrorCode, ErrorKind};
