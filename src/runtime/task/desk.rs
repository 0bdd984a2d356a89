//! The desk at which readers of a job's state ask: it leads them to the incarnation that runs, and tells that one that somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::context::JobContext;
use super::report::{Report, Reports};
use crate::env::Instant;

/// The time after the last question for which stores go on keeping what readers need: to begin again costs a commit.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Where readers find the incarnation of a job that runs now.
#[derive(Default)]
pub(crate) struct Desk {
    /// Held while somebody reads, so that no reader holds the state of an incarnation that has ended.
    open: RwLock<Option<Open>>,
    /// When somebody asked last, in milliseconds behind the clock's beginning; 0 if nobody did.
    asked_millis: AtomicU64,
    /// Whether the driver was told that somebody asks, and no cycle has closed since.
    is_told: AtomicBool,
    is_over: AtomicBool,
}

/// Who a process is to readers of its state.
#[derive(Debug, Default)]
pub(crate) struct ShownAs {
    /// The job's name, with that of the instance if several processes share the job.
    pub(crate) identity: String,
    /// The last epoch that it may have shown in earlier runs.
    pub(crate) last_epoch: u64,
}

struct Open {
    job: Arc<JobContext>,
    reports: Reports,
}

/// The answer to a look.
pub(crate) enum Look<R> {
    Seen(R),
    /// The job starts, or does not keep yet what readers need.
    NotYet,
    /// The job has ended.
    Over,
}

impl Desk {
    /// From here on readers find this incarnation.
    pub(crate) fn open(&self, job: &Arc<JobContext>, reports: Reports) {
        self.is_told.store(false, Ordering::Release);
        let job = Arc::clone(job);
        *self.open.write() = Some(Open { job, reports });
    }

    /// The incarnation ends: waits until nobody reads its state any more.
    pub(crate) fn close(&self) {
        if let Some(open) = self.open.write().take() {
            open.job.backend.views().close();
        }
    }

    /// There will be no incarnation any more.
    pub(crate) fn end(&self) {
        self.close();
        self.is_over.store(true, Ordering::Release);
    }

    /// A cycle is about to close: whether its stores are to keep what readers need.
    pub(crate) fn close_cycle(&self, now: Instant) -> bool {
        self.is_told.store(false, Ordering::Release);
        let asked_millis = self.asked_millis.load(Ordering::Relaxed);
        let asked = Instant(Duration::from_millis(asked_millis));
        asked_millis > 0 && now.since(asked) < KEPT_FOR
    }

    /// Looks at the incarnation that runs, without asking for its state. `true` if there is one, `false` once there will be none any
    /// more, `None` between two.
    pub(crate) fn peek(&self, look: impl FnOnce(&JobContext)) -> Option<bool> {
        match &*self.open.read() {
            Some(open) => {
                look(&open.job);
                Some(true)
            }
            None => self.is_over.load(Ordering::Acquire).then_some(false),
        }
    }

    /// Has the running incarnation looked at; `look` says `None` where it cannot be answered yet, for which a cycle is closed.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&JobContext) -> Option<R>) -> Look<R> {
        let open = self.open.read();
        let Some(Open { job, reports }) = &*open else {
            return match self.is_over.load(Ordering::Acquire) {
                true => Look::Over,
                false => Look::NotYet,
            };
        };
        let now = job.env.clock.now().0.as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX).max(1);
        self.asked_millis.store(now, Ordering::Relaxed);
        if let Some(seen) = look(job) {
            return Look::Seen(seen);
        }
        if !job.backend.views().is_armed() && !self.is_told.swap(true, Ordering::AcqRel) {
            reports.send(Report::Query);
        }
        Look::NotYet
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
