//! Values of committed cycles on their way from a store's table into RocksDB.

use std::sync::Arc;

/// Names one flush of one store; handed back to the store once the flush is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushTicket(pub(super) u32);

/// Whether a flush is wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushUrgency {
    /// If the store holds much that RocksDB lacks, or holds it for long.
    WhenDue,
    /// If there is anything that RocksDB lacks: at the end of a job.
    Now,
}

/// All that one store changed since its last flush, as of the end of the cycle drained last.
/// It may be written by another thread, but only after that cycle is committed (invariant 7).
#[derive(Debug)]
#[must_use = "a flush that was taken holds its entries in memory until it is written"]
pub struct FlushBatch {
    store: Arc<str>,
    ticket: FlushTicket,
    /// Stored keys and values, one after the other.
    bytes: Vec<u8>,
    changes: Vec<Change>,
    changelog_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    start: usize,
    key_end: usize,
    /// `None` deletes the key.
    value_end: Option<usize>,
}

impl FlushBatch {
    pub(super) fn new(
        store: Arc<str>,
        ticket: FlushTicket,
        changes_count: usize,
        changelog_bytes: u64,
    ) -> Self {
        Self {
            store,
            ticket,
            bytes: Vec::new(),
            changes: Vec::with_capacity(changes_count),
            changelog_bytes,
        }
    }

    /// The store that the values belong to.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// What to hand to the store's `flushed` once the batch is written.
    #[must_use]
    pub fn ticket(&self) -> FlushTicket {
        self.ticket
    }

    /// How many keys it sets or deletes.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        self.changes.len()
    }

    /// What the batch takes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.changes.len() * size_of::<Change>()
    }

    /// The changelog bytes that need not be replayed once the batch is durable.
    pub(super) fn changelog_bytes(&self) -> u64 {
        self.changelog_bytes
    }

    /// Adds one key; `encode` appends its value.
    pub(super) fn push<E>(
        &mut self,
        state_partition: u16,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Option<Result<(), E>>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        super::key::encode_stored_key(state_partition, key, &mut self.bytes);
        let key_end = self.bytes.len();
        let has_value = encode(&mut self.bytes).transpose()?.is_some();
        self.changes.push(Change {
            start,
            key_end,
            value_end: has_value.then_some(self.bytes.len()),
        });
        Ok(())
    }

    /// Sorts by key: RocksDB inserts neighbours faster.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.changes
            .sort_unstable_by(|a, b| key_of(bytes, a).cmp(key_of(bytes, b)));
    }

    /// Stored keys with their values; `None` deletes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|change| {
            let value = change.value_end.map(|end| &self.bytes[change.key_end..end]);
            (key_of(&self.bytes, change), value)
        })
    }
}

fn key_of<'a>(bytes: &'a [u8], change: &Change) -> &'a [u8] {
    &bytes[change.start..change.key_end]
}
