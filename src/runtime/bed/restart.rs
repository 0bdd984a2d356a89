//! Deaths of a bed's process, and the processes that come after them.

use std::sync::Arc;
use std::time::Duration;

use super::link::{Line, Link};
use super::process::Process;
use super::zombie::Zombie;
use super::{TestBed, open_log};
use crate::env::Instant;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::runtime::contract::error::JobError;
use crate::runtime::life::job::Launch;
use crate::runtime::life::start::Settings;
use crate::state::{MemoryFiles, RocksFiles};

impl TestBed {
    /// Kills the process, or all instances and the log's, and starts the job again. Nothing written is lost; what was not committed is.
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

    /// Starts the job in another process, of which the one that runs hears nothing, as when its machine was taken for dead: it goes
    /// on as a *zombie* beside the new one, on the same log, until it learns that it is fenced. What it has in flight must not become
    /// visible. The new process has no state of its own and restores it from the changelogs.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("visits");
    /// job.source(topic::<str>("pages")).key_by_ref(|page: &str| page).count("visits").changes().sink(topic("counts"));
    /// let mut bed = TestBed::new(job.exactly_once(Commit::every(std::time::Duration::from_secs(1))));
    /// bed.send_value("pages", "home");
    /// // It has read the record, and has not committed it.
    /// bed.settle();
    /// bed.take_over();
    /// bed.expect::<str, u64>("counts", [("home", 1)]);
    /// ```
    ///
    /// # Panics
    /// If the job cannot start.
    #[track_caller]
    pub fn take_over(&mut self) {
        self.suspend(Duration::ZERO);
    }

    /// As [`TestBed::take_over`], but the process that runs stands still for `duration`, as when its machine is suspended or its thread
    /// is not scheduled. Then it goes on where it was, with its transaction open and its producer at hand, while the new process has long
    /// committed the same records. It must learn that it is fenced.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("visits");
    /// job.source(topic::<str>("pages")).key_by_ref(|page: &str| page).count("visits").changes().sink(topic("counts"));
    /// let mut bed = TestBed::new(job.exactly_once(Commit::every(Duration::from_secs(1))));
    /// bed.send_value("pages", "home");
    /// // It has read the record, and has not committed it.
    /// bed.settle();
    /// bed.suspend(Duration::from_secs(10));
    /// bed.advance(Duration::from_secs(9));
    /// assert_eq!(bed.zombies(), 1);
    /// bed.advance(Duration::from_secs(3));
    /// assert_eq!(bed.zombies(), 0);
    /// bed.expect::<str, u64>("counts", [("home", 1)]);
    /// ```
    ///
    /// # Panics
    /// If the job cannot start.
    #[track_caller]
    pub fn suspend(&mut self, duration: Duration) {
        let started = self.start_beside_zombie(0, None, duration);
        started.unwrap_or_else(|e| panic!("the job cannot start beside a zombie: {e}"));
        self.settle();
    }

    #[track_caller]
    fn restart_on(&mut self, next: SimulatedWorld, is_power_loss: bool) {
        self.move_to(next, is_power_loss);
        let started = self.start_process(None);
        started.unwrap_or_else(|e| panic!("the job cannot start again: {e}"));
        self.settle();
    }

    /// Leaves all processes behind, and goes to the machine as it lives on.
    pub(super) fn move_to(&mut self, next: SimulatedWorld, is_power_loss: bool) {
        // The power of the old world is off: what is dropped here changes nothing.
        for instance in &mut self.instances {
            instance.process = None;
        }
        self.zombies.clear();
        self.has_rivals = false;
        self.world = next;
        for instance in &mut self.instances {
            instance.lose_state(is_power_loss, &mut self.turns);
        }
    }

    /// Opens the log again and starts the processes of all instances but those that are away: with the job as it was, or built anew.
    pub(super) fn start_process(&mut self, job: Option<Launch>) -> Result<(), JobError> {
        self.take_on(job)?;
        self.log = open_log(&self.world, &self.instances[0].memory)?;
        self.housekept = Instant::default();
        let at_work = (0..self.instances.len()).filter(|index| !self.instances[*index].is_away);
        let at_work: Vec<usize> = at_work.collect();
        at_work
            .into_iter()
            .try_for_each(|index| self.begin_process(index))
    }

    /// Starts another process of an instance beside the one that runs, which becomes a zombie and stands still for so long.
    pub(super) fn start_beside_zombie(
        &mut self,
        index: usize,
        job: Option<Launch>,
        suspended: Duration,
    ) -> Result<(), JobError> {
        self.take_on(job)?;
        let replaced = &mut self.instances[index];
        replaced.memory = MemoryFiles::new()?;
        let replaced = replaced.process.take();
        let zombies = replaced.map(|process| Zombie::of(process, suspended));
        self.zombies.extend(zombies);
        self.has_rivals = self.is_scaled_out();
        self.begin_process(index)
    }

    /// From now on the job is the one that was built anew, if one was.
    pub(super) fn take_on(&mut self, job: Option<Launch>) -> Result<(), JobError> {
        if let Some(launch) = job {
            self.topology = Arc::new(launch.topology()?);
            let Settings {
                workers, scale_out, ..
            } = std::mem::replace(&mut self.settings, launch.settings);
            (self.settings.workers, self.settings.scale_out) = (workers, scale_out);
        }
        Ok(())
    }

    /// Starts the process of an instance that has none.
    pub(super) fn begin_process(&mut self, index: usize) -> Result<(), JobError> {
        let (topology, settings) = (Arc::clone(&self.topology), self.settings_of(index));
        let files = RocksFiles::Memory(self.instances[index].memory.clone());
        let (weather, line) = (self.weather.clone(), Line::default());
        let log = self.log.beside(files);
        let log = log.over(|way| Arc::new(Link::new(way, weather, line.clone())));
        let process = Process::start(&self.name, topology, settings, log, line)?;
        self.instances[index].begin(process);
        Ok(())
    }
}
