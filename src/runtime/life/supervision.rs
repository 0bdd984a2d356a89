//! A job's incarnations: one after the other, until one ends well or in a way that another one would not mend.

use std::sync::Arc;

use tracing::info;

use super::kept::{are_still_ours, fence_the_job_alone};
use super::log_handle::Log;
use super::participation::Participation;
use super::start::{Incarnation, Settings, run_once};
use super::stopper::Stopper;
use crate::env::warn;
use crate::protocol::ErrorKind;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::cycle::Commit;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::Reports;

/// The starts in a row from the last commit, with nothing new committed, after which a job gives up.
const RESTARTS_MAX: u32 = 5;

/// Runs a job, again from its last commit where an attempt ended in a way that this mends.
pub(super) fn supervise(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
    progress: &Arc<Progress>,
    stopper: &Stopper,
) -> Result<(), JobError> {
    if settings.scale_out.is_some() {
        fence_the_job_alone(log, name, settings)?;
    }
    let participation = Participation::begin(log, name, topology, settings, progress)?;
    let ran = supervise_incarnations(
        log,
        name,
        topology,
        settings,
        progress,
        stopper,
        participation.as_ref(),
    );
    let closed = participation.map_or(Ok(()), Participation::close);
    ran.and(closed)
}

/// When to commit: soon enough for the transaction timeout.
fn commit_within_timeout(name: &str, settings: &Settings) -> Commit {
    let whole = settings.commit.within(settings.transaction_timeout);
    if whole != settings.commit {
        warn!(
            job = name,
            interval_millis = settings.commit.interval.as_millis(),
            transaction_timeout_millis = settings.transaction_timeout.as_millis(),
            "a cycle as long as the commit interval could not be committed within the transaction timeout: the job commits \
             after a third of the timeout; raise `transaction_timeout`, or commit more often (`Commit::every`)"
        );
    }
    whole
}

/// Nothing of the last cycle is lost, but neither is it done.
fn tell_discarded(name: &str, progress: &Progress) {
    let summary = progress.summary();
    if summary.discarded_records > 0 {
        warn!(
            job = name,
            ?summary,
            "stopped after a cycle that was not committed: the next run reads its records again"
        );
    }
}

/// The step after an incarnation.
pub(crate) enum Next {
    /// Another one, from the last commit.
    Again,
    /// The job's end.
    End(Result<(), JobError>),
}

/// Decides after each incarnation how the job goes on.
pub(crate) struct Supervision {
    whole: Commit,
    commit: Commit,
    failures: u32,
}

impl Supervision {
    pub(crate) fn new(name: &str, settings: &Settings) -> Self {
        let whole = commit_within_timeout(name, settings);
        Self {
            whole,
            commit: whole,
            failures: 0,
        }
    }

    /// The settings of the next incarnation.
    pub(crate) fn settings(&self, settings: &Settings) -> Settings {
        Settings {
            commit: self.commit,
            ..settings.clone()
        }
    }

    /// An incarnation ended like this, after `commits` commits of its own.
    pub(crate) fn ended(
        &mut self,
        name: &str,
        result: Result<(), JobError>,
        commits: u64,
        progress: &Progress,
    ) -> Next {
        let is_apart = progress.quarantine.end_attempt();
        self.failures = match commits {
            0 => self.failures + 1,
            _ => 1,
        };
        if let Err(why) = &result {
            progress.meters.note_failed(why);
        }
        match result {
            // Each such attempt sets another record apart, so it is no failure without progress.
            Err(JobError::NotCommitted { .. }) if is_apart => {
                self.failures = 0;
                info!(
                    job = name,
                    "a record failed after part of its effects: the cycle is done again without it"
                );
                Next::Again
            }
            Err(e)
                if matches!(e.cause(), ErrorKind::Abortable | ErrorKind::Retriable)
                    && self.failures <= RESTARTS_MAX =>
            {
                let failures = self.failures;
                progress.restarts(&e);
                warn!(job = name, error = %e, failures, "starting again from the last commit");
                self.commit = match &e {
                    JobError::TimedOut { records, .. } => self.whole.smaller(*records, failures),
                    _ => self.whole,
                };
                Next::Again
            }
            Err(e) => Next::End(Err(e)),
            Ok(()) => {
                info!(job = name, commits = progress.commits(), "finished");
                Next::End(Ok(()))
            }
        }
    }
}

fn supervise_incarnations(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
    progress: &Arc<Progress>,
    stopper: &Stopper,
    participation: Option<&Participation>,
) -> Result<(), JobError> {
    let mut supervision = Supervision::new(name, settings);
    let mut kept = None;
    loop {
        let commits = progress.commits();
        let (reports, receiver) = Reports::channel();
        if !stopper.attach(reports.clone()) {
            tell_discarded(name, progress);
            return Ok(());
        }
        let share = match participation {
            Some(participation) => {
                let share = participation.wait_for_share(
                    &reports,
                    || stopper.is_stopped(),
                    || are_still_ours(&kept, name),
                )?;
                let Some(share) = share else {
                    return Ok(());
                };
                Some(share)
            }
            None => None,
        };
        let incarnation = Incarnation {
            reports,
            receiver,
            share,
            kept: &mut kept,
            stopper,
        };
        let attempt = supervision.settings(settings);
        let result = run_once(log, name, topology, &attempt, progress, incarnation);
        if let Some(participation) = participation {
            participation.ended();
        }
        let commits = progress.commits() - commits;
        match supervision.ended(name, result, commits, progress) {
            Next::Again => {}
            Next::End(result) => return result,
        }
    }
}
