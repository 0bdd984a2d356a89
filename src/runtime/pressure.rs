//! What workers tell each other about memory: when sources stand still, and how large a shuffle's batches are (I10).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the batches that wait in one inbox may take at most, in bytes.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// Records a shuffle's batch holds at most: enough to pay for its hand-over, few enough to stay in the L2 cache.
const BATCH_RECORDS_MAX: usize = 4096;
/// Fewer are not worth a hand-over.
const BATCH_RECORDS_MIN: usize = 64;
/// The state that a record is taken to add before the first one was seen, in bytes.
const GROWTH_BYTES_FIRST: usize = 512;
/// An open record batch is appended once it has so many bytes: large enough for few system calls, small enough
/// to be checksummed and copied while it is in the L2 cache.
const APPEND_BYTES_MAX: usize = 192 << 10;
/// Smaller ones would spend the log on headers.
const APPEND_BYTES_MIN: usize = 16 << 10;

/// The memory of a running job, as all its workers see it.
///
/// All records in flight end up in the state of the open cycle, and none of it can be flushed before the cycle is
/// committed. So what waits is weighed with the state that it will add: a number of 8 bytes may become a text.
#[derive(Debug)]
pub(crate) struct Pressure {
    memory_bytes: usize,
    /// The open cycle changed as much state as it may.
    is_over_budget: AtomicBool,
    /// The state that a record in flight adds: the most of late.
    growth_bytes: AtomicUsize,
}

impl Pressure {
    pub(crate) fn new(memory_bytes: usize) -> Self {
        Self {
            memory_bytes,
            is_over_budget: AtomicBool::new(false),
            growth_bytes: AtomicUsize::new(GROWTH_BYTES_FIRST),
        }
    }

    /// Makes all sources stand still until the next cycle; whether they did not before.
    pub(crate) fn stop_sources(&self) -> bool {
        !self.is_over_budget.swap(true, Ordering::Relaxed)
    }

    /// The next cycle is about to open.
    pub(crate) fn release_sources(&self) {
        self.is_over_budget.store(false, Ordering::Relaxed);
    }

    pub(crate) fn are_sources_stopped(&self) -> bool {
        self.is_over_budget.load(Ordering::Relaxed)
    }

    /// Takes note that a batch of so many records added so much state.
    pub(crate) fn note_growth(&self, records_count: usize, added_bytes: usize) {
        let Some(sample) = added_bytes.checked_div(records_count) else {
            return;
        };
        // Two workers may overwrite each other's note; the next batch mends it.
        let known = self.growth_bytes.load(Ordering::Relaxed);
        self.growth_bytes
            .store(sample.max(known - known / 16), Ordering::Relaxed);
    }

    /// What a batch of `records_count` records that takes `size_bytes` will take once it is processed.
    pub(crate) fn weight_bytes(&self, records_count: usize, size_bytes: usize) -> usize {
        size_bytes + records_count * self.growth_bytes.load(Ordering::Relaxed)
    }

    /// An inbox that holds more makes the sources wait.
    pub(crate) fn inbox_bytes_max(&self) -> usize {
        (self.memory_bytes / 32).min(INBOX_BYTES_MAX)
    }

    /// How many records a shuffle's batch may hold. Each pair of workers has one in the making.
    pub(crate) fn batch_records_max(&self) -> usize {
        let growth_bytes = self.growth_bytes.load(Ordering::Relaxed).max(1);
        (self.memory_bytes / 512 / growth_bytes).clamp(BATCH_RECORDS_MIN, BATCH_RECORDS_MAX)
    }

    /// How large the open record batches of a topic with so many partitions may become, in bytes.
    pub(crate) fn append_bytes_max(&self, partitions_count: usize) -> usize {
        (self.memory_bytes / 64 / partitions_count.max(1)).clamp(APPEND_BYTES_MIN, APPEND_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_at_once_when_records_add_much_state_and_grow_back_slowly() {
        let pressure = Pressure::new(64 << 20);
        pressure.note_growth(100, 0);
        let before = pressure.batch_records_max();
        pressure.note_growth(100, 100 << 10);
        assert_eq!(pressure.batch_records_max(), 128);
        assert_eq!(pressure.weight_bytes(10, 5), 5 + (10 << 10));
        pressure.note_growth(100, 0);
        assert!(pressure.batch_records_max() < before);
        (0..200).for_each(|_| pressure.note_growth(100, 0));
        assert_eq!(pressure.batch_records_max(), BATCH_RECORDS_MAX);
    }

    #[test]
    fn sources_are_stopped_once_a_cycle() {
        let pressure = Pressure::new(1 << 20);
        assert!(pressure.stop_sources());
        assert!(!pressure.stop_sources());
        assert!(pressure.are_sources_stopped());
        pressure.release_sources();
        assert!(!pressure.are_sources_stopped());
    }
}
