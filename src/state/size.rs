//! How large a store is.

use super::Store;

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
}

impl<V: Clone + Send + 'static> Store<V> {
    /// The size of this part of the store in memory, and of the whole of it on disk.
    pub(crate) fn size(&self) -> StoreSize {
        let (rows_on_disk, disk_bytes) = self.backend.size_on_disk(&self.name);
        StoreSize {
            rows_in_memory: self.entries_count() as u64,
            memory_bytes: self.memory_bytes() as u64,
            rows_on_disk,
            disk_bytes,
        }
    }
}
