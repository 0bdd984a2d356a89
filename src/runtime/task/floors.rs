//! The places below which keys of a store in order have no values any more, though they had many: their deletions are not read again.
//!
//! A join takes the oldest rows of a key out, again and again. Until they are flushed, and then until RocksDB compacts its files, each
//! look at the key from its beginning would pass all of them: for a key with many rows that is the square of their number.

use std::collections::HashMap;

/// A range that passed so many deletions is worth a floor.
const DELETIONS_MIN: usize = if cfg!(test) { 2 } else { 32 };
/// The most keys that have one.
const KEYS_MAX: usize = 1_024;

/// The first row of a key that may have a value, for some keys, by what their rows begin with.
#[derive(Debug, Default)]
pub(super) struct Floors {
    by_prefix: HashMap<Box<[u8]>, Vec<u8>>,
    /// The state partitions that they are true of.
    version: u32,
}

impl Floors {
    /// Forgets all where other state partitions came or went.
    pub(super) fn follow(&mut self, version: u32) {
        if self.version != version {
            self.version = version;
            self.by_prefix.clear();
        }
    }

    /// Raises the beginning of a range of a key's rows to the first one that may have a value.
    #[inline]
    pub(super) fn raise(&self, prefix: &[u8], from: &mut Vec<u8>) {
        if !self.by_prefix.is_empty()
            && let Some(floor) = self.by_prefix.get(prefix)
            && *from < *floor
        {
            from.clone_from(floor);
        }
    }

    /// A row of the key may get a value.
    #[inline]
    pub(super) fn may_have(&mut self, prefix: &[u8], row: &[u8]) {
        if !self.by_prefix.is_empty()
            && let Some(floor) = self.by_prefix.get(prefix)
            && row < &**floor
        {
            self.by_prefix.remove(prefix);
        }
    }

    /// The rows from one up to another of a key were taken out, which passed so many deletions; there are none below the first.
    pub(super) fn taken_out(&mut self, prefix: &[u8], from: &[u8], to: &[u8], deletions: usize) {
        if let Some(floor) = self.by_prefix.get_mut(prefix) {
            if from <= &**floor && to > &**floor {
                floor.clear();
                floor.extend_from_slice(to);
            }
        } else if from == prefix && deletions >= DELETIONS_MIN {
            if self.by_prefix.len() == KEYS_MAX {
                self.by_prefix.clear();
            }
            self.by_prefix.insert(prefix.into(), to.to_vec());
        }
    }
}
