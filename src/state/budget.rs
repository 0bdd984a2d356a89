//! Shares of one bound on memory: for RocksDB, for the tables of all open stores, and for what is on its way between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of an allocation besides its own: the allocator's header and the mean of its rounding.
pub(super) const ALLOCATION_OVERHEAD_BYTES: usize = 16;

/// The parts of a job's memory. What is in neither part is for what comes and goes: a flush on its way (encoded once, and
/// once more in a write batch), records on their way to a store, open record batches, and what the allocator keeps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryShares {
    /// Blocks, filters, indexes and memtables of RocksDB.
    pub(super) rocks_bytes: usize,
    /// The tables of all stores.
    pub(super) tables_bytes: usize,
}

impl MemoryShares {
    pub(super) fn of(memory_bytes: usize) -> Self {
        let sixteenth = memory_bytes / 16;
        Self {
            rocks_bytes: sixteenth * 4,
            tables_bytes: sixteenth * 5,
        }
    }
}

/// The memory of all tables of one backend.
#[derive(Debug)]
pub(super) struct TableBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    stores_count: AtomicUsize,
}

impl TableBudget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            stores_count: AtomicUsize::new(0),
        }
    }

    /// Returns the change budget of the open cycle, all stores together: its changes can be neither evicted nor
    /// flushed, and the cycles before it may wait for a flush.
    pub(super) fn overlay_bytes_max(&self) -> usize {
        self.limit_bytes / 4
    }
}

/// One store's part of the budget: what it uses is counted until it is dropped.
#[derive(Debug)]
pub(super) struct TableShare {
    budget: Arc<TableBudget>,
    used_bytes: usize,
}

impl TableShare {
    pub(super) fn new(budget: &Arc<TableBudget>) -> Self {
        budget.stores_count.fetch_add(1, Ordering::Relaxed);
        Self {
            budget: Arc::clone(budget),
            used_bytes: 0,
        }
    }

    /// Says what the store uses now and returns what it may use: an equal share, or what the others leave if
    /// that is more. A store that grew while another was small shrinks again at its next batch.
    pub(super) fn limit_bytes(&mut self, used_bytes: usize) -> usize {
        let total = &self.budget.used_bytes;
        total.fetch_add(used_bytes, Ordering::Relaxed);
        let before = total.fetch_sub(self.used_bytes, Ordering::Relaxed);
        let others = before.saturating_sub(self.used_bytes + used_bytes);
        self.used_bytes = used_bytes;
        self.equal_bytes()
            .max(self.budget.limit_bytes.saturating_sub(others))
    }

    /// Returns the part of the budget that every store has, whatever the others use.
    pub(super) fn equal_bytes(&self) -> usize {
        self.budget.limit_bytes / self.stores_count()
    }

    /// Counts the stores in the budget, this one included.
    pub(super) fn stores_count(&self) -> usize {
        self.budget.stores_count.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for TableShare {
    fn drop(&mut self) {
        self.budget
            .used_bytes
            .fetch_sub(self.used_bytes, Ordering::Relaxed);
        self.budget.stores_count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_gets_what_the_others_leave_but_never_less_than_an_equal_share() {
        let budget = Arc::new(TableBudget::new(100));
        let mut first = TableShare::new(&budget);
        assert_eq!(first.limit_bytes(90), 100);
        let mut second = TableShare::new(&budget);
        assert_eq!(second.limit_bytes(0), 50);
        assert_eq!(second.limit_bytes(40), 50);
        assert_eq!(first.limit_bytes(90), 60);
        drop(second);
        assert_eq!(first.limit_bytes(60), 100);
    }
}
