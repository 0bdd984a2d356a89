//! News that workers share about memory and time: when sources stand still, and how large a shuffle's batches are (I10).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::env::Instant;

/// Most bytes of the batches that wait in one inbox.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// The time that a record is taken to need behind a shuffle before the first one was seen, in nanoseconds: a usual call over
/// the network, so that the first batches are small.
const WORK_NANOS_FIRST: u64 = 1_000_000;
/// Records a shuffle's batch holds at most: enough to pay for its hand-over, few enough to stay in the L2 cache.
const BATCH_RECORDS_MAX: usize = 4096;
/// Fewer are not worth a hand-over, unless each of them takes long.
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
    /// The commit interval, in nanoseconds.
    interval_nanos: u64,
    /// The open cycle is to close: its time is up, or it changed as much state as it may.
    are_sources_stopped: AtomicBool,
    /// When the driver asked for the close, in nanoseconds of the monotonic clock; 0 if it did not.
    close_asked_nanos: AtomicU64,
    /// The time that a record in flight needs, in nanoseconds, as of late.
    work_nanos: AtomicU64,
    /// The state that a record in flight adds: the most of late.
    growth_bytes: AtomicUsize,
}

impl Pressure {
    pub(crate) fn new(memory_bytes: usize, interval: Duration) -> Self {
        Self {
            memory_bytes,
            interval_nanos: nanos(interval),
            are_sources_stopped: AtomicBool::new(false),
            close_asked_nanos: AtomicU64::new(0),
            work_nanos: AtomicU64::new(WORK_NANOS_FIRST),
            growth_bytes: AtomicUsize::new(GROWTH_BYTES_FIRST),
        }
    }

    /// Makes all sources stand still until the next cycle; whether they did not before.
    pub(crate) fn stop_sources(&self) -> bool {
        !self.are_sources_stopped.swap(true, Ordering::Relaxed)
    }

    /// The cycle is to close: sources stop behind the record that they are at.
    pub(crate) fn ask_to_close(&self, now: Instant) {
        self.close_asked_nanos
            .store(nanos(now.0).max(1), Ordering::Relaxed);
        self.are_sources_stopped.store(true, Ordering::Relaxed);
    }

    /// When the driver asked for the close of the open cycle, if it did.
    pub(crate) fn close_asked(&self) -> Option<Instant> {
        let asked = self.close_asked_nanos.load(Ordering::Relaxed);
        (asked > 0).then_some(Instant(Duration::from_nanos(asked)))
    }

    /// The next cycle is about to open.
    pub(crate) fn release_sources(&self) {
        self.close_asked_nanos.store(0, Ordering::Relaxed);
        self.are_sources_stopped.store(false, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn are_sources_stopped(&self) -> bool {
        self.are_sources_stopped.load(Ordering::Relaxed)
    }

    /// Takes note that a batch of so many records took so long.
    pub(crate) fn note_work(&self, records_count: usize, took: Duration) {
        let Some(sample) = nanos(took).checked_div(records_count as u64) else {
            return;
        };
        // Up at half the way, so that one batch that was interrupted changes little; down more slowly.
        let known = self.work_nanos.load(Ordering::Relaxed);
        let next = match sample > known {
            true => known + (sample - known).div_ceil(2),
            false => known - (known - sample) / 4,
        };
        self.work_nanos.store(next, Ordering::Relaxed);
    }

    /// Counts the records of a shuffle that fit into a part of the commit interval: all that is in flight must be processed before
    /// a commit.
    fn records_within(&self, part_of_interval: u64) -> usize {
        let work_nanos = self.work_nanos.load(Ordering::Relaxed).max(1);
        let records = self.interval_nanos / part_of_interval / work_nanos;
        usize::try_from(records).unwrap_or(usize::MAX).max(1)
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

    /// Returns the bytes of a batch of `records_count` records and `size_bytes` once it is processed.
    pub(crate) fn weight_bytes(&self, records_count: usize, size_bytes: usize) -> usize {
        size_bytes + records_count * self.growth_bytes.load(Ordering::Relaxed)
    }

    /// Whether an inbox that holds so much makes the sources wait: for its memory, or for the time that it takes to empty it.
    pub(crate) fn is_crowded(&self, size_bytes: usize, records_count: usize) -> bool {
        size_bytes > (self.memory_bytes / 32).min(INBOX_BYTES_MAX)
            || records_count > self.records_within(2)
    }

    /// Returns the most records of a shuffle's batch. Each pair of workers has one in the making.
    pub(crate) fn batch_records_max(&self) -> usize {
        let growth_bytes = self.growth_bytes.load(Ordering::Relaxed).max(1);
        let by_memory =
            (self.memory_bytes / 512 / growth_bytes).clamp(BATCH_RECORDS_MIN, BATCH_RECORDS_MAX);
        by_memory.min(self.records_within(8))
    }

    /// Returns the most bytes of the open record batches of a topic with so many partitions.
    pub(crate) fn append_bytes_max(&self, partitions_count: usize) -> usize {
        (self.memory_bytes / 64 / partitions_count.max(1)).clamp(APPEND_BYTES_MIN, APPEND_BYTES_MAX)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn x10_what_is_in_flight_takes_no_longer_than_the_commit_interval() {
        let pressure = Pressure::new(512 << 20, INTERVAL);
        assert!(pressure.batch_records_max() <= 12, "nothing is known yet");
        (0..40).for_each(|_| pressure.note_work(4096, Duration::from_micros(400)));
        assert!(pressure.batch_records_max() >= 2048);
        assert!(!pressure.is_crowded(0, 100_000));
        (0..8).for_each(|_| pressure.note_work(10, Duration::from_millis(50)));
        assert_eq!(pressure.batch_records_max(), 2);
        assert!(pressure.is_crowded(0, 12) && !pressure.is_crowded(0, 8));
        (0..8).for_each(|_| pressure.note_work(1, Duration::from_secs(1)));
        assert_eq!(pressure.batch_records_max(), 1);
    }

    #[test]
    fn batches_shrink_at_once_when_records_add_much_state_and_grow_back_slowly() {
        let pressure = Pressure::new(64 << 20, INTERVAL);
        (0..40).for_each(|_| pressure.note_work(4096, Duration::from_micros(400)));
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
        let pressure = Pressure::new(1 << 20, INTERVAL);
        assert!(pressure.stop_sources());
        assert!(!pressure.stop_sources());
        assert!(pressure.are_sources_stopped());
        pressure.release_sources();
        assert!(!pressure.are_sources_stopped());
    }
}
