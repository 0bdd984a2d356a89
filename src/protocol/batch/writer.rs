//! Writes records one behind the other, each straight to where it stays, and seals them into a batch.

use bytes::BytesMut;

use super::compression::compress;
use super::{BATCH_BYTES_MAX, Compression, HEADER_BYTES, Header};
use crate::protocol::varint;

/// A record with at most so many bytes of key and value together is written the fast way.
const SMALL_BYTES_MAX: usize = 4096;
/// Bytes of a small record beside its key and value: at most 3 + 1 + 7 + 5 + 2 + 2 + 1, and the rest of its
/// last register, of which more is stored than kept.
pub(super) const SLACK_BYTES: usize = 32;
/// The buffer is made ready in steps of so many bytes: small enough that they are still in the nearest
/// cache when the records come.
const STEP_BYTES: usize = 16 << 10;

/// Parts of a record, apart from its headers.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// The size of key and value, in bytes.
    #[inline]
    fn content_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

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
///
/// Zeroed bytes are kept ready behind the records, so that a small record is written through one slice with
/// its position in a register. Asking the buffer to grow field by field costs several times as much.
#[derive(Debug, Default)]
pub(super) struct RecordWriter {
    /// The batch up to `end`, then zeros or leftovers.
    buffer: BytesMut,
    end: usize,
}

impl RecordWriter {
    /// Begins a batch, with room for `capacity_bytes` at first.
    pub(super) fn begin(&mut self, capacity_bytes: usize) {
        self.buffer.clear();
        self.buffer.reserve(capacity_bytes.max(HEADER_BYTES));
        self.buffer.resize(HEADER_BYTES, 0);
        self.end = HEADER_BYTES;
    }

    /// The size of the batch so far, in bytes, uncompressed; 0 before `begin`.
    #[inline]
    pub(super) fn size_bytes(&self) -> usize {
        self.end
    }

    /// Adds a record without headers.
    #[inline]
    pub(super) fn write(&mut self, parts: Parts<'_>) {
        let is_small = parts.content_bytes() <= SMALL_BYTES_MAX
            && parts.timestamp_delta.unsigned_abs() < varint::REGISTER_VALUE_MAX.unsigned_abs();
        match is_small {
            true => self.write_small(parts),
            false => self.write_with_headers(parts, std::iter::empty()),
        }
    }

    /// The hot path. Varints are put together in registers: bytes stored one by one and loaded again as a
    /// word would stall the processor for longer than all the rest takes.
    #[inline]
    fn write_small(&mut self, parts: Parts<'_>) {
        let key = parts.key.unwrap_or_default();
        let value = parts.value.unwrap_or_default();
        let (time, time_bytes) = varint::encode_in_register(parts.timestamp_delta);
        let (offset, offset_bytes) = varint::encode_in_register(i64::from(parts.offset_delta));
        let (key_length, key_length_bytes) = varint::encode_in_register(field_length(parts.key));
        let (value_length, value_length_bytes) =
            varint::encode_in_register(field_length(parts.value));
        let body_bytes = 2
            + (time_bytes + offset_bytes)
            + (key_length_bytes + key.len())
            + (value_length_bytes + value.len());
        let (length, length_bytes) = varint::encode_in_register(length_of(body_bytes));

        let out = self.room(body_bytes + SLACK_BYTES);
        put_register(out, 0, length);
        let mut at = length_bytes;
        put_register(out, at, time << 8); // Behind the attributes, always 0.
        at += 1 + time_bytes;
        put_register(out, at, offset | key_length << (8 * offset_bytes));
        at += offset_bytes + key_length_bytes;
        if !key.is_empty() {
            out[at..at + key.len()].copy_from_slice(key);
            at += key.len();
        }
        put_register(out, at, value_length);
        at += value_length_bytes;
        out[at..at + value.len()].copy_from_slice(value);
        at += value.len();
        out[at] = 0; // No headers.
        self.end += at + 1;
    }

    /// The bytes behind the records, at least `need_bytes`.
    #[inline]
    fn room(&mut self, need_bytes: usize) -> &mut [u8] {
        if self.buffer.len() - self.end < need_bytes {
            self.grow(need_bytes.max(STEP_BYTES));
        }
        &mut self.buffer[self.end..]
    }

    #[cold]
    fn grow(&mut self, need_bytes: usize) {
        self.check_size(need_bytes);
        self.buffer.resize(self.end + need_bytes, 0);
    }

    fn check_size(&self, need_bytes: usize) {
        assert!(
            need_bytes <= BATCH_BYTES_MAX.saturating_sub(self.end),
            "a batch is at most 1 GiB: check a record's size before"
        );
    }

    /// Adds a record with headers, or of any size.
    pub(super) fn write_with_headers<'a>(
        &mut self,
        parts: Parts<'_>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    ) {
        let body_bytes = parts.body_bytes(headers_size_bytes(headers.clone()));
        self.check_size(body_bytes + SLACK_BYTES);
        self.buffer.truncate(self.end);
        self.buffer.reserve(body_bytes + SLACK_BYTES);
        varint::write_signed(&mut self.buffer, length_of(body_bytes));
        self.buffer.extend_from_slice(&[0]); // The attributes.
        varint::write_signed(&mut self.buffer, parts.timestamp_delta);
        varint::write_signed(&mut self.buffer, i64::from(parts.offset_delta));
        self.write_field(parts.key);
        self.write_field(parts.value);
        varint::write_signed(&mut self.buffer, length_of(headers.len()));
        for (name, value) in headers {
            self.write_field(Some(name));
            self.write_field(value);
        }
        self.end = self.buffer.len();
    }

    fn write_field(&mut self, field: Option<&[u8]>) {
        varint::write_signed(&mut self.buffer, field_length(field));
        self.buffer.extend_from_slice(field.unwrap_or_default());
    }

    /// Ends the batch: compresses it as `header` says, completes `header` (length, checksum) and writes it.
    pub(super) fn seal(&mut self, mut header: Header, level: Option<i32>) -> BytesMut {
        self.buffer.truncate(self.end);
        self.end = 0;
        let mut batch = match header.compression() {
            Compression::None => std::mem::take(&mut self.buffer),
            compression => self.compressed(compression, level).unwrap_or_else(|error| {
                // Still a valid batch, only a larger one.
                crate::env::warn!(%compression, %error, "a batch is sent uncompressed");
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

/// Stores all eight bytes; those behind the value are written over by what comes next.
#[inline]
fn put_register(out: &mut [u8], at: usize, register: u64) {
    out[at..at + 8].copy_from_slice(&register.to_le_bytes());
}

/// The size of all headers with their count, in bytes.
pub(super) fn headers_size_bytes<'a>(
    headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> usize {
    let count_bytes = varint::size_signed(length_of(headers.len()));
    let each = |(name, value): (&[u8], Option<&[u8]>)| {
        field_size_bytes(Some(name)) + field_size_bytes(value)
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
