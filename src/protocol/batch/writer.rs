//! Writes records one behind the other, each straight to where it stays, and seals them into a batch.

use bytes::BytesMut;

use super::compression::compress;
use super::{BATCH_BYTES_MAX, Compression, HEADER_BYTES, Header};
use crate::protocol::varint;

/// Room for all of a record that stands before its key: 5 + 1 + 10 + 5 + 5 bytes, rounded up.
const HEAD_BYTES: usize = 32;
/// Room for a length before a value, rounded up.
const LENGTH_BYTES: usize = 8;
/// How much room a record needs beyond its own bytes, because more is copied than kept.
pub(super) const SLACK_BYTES: usize = HEAD_BYTES + LENGTH_BYTES;

/// What a record is made of, apart from its headers.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// The size of the record behind its length field, in bytes.
    #[inline]
    fn body_bytes(&self, headers_bytes: usize) -> usize {
        1 + varint::size_signed(self.timestamp_delta)
            + varint::size_signed(i64::from(self.offset_delta))
            + field_size_bytes(self.key)
            + field_size_bytes(self.value)
            + headers_bytes
    }

    /// The size of the whole record, in bytes.
    pub(super) fn size_bytes(&self, headers_bytes: usize) -> usize {
        let body_bytes = self.body_bytes(headers_bytes);
        varint::size_signed(length_of(body_bytes)) + body_bytes
    }
}

/// A batch in the making: room for its header, then its records, uncompressed.
#[derive(Debug, Default)]
pub(super) struct RecordWriter {
    buffer: BytesMut,
}

impl RecordWriter {
    /// Begins a batch, with room for `capacity_bytes` at first.
    pub(super) fn begin(&mut self, capacity_bytes: usize) {
        self.buffer.clear();
        self.buffer.reserve(capacity_bytes.max(HEADER_BYTES));
        self.buffer.extend_from_slice(&[0; HEADER_BYTES]);
    }

    /// The size of the batch so far, in bytes, uncompressed; 0 before `begin`.
    #[inline]
    pub(super) fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a record without headers.
    #[inline]
    pub(super) fn write(&mut self, parts: Parts<'_>) {
        self.write_start(parts, 1);
        self.buffer.extend_from_slice(&[0]);
    }

    /// Adds a record with headers.
    pub(super) fn write_with_headers<'a>(
        &mut self,
        parts: Parts<'_>,
        headers: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    ) {
        self.write_start(parts, headers_size_bytes(headers.clone()));
        varint::write_signed(&mut self.buffer, length_of(headers.len()));
        for (name, value) in headers {
            self.write_field(Some(name.as_bytes()));
            self.write_field(value);
        }
    }

    /// Writes a record up to its headers, which will take `headers_bytes` with their count.
    #[inline]
    fn write_start(&mut self, parts: Parts<'_>, headers_bytes: usize) {
        let body_bytes = parts.body_bytes(headers_bytes);
        self.make_room(body_bytes + SLACK_BYTES);
        let mut head = [0; HEAD_BYTES];
        let mut at = varint::put_signed(&mut head, 0, length_of(body_bytes));
        at += 1; // The attributes, always 0.
        at = varint::put_signed(&mut head, at, parts.timestamp_delta);
        at = varint::put_signed(&mut head, at, i64::from(parts.offset_delta));
        at = varint::put_signed(&mut head, at, field_length(parts.key));
        self.write_prefix(&head, at);
        self.buffer.extend_from_slice(parts.key.unwrap_or_default());
        self.write_field(parts.value);
    }

    #[inline]
    fn make_room(&mut self, need_bytes: usize) {
        assert!(
            need_bytes <= BATCH_BYTES_MAX.saturating_sub(self.buffer.len()),
            "a batch is at most 1 GiB: check a record's size before"
        );
        self.buffer.reserve(need_bytes);
    }

    #[inline]
    fn write_field(&mut self, field: Option<&[u8]>) {
        let mut length = [0; LENGTH_BYTES];
        let at = varint::put_signed(&mut length, 0, field_length(field));
        self.write_prefix(&length, at);
        self.buffer.extend_from_slice(field.unwrap_or_default());
    }

    /// Appends the first `length` of `bytes`. Copying all of them, a constant number, and taking the
    /// excess back costs a store or two; copying `length` of them costs a call.
    #[inline]
    fn write_prefix<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        let end = self.buffer.len() + length;
        self.buffer.extend_from_slice(bytes);
        self.buffer.truncate(end);
    }

    /// Ends the batch: compresses it as `header` says, completes `header` (length, checksum) and writes it.
    pub(super) fn seal(&mut self, mut header: Header, level: Option<i32>) -> BytesMut {
        let mut batch = match header.compression() {
            Compression::None => std::mem::take(&mut self.buffer),
            compression => self.compressed(compression, level).unwrap_or_else(|error| {
                // Still a valid batch, only a larger one.
                tracing::warn!(%compression, %error, "a batch is sent uncompressed");
                header.attributes = header.attributes.uncompressed();
                std::mem::take(&mut self.buffer)
            }),
        };
        self.buffer.clear();
        header.seal(&mut batch);
        batch
    }

    fn compressed(
        &self,
        compression: Compression,
        level: Option<i32>,
    ) -> std::io::Result<BytesMut> {
        compress(
            compression,
            level,
            HEADER_BYTES,
            &self.buffer[HEADER_BYTES..],
        )
    }
}

/// The size of all headers with their count, in bytes.
pub(super) fn headers_size_bytes<'a>(
    headers: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> usize {
    let count_bytes = varint::size_signed(length_of(headers.len()));
    let each = |(name, value): (&str, Option<&[u8]>)| {
        field_size_bytes(Some(name.as_bytes())) + field_size_bytes(value)
    };
    count_bytes + headers.map(each).sum::<usize>()
}

#[inline]
fn field_size_bytes(field: Option<&[u8]>) -> usize {
    varint::size_signed(field_length(field)) + field.map_or(0, <[u8]>::len)
}

/// The length of a field as written: −1 for an absent one.
#[inline]
fn field_length(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| length_of(bytes.len()))
}

/// A length in memory always fits 63 bits.
#[inline]
fn length_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
