//! The instances of a job that is scaled out: they join, leave, die and stand still, while the log and the others go on.

use std::time::Duration;

use super::incarnation::Turns;
use super::process::Process;
use super::{ROUNDS_MAX, TestBed};
use crate::env::Instant;
use crate::protocol::messages::CommittedOffset;
use crate::runtime::contract::error::JobError;
use crate::runtime::life::job::Launch;
use crate::runtime::life::query::Queries;
use crate::runtime::life::start::Settings;
use crate::state::MemoryFiles;
use crate::types::{GroupId, TopicPartition};

/// Longest interval between looks whether a session or a rebalance is over.
const GROUP_TICK: Duration = Duration::from_secs(1);

/// An instance of the job.
pub(super) struct Instance {
    /// RocksDB's files.
    pub(super) memory: MemoryFiles,
    /// `None` between two processes, and while it is dead.
    pub(super) process: Option<Process>,
    /// Whether it has left or was killed, and is not started again with the others.
    pub(super) is_away: bool,
    /// Until then its process stands still.
    wakes: Instant,
}

impl Instance {
    pub(super) fn new() -> Result<Self, JobError> {
        Ok(Self {
            memory: MemoryFiles::new()?,
            process: None,
            is_away: false,
            wakes: Instant::default(),
        })
    }

    pub(super) fn begin(&mut self, process: Process) {
        self.process = Some(process);
        self.is_away = false;
        self.wakes = Instant::default();
    }

    /// It stands still no more.
    pub(super) fn wake(&mut self) {
        self.wakes = Instant::default();
    }

    /// Its process died: RocksDB's files are there as they were, or lost as a whole.
    pub(super) fn lose_state(&mut self, is_power_loss: bool, turns: &mut Turns) {
        // After a power loss all of them are gone, so that the state comes back from the changelog.
        if is_power_loss || turns.chance.one_in(4) {
            let cleared = self.memory.clear();
            cleared.unwrap_or_else(|e| panic!("{e}"));
        }
    }

    /// The process, unless it has ended.
    fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|it| it.ended.is_none())
    }

    fn is_awake(&self, now: Instant) -> bool {
        self.wakes <= now
    }

    /// Returns the idle time ahead, at most `rest`.
    pub(super) fn next_due(&self, now: Instant, rest: Duration) -> Duration {
        match (&self.process, self.is_awake(now)) {
            (None, _) => rest,
            (Some(process), true) => process.next_due(rest),
            (Some(_), false) => self.wakes.since(now).min(rest),
        }
    }
}

impl TestBed {
    /// Counts the instances of the job, those that are away included; 1 if it is not scaled out.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// One more instance joins the others. Returns its number; the first one's is 0.
    ///
    /// # Panics
    /// If the job is not scaled out, or cannot start.
    #[track_caller]
    pub fn add_instance(&mut self) -> usize {
        let index = self.instances.len();
        self.start_instance(index);
        index
    }

    /// Starts an instance that has left or was killed; it finds the state that it had, if that is not lost.
    ///
    /// # Panics
    /// If it runs, or cannot start.
    #[track_caller]
    pub fn start_instance(&mut self, instance: usize) {
        let started = self.try_start_instance(instance, None);
        started.unwrap_or_else(|e| panic!("instance {instance} cannot start: {e}"));
        self.settle();
    }

    /// Has an instance commit what it has in flight, and leave. The others take over.
    ///
    /// # Panics
    /// If there is no such instance, or it fails.
    #[track_caller]
    pub fn stop_instance(&mut self, instance: usize) {
        self.check_instance(instance);
        if let Some(process) = &self.instances[instance].process {
            process.stopper.stop();
        }
        self.instances[instance].is_away = true;
        self.settle();
        self.run_down(Some(instance));
    }

    /// Kills an instance (`kill -9`). The log does not hear of it until the instance's session is over; then the others take over.
    /// Its state is there for its next process, or lost, by the seed.
    ///
    /// # Panics
    /// If there is no such instance.
    #[track_caller]
    pub fn kill_instance(&mut self, instance: usize) {
        self.check_instance(instance);
        let killed = &mut self.instances[instance];
        (killed.process, killed.is_away) = (None, true);
        killed.lose_state(false, &mut self.turns);
    }

    /// An instance stands still for so long, as when its machine is suspended, and then goes on where it was. If its session is over
    /// by then, others have taken over: what it has in flight must not become visible.
    ///
    /// # Panics
    /// If there is no such instance.
    #[track_caller]
    pub fn suspend_instance(&mut self, instance: usize, duration: Duration) {
        self.check_instance(instance);
        let wakes = self.log().env().clock.now().plus(duration);
        self.instances[instance].wakes = wakes;
    }

    /// Starts another process with the name of an instance that goes on as a zombie, after it has stood still for so long: as
    /// [`TestBed::suspend`], for one instance. If the zombie joins the group anew and takes the name back, its successor is fenced, and is
    /// started again, as an operator would.
    ///
    /// # Panics
    /// If there is no such instance, or it cannot start.
    #[track_caller]
    pub fn replace_instance(&mut self, instance: usize, suspended: Duration) {
        self.check_instance(instance);
        let started = self.start_beside_zombie(instance, None, suspended);
        started.unwrap_or_else(|e| panic!("the job cannot start beside a zombie: {e}"));
        self.settle();
    }

    /// Asks an instance for the state that it has, as of its last commit, as [`TestBed::ask`].
    ///
    /// # Panics
    /// As [`TestBed::ask`]; if the instance has no process.
    #[track_caller]
    pub fn ask_instance<R>(
        &mut self,
        instance: usize,
        question: impl AsyncFnOnce(Queries) -> R,
    ) -> R {
        self.check_instance(instance);
        self.commit();
        let process = self.instances[instance].process.as_ref();
        let process = process.unwrap_or_else(|| panic!("instance {instance} has no process"));
        let queries = self.queries(process);
        self.wait_for_answer(question(queries))
    }

    #[track_caller]
    fn check_instance(&self, instance: usize) {
        let count = self.instances.len();
        assert!(
            instance < count,
            "there is no instance {instance}: the job has {count}"
        );
    }

    pub(super) fn is_scaled_out(&self) -> bool {
        self.settings.scale_out.is_some()
    }

    /// The numbers of the instances that run, those that stand still included.
    pub(super) fn running_instances(&self) -> Vec<usize> {
        let running = self.instances.iter().enumerate();
        let running = running.filter(|(_, it)| it.running().is_some());
        running.map(|(index, _)| index).collect()
    }

    /// The numbers of those that are awake.
    pub(super) fn awake_instances(&self) -> Vec<usize> {
        let now = self.log.env().clock.now();
        let mut running = self.running_instances();
        running.retain(|index| self.instances[*index].is_awake(now));
        running
    }

    pub(super) fn try_start_instance(
        &mut self,
        index: usize,
        job: Option<Launch>,
    ) -> Result<(), JobError> {
        assert!(
            self.is_scaled_out(),
            "the job {:?} is not scaled out: begin the bed with `instances`",
            self.name
        );
        assert!(
            !self.running_instances().contains(&index),
            "instance {index} runs"
        );
        self.take_on(job)?;
        if index == self.instances.len() {
            self.instances.push(Instance::new()?);
        }
        self.check_instance(index);
        // The one that has left puts its state away before the next one opens it.
        self.instances[index].process = None;
        self.begin_process(index)
    }

    /// The settings of an instance's process.
    pub(super) fn settings_of(&self, index: usize) -> Settings {
        let mut settings = self.settings.clone();
        if let Some(scale_out) = &mut settings.scale_out
            && index > 0
        {
            let number = index + 1;
            scale_out.instance = format!("{}-{number}", scale_out.instance);
        }
        settings
    }

    /// Gives each instance that is awake its turns; `false` if nobody had anything to do.
    #[track_caller]
    pub(super) fn give_instances(&mut self) -> bool {
        let (now, count) = (self.log.env().clock.now(), self.instances.len());
        let first = match count {
            1 => 0,
            _ => self.turns.chance.index(count),
        };
        let (mut had_work, mut fenced) = (false, Vec::new());
        for index in (0..count).map(|step| (first + step) % count) {
            let instance = &mut self.instances[index];
            if !instance.is_awake(now) {
                continue;
            }
            let process = instance.process.as_mut();
            let Some(process) = process.filter(|it| it.ended.is_none()) else {
                continue;
            };
            had_work |= process.round(&mut self.turns);
            match &process.ended {
                Some(Err(JobError::Fenced { .. })) if self.has_rivals => fenced.push(index),
                Some(Err(e)) => assert!(self.turns.expects_failure, "the job failed: {e}"),
                _ => {}
            }
        }
        if !self.turns.expects_failure {
            fenced.into_iter().for_each(|index| self.begin_again(index));
        }
        had_work
    }

    /// A zombie that joined the group anew took the name of its successor: an operator starts that again.
    #[track_caller]
    fn begin_again(&mut self, index: usize) {
        self.instances[index].process = None;
        let started = self.begin_process(index);
        started.unwrap_or_else(|e| panic!("instance {index} cannot start: {e}"));
    }

    /// Whether an instance stands still.
    pub(super) fn has_sleepers(&self) -> bool {
        let now = self.log.env().clock.now();
        self.instances.iter().any(|it| !it.is_awake(now))
    }

    /// Asks each instance for a commit.
    pub(super) fn ask_for_commits(&self) {
        self.processes().for_each(Process::ask_for_commit);
    }

    /// `next`, or when the log looks at sessions before that.
    pub(super) fn until_group_ticks(&self, next: Duration) -> Duration {
        match self.is_scaled_out() {
            true => next.min(GROUP_TICK),
            false => next,
        }
    }

    /// Time has gone on: the log looks at sessions and rebalances.
    pub(super) fn tick_group(&self) {
        if let Some(broker) = self.log.broker().filter(|_| self.is_scaled_out()) {
            broker.tick();
        }
    }

    /// Gives the instances the time that they need to agree on who has what, and what is under way between them the commits that it
    /// takes. Only of a job that is scaled out.
    ///
    /// # Panics
    /// If they do not agree, or always have more under way.
    #[track_caller]
    pub(super) fn run_out(&mut self) {
        let Some(scale_out) = self.settings.scale_out.clone() else {
            return;
        };
        let begin = self.log.env().clock.now();
        let longest = (scale_out.session_timeout + scale_out.rebalance_timeout) * 3;
        for _ in 0..ROUNDS_MAX {
            let has_failed = matches!(self.ended(), Some(Err(_)));
            if has_failed || self.running_instances().is_empty() {
                return;
            }
            let (has_agreed, before) = (self.has_agreed(), self.committed_positions());
            self.ask_for_commits();
            self.settle();
            if self.committed_positions() != before {
                continue;
            }
            if has_agreed && self.has_agreed() {
                return;
            }
            let now = self.log.env().clock.now();
            assert!(
                now.since(begin) < longest,
                "the instances of the job {:?} do not agree on who has what within {longest:?}",
                self.name
            );
            if !has_agreed {
                self.advance(scale_out.heartbeat_interval());
            }
        }
        panic!(
            "the job {:?} does not come to rest: each commit gives it more to do",
            self.name
        );
    }

    /// Gives an instance that was told to stop, or all, the time that the last commit needs.
    #[track_caller]
    pub(super) fn run_down(&mut self, instance: Option<usize>) {
        let Some(scale_out) = self.settings.scale_out.clone() else {
            return;
        };
        let begin = self.log.env().clock.now();
        let longest = (scale_out.session_timeout + scale_out.rebalance_timeout) * 3;
        let is_meant = |running: &usize| instance.is_none_or(|instance| instance == *running);
        while self.running_instances().iter().any(is_meant) {
            let now = self.log.env().clock.now();
            assert!(
                now.since(begin) < longest,
                "the job {:?} does not stop within {longest:?}",
                self.name
            );
            self.advance(scale_out.heartbeat_interval());
        }
    }

    /// Whether each task has an instance that runs it and is awake, and nothing is to change.
    fn has_agreed(&self) -> bool {
        let now = self.log.env().clock.now();
        let awake = self.instances.iter().filter(|it| it.is_awake(now));
        let settled = awake.filter_map(Instance::running).map(Process::settled);
        let Some(settled) = settled.collect::<Option<Vec<_>>>() else {
            return false;
        };
        let held: usize = settled.iter().map(|(held, _)| held).sum();
        settled.first().is_some_and(|(_, all)| held == *all)
    }

    /// The positions that the job has committed.
    fn committed_positions(&self) -> Vec<(TopicPartition, CommittedOffset)> {
        let Ok(group) = GroupId::new(&self.name) else {
            return Vec::new();
        };
        let described = self.log.broker().map(|it| it.describe_group(&group));
        let described = described.and_then(Result::ok);
        described.map_or(Vec::new(), |group| group.offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    const SESSION: Duration = Duration::from_secs(6);

    /// I4: the group knows neither a zombie nor its successor any more, as both stood still. The zombie learns that it was replaced before
    /// it would take the name back.
    #[test]
    fn i4_a_zombie_that_the_group_has_forgotten_leaves_its_name_to_its_successor() {
        for seed in 0..24 {
            let job = Job::new("visits");
            job.source(topic::<str>("pages"))
                .key_by_ref(|page: &str| page)
                .count("visits")
                .changes()
                .sink(topic("counts"));
            let launch = job.exactly_once(Commit::every(Duration::from_millis(100)));
            let scale_out = ScaleOut::instance("host").session_timeout(SESSION);
            let launch = launch.state_partitions(4).scale_out(scale_out);
            let mut bed = TestBed::of(launch).instances(2).seed(seed).start();
            bed.send_value("pages", "home");
            bed.expect::<str, u64>("counts", [("home", 1)]);
            bed.replace_instance(1, SESSION * 3);
            bed.suspend_instance(1, SESSION * 3);
            // Nobody starts a successor again that is fenced: it fails the test.
            bed.has_rivals = false;
            bed.advance(SESSION * 5);
            assert_eq!(bed.zombies(), 0);
            bed.send_value("pages", "home");
            bed.expect::<str, u64>("counts", [("home", 2)]);
            assert_eq!(bed.running_instances(), [0, 1]);
        }
    }
}
