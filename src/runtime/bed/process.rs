//! One process of a job in a bed: its incarnations, one after the other, and what it remembers between them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::incarnation::{Incarnation, Turns};
use super::link::Line;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::kept::{Kept, are_still_ours, fence_the_job_alone};
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::participation::{Participation, Share};
use crate::runtime::life::start::{self, Settings};
use crate::runtime::life::stopper::Stopper;
use crate::runtime::life::supervision::{Next, Supervision};
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Report, Reports};

/// A thread that is due mostly gets its turn at once, and otherwise after so many rounds of the others at most.
const LATE_ROUNDS_MAX: usize = 12;

/// A process, from its start to its death.
pub(super) struct Process {
    name: String,
    topology: Arc<Topology>,
    settings: Settings,
    log: Log,
    line: Line,
    pub(super) progress: Arc<Progress>,
    pub(super) stopper: Stopper,
    supervision: Supervision,
    kept: Kept,
    incarnation: Option<Incarnation>,
    /// Its part in a job that is scaled out.
    participation: Option<Participation>,
    /// The ends of an incarnation that is to begin once the process has its share.
    waiting: Option<(Reports, Receiver<Report>)>,
    /// In how many rounds the participation has its turn, which is due.
    late_rounds: Option<usize>,
    /// The job's result, if it ended.
    pub(super) ended: Option<Result<(), JobError>>,
}

impl Process {
    /// Starts a process. Its requests go over `line`, which is cut when the process is dropped.
    pub(super) fn start(
        name: &str,
        topology: Arc<Topology>,
        settings: Settings,
        log: Log,
        line: Line,
    ) -> Result<Self, JobError> {
        let progress = Arc::default();
        if settings.scale_out.is_some() {
            fence_the_job_alone(&log, name, &settings)?;
        }
        let participation = Participation::begin(&log, name, &topology, &settings, &progress)?;
        let mut process = Self {
            progress,
            stopper: Stopper::default(),
            supervision: Supervision::new(name, &settings),
            kept: None,
            incarnation: None,
            participation,
            waiting: None,
            late_rounds: None,
            ended: None,
            name: name.to_owned(),
            topology,
            settings,
            log,
            line,
        };
        process.begin_attempt()?;
        Ok(process)
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// The job at work; `None` once it ended, and while it waits for its share.
    pub(super) fn incarnation(&self) -> Option<&Incarnation> {
        self.incarnation.as_ref()
    }

    /// Begins an incarnation, or waits for its share.
    fn begin_attempt(&mut self) -> Result<(), JobError> {
        let (reports, receiver) = Reports::channel();
        self.stopper.attach(reports.clone());
        match self.participation {
            Some(_) => {
                self.waiting = Some((reports, receiver));
                Ok(())
            }
            None => self.begin_incarnation(reports, receiver, None),
        }
    }

    fn begin_incarnation(
        &mut self,
        reports: Reports,
        receiver: Receiver<Report>,
        share: Option<Share>,
    ) -> Result<(), JobError> {
        let settings = self.supervision.settings(&self.settings);
        let begun = Incarnation::begin(
            &self.log,
            &self.name,
            &self.topology,
            &settings,
            &self.progress,
            start::Incarnation {
                reports,
                receiver,
                share,
                kept: &mut self.kept,
                stopper: &self.stopper,
            },
        )?;
        self.incarnation = Some(begun);
        Ok(())
    }

    /// Gives everybody a turn; `false` if nobody had anything to do.
    pub(super) fn round(&mut self, turns: &mut Turns) -> bool {
        let has_participated = self.participate(turns);
        let Some(incarnation) = &mut self.incarnation else {
            return self.begin_if_shared() || has_participated;
        };
        match incarnation.ended() {
            Some(ran) => {
                self.after_incarnation(ran);
                true
            }
            None => incarnation.round(turns) || has_participated,
        }
    }

    /// Keeps the process's part in a job that is scaled out; `false` if there was nothing to do.
    fn participate(&mut self, turns: &mut Turns) -> bool {
        let Some(participation) = &mut self.participation else {
            return false;
        };
        let is_due = participation.next_due() == Some(Duration::ZERO);
        if is_due {
            let late = self.late_rounds.unwrap_or_else(|| turns.draw_lateness());
            self.late_rounds = late.checked_sub(1);
            if self.late_rounds.is_none() {
                participation.keep_turn();
            }
        }
        participation.follow_turn() || is_due
    }

    /// Begins an incarnation once the process has its share; `false` if it has none yet.
    fn begin_if_shared(&mut self) -> bool {
        let (Some(participation), Some((reports, _))) = (&self.participation, &self.waiting) else {
            return false;
        };
        if self.stopper.is_stopped() {
            self.end(Ok(()));
            return true;
        }
        let is_ours = || are_still_ours(&self.kept, &self.name);
        let share = match participation.begin_share(reports, is_ours) {
            Ok(None) => return false,
            Ok(share) => share,
            Err(e) => {
                self.end(Err(e));
                return true;
            }
        };
        if let Some((reports, receiver)) = self.waiting.take()
            && let Err(e) = self.begin_incarnation(reports, receiver, share)
        {
            self.after_attempt(Err(e), 0);
        }
        true
    }

    /// An incarnation's driver ended like this.
    fn after_incarnation(&mut self, ran: Result<(), JobError>) {
        let Some(incarnation) = self.incarnation.take() else {
            unreachable!("it has just ended")
        };
        let commits = incarnation.commits(&self.progress);
        let ended = incarnation.close(ran, &self.topology);
        self.after_attempt(ended, commits);
    }

    /// An incarnation, or its beginning, ended like this after so many commits.
    fn after_attempt(&mut self, ended: Result<(), JobError>, commits: u64) {
        if let Some(participation) = &self.participation {
            participation.ended();
        }
        let next = self
            .supervision
            .ended(&self.name, ended, commits, &self.progress);
        let ended = match next {
            Next::Again => self.begin_attempt().err().map(Err),
            Next::End(result) => Some(result),
        };
        if let Some(ended) = ended {
            self.end(ended);
        }
    }

    /// The job ended like this: the process leaves those that go on with it.
    fn end(&mut self, result: Result<(), JobError>) {
        let closed = self.participation.take();
        let closed = closed.map_or(Ok(()), Participation::close);
        self.ended = Some(result.and(closed));
    }

    /// Returns its tasks and all tasks, if it has what the group gave it and nothing is to change.
    pub(super) fn settled(&self) -> Option<(usize, usize)> {
        self.participation.as_ref()?.settled()
    }

    /// Asks for a commit.
    pub(super) fn ask_for_commit(&self) {
        if let Some(incarnation) = &self.incarnation {
            incarnation.report(Report::Query);
        }
    }

    /// Returns the idle time ahead, at most `rest`.
    pub(super) fn next_due(&self, rest: Duration) -> Duration {
        let incarnation = self.incarnation.as_ref();
        let incarnation = incarnation.map(|it| it.next_due(rest));
        let participation = self.participation.as_ref();
        let participation = participation.and_then(Participation::next_due);
        let due = incarnation.into_iter().chain(participation);
        due.min().unwrap_or(rest).min(rest)
    }
}

impl Turns {
    /// Draws the rounds that a turn comes late.
    fn draw_lateness(&mut self) -> usize {
        match self.chance.one_in(3) {
            true => self.chance.index(LATE_ROUNDS_MAX),
            false => 0,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing that is put away here reaches the log any more.
        self.line.cut();
        // It has what the job has, which has it in turn.
        self.progress.desk.close();
    }
}
