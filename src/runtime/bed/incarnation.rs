//! One incarnation of a job in a bed: who gets the next turn, and when nobody wants one.

use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use crate::env::Instant;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::driver::Driver;
use crate::runtime::life::flusher::Flusher;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::start::{self, Begun, Settings};
use crate::runtime::task::context::JobContext;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Report, Reports};
use crate::runtime::task::worker::{Turned, Worker};
use crate::state::StateBackend;

/// A job that asks for the wall clock is told of it at least so often while the bed moves time on.
const TELLINGS: u32 = 1_000;

/// The order of turns, which follows from the seed.
pub(super) struct Turns {
    pub(super) chance: Chance,
    /// Whether the test asked for a failure of the job, or makes its machine fail.
    pub(super) expects_failure: bool,
}

impl Turns {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            expects_failure: false,
        }
    }
}

struct Slot {
    /// `None` once it ended.
    worker: Option<Worker>,
    wants: Turned,
    /// When it said so.
    since: Instant,
}

/// A job at work.
pub(super) struct Incarnation {
    job: Arc<JobContext>,
    driver: Option<Driver>,
    backend: Option<StateBackend>,
    reports: Reports,
    slots: Vec<Slot>,
    commits_before: u64,
    is_over: bool,
}

impl Incarnation {
    pub(super) fn begin(
        log: &Log,
        name: &str,
        topology: &Topology,
        settings: &Settings,
        progress: &Arc<Progress>,
        incarnation: start::Incarnation<'_>,
    ) -> Result<Self, JobError> {
        let commits_before = progress.commits();
        let in_turns = |job: &Arc<JobContext>, reports| Ok(Flusher::in_turns(job, reports));
        let begun = Begun::new(
            log,
            name,
            topology,
            settings,
            progress,
            incarnation,
            in_turns,
        )?;
        let Begun {
            job,
            mut driver,
            reports,
            backend,
        } = begun;
        driver.begin();
        let mut slots = Vec::new();
        for number in 0..job.inboxes.len() {
            let chains = topology.chains();
            let built = Worker::build_contained(
                Arc::clone(&job),
                number,
                &chains,
                settings.commit,
                reports.clone(),
            );
            slots.push(Slot {
                worker: match built {
                    Ok(worker) => Some(worker),
                    Err(e) => {
                        reports.send(Report::Ended(number, Err(e)));
                        None
                    }
                },
                wants: Turned::Again,
                since: Instant::default(),
            });
        }
        Ok(Self {
            job,
            driver: Some(driver),
            backend,
            reports,
            slots,
            commits_before,
            is_over: false,
        })
    }

    pub(super) fn report(&self, report: Report) {
        self.reports.send(report);
    }

    pub(super) fn commits(&self, progress: &Progress) -> u64 {
        progress.commits() - self.commits_before
    }

    /// Takes the result, once driver and workers have ended.
    pub(super) fn ended(&mut self) -> Option<Result<(), JobError>> {
        let is_ended = |driver: &mut Driver| self.is_over && !driver.has_workers();
        self.driver.take_if(is_ended).map(Driver::finish)
    }

    /// Puts in order what outlives the workers.
    pub(super) fn close(
        self,
        ran: Result<(), JobError>,
        topology: &Topology,
    ) -> Result<(), JobError> {
        start::end(ran, &self.job, self.backend, topology)
    }

    /// Gives everybody a turn, in an order that is drawn; `false` if nobody had anything to do.
    pub(super) fn round(&mut self, turns: &mut Turns) -> bool {
        let count = self.slots.len() + 2 + usize::from(self.job.calls.are_used());
        let first = turns.chance.index(count);
        let mut had_work = false;
        for actor in (0..count).map(|step| (first + step) % count) {
            had_work |= match actor.checked_sub(self.slots.len()) {
                None => self.give_worker(actor, turns),
                Some(0) => self.give_driver(),
                Some(1) => self.driver.as_mut().is_some_and(Driver::flush_turn),
                Some(_) => self.job.calls.turn(),
            };
        }
        had_work
    }

    fn give_worker(&mut self, number: usize, turns: &mut Turns) -> bool {
        let slot = &mut self.slots[number];
        let Some(worker) = &mut slot.worker else {
            return false;
        };
        let had_message =
            self.job.inboxes[number].has_messages() || self.job.calls.has_news(number);
        let turned = worker.turn(1 + turns.chance.index(4));
        let ended = match turned {
            Ok(Turned::Ended) => Ok(()),
            Ok(wants) => {
                slot.wants = wants;
                slot.since = self.job.env.clock.now();
                return had_message || wants == Turned::Again;
            }
            Err(e) => Err(e),
        };
        slot.worker = None;
        self.reports.send(Report::Ended(number, ended));
        true
    }

    fn give_driver(&mut self) -> bool {
        let Some(driver) = &mut self.driver else {
            return false;
        };
        let report = driver.next_report();
        let has_report = report.is_some();
        match report {
            Some(report) if self.is_over => driver.hear_of_the_end(report),
            None if self.is_over || !driver.wait_at_most().is_zero() => {}
            report => {
                self.is_over = driver.turn(report);
                return true;
            }
        }
        has_report
    }

    /// Lists the watermark of each source, a line a partition.
    pub(super) fn times(&self) -> Vec<String> {
        let slots = self.slots.iter().filter_map(|slot| slot.worker.as_ref());
        let positions: Vec<_> = slots.flat_map(Worker::positions).collect();
        let least = positions.iter().map(|(_, it)| it.watermark).min();
        let greatest = positions.iter().map(|(_, it)| it.watermark).max();
        let mut lines = Vec::new();
        for (number, position) in positions {
            let mut time = match position.watermark {
                Some(time) => format!("watermark {}", time.0),
                None => "no watermark".to_owned(),
            };
            if Some(position.watermark) == least && least != greatest {
                time.push_str(": time waits for it, unless it is idle");
            }
            let split = self.job.split_name(number);
            lines.push(format!("source {split}: at {}, {time}", position.offset));
        }
        lines.sort();
        lines
    }

    /// Returns the idle time ahead, at most `rest`.
    pub(super) fn next_due(&self, rest: Duration) -> Duration {
        let now = self.job.env.clock.now();
        let driver = self.driver.as_ref().map(Driver::wait_at_most);
        let workers = self.slots.iter().filter_map(|slot| match slot.wants {
            // Nothing comes by itself to a worker that does not wait for time.
            Turned::Wait(at_most) if !at_most.is_zero() => {
                let waits = at_most.saturating_sub(now.since(slot.since));
                let is_clock = self.job.uses_clock;
                Some(if is_clock {
                    waits.max(rest / TELLINGS)
                } else {
                    waits
                })
            }
            _ => None,
        });
        let calls = self.job.calls.next_due();
        let due = driver.into_iter().chain(workers).chain(calls);
        due.min().unwrap_or(rest)
    }
}
