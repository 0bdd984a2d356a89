//! Writes the protocol's primitive values as a list of chunks: small ones are gathered, records are not copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::varint;

/// Shorter bytes are copied: an entry in a vectored write costs about as much as copying this much.
const CHUNK_BYTES_MIN: usize = 2048;

/// A message being written.
#[derive(Debug, Default)]
pub struct Writer {
    chunks: Vec<Bytes>,
    gaps: Vec<Gap>,
    open: BytesMut,
}

/// Bytes of a message that are not here: who sends it puts them in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// They stand before the chunk of this index, or at the end if there is none.
    pub before_chunk: usize,
    /// Number of bytes.
    pub length_bytes: usize,
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

    /// Leaves room for `length_bytes` that are put in when the message is sent.
    pub(super) fn gap(&mut self, length_bytes: usize) {
        self.seal();
        self.gaps.push(Gap {
            before_chunk: self.chunks.len(),
            length_bytes,
        });
    }

    /// Adds all that `other` holds.
    pub(super) fn append(&mut self, other: Self) {
        if other.chunks.is_empty() && other.gaps.is_empty() {
            self.put(&other.open);
            return;
        }
        self.seal();
        let (chunks, gaps) = other.finish();
        let shifted = gaps.into_iter().map(|gap| Gap {
            before_chunk: gap.before_chunk + self.chunks.len(),
            ..gap
        });
        self.gaps.extend(shifted);
        self.chunks.extend(chunks);
    }

    pub(super) fn length_bytes(&self) -> usize {
        let gaps = self.gaps.iter().map(|gap| gap.length_bytes);
        self.open.len()
            + self
                .chunks
                .iter()
                .map(Bytes::len)
                .chain(gaps)
                .sum::<usize>()
    }

    pub(super) fn finish(mut self) -> (Vec<Bytes>, Vec<Gap>) {
        self.seal();
        (self.chunks, self.gaps)
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(self.open.split().freeze());
        }
    }
}
