//! Sizes of a store, and its reads.

use std::cell::Cell;

use super::{StateBackend, Store};

/// The size of a store of a running job, or of one worker's part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSize {
    /// The rows in memory: all rows, while the state is not larger than its memory, and those that were deleted since the last flush.
    pub rows_in_memory: u64,
    /// The bytes that they take there.
    pub memory_bytes: u64,
    /// The rows in RocksDB, by its estimate. Some of them are in memory, too; deleted ones count until it has compacted its files.
    pub rows_on_disk: u64,
    /// The bytes of RocksDB's files.
    pub disk_bytes: u64,
    /// The bytes in memory of rows that RocksDB lacks, or is just given: they cannot be evicted.
    pub dirty_bytes: u64,
    /// The keys and values of the changelog, in bytes, that are not on RocksDB's disk for sure: a restart replays no more than them.
    pub tail_bytes: u64,
    /// Those of them that RocksDB has in its memory, of all workers' parts.
    pub(crate) written_tail_bytes: u64,
}

/// Reads of a store while it was larger than its memory: a key of a batch, or a range, counts once. Nothing counts while all
/// rows are in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoreReads {
    /// Reads that memory answered.
    pub(crate) hits: u64,
    /// Reads for which RocksDB was asked.
    pub(crate) misses: u64,
}

/// The reads of a store since they were taken last. Only its own thread counts.
#[derive(Debug, Default)]
pub(super) struct ReadCounter {
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl ReadCounter {
    #[inline]
    pub(super) fn hit(&self, count: usize) {
        self.hits.set(self.hits.get() + count as u64);
    }

    #[inline]
    pub(super) fn miss(&self, count: usize) {
        self.misses.set(self.misses.get() + count as u64);
    }

    fn take(&self) -> StoreReads {
        StoreReads {
            hits: self.hits.take(),
            misses: self.misses.take(),
        }
    }
}

impl<V: Clone + Send + 'static> Store<V> {
    /// The size of this part of the store in memory, and of the whole of it on disk.
    pub(crate) fn size(&self) -> StoreSize {
        let (rows_on_disk, disk_bytes) = self.backend.size_on_disk(&self.name);
        let in_flight = self.in_flight.as_ref();
        let in_flight_bytes = in_flight.map_or(0, |flight| flight.changelog_bytes);
        StoreSize {
            rows_in_memory: self.entries_count() as u64,
            memory_bytes: self.memory_bytes() as u64,
            rows_on_disk,
            disk_bytes,
            dirty_bytes: self.unflushed_bytes() as u64,
            tail_bytes: self.changelog_bytes + in_flight_bytes,
            written_tail_bytes: self.backend.written_tail_bytes(&self.name),
        }
    }

    /// Takes the reads since this was called last.
    pub(crate) fn take_reads(&self) -> StoreReads {
        self.reads.take()
    }
}

impl StateBackend {
    /// The size of a store on disk, of all its state partitions: rows, by RocksDB's estimate, and bytes.
    fn size_on_disk(&self, store: &str) -> (u64, u64) {
        let property = |name| {
            let family = self.shared.family(store).ok()?;
            self.shared.db.property_int_value_cf(&family, name).ok()?
        };
        let rows = property("rocksdb.estimate-num-keys");
        let bytes = property("rocksdb.live-sst-files-size");
        (rows.unwrap_or(0), bytes.unwrap_or(0))
    }

    /// The bytes of a store's changelog that RocksDB has, and not on disk for sure.
    fn written_tail_bytes(&self, store: &str) -> u64 {
        self.shared
            .progress
            .lock()
            .tails
            .get(store)
            .copied()
            .unwrap_or(0)
    }
}
