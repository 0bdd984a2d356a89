//! A key as the stores see it: its bytes, their hash, and the state partition that they belong to.

use crate::protocol::murmur2;

/// An encoded key with what is computed from its bytes once, where the stream is keyed. Nothing in it can be chosen, so
/// equal bytes are one key in one state partition wherever they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashedKey<'a> {
    hash: u64,
    partition_hash: u32,
    bytes: &'a [u8],
}

impl<'a> HashedKey<'a> {
    /// The key of these bytes.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_partition_hash(bytes, murmur2(bytes))
    }

    /// A key whose murmur2 was computed before.
    #[inline]
    pub(crate) fn with_partition_hash(bytes: &'a [u8], partition_hash: u32) -> Self {
        Self {
            hash: hash_key(bytes),
            partition_hash,
            bytes,
        }
    }

    /// A key that is kept in the state partition of another one, which it was made of.
    pub(crate) fn beside(bytes: &'a [u8], key: &[u8]) -> Self {
        Self::with_partition_hash(bytes, murmur2(key))
    }

    /// The state partition of the key in a job with so many.
    pub(crate) fn state_partition(&self, state_partitions: u16) -> u16 {
        self.place(state_partitions).state_partition
    }

    /// The encoded key.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The hash by which the tables find it.
    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The key in a job with so many state partitions.
    #[inline]
    pub(super) fn place(&self, state_partitions: u16) -> PlacedKey<'a> {
        PlacedKey {
            hash: self.hash,
            state_partition: state_partition(self.partition_hash, state_partitions),
            bytes: self.bytes,
        }
    }
}

/// The identity of an entry, in memory as in RocksDB: the state partition and the key's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlacedKey<'a> {
    /// [`hash_key`] of the bytes. It never leaves the process.
    pub(super) hash: u64,
    pub(super) state_partition: u16,
    pub(super) bytes: &'a [u8],
}

/// The hash by which the tables in memory find a key: rapidhash with a fixed seed. It is not stored anywhere.
#[must_use]
#[inline]
pub fn hash_key(bytes: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(bytes)
}

/// The state partition of a key with this murmur2, as the Java client's default partitioner chooses a partition.
///
/// # Panics
/// If `state_partitions` is 0.
#[must_use]
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder is below a u16"
)]
pub fn state_partition(partition_hash: u32, state_partitions: u16) -> u16 {
    ((partition_hash & 0x7fff_ffff) % u32::from(state_partitions)) as u16
}

/// The longest key that is kept inside its entry: with length and tag it makes 24 bytes, as a `Vec` would take.
const INLINE_BYTES_MAX: usize = 22;

/// The bytes of a key, inside the entry if they are few: most keys are words and numbers, and a
/// pointer to elsewhere is a cache miss more.
#[derive(Debug)]
pub(super) enum KeyBytes {
    Inline {
        length_bytes: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Heap(Box<[u8]>),
}

impl KeyBytes {
    pub(super) fn new(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(length_bytes) if key.len() <= INLINE_BYTES_MAX => {
                let mut bytes = [0; INLINE_BYTES_MAX];
                bytes[..key.len()].copy_from_slice(key);
                Self::Inline {
                    length_bytes,
                    bytes,
                }
            }
            _ => Self::Heap(key.into()),
        }
    }

    /// The first byte that is in the entry itself.
    #[inline]
    pub(super) fn first_byte(&self) -> u8 {
        match self {
            Self::Inline { bytes, .. } => bytes[0],
            Self::Heap(_) => 0,
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline {
                length_bytes,
                bytes,
            } => &bytes[..usize::from(*length_bytes)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Returns the bytes outside the entry.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(bytes) => bytes.len() + super::budget::ALLOCATION_OVERHEAD_BYTES,
        }
    }
}

/// Appends the key that RocksDB knows: the state partition, big-endian, so that a partition is one range; then the bytes.
pub(super) fn encode_stored_key(state_partition: u16, key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&state_partition.to_be_bytes());
    out.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_come_back() {
        for length in [0, 1, 21, 22, 23, 300] {
            let key = vec![7; length];
            assert_eq!(KeyBytes::new(&key).as_slice(), key);
        }
        assert_eq!(size_of::<KeyBytes>(), 24);
    }

    #[test]
    fn the_state_partition_ignores_the_sign_as_the_java_client_does() {
        assert_eq!(state_partition(0xffff_ffff, 10), 7);
        assert_eq!(state_partition(12, 10), 2);
    }
}
