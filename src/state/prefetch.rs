//! The keys of a batch that are not in memory, in the order in which RocksDB reads them best.

use super::key::{PlacedKey, encode_stored_key};

/// Bytes of a stored key before the key itself: the state partition.
const PREFIX_BYTES: usize = size_of::<u16>();

/// Collects missing keys; reused from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Misses {
    bytes: Vec<u8>,
    keys: Vec<Miss>,
}

#[derive(Debug, Clone, Copy)]
struct Miss {
    hash: u64,
    state_partition: u16,
    start: usize,
    end: usize,
}

impl Misses {
    pub(super) fn push(&mut self, key: &PlacedKey<'_>) {
        let start = self.bytes.len();
        encode_stored_key(key.state_partition, key.bytes, &mut self.bytes);
        self.keys.push(Miss {
            hash: key.hash,
            state_partition: key.state_partition,
            start,
            end: self.bytes.len(),
        });
    }

    /// Sorts the keys and drops those that are there twice.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        let stored = |miss: &Miss| &bytes[miss.start..miss.end];
        self.keys.sort_unstable_by(|a, b| stored(a).cmp(stored(b)));
        self.keys.dedup_by(|a, b| stored(a) == stored(b));
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys in groups of at most `keys_max`.
    pub(super) fn groups(&self, keys_max: usize) -> impl Iterator<Item = MissGroup<'_>> {
        self.keys.chunks(keys_max).map(|keys| MissGroup {
            bytes: &self.bytes,
            keys,
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }
}

/// Some of the missing keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct MissGroup<'a> {
    bytes: &'a [u8],
    keys: &'a [Miss],
}

impl<'a> MissGroup<'a> {
    /// The keys as RocksDB knows them.
    pub(super) fn stored_keys(self) -> impl Iterator<Item = &'a [u8]> {
        self.keys
            .iter()
            .map(move |miss| &self.bytes[miss.start..miss.end])
    }

    /// The same keys as the table knows them.
    pub(super) fn keys(self) -> impl Iterator<Item = PlacedKey<'a>> {
        self.keys.iter().map(move |miss| PlacedKey {
            hash: miss.hash,
            state_partition: miss.state_partition,
            bytes: &self.bytes[miss.start + PREFIX_BYTES..miss.end],
        })
    }
}
