//! Buffers of large reads, used again and again: a fresh one costs a page fault for every 4 KiB that is read into it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller reads take what the allocator has: it keeps such blocks itself.
const KEPT_BYTES_MIN: usize = 64 << 10;
/// Larger ones are rare.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// The sizes that are kept: powers of two.
const SIZES: usize = (KEPT_BYTES_MAX / KEPT_BYTES_MIN).ilog2() as usize + 1;
/// Most idle bytes.
const IDLE_BYTES_MAX: usize = 16 << 20;

/// Buffers that nobody reads into now. The logs of one process share them.
#[derive(Default)]
pub(super) struct ReadBuffers {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_size: [Vec<Vec<u8>>; SIZES],
    size_bytes: usize,
}

/// A buffer to read into. It goes back when nobody sees what was read any more.
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<ReadBuffers>,
}

impl ReadBuffers {
    /// A buffer of `length` bytes. What is in it is of no meaning.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> ReadBuffer {
        let size = match length {
            KEPT_BYTES_MIN..=KEPT_BYTES_MAX => length.next_power_of_two(),
            _ => length,
        };
        let kept = index_of(size).and_then(|index| self.take_kept(index));
        ReadBuffer {
            bytes: kept.unwrap_or_else(|| vec![0; size]),
            length,
            home: Arc::clone(self),
        }
    }

    fn take_kept(&self, index: usize) -> Option<Vec<u8>> {
        let mut idle = self.idle.lock();
        let bytes = idle.by_size[index].pop()?;
        idle.size_bytes -= bytes.len();
        Some(bytes)
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let Some(index) = index_of(bytes.len()) else {
            return;
        };
        let mut idle = self.idle.lock();
        if idle.size_bytes + bytes.len() <= IDLE_BYTES_MAX {
            idle.size_bytes += bytes.len();
            idle.by_size[index].push(bytes);
        }
    }
}

/// Where buffers of this size are kept, if they are.
fn index_of(size: usize) -> Option<usize> {
    let is_kept = (KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&size) && size.is_power_of_two();
    is_kept.then(|| (size / KEPT_BYTES_MIN).ilog2() as usize)
}

impl ReadBuffer {
    /// The first `length` bytes, for as long as anybody holds them.
    pub(super) fn freeze(mut self, length: usize) -> Bytes {
        self.length = self.length.min(length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl DerefMut for ReadBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle_bytes(buffers: &ReadBuffers) -> usize {
        buffers.idle.lock().size_bytes
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_sees_its_bytes() {
        let buffers = Arc::new(ReadBuffers::default());
        let mut first = buffers.take(100_000);
        first.fill(7);
        let whole = first.freeze(90_000);
        let part = whole.slice(10..20);
        drop(whole);
        assert_eq!(idle_bytes(&buffers), 0);
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert_eq!(idle_bytes(&buffers), 128 << 10);
        // Another length of the same size takes it again.
        let again = buffers.take(128 << 10);
        assert_eq!((again.len(), idle_bytes(&buffers)), (128 << 10, 0));
    }

    #[test]
    fn what_lies_idle_is_bounded_and_small_and_huge_buffers_are_not_kept() {
        let buffers = Arc::new(ReadBuffers::default());
        for length in [0, 1, KEPT_BYTES_MIN - 1, KEPT_BYTES_MAX + 1] {
            let buffer = buffers.take(length);
            assert_eq!((buffer.len(), buffer.bytes.len()), (length, length));
            drop(buffer);
            assert_eq!(idle_bytes(&buffers), 0, "{length}");
        }
        let many: Vec<_> = (0..40).map(|_| buffers.take(1 << 20)).collect();
        drop(many);
        assert_eq!(idle_bytes(&buffers), IDLE_BYTES_MAX);
    }
}
