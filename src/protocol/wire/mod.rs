//! Kafka's requests and responses as bytes, at every version that we serve or speak.
//!
//! A message is one struct for all versions ([`messages`]). A field that a version lacks is skipped when written
//! and has its default when read; only a request whose meaning would change is refused ([`WireError::Unsendable`]).
//!
//! ```text
//! request   size(4) | api key(2) | version(2) | correlation id(4) | client id | [tags] | body
//! response  size(4) | correlation id(4) | [tags] | body
//! ```
//! The size is written and read by `net`; frames here begin behind it.
//!
//! Bytes come from strangers (design D13): a length is checked against what is there before it is used, what a
//! message may hold in memory is bounded by a small multiple of its bytes, and nothing recurses.
//! Record batches are never copied: they are slices of the frame when read, and chunks of their own when written, or
//! gaps that the sender fills ([`RecordBytes`]).
//!
//! Reading order: `apis.rs` (the table), `schema.rs` (the language of the messages), `messages/fetch.rs` (an
//! example), `field.rs`, `record_bytes.rs`, `reader.rs`, `writer.rs`, `frame.rs`.

mod apis;
mod error;
mod field;
mod frame;
pub mod messages;
mod reader;
mod record_bytes;
mod schema;
mod version_table;
mod writer;

#[cfg(test)]
mod tests;

pub use apis::{ApiKey, Request};
pub use error::WireError;
pub use frame::{
    EncodedFrame, RequestHeader, decode_request, decode_response, encode_request, encode_response,
};
pub use reader::Reader;
pub use record_bytes::RecordBytes;
pub use schema::{Message, Version};
pub use version_table::version_table;
pub use writer::{Gap, Writer};
