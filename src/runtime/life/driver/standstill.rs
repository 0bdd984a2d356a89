//! A cycle that does not close: said while it lasts, and named when it ended the incarnation.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Driver;
use crate::env::{Instant, warn};
use crate::protocol::ErrorKind;
use crate::runtime::contract::error::JobError;

impl Driver {
    /// Says so, once, where a cycle does not close although it should: it will be aborted.
    pub(super) fn watch(&mut self, now: Instant) {
        let (Some(asked), timeout) = (
            self.job.pressure.close_asked(),
            self.job.transaction_timeout,
        ) else {
            return;
        };
        if self.is_standstill_told || now.since(asked) < timeout / 2 {
            return;
        }
        self.is_standstill_told = true;
        let workers = 0..self.job.inboxes.len();
        let is_drained = |worker: &usize| self.drained.iter().any(|done| done.worker == *worker);
        let at_work: Vec<usize> = workers.filter(|worker| !is_drained(worker)).collect();
        warn!(
            job = %self.job.name,
            workers_at_work = ?at_work,
            waited_millis = now.since(asked).as_millis(),
            transaction_timeout_millis = timeout.as_millis(),
            "a commit waits for records that are still being processed, and the transaction is aborted at its timeout: make \
             the function faster or let it give up earlier, or raise `transaction_timeout`"
        );
    }

    /// A cycle that was open for longer than the transaction timeout was aborted for that, whatever it was told.
    pub(super) fn name_timeout(&self, error: JobError) -> JobError {
        let now = self.job.env.clock.now();
        let began = self.drained_began.or(self.began);
        let lasted = began.map_or(Duration::ZERO, |began| now.since(began));
        let timeout = self.job.transaction_timeout;
        let is_aborted = matches!(error.cause(), ErrorKind::Abortable | ErrorKind::Retriable);
        if !is_aborted || lasted < timeout {
            return error;
        }
        let open = self.job.cycle_records.load(Ordering::Relaxed);
        JobError::TimedOut {
            job: self.job.name.clone(),
            records: self.drained_records.max(open),
            lasted,
            timeout,
        }
    }
}
