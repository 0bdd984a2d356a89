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

/// The batch is held in blocks of this size: they are not copied when the batch grows, and the allocator
/// finds a use for them again, or gives them back to the system.
const BLOCK_BYTES: usize = 256 << 10;

/// All that one store changed since its last flush, as of the end of the cycle drained last.
/// It may be written by another thread, but only after that cycle is committed (invariant 7).
#[derive(Debug)]
#[must_use = "a flush that was taken holds its entries in memory until it is written"]
pub struct FlushBatch {
    store: Arc<str>,
    ticket: FlushTicket,
    /// Stored keys and values, one after the other; a key and its value are in one block.
    blocks: Vec<Vec<u8>>,
    changes: Vec<Change>,
    changelog_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    block: u32,
    start: u32,
    key_end: u32,
    /// [`Change::DELETED`] deletes the key.
    value_end: u32,
}

impl Change {
    const DELETED: u32 = u32::MAX;
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
            blocks: Vec::new(),
            changes: Vec::with_capacity(changes_count),
            changelog_bytes,
        }
    }

    /// The store that the values belong to.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the ticket for `flushed`, once the batch is written.
    #[must_use]
    pub fn ticket(&self) -> FlushTicket {
        self.ticket
    }

    /// Counts the keys set or deleted.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        self.changes.len()
    }

    /// Returns the batch's bytes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let blocks_bytes: usize = self.blocks.iter().map(Vec::capacity).sum();
        blocks_bytes + self.changes.capacity() * size_of::<Change>()
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
        let is_full = |block: &Vec<u8>| block.len() >= BLOCK_BYTES;
        if self.blocks.last().is_none_or(is_full) {
            // Room for a value that begins near the block's end; a larger one makes its block grow.
            self.blocks
                .push(Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 16));
        }
        let block = self.blocks.len() - 1;
        let bytes = &mut self.blocks[block];
        let start = bytes.len();
        super::key::encode_stored_key(state_partition, key, bytes);
        let key_end = bytes.len();
        let has_value = encode(bytes).transpose()?.is_some();
        let value_end = bytes.len();
        self.changes.push(Change {
            block: place(block),
            start: place(start),
            key_end: place(key_end),
            value_end: match has_value {
                true => place(value_end),
                false => Change::DELETED,
            },
        });
        Ok(())
    }

    /// Sorts by key: RocksDB inserts neighbours faster.
    pub(super) fn sort(&mut self) {
        let blocks = &self.blocks;
        self.changes
            .sort_unstable_by(|a, b| key_of(blocks, a).cmp(key_of(blocks, b)));
    }

    /// Stored keys with their values; `None` deletes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|change| {
            let value = match change.value_end {
                Change::DELETED => None,
                end => {
                    let block = &self.blocks[change.block as usize];
                    Some(&block[change.key_end as usize..end as usize])
                }
            };
            (key_of(&self.blocks, change), value)
        })
    }
}

fn key_of<'a>(blocks: &'a [Vec<u8>], change: &Change) -> &'a [u8] {
    &blocks[change.block as usize][change.start as usize..change.key_end as usize]
}

/// A place in a batch: a value fits a changelog record, which is far below 4 GiB, and so does a block.
fn place(position: usize) -> u32 {
    u32::try_from(position)
        .ok()
        .filter(|&position| position != Change::DELETED)
        .unwrap_or_else(|| {
            panic!("a flush holds less than 4 GiB in one block, not {position} bytes")
        })
}
