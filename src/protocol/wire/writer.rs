//! Writes the protocol's primitive values as a list of chunks: small ones are gathered, records are not copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::varint;

/// Shorter bytes are copied: an entry in a vectored write costs about as much as copying this much.
const CHUNK_BYTES_MIN: usize = 2048;

/// A message being written.
#[derive(Debug, Default)]
pub struct Writer {
    chunks: Vec<Bytes>,
    open: BytesMut,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
    }

    pub(super) fn varint(&mut self, value: u64) {
        varint::write_unsigned(&mut self.open, value);
    }

    /// Adds `bytes` without a copy if they are long enough for a chunk of their own.
    pub(super) fn chunk(&mut self, bytes: &Bytes) {
        if bytes.len() < CHUNK_BYTES_MIN {
            self.put(bytes);
            return;
        }
        self.seal();
        self.chunks.push(bytes.clone());
    }

    /// Adds all that `other` holds.
    pub(super) fn append(&mut self, other: Self) {
        if other.chunks.is_empty() {
            self.put(&other.open);
            return;
        }
        self.seal();
        self.chunks.extend(other.finish());
    }

    pub(super) fn length_bytes(&self) -> usize {
        self.open.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.seal();
        self.chunks
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(self.open.split().freeze());
        }
    }
}
