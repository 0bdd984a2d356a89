//! [`TestBed`]: a user's unchanged job under virtual time, in one thread, on a simulated machine (design D27).
//!
//! The bed gives turns to what threads do in production: the driver, the workers, the flusher. Broker, coordinator, state and
//! commits are the real ones; the disk and the clocks are those of a [`SimulatedWorld`], and RocksDB keeps its files in memory.
//!
//! Reading order: `mod.rs` (what users call), `process.rs` (a life of the job), `incarnation.rs` (the turns), `restart.rs` (deaths),
//! `instances.rs` (of a job that is scaled out), `zombie.rs` (those who do not know that they are replaced), `link.rs` and `unfenced.rs` (the way to the log), `topics.rs` (what goes
//! in and comes out), `expect.rs`, `open_rows.rs` (what a failed one tells), `crash_test/` (hundreds of runs with troubles).

mod chance;
mod crash_test;
mod expect;
mod incarnation;
mod instances;
mod link;
mod open_rows;
mod process;
mod restart;
#[cfg(test)]
mod tests;
mod topics;
mod unfenced;
mod zombie;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::incarnation::Turns;
use self::instances::Instance;
use self::link::{Fencing, Weather};
use self::process::Process;
use self::zombie::Zombie;
use crate::broker::{Broker, BrokerConfig, SyncMode};
use crate::env::Instant;
use crate::env::simulated::SimulatedWorld;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::job::Launch;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::query::Queries;
use crate::runtime::life::start::Settings;
use crate::runtime::scale::ScaleOut;
use crate::runtime::task::progress::JobProgress;
use crate::runtime::topics::job_topics::TopicConfigs;
use crate::state::{MemoryFiles, RocksFiles};
use crate::types::{Offset, Timestamp, TopicPartition};

pub use self::chance::Chance;
pub use self::crash_test::{CrashTest, crash_test};
pub use self::topics::Row;

/// The simulated directory of the log.
const DATA: &str = "/log";
/// The workers of a job in a bed that says nothing.
const WORKERS: usize = 2;
/// The name of the instances of a job that gives none.
const INSTANCE: &str = "instance";
/// The partitions of a source topic that neither the job nor the bed says anything about.
const PARTITIONS: i32 = 2;
/// Interval of the housekeeping that a broker's threads do elsewhere, while virtual time goes on.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Turns without virtual time moving on, after which a bed takes a job for one that never comes to rest.
const ROUNDS_MAX: usize = 1_000_000;

/// A job under test: it runs in this thread, and time stands still unless the test moves it.
///
/// The job is the user's own, with its topology, settings and functions. What differs from production is who calls it: instead of
/// threads, the bed gives its workers, its driver and the writer of its state a turn each, in an order that follows from the seed. The
/// same seed gives the same run. A test without sleeps or a disk takes milliseconds.
///
/// It is for tests: a failure panics with what the job says.
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
/// use onceflow::testing::TestBed;
///
/// fn word_count() -> Launch {
///     let job = Job::new("word-count");
///     job.source(topic::<str>("words")).key_by_ref(|word: &str| word).count("counts").changes().sink(topic("word-counts"));
///     job.exactly_once(Commit::every(Duration::from_millis(100)))
/// }
/// # use onceflow::runtime::Launch;
///
/// let mut bed = TestBed::new(word_count());
/// bed.send_value("words", "tea");
/// bed.send_value("words", "tea");
/// bed.crash();
/// bed.send_value("words", "milk");
/// bed.expect::<str, u64>("word-counts", [("tea", 1), ("tea", 2), ("milk", 1)]);
/// ```
///
/// # What it does not simulate
/// Sources of files or standard input, which have threads of their own, are refused when the bed starts.
/// Calls and effects ([`map_async`](crate::runtime::Keyed::map_async), [`effect`](crate::runtime::Keyed::effect)) are made, by your
/// function, in this thread: their pauses and time limits are of virtual time, and the function is to answer without waiting for
/// anything of the world outside, which does not go on while the bed works. After a crash RocksDB's files are there as it wrote them, or lost as a
/// whole, by the seed; torn files of RocksDB are not simulated.
pub struct TestBed {
    name: String,
    topology: Arc<Topology>,
    settings: Settings,
    world: SimulatedWorld,
    /// The log as no process sees it: nothing gets lost on the way.
    log: Log,
    /// The job's instances; one, if it is not scaled out.
    instances: Vec<Instance>,
    /// Processes that another one took over from, and that do not know it yet.
    zombies: Vec<Zombie>,
    /// Whether an instance of a job that is scaled out has a zombie of its name, or had one.
    has_rivals: bool,
    turns: Turns,
    /// Whether requests and answers get lost between job and log.
    weather: Weather,
    /// Up to where each partition was expected.
    taken: BTreeMap<TopicPartition, Offset>,
    /// Records without a key go to partitions in turn.
    next_partition: i32,
    /// When the broker last did what its threads do from time to time.
    housekept: Instant,
}

/// Opens the log of a machine, with RocksDB's files in memory.
fn open_log(world: &SimulatedWorld, memory: &MemoryFiles) -> Result<Log, JobError> {
    let config = BrokerConfig {
        sync_mode: SyncMode::Inline,
        ..BrokerConfig::default()
    };
    let files = RocksFiles::Memory(memory.clone());
    let data = Path::new(DATA);
    Ok(Log::with_state_files(world.env(), data, config, files)?)
}

/// The settings of a [`TestBed`], before it starts.
#[must_use = "nothing runs until `start`"]
pub struct BedConfig {
    launch: Launch,
    seed: u64,
    partitions: BTreeMap<String, i32>,
    topic_configs: TopicConfigs,
    instances: usize,
    fencing: Fencing,
}

impl BedConfig {
    /// The seed from which all follows that could be otherwise. The default is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs so many instances of the job, which is scaled out then ([`Launch::scale_out`](crate::runtime::Launch::scale_out); its settings
    /// count, or the default ones). The first one has the name that the job gives, the others have a number behind it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("visits");
    /// job.source(topic::<str>("pages")).key_by_ref(|page: &str| page).count("visits").changes().sink(topic("counts"));
    /// let launch = job.exactly_once(Commit::every(Duration::from_millis(100))).scale_out(ScaleOut::instance("host"));
    /// let mut bed = TestBed::of(launch).instances(2).start();
    /// bed.send_value("pages", "home");
    /// bed.kill_instance(1);
    /// bed.expect::<str, u64>("counts", [("home", 1)]);
    /// ```
    pub fn instances(mut self, count: usize) -> Self {
        self.instances = count.max(1);
        let scale_out = &mut self.launch.settings.scale_out;
        scale_out.get_or_insert_with(|| ScaleOut::instance(INSTANCE));
        self
    }

    /// Sets the partitions of a source topic. The default is what the job says, else 2.
    pub fn partitions(mut self, topic: &str, count: i32) -> Self {
        self.partitions.insert(topic.to_owned(), count.max(1));
        self
    }

    /// A setting of a source topic, by Kafka's name. Retention and compaction are looked at every second of virtual time.
    pub fn topic_config(mut self, topic: &str, name: &str, value: &str) -> Self {
        let configs = self.topic_configs.entry(topic.to_owned()).or_default();
        configs.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Creates the source topics, starts the job, and lets it come to rest.
    ///
    /// # Panics
    /// If the job as built cannot run in a bed.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> TestBed {
        let started = TestBed::begin(self);
        started.unwrap_or_else(|e| panic!("the job cannot start: {e}"))
    }
}

impl TestBed {
    /// Starts a job on an empty simulated machine, with seed 0.
    ///
    /// # Panics
    /// As [`BedConfig::start`].
    #[track_caller]
    #[must_use]
    pub fn new(job: Launch) -> Self {
        Self::of(job).start()
    }

    /// A bed whose settings are to be given.
    pub fn of(job: Launch) -> BedConfig {
        BedConfig {
            launch: job,
            seed: 0,
            partitions: BTreeMap::new(),
            topic_configs: BTreeMap::new(),
            instances: 1,
            fencing: Fencing::Whole,
        }
    }

    fn begin(config: BedConfig) -> Result<Self, JobError> {
        let BedConfig {
            launch,
            seed,
            partitions,
            topic_configs,
            instances,
            fencing,
        } = config;
        let topology = launch.topology()?;
        let (name, mut settings) = (launch.name, launch.settings);
        settings.workers.get_or_insert(WORKERS);
        let (world, first) = (SimulatedWorld::new(seed), Instance::new()?);
        let mut bed = Self {
            log: open_log(&world, &first.memory)?,
            world,
            instances: vec![first],
            zombies: Vec::new(),
            has_rivals: false,
            turns: Turns::new(seed),
            weather: Weather::new(fencing),
            taken: BTreeMap::new(),
            next_partition: 0,
            housekept: Instant::default(),
            name,
            topology: Arc::new(topology),
            settings,
        };
        bed.create_sources(&partitions, &topic_configs)?;
        bed.begin_process(0)?;
        for _ in 1..instances {
            bed.instances.push(Instance::new()?);
            bed.begin_process(bed.instances.len() - 1)?;
        }
        bed.settle();
        if instances > 1 {
            bed.run_out();
        }
        Ok(bed)
    }

    /// The process of the first instance that has one.
    #[track_caller]
    fn process(&self) -> &Process {
        let first = self.processes().next();
        first.unwrap_or_else(|| panic!("no instance of the job has a process: start one"))
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.instances.iter().filter_map(|it| it.process.as_ref())
    }

    fn log(&self) -> &Log {
        &self.log
    }

    /// Moves virtual time on, as if nobody but the job did anything meanwhile: what becomes due (commits, timers of the wall clock)
    /// happens at its time.
    ///
    /// # Panics
    /// If the job fails.
    #[track_caller]
    pub fn advance(&mut self, duration: Duration) {
        let until = self.log().env().clock.now().plus(duration);
        loop {
            self.settle();
            let now = self.log().env().clock.now();
            if now >= until {
                return;
            }
            if now.since(self.housekept) >= HOUSEKEEPING {
                self.housekeep();
            }
            let rest = until.since(now);
            let instances = self.instances.iter().map(|it| it.next_due(now, rest));
            let zombies = self.zombies.iter().map(|it| it.next_due(rest));
            let next = instances.chain(zombies).min().unwrap_or(rest);
            let next = self.until_group_ticks(next);
            self.world
                .advance(next.clamp(Duration::from_nanos(1), rest));
            self.tick_group();
        }
    }

    /// Moves virtual time on as [`TestBed::advance`] does, on a bad network: of the requests of the job to its log, one in six gets lost,
    /// or its answer does, or it arrives twice, or its answer is up to 200 ms late, by the seed. A job that gives up (it does after some
    /// attempts) is started again at the end, as an operator would. Returns how many requests met one of these.
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
    /// assert!(bed.lose_answers(Duration::from_secs(5)) > 0);
    /// bed.expect::<str, u64>("counts", [("home", 1)]);
    /// ```
    ///
    /// # Panics
    /// If the job cannot start again.
    #[track_caller]
    pub fn lose_answers(&mut self, duration: Duration) -> u64 {
        let seed = self.turns.chance.draw();
        let met = self.work_in(seed, duration);
        if self.ended().is_some() {
            self.crash();
        }
        met
    }

    /// Moves time on in the bad weather that follows from `seed`.
    fn work_in(&mut self, seed: u64, duration: Duration) -> u64 {
        self.weather.begin(seed);
        self.advance_in_trouble(duration);
        self.weather.end()
    }

    /// As [`TestBed::advance`], while the machine fails: so may the job.
    fn advance_in_trouble(&mut self, duration: Duration) {
        self.turns.expects_failure = true;
        self.advance(duration);
        self.turns.expects_failure = false;
    }

    /// Does what the broker's threads do from time to time: syncs what nobody waits for, retention, compaction.
    fn housekeep(&mut self) {
        let log = self.log().clone();
        log.broker().into_iter().for_each(Broker::housekeep);
        self.housekept = log.env().clock.now();
    }

    /// Lets the job work until it has nothing to do. Time stands still meanwhile, so that what waits for the commit interval waits on.
    ///
    /// # Panics
    /// If the job fails, or never comes to rest.
    #[track_caller]
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!(
            "the job {:?} does not come to rest: something gives it work again and again at one moment of virtual time",
            self.name
        );
    }

    /// Gives everybody a turn; `false` if nobody had anything to do.
    #[track_caller]
    fn round(&mut self) -> bool {
        let mut had_work = false;
        for zombie in &mut self.zombies {
            had_work |= zombie.round(&mut self.turns);
        }
        self.zombies.retain(|zombie| !zombie.has_ended());
        had_work | self.give_instances()
    }

    /// Lets the job work for so many rounds of turns, or until it has nothing to do.
    #[track_caller]
    fn work(&mut self, rounds: usize) {
        let _ = (0..rounds).all(|_| self.round());
    }

    /// Lets the job work, and commits what it did. In a job that is scaled out it does so until nothing is under way between the
    /// instances, and time goes on where they have to agree on who has what: until the session of one that was killed is over.
    ///
    /// # Panics
    /// As [`TestBed::settle`]; if the instances do not agree.
    #[track_caller]
    pub fn commit(&mut self) {
        self.settle();
        self.ask_for_commits();
        self.settle();
        if self.is_scaled_out() {
            self.run_out();
        }
    }

    /// Has the job finish and commit what is in flight, and end.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn stop(&mut self) {
        self.processes().for_each(|it| it.stopper.stop());
        self.settle();
        if self.is_scaled_out() {
            self.run_down(None);
        }
    }

    /// Returns the job's result; `None` while it, or an instance of it, runs. A failure shows here, without a panic, where the test asked
    /// for it ([`TestBed::expect_failure`]).
    #[must_use]
    pub fn ended(&self) -> Option<&Result<(), JobError>> {
        let ended = || self.processes().map(|it| it.ended.as_ref());
        let failed = ended().flatten().find(|ended| ended.is_err());
        failed.or_else(|| {
            let ended: Option<Vec<_>> = ended().collect();
            ended?.first().copied()
        })
    }

    /// Lets the job work until it fails, and says how.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn expect_failure(&mut self) -> &JobError {
        self.turns.expects_failure = true;
        self.commit();
        match self.ended() {
            Some(Err(e)) => e,
            _ => panic!("the job {:?} has not failed", self.name),
        }
    }

    /// Counts processes that go on, or stand still, although another one took over from them ([`TestBed::take_over`],
    /// [`TestBed::suspend`]): they do not know it yet.
    #[must_use]
    pub fn zombies(&self) -> usize {
        self.zombies.len()
    }

    /// The time by the simulated clock on the wall.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.log().env().clock.wall()
    }

    /// Returns the job's progress since it last started; of several instances, that of the first one.
    #[must_use]
    pub fn progress(&self) -> JobProgress {
        self.process().progress.report()
    }

    /// The simulated machine: its disk can be filled, its calls made to fail.
    #[must_use]
    pub fn world(&self) -> &SimulatedWorld {
        &self.world
    }

    /// Asks for the job's state, as of its last commit; of several instances, the first one
    /// ([`TestBed::ask_instance`] asks another).
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("visits");
    /// job.source(topic::<str>("pages")).key_by_ref(|page: &str| page).count("visits").changes().sink(topic("counts"));
    /// let mut bed = TestBed::new(job.exactly_once(Commit::every(std::time::Duration::from_secs(1))));
    /// bed.send_value("pages", "home");
    /// let visits = bed.ask(async |query| query.store::<str, u64>("visits")?.get("home").await);
    /// assert_eq!(visits.unwrap().value, Some(1));
    /// ```
    ///
    /// # Panics
    /// If the job fails, or the answer waits for something other than the job.
    #[track_caller]
    pub fn ask<R>(&mut self, question: impl AsyncFnOnce(Queries) -> R) -> R {
        self.commit();
        let queries = self.queries(self.process());
        self.wait_for_answer(question(queries))
    }

    fn queries(&self, process: &Process) -> Queries {
        let (log, topology, progress) = (self.log(), &self.topology, &process.progress);
        Queries::new(log.env(), &self.name, topology, progress, log.transport())
    }

    fn wait_for_answer<R>(&mut self, answer: impl Future<Output = R>) -> R {
        let mut answer = std::pin::pin!(answer);
        for _ in 0..ROUNDS_MAX {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(answer) = answer.as_mut().poll(&mut context) {
                return answer;
            }
            self.commit();
        }
        panic!("the answer waits for something other than the job");
    }
}

impl Drop for TestBed {
    fn drop(&mut self) {
        self.world.power_off();
    }
}

impl std::fmt::Debug for TestBed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBed")
            .field("job", &self.name)
            .field("seed", &self.world.seed())
            .finish_non_exhaustive()
    }
}
