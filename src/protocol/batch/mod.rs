//! Record batches, Kafka's format v2: the only record format, in memory, on disk and on the wire (design D2).
//!
//! A batch is built once, by a [`BatchBuilder`]; the log checks it, record by record if somebody else built it
//! ([`NewRecords`]), stamps its offset and stores the bytes; a reader gets the same bytes back as [`Batch`]es, whose [`Records`] borrow from them.
//! Nothing read here is trusted: each length is checked before it is used, decompression has a
//! [`DecompressionLimit`], and no input can make these functions panic.
//!
//! Not here: sequences and epochs across batches (`log`), and topics' rules (`log`).
//!
//! In reading order: `header.rs`, `record.rs`, `headers.rs`, `whole.rs`, `writer.rs`, `builder.rs`, `built.rs`, `control.rs`,
//! `check.rs`, `rewrite.rs`, `compression.rs`, `xerial.rs`.

mod builder;
mod built;
mod check;
mod compression;
mod control;
mod error;
mod header;
mod headers;
mod record;
mod rewrite;
#[cfg(test)]
mod tests;
mod whole;
mod writer;
mod xerial;

pub(crate) use builder::first_record_size_bytes;
pub use builder::{BATCH_BYTES_MAX, BatchBuilder, BatchProducer, record_size_bytes};
pub use built::{BuiltBatch, NewRecords};
pub use check::{BadRecord, RecordFault, RecordRules, check_client_batch, check_client_records};
pub use compression::{Compression, DecompressionLimit, UnknownCompressionName};
pub use control::{ControlRecord, ControlType, MARKER_BYTES, encode_marker};
pub use error::BatchError;
pub use header::{
    Attributes, HEADER_BYTES, Header, stamp, stamp_log_append_time, stamp_max_timestamp,
};
pub use headers::{HeaderList, Headers, RawHeaders};
pub use record::{Record, RecordIter, Records};
pub use rewrite::{emptied, recompress, rewrite};
pub use whole::{Batch, Batches};
