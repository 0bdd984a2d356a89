//! One run: a bed, the steps that it goes through, and what a reader has seen committed so far.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use super::judges::Moment;
use super::quiet;
use super::shrink::Failure;
use super::steps::{Coming, Death, INSTANCES_MAX, Step, Trouble};
use super::{CrashTest, Draft};
use crate::env::simulated::{Call, FaultEffect, SimulatedWorld};
use crate::runtime::bed::instances::Instance;
use crate::runtime::bed::zombie::Zombie;
use crate::runtime::bed::{BedConfig, TestBed};
use crate::runtime::topics::job_topics::TopicRole;
use crate::types::{Offset, TopicPartition};

/// A committed record as its bytes.
type Seen = (Offset, Option<Vec<u8>>, Option<Vec<u8>>);

/// A run under way.
struct Trial<'t, I> {
    test: &'t CrashTest<I>,
    bed: TestBed,
    interval: Duration,
    sent: Vec<I>,
    /// The topics of results, and what a reader of committed records has seen of each partition.
    results: Vec<String>,
    seen: BTreeMap<TopicPartition, Vec<Seen>>,
}

/// Goes through the steps, and compares everything at the end.
pub(super) fn run<I: Clone + Debug>(
    test: &CrashTest<I>,
    seed: u64,
    steps: &[Step<I>],
) -> Result<(), Failure> {
    let at = Cell::new(0);
    let ran = quiet::catch(|| {
        let mut trial = Trial::begin(test, seed)?;
        for (index, step) in steps.iter().enumerate() {
            at.set(index);
            trial.step(step)?;
        }
        at.set(steps.len());
        trial.wake_zombies();
        trial.settle_and_compare()?;
        trial.trouble(Trouble::Death(Death::PLAIN))?;
        trial.settle_and_compare()
    });
    ran.and_then(|ran| ran).map_err(|why| Failure {
        at: at.get(),
        why: why.trim_end().to_owned(),
    })
}

impl<'t, I: Clone + Debug> Trial<'t, I> {
    fn begin(test: &'t CrashTest<I>, seed: u64) -> Result<Self, String> {
        let launch = (test.job)();
        let interval = launch.settings.commit.interval;
        let topics = launch.topics().map_err(|e| e.to_string())?;
        let is_result = |role: &TopicRole| matches!(role, TopicRole::Sink | TopicRole::DeadLetter);
        let results = topics.into_iter().filter(|topic| is_result(&topic.role));
        let config = BedConfig {
            topic_configs: BTreeMap::new(),
            launch,
            seed,
            partitions: test.partitions.clone(),
            instances: 1,
            fencing: test.fencing,
        };
        let config = match test.instances {
            1 => config,
            count => config.instances(count),
        };
        Ok(Self {
            test,
            bed: TestBed::begin(config).map_err(|e| format!("the job cannot start: {e}"))?,
            interval,
            sent: Vec::new(),
            results: results.map(|topic| topic.name.to_string()).collect(),
            seen: BTreeMap::new(),
        })
    }

    fn step(&mut self, step: &Step<I>) -> Result<(), String> {
        match step {
            Step::Send(input) => {
                (self.test.draft.send)(&mut self.bed, input);
                self.sent.push(input.clone());
            }
            Step::Work(rounds) => self.bed.work(*rounds),
            Step::Wait(time) => self.bed.advance(*time),
            Step::Trouble(trouble) => {
                self.look()?;
                self.trouble(*trouble)?;
            }
            Step::Check => self.settle_and_compare()?,
        }
        Ok(())
    }

    fn trouble(&mut self, trouble: Trouble) -> Result<(), String> {
        match trouble {
            Trouble::Death(death) => self.die(death),
            Trouble::Workers(count) => {
                self.bed.settings.workers = Some(count);
                self.die(Death::PLAIN)
            }
            Trouble::Stop => {
                self.bed.stop();
                self.die(Death::PLAIN)
            }
            Trouble::TakeOver(suspended) => {
                let job = Some((self.test.job)());
                let started = self.bed.start_beside_zombie(0, job, suspended);
                started.map_err(|e| format!("the job cannot start beside a zombie: {e}"))?;
                self.look()?;
                self.compare(Moment::Restarted)
            }
            Trouble::Instance(coming, which) => {
                self.come_or_go(coming, which)?;
                self.look()?;
                self.compare(Moment::Restarted)
            }
            Trouble::LostAnswers(seed) => {
                self.bed.work_in(seed, self.interval * 2);
                self.restart_if_it_failed(false)
            }
            Trouble::FullDisk(room_bytes) => {
                let world = self.bed.world().clone();
                world.set_capacity(Some(world.used_bytes().saturating_add(room_bytes)));
                self.bed.advance_in_trouble(self.interval * 2);
                world.set_capacity(None);
                self.restart_if_it_failed(false)
            }
            Trouble::BadCall { call, effect, .. } => {
                let world = self.bed.world().clone();
                let struck = world.faults_struck();
                let fault = trouble.fault();
                fault.into_iter().for_each(|fault| world.inject(fault));
                self.bed.advance_in_trouble(self.interval * 2);
                world.clear_faults();
                let is_sync = matches!(call, Call::SyncData | Call::SyncDir);
                let is_bad = is_sync || effect == FaultEffect::InputOutput;
                self.restart_if_it_failed(is_bad && world.faults_struck() > struck)
            }
        }
    }

    /// An instance comes or goes.
    fn come_or_go(&mut self, coming: Coming, which: usize) -> Result<(), String> {
        let running = self.bed.running_instances();
        if let Coming::Join = coming {
            let away = (0..self.bed.instances()).find(|index| !running.contains(index));
            let next = away.unwrap_or(running.len());
            return match next < INSTANCES_MAX {
                true => self.start_instance(next),
                false => Ok(()),
            };
        }
        let Some(&which) = running.get(which % running.len().max(1)) else {
            return self.start_instance(0);
        };
        match coming {
            Coming::Join => {}
            Coming::Leave => self.bed.stop_instance(which),
            Coming::Kill | Coming::Restart => self.bed.kill_instance(which),
            Coming::StandStill(time) => self.bed.suspend_instance(which, time),
            Coming::Replace(time) => {
                let job = Some((self.test.job)());
                let started = self.bed.start_beside_zombie(which, job, time);
                started.map_err(|e| format!("the job cannot start beside a zombie: {e}"))?;
            }
        }
        // One goes on, or another one comes.
        match coming == Coming::Restart || self.bed.running_instances().is_empty() {
            true => self.start_instance(which),
            false => Ok(()),
        }
    }

    fn start_instance(&mut self, index: usize) -> Result<(), String> {
        let started = self.bed.try_start_instance(index, Some((self.test.job)()));
        started.map_err(|e| format!("instance {index} cannot start: {e}"))
    }

    /// An operator starts a process again whose job failed, or whose machine did. The machine runs on: its page cache may show what the
    /// disk does not have (F11).
    fn restart_if_it_failed(&mut self, has_machine_failed: bool) -> Result<(), String> {
        match has_machine_failed || self.bed.ended().is_some() {
            true => self.die(Death::PLAIN),
            false => Ok(()),
        }
    }

    fn die(&mut self, death: Death) -> Result<(), String> {
        if let Some(calls) = death.in_call {
            self.bed.world().power_off_after(calls);
            self.bed.advance_in_trouble(self.interval * 2);
        }
        self.leave_behind(death);
        if let Some(calls) = death.again_in_call {
            self.bed.world().power_off_after(calls);
            self.bed.turns.expects_failure = true;
            // A start that fails here is the death that was asked for.
            let _ = self.start_again();
            self.bed.turns.expects_failure = false;
            self.leave_behind(death);
        }
        self.start_again()?;
        self.look()?;
        self.compare(Moment::Restarted)
    }

    /// Ends the process, and moves to the machine that it leaves behind.
    fn leave_behind(&mut self, death: Death) {
        let world: &SimulatedWorld = self.bed.world();
        let next = match death.loss {
            Some(loss) => world.after_power_loss(loss),
            None => world.after_kill(),
        };
        self.bed.move_to(next, death.loss.is_some());
    }

    /// Another process: nothing is left of the functions of the one before.
    fn start_again(&mut self) -> Result<(), String> {
        let started = self.bed.start_process(Some((self.test.job)()));
        started.map_err(|e| format!("the job cannot start again: {e}"))
    }

    /// Those who stand still go on, and have time to commit what they had.
    fn wake_zombies(&mut self) {
        if self.bed.zombies() > 0 || self.bed.has_sleepers() {
            self.bed.zombies.iter_mut().for_each(Zombie::wake);
            self.bed.instances.iter_mut().for_each(Instance::wake);
            self.bed.advance(self.interval * 2);
        }
    }

    fn settle_and_compare(&mut self) -> Result<(), String> {
        self.bed.commit();
        self.look()?;
        self.compare(Moment::Settled)
    }

    fn compare(&mut self, moment: Moment) -> Result<(), String> {
        let Draft { judges, .. } = &self.test.draft;
        let mut judged = judges.iter();
        judged.try_for_each(|judge| judge.judge(&mut self.bed, &self.sent, moment))
    }

    /// Reads what is committed. What a reader saw before must be there still.
    fn look(&mut self) -> Result<(), String> {
        for topic in &self.results {
            for place in self.bed.partitions_of(topic) {
                let rows = self.bed.rows_from::<[u8], [u8]>(&place, Offset::ZERO);
                let rows = rows.into_iter().map(|row| (row.offset, row.key, row.value));
                let now: Vec<Seen> = rows.collect();
                let before = self.seen.entry(place.clone()).or_default();
                if !now.starts_with(before) {
                    let kept = now
                        .iter()
                        .zip(&*before)
                        .take_while(|(now, before)| now == before);
                    return Err(format!(
                        "{place}: {} committed records that a reader has seen are there no more, or are others, from the {}th on",
                        before.len(),
                        kept.count() + 1
                    ));
                }
                *before = now;
            }
        }
        Ok(())
    }
}
