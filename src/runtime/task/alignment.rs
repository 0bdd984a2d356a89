//! The times that the splits of one process tell each other, where a source asks for alignment (`Watermarks::align_within`), and
//! the wake-ups of workers whose splits wait. A split is one number, written once for each batch of records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Waker;

use parking_lot::RwLock;

use crate::runtime::contract::alignment::AlignedSplit;
use crate::types::Timestamp;

/// The times that all splits tell; `contract/alignment.rs` says what follows from it.
pub(crate) struct Alignment {
    told: RwLock<Vec<Arc<AtomicI64>>>,
    /// The least bound within which splits are aligned, in milliseconds; the greatest number if none is.
    bound_millis: AtomicI64,
    /// A split waits, or did: whoever goes on wakes the workers.
    is_waited_for: AtomicBool,
    workers: Vec<Waker>,
}

impl Alignment {
    pub(crate) fn new(workers: Vec<Waker>) -> Self {
        Self {
            told: RwLock::default(),
            bound_millis: AtomicI64::new(i64::MAX),
            is_waited_for: AtomicBool::new(false),
            workers,
        }
    }

    /// Whether from one time to another it is farther than splits may be ahead of each other.
    #[inline]
    pub(crate) fn is_over(&self, from: Timestamp, to: Timestamp) -> bool {
        to.0.saturating_sub(from.0) > self.bound_millis.load(Ordering::Relaxed)
    }

    /// The least time that splits tell, but for one.
    fn least_but(&self, own: &Arc<AtomicI64>) -> Timestamp {
        let all = self.told.read();
        let others = all.iter().filter(|told| !Arc::ptr_eq(told, own));
        let told = others.map(|told| told.load(Ordering::SeqCst));
        told.min().map_or(Timestamp::MAX, Timestamp)
    }

    fn wake(&self) {
        if self.is_waited_for.swap(false, Ordering::SeqCst) {
            self.workers.iter().for_each(Waker::wake_by_ref);
        }
    }
}

/// A split's place in the table; it leaves when this is dropped.
pub(crate) struct Seat {
    table: Arc<Alignment>,
    told: Arc<AtomicI64>,
    split: AlignedSplit,
}

impl Seat {
    /// A split that goes on from `watermark`.
    pub(crate) fn take(table: &Arc<Alignment>, bound_millis: i64, watermark: Timestamp) -> Self {
        let told = Arc::new(AtomicI64::new(watermark.0));
        table.told.write().push(Arc::clone(&told));
        table
            .bound_millis
            .fetch_min(bound_millis, Ordering::Relaxed);
        Self {
            table: Arc::clone(table),
            told,
            split: AlignedSplit::new(bound_millis, watermark),
        }
    }

    /// Whether the split must look at the others before it goes on from `watermark`.
    #[inline]
    pub(crate) fn is_beyond(&self, watermark: Timestamp) -> bool {
        self.split.is_beyond(watermark)
    }

    /// Looks at the others; returns whether the split waits for one. Then its worker is woken when one of them goes on.
    pub(crate) fn look(&mut self, watermark: Timestamp) -> bool {
        if !self.split.look(watermark, self.table.least_but(&self.told)) {
            return false;
        }
        // The flag first, then the times once more: one that goes on in between sees the flag, or was seen.
        self.table.is_waited_for.store(true, Ordering::SeqCst);
        self.split.look(watermark, self.table.least_but(&self.told))
    }

    /// Tells the others how far the split has come, or that nobody need wait for it.
    pub(crate) fn come_to(&mut self, watermark: Timestamp, is_away: bool) {
        if let Some(tells) = self.split.come_to(watermark, is_away) {
            let before = self.told.swap(tells.0, Ordering::SeqCst);
            if tells.0 > before {
                self.table.wake();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut told = self.table.told.write();
        told.retain(|told| !Arc::ptr_eq(told, &self.told));
        drop(told);
        self.table.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_worker_whose_split_waits_is_woken_when_another_goes_on_or_leaves() {
        let wakes = Arc::new(Wakes::default());
        let table = Arc::new(Alignment::new(vec![Arc::clone(&wakes).into()]));
        let count = || wakes.0.load(Ordering::SeqCst);
        let mut fast = Seat::take(&table, 10, Timestamp::MIN);
        let mut slow = Seat::take(&table, 10, Timestamp::MIN);
        slow.come_to(Timestamp(0), false);
        assert_eq!(count(), 0, "nobody waits");
        assert!(fast.look(Timestamp(11)));
        fast.come_to(Timestamp(11), false);
        assert_eq!(count(), 1, "it may be what another one waits for");
        assert!(fast.look(Timestamp(11)));
        slow.come_to(Timestamp(1), false);
        assert_eq!(count(), 2);
        assert!(!fast.look(Timestamp(11)));
        assert!(fast.look(Timestamp(50)));
        drop(slow);
        assert_eq!(count(), 3);
        assert!(!fast.look(Timestamp(50)));
    }
}
