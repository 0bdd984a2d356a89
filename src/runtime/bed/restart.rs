//! Deaths of a bed's process, and the processes that come after them.

use std::sync::Arc;

use super::TestBed;
use super::incarnation::Incarnation;
use crate::env::Instant;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::runtime::contract::error::JobError;
use crate::runtime::life::job::Launch;
use crate::runtime::life::stopper::Stopper;
use crate::runtime::life::supervision::Supervision;

impl TestBed {
    /// Kills the process and starts the job again. Nothing written is lost; what was not committed is.
    ///
    /// # Panics
    /// If the job cannot start again.
    #[track_caller]
    pub fn crash(&mut self) {
        let next = self.world.after_kill();
        self.restart_on(next, false);
    }

    /// Cuts the power and starts the job again on what the disk kept: of what was not synced any part may be lost, by the seed.
    ///
    /// # Panics
    /// If the job cannot start again.
    #[track_caller]
    pub fn lose_power(&mut self) {
        let seed = self.turns.chance.draw();
        let way = self.turns.chance.index(32);
        let loss = PowerLoss::every_mode(seed).nth(way);
        let next = self
            .world
            .after_power_loss(loss.unwrap_or(PowerLoss::STRICT));
        self.restart_on(next, true);
    }

    /// Kills the process and starts the job again with another number of workers.
    ///
    /// # Panics
    /// If the job cannot start again.
    #[track_caller]
    pub fn restart_with(&mut self, workers: usize) {
        self.settings.workers = Some(workers.max(1));
        self.crash();
    }

    #[track_caller]
    fn restart_on(&mut self, next: SimulatedWorld, is_power_loss: bool) {
        self.move_to(next, is_power_loss);
        let started = self.start_process(None);
        started.unwrap_or_else(|e| panic!("the job cannot start again: {e}"));
        self.settle();
    }

    /// Leaves the process behind, and goes to the machine as it lives on.
    pub(super) fn move_to(&mut self, next: SimulatedWorld, is_power_loss: bool) {
        // The power of the old world is off: what is dropped here changes nothing.
        self.forget_incarnation();
        self.kept = None;
        self.log = None;
        self.world = next;
        // After a power loss all of RocksDB's files are gone, so that the state comes back from the changelog.
        if is_power_loss || self.turns.chance.one_in(4) {
            let cleared = self.memory.clear();
            cleared.unwrap_or_else(|e| panic!("{e}"));
        }
    }

    /// Starts another process: with the job as it was, or built anew.
    pub(super) fn start_process(&mut self, job: Option<Launch>) -> Result<(), JobError> {
        if let Some(launch) = job {
            self.topology = launch.topology()?;
            let workers = self.settings.workers;
            self.settings = launch.settings;
            self.settings.workers = workers;
        }
        self.progress = Arc::default();
        self.stopper = Stopper::default();
        self.supervision = Supervision::new(&self.name, &self.settings);
        self.ended = None;
        self.housekept = Instant::default();
        self.open_log()?;
        self.begin_incarnation()
    }

    /// Lets go of a process's memory, as its death does.
    pub(super) fn forget_incarnation(&mut self) {
        // It has what the job has, which has it in turn.
        self.progress.desk.close();
        self.incarnation = None;
    }

    pub(super) fn begin_incarnation(&mut self) -> Result<(), JobError> {
        let Some(log) = self.log.clone() else {
            unreachable!("the log is opened before an incarnation begins")
        };
        let settings = self.supervision.settings(&self.settings);
        let begun = Incarnation::begin(
            &log,
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
}
