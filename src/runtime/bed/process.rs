//! One process of a job in a bed: its incarnations, one after the other, and what it remembers between them.

use std::sync::Arc;
use std::time::Duration;

use super::incarnation::{Incarnation, Turns};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::kept::Kept;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::start::Settings;
use crate::runtime::life::stopper::Stopper;
use crate::runtime::life::supervision::{Next, Supervision};
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::Report;

/// A process, from its start to its death.
pub(super) struct Process {
    name: String,
    topology: Arc<Topology>,
    settings: Settings,
    log: Log,
    pub(super) progress: Arc<Progress>,
    pub(super) stopper: Stopper,
    supervision: Supervision,
    kept: Kept,
    incarnation: Option<Incarnation>,
    /// How the job ended, if it did.
    pub(super) ended: Option<Result<(), JobError>>,
}

impl Process {
    pub(super) fn start(
        name: &str,
        topology: Arc<Topology>,
        settings: Settings,
        log: Log,
    ) -> Result<Self, JobError> {
        let mut process = Self {
            progress: Arc::default(),
            stopper: Stopper::default(),
            supervision: Supervision::new(name, &settings),
            kept: None,
            incarnation: None,
            ended: None,
            name: name.to_owned(),
            topology,
            settings,
            log,
        };
        process.begin_incarnation()?;
        Ok(process)
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// The job at work; `None` once it ended.
    pub(super) fn incarnation(&self) -> Option<&Incarnation> {
        self.incarnation.as_ref()
    }

    fn begin_incarnation(&mut self) -> Result<(), JobError> {
        let settings = self.supervision.settings(&self.settings);
        let begun = Incarnation::begin(
            &self.log,
            &self.name,
            &self.topology,
            &settings,
            &self.progress,
            &mut self.kept,
            &self.stopper,
        )?;
        self.incarnation = Some(begun);
        Ok(())
    }

    /// Gives everybody a turn; `false` if nobody had anything to do.
    pub(super) fn round(&mut self, turns: &mut Turns) -> bool {
        let Some(incarnation) = &mut self.incarnation else {
            return false;
        };
        match incarnation.ended() {
            Some(ran) => {
                self.after_incarnation(ran);
                true
            }
            None => incarnation.round(turns),
        }
    }

    /// An incarnation's driver ended like this.
    fn after_incarnation(&mut self, ran: Result<(), JobError>) {
        let Some(incarnation) = self.incarnation.take() else {
            unreachable!("it has just ended")
        };
        let commits = incarnation.commits(&self.progress);
        let ended = incarnation.close(ran, &self.topology);
        let next = self
            .supervision
            .ended(&self.name, ended, commits, &self.progress);
        self.ended = match next {
            Next::Again => self.begin_incarnation().err().map(Err),
            Next::End(result) => Some(result),
        };
    }

    /// Asks for a commit.
    pub(super) fn ask_for_commit(&self) {
        if let Some(incarnation) = &self.incarnation {
            incarnation.report(Report::Query);
        }
    }

    /// How long nothing is due, at most `rest`.
    pub(super) fn next_due(&self, rest: Duration) -> Duration {
        let incarnation = self.incarnation.as_ref();
        incarnation.map_or(rest, |it| it.next_due(rest))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has what the job has, which has it in turn.
        self.progress.desk.close();
    }
}
