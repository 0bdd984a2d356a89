//! Reads the protocol's primitive values from a frame, and never past its end.

use bytes::Bytes;

use super::WireError;

/// Bytes of memory for the elements of a message's arrays, at most, for each byte of the message. The largest
/// that a peer has cause to send is a list of one-letter names: 24 bytes for 2.
const MEMORY_FACTOR: usize = 32;
/// Bytes that small messages may take beyond that.
const MEMORY_FLOOR_BYTES: usize = 4096;
/// The longest 32-bit varint, in bytes.
const VARINT_BYTES_MAX: u32 = 5;

/// A frame being read.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    /// Bytes of memory left for array elements.
    memory_bytes: usize,
}

impl Reader {
    /// Reads `bytes` from their beginning.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let memory_bytes = bytes.len().saturating_mul(MEMORY_FACTOR) + MEMORY_FLOOR_BYTES;
        Self {
            bytes,
            position: 0,
            memory_bytes,
        }
    }

    /// Returns the rest in bytes.
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn advance(&mut self, count: usize) -> Result<std::ops::Range<usize>, WireError> {
        if count > self.left_bytes() {
            return Err(WireError::Truncated {
                wanted_bytes: count as u64,
                left_bytes: self.left_bytes() as u64,
            });
        }
        let start = self.position;
        self.position += count;
        Ok(start..self.position)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let range = self.advance(N)?;
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[range]);
        Ok(value)
    }

    /// The next `count` bytes: a slice of the frame, not a copy.
    pub(super) fn slice(&mut self, count: usize) -> Result<Bytes, WireError> {
        let range = self.advance(count)?;
        Ok(self.bytes.slice(range))
    }

    pub(super) fn text(&mut self, count: usize) -> Result<String, WireError> {
        let range = self.advance(count)?;
        let text = std::str::from_utf8(&self.bytes[range]).map_err(|_| WireError::NotUtf8)?;
        Ok(text.to_owned())
    }

    /// An unsigned varint of at most 32 bits. Longer forms than needed are taken, as Kafka does: some clients
    /// write a length into the space that they reserved for a larger one.
    pub(super) fn varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for index in 0..VARINT_BYTES_MAX {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            let is_overflow = index == VARINT_BYTES_MAX - 1 && bits > 0x0f;
            if is_overflow {
                return Err(WireError::BadVarint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint)
    }

    /// Accepts `count` elements of `element_bytes` each in memory: none is shorter than a byte in the frame, and
    /// together they stay within the frame's bound.
    pub(super) fn charge(&mut self, count: usize, element_bytes: usize) -> Result<(), WireError> {
        if count > self.left_bytes() {
            return Err(WireError::Truncated {
                wanted_bytes: count as u64,
                left_bytes: self.left_bytes() as u64,
            });
        }
        let memory_bytes = count.saturating_mul(element_bytes);
        match self.memory_bytes.checked_sub(memory_bytes) {
            Some(rest) => {
                self.memory_bytes = rest;
                Ok(())
            }
            None => Err(WireError::TooManyElements {
                count: count as u64,
            }),
        }
    }

    /// Reads the next `count` bytes with `read`, which sees nothing behind them; what it leaves is skipped.
    pub(super) fn within<T>(
        &mut self,
        count: usize,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        let bytes = self.slice(count)?;
        let memory_bytes = std::mem::take(&mut self.memory_bytes);
        let mut inner = Self {
            bytes,
            position: 0,
            memory_bytes,
        };
        let value = read(&mut inner);
        self.memory_bytes = inner.memory_bytes;
        value
    }
}
