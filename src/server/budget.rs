//! `Budget`: the memory that all connections of a server share (I10).
//!
//! ```text
//! requests_bytes_max = small requests (a quarter) + large ones (the rest)
//! ```
//! A request is charged once its first 4 KiB have come, and until its answer is on its way; one that is no longer is not
//! charged at all: connections are few enough for that, and heartbeats and fetches never wait for those who announce a
//! request and are silent. A large one is charged in full only once its first 64 KiB have come: who announces much and
//! sends little holds little. Large ones that have to wait do not hold up small ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::Limits;

/// A request of up to so many bytes is taken without a charge.
pub(super) const TINY_BYTES: usize = 4 << 10;
/// A request of up to so many bytes is small.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// A fetch has at most this part of what is left for answers in memory: so many busy readers share it fairly.
const SHARES: usize = 16;
/// A fetch may always have so many bytes, or no reader would get on: 256 KiB, a few batches.
const FETCH_BYTES_MIN: usize = 256 << 10;

/// The memory that all connections of a server share.
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    answers_bytes_max: usize,
    answers_bytes: AtomicUsize,
}

/// A request's part of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    _small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

/// An answer's part of the budget, until it is dropped.
pub(super) struct AnswerCharge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Whether a large request is charged in full.
    pub(super) fn is_enlarged(&self) -> bool {
        self.large.is_some()
    }
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let small = limits.requests_bytes_max / 4;
        Arc::new(Self {
            small: Arc::new(Semaphore::new(small.max(SMALL_BYTES))),
            large: Arc::new(Semaphore::new(limits.requests_bytes_max - small)),
            answers_bytes_max: limits.answers_bytes_max,
            answers_bytes: AtomicUsize::new(0),
        })
    }

    /// Waits until a request of `size_bytes` may go on to arrive.
    pub(super) async fn charge(&self, size_bytes: usize) -> Charge {
        let small = match size_bytes > TINY_BYTES {
            true => Some(acquire(&self.small, size_bytes.min(SMALL_BYTES)).await),
            false => None,
        };
        Charge {
            _small: small,
            large: None,
        }
    }

    /// Waits until a large request may arrive whole.
    pub(super) async fn enlarge(&self, charge: &mut Charge, size_bytes: usize) {
        if !charge.is_enlarged() && size_bytes > SMALL_BYTES {
            charge.large = Some(acquire(&self.large, size_bytes).await);
        }
    }

    /// Charges an answer, which is there already, so without waiting.
    pub(super) fn charge_answer(self: &Arc<Self>, bytes: usize) -> AnswerCharge {
        self.answers_bytes.fetch_add(bytes, Ordering::Relaxed);
        AnswerCharge {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Returns the bytes of records for a fetch in memory now.
    pub(super) fn fetch_bytes_max(&self) -> usize {
        let used = self.answers_bytes.load(Ordering::Relaxed);
        let left = self.answers_bytes_max.saturating_sub(used);
        (left / SHARES).max(FETCH_BYTES_MIN)
    }
}

impl Drop for AnswerCharge {
    fn drop(&mut self) {
        let answers_bytes = &self.budget.answers_bytes;
        answers_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[allow(
    clippy::expect_used,
    reason = "the semaphores are never closed; the settings' check keeps sizes below 2^32"
)]
async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let count =
        u32::try_from(bytes).expect("a frame's size is checked against a limit below 4 GiB");
    let permit = Arc::clone(semaphore).acquire_many_owned(count).await;
    permit.expect("nobody closes the budget")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn limits() -> Limits {
        Limits {
            requests_bytes_max: 4 << 20,
            answers_bytes_max: 64 << 20,
            ..Limits::default()
        }
    }

    #[test]
    fn large_requests_wait_for_each_other_and_small_ones_do_not_wait_for_them() {
        let budget = Budget::new(&limits());
        let large = || {
            async {
                let mut charge = budget.charge(3 << 20).await;
                budget.enlarge(&mut charge, 3 << 20).await;
                charge
            }
            .now_or_never()
        };
        let first = large().unwrap();
        assert!(large().is_none(), "two do not fit");
        assert!(budget.charge(1_000).now_or_never().is_some());
        drop(first);
        assert!(large().is_some());
    }

    #[test]
    fn tiny_requests_never_wait() {
        let budget = Budget::new(&limits());
        let medium = || budget.charge(SMALL_BYTES).now_or_never();
        let all: Vec<Charge> = std::iter::from_fn(medium).collect();
        assert_eq!(all.len(), 16);
        assert!(budget.charge(TINY_BYTES).now_or_never().is_some());
    }

    #[test]
    fn announcing_much_holds_little() {
        let budget = Budget::new(&limits());
        let announced: Vec<Charge> = (0..16)
            .map(|_| budget.charge(3 << 20).now_or_never().unwrap())
            .collect();
        let mut real = announced.into_iter().next().unwrap();
        assert!(budget.enlarge(&mut real, 3 << 20).now_or_never().is_some());
    }

    #[test]
    fn fetches_are_given_less_while_much_waits_for_slow_readers() {
        let budget = Budget::new(&limits());
        assert_eq!(budget.fetch_bytes_max(), 4 << 20);
        let waiting = budget.charge_answer(32 << 20);
        assert_eq!(budget.fetch_bytes_max(), 2 << 20);
        let more = budget.charge_answer(1 << 30);
        assert_eq!(budget.fetch_bytes_max(), FETCH_BYTES_MIN);
        drop((waiting, more));
        assert_eq!(budget.fetch_bytes_max(), 4 << 20);
    }
}
