//! [`Stopper`]: what reaches a job that runs, through all its incarnations.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use futures::channel::oneshot::Receiver;
use parking_lot::Mutex;

use super::savepoint::{Request, Savepoint};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::report::{Report, Reports};

/// Stops a job.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Mutex<StopState>>);

#[derive(Default)]
struct StopState {
    is_stopped: bool,
    is_finished: bool,
    reports: Option<Reports>,
    savepoints: VecDeque<Request>,
}

impl Stopper {
    /// Asks the job to finish and commit what is in flight, and end.
    pub fn stop(&self) {
        let mut state = self.0.lock();
        state.is_stopped = true;
        if let Some(reports) = &state.reports {
            reports.send(Report::Stop);
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.lock().is_finished
    }

    pub(in crate::runtime) fn is_stopped(&self) -> bool {
        self.0.lock().is_stopped
    }

    pub(super) fn ask_for_savepoint(&self, path: &Path) -> Receiver<Result<Savepoint, JobError>> {
        let (request, answered) = Request::new(path);
        self.add_savepoint(request);
        answered
    }

    pub(super) fn add_savepoint(&self, request: Request) {
        let mut state = self.0.lock();
        if !state.is_finished {
            state.savepoints.push_back(request);
        }
        drop(state);
        self.wake_for_savepoint();
    }

    /// The savepoint that is to be taken next.
    pub(super) fn next_savepoint(&self) -> Option<Request> {
        self.0.lock().savepoints.pop_front()
    }

    /// Has the driver look for savepoints that are to be taken.
    pub(super) fn wake_for_savepoint(&self) {
        let state = self.0.lock();
        if let Some(reports) = state
            .reports
            .as_ref()
            .filter(|_| !state.savepoints.is_empty())
        {
            reports.send(Report::Savepoint);
        }
    }

    pub(super) fn finish(&self) {
        let mut state = self.0.lock();
        state.is_finished = true;
        // Whoever waits for one is told that there will be none.
        state.savepoints.clear();
    }

    /// Connects the next incarnation; `false` if the job was stopped before.
    pub(in crate::runtime) fn attach(&self, reports: Reports) -> bool {
        let mut state = self.0.lock();
        if !state.savepoints.is_empty() {
            reports.send(Report::Savepoint);
        }
        state.reports = Some(reports);
        !state.is_stopped
    }
}
