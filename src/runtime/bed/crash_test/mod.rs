//! [`CrashTest`]: a user's job through hundreds of seeds of crashes, power losses, full disks and failed calls, compared with a model.
//!
//! Reading order: `mod.rs` (what users call), `steps.rs` (what happens in a run), `trial.rs` (one run), `judges.rs` (the comparisons),
//! `shrink.rs` (fewer steps that fail as well).

mod judges;
mod quiet;
mod shrink;
mod steps;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::marker::PhantomData;

use self::judges::{CheckJudge, Judge, StateJudge, TopicJudge};
use self::shrink::{Failure, shrink};
use self::steps::{Pace, Step};
use super::chance::Chance;
use super::link::Fencing;
use super::{INSTANCE, TestBed};
use crate::codec::{Codec, Datum};
use crate::runtime::life::job::Launch;
use crate::runtime::scale::ScaleOut;

/// The variable that names the one seed to run.
const SEED_VARIABLE: &str = "ONCEFLOW_CRASH_SEED";
/// The variable that says how many seeds each test runs.
const SEEDS_VARIABLE: &str = "ONCEFLOW_CRASH_SEEDS";
/// The seeds of a test that names no number.
const SEEDS: u64 = 100;

/// Begins a crash test of the job that `job` builds.
///
/// Each seed draws inputs and troubles: the process is killed between any two turns and within any call on files, also while it starts
/// again; the power goes; the disk is full; calls fail, are short or take long; the number of workers changes; another process takes over
/// from one that goes on, at once or after it has stood still. After each death `job` is called again, as another process would. At each
/// restart and at the end the committed output is compared with the model: nothing is lost, nothing is there twice, and what a reader has
/// seen stays.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::time::Duration;
/// use onceflow::prelude::*;
/// use onceflow::runtime::Launch;
/// use onceflow::testing::crash_test;
///
/// fn word_count() -> Launch {
///     let job = Job::new("word-count");
///     job.source(topic::<str>("words")).key_by_ref(|word: &str| word).count("counts").changes().sink(topic("word-counts"));
///     job.exactly_once(Commit::every(Duration::from_millis(100)))
/// }
///
/// // #[test]
/// fn counts_are_exact_whatever_happens() {
///     crash_test(word_count)
///         .inputs(
///             |chance| chance.list(1..30, |chance| *chance.pick(&["tea", "milk", "jam"])),
///             |bed, word| bed.send_value("words", *word),
///         )
///         .expect::<str, u64>("word-counts", |words| {
///             let mut counts = BTreeMap::new();
///             let count = |word: &&'static str| {
///                 let count = counts.entry(*word).or_insert(0);
///                 *count += 1;
///                 (word.to_string(), *count)
///             };
///             words.iter().map(count).collect()
///         })
/// #       .seeds(3)
///         .run();
/// }
/// # counts_are_exact_whatever_happens();
/// ```
///
/// A failure is repeated with fewer inputs and troubles, and says what is left, and the line that repeats it
/// (`ONCEFLOW_CRASH_SEED=17 cargo test counts_are_exact`). `ONCEFLOW_CRASH_SEEDS=10000` runs that many seeds.
pub fn crash_test(job: impl Fn() -> Launch + 'static) -> CrashTest<()> {
    CrashTest {
        job: Box::new(job),
        partitions: BTreeMap::new(),
        seeds: SEEDS,
        instances: 1,
        fencing: Fencing::Whole,
        draft: Draft {
            inputs: Box::new(|_| Vec::new()),
            send: Box::new(|_, ()| {}),
            judges: Vec::new(),
        },
    }
}

/// A crash test, made by [`crash_test`]. `I` is an input of the user's: what one call of `send` puts into the log.
#[must_use = "nothing runs until `run`"]
pub struct CrashTest<I> {
    job: Box<dyn Fn() -> Launch>,
    partitions: BTreeMap<String, i32>,
    seeds: u64,
    /// Instances that begin.
    instances: usize,
    /// Fencing of the log; the test must find its gaps.
    fencing: Fencing,
    draft: Draft<I>,
}

/// The user's function that draws the inputs of a seed.
type Inputs<I> = Box<dyn Fn(&mut Chance) -> Vec<I>>;
/// The user's function that puts an input into the log.
type SendInput<I> = Box<dyn Fn(&mut TestBed, &I)>;

/// The user's functions.
struct Draft<I> {
    inputs: Inputs<I>,
    send: SendInput<I>,
    judges: Vec<Box<dyn Judge<I>>>,
}

impl CrashTest<()> {
    /// Draws the inputs of a seed with `draw`, and puts one of them into the log with `send`.
    pub fn inputs<I: Clone + Debug>(
        self,
        draw: impl Fn(&mut Chance) -> Vec<I> + 'static,
        send: impl Fn(&mut TestBed, &I) + 'static,
    ) -> CrashTest<I> {
        CrashTest {
            job: self.job,
            partitions: self.partitions,
            seeds: self.seeds,
            instances: self.instances,
            fencing: self.fencing,
            draft: Draft {
                inputs: Box::new(draw),
                send: Box::new(send),
                judges: Vec::new(),
            },
        }
    }
}

impl<I: Clone + Debug + 'static> CrashTest<I> {
    /// Compares a topic with a model: all records that it has once the job has processed these inputs. Each key's records are compared
    /// in order; the order between keys is not promised. At a restart the committed records are a beginning of these.
    ///
    /// It is for output that follows from the inputs, key by key, whatever the order of partitions. [`CrashTest::check`] is for others.
    pub fn expect<K, V>(
        self,
        topic: &str,
        model: impl Fn(&[I]) -> Vec<(K::Owned, V::Owned)> + 'static,
    ) -> Self
    where
        K: Datum + ?Sized + 'static,
        V: Datum + ?Sized + 'static,
        K::Owned: Ord + Debug,
        V::Owned: PartialEq + Debug,
    {
        self.expect_changes::<K, V>(topic, move |inputs| {
            let rows = model(inputs).into_iter();
            rows.map(|(key, value)| (key, Some(value))).collect()
        })
    }

    /// As [`CrashTest::expect`], for a topic with tombstones, which are `None`.
    pub fn expect_changes<K, V>(
        mut self,
        topic: &str,
        model: impl Fn(&[I]) -> Vec<(K::Owned, Option<V::Owned>)> + 'static,
    ) -> Self
    where
        K: Datum + ?Sized + 'static,
        V: Datum + ?Sized + 'static,
        K::Owned: Ord + Debug,
        V::Owned: PartialEq + Debug,
    {
        self.draft.judges.push(Box::new(TopicJudge::<I, K, V> {
            topic: topic.to_owned(),
            model: Box::new(model),
        }));
        self
    }

    /// Compares a store with one value a key (`count`, `reduce`, `with_store` and others) with a model: all that it has once the job has
    /// processed these inputs.
    pub fn expect_state<K, V>(
        mut self,
        store: &str,
        model: impl Fn(&[I]) -> Vec<(K::Owned, V)> + 'static,
    ) -> Self
    where
        K: Datum + ?Sized + 'static,
        V: Datum + Clone + PartialEq + Debug + 'static,
        V::DefaultCodec: Codec<V>,
        K::Owned: Ord + Debug,
    {
        self.draft.judges.push(Box::new(StateJudge::<I, K, V> {
            store: store.to_owned(),
            model: Box::new(model),
            keys: PhantomData,
        }));
        self
    }

    /// Makes assertions of any kind whenever the job has processed and committed all inputs so far.
    pub fn check(mut self, check: impl Fn(&mut TestBed, &[I]) + 'static) -> Self {
        let check = Box::new(check);
        self.draft.judges.push(Box::new(CheckJudge { check }));
        self
    }

    /// Sets the partitions of a source topic. The default is what the job says, else 2.
    pub fn partitions(mut self, topic: &str, count: i32) -> Self {
        self.partitions.insert(topic.to_owned(), count.max(1));
        self
    }

    /// Begins with so many instances of the job, which is scaled out then, as [`BedConfig::instances`](crate::testing::BedConfig::instances)
    /// does. Besides the other troubles, an instance joins, leaves, is killed and started again, stands still until its session is over,
    /// or is replaced by another process of its name while it goes on: at any moment, so within a commit, a restore, and the agreement
    /// that another one of these has caused.
    pub fn instances(mut self, count: usize) -> Self {
        self.instances = count.max(1);
        self
    }

    /// Sets the number of seeds; the default is 100.
    pub fn seeds(mut self, count: u64) -> Self {
        self.seeds = count;
        self
    }

    /// Runs all seeds.
    ///
    /// # Panics
    /// If one fails: with the fewest steps that were found to fail, and the line that repeats it.
    #[track_caller]
    pub fn run(self) {
        let only = number_of(SEED_VARIABLE);
        let count = number_of(SEEDS_VARIABLE).unwrap_or(self.seeds);
        let seeds = only.map_or(0..count, |seed| seed..seed.saturating_add(1));
        for seed in seeds {
            let steps = self.steps(seed);
            if let Err(failure) = trial::run(&self, seed, &steps) {
                panic!("{}", self.told(seed, steps, failure));
            }
        }
    }

    fn steps(&self, seed: u64) -> Vec<Step<I>> {
        let launch = (self.job)();
        // A number of its own, since the bed's turns follow from the seed itself.
        let mut chance = Chance::new(Chance::new(seed).draw());
        let inputs = (self.draft.inputs)(&mut chance);
        let interval = launch.settings.commit.interval;
        let session = (self.instances > 1).then(|| {
            let scale_out = launch.settings.scale_out;
            let scale_out = scale_out.unwrap_or_else(|| ScaleOut::instance(INSTANCE));
            scale_out.session_timeout
        });
        steps::draw(&mut chance, inputs, Pace { interval, session })
    }

    /// The report of a failure.
    fn told(&self, seed: u64, steps: Vec<Step<I>>, failure: Failure) -> String {
        let count = steps.len();
        let again = trial::run(self, seed, &steps);
        let (steps, failure) = match &again {
            Ok(()) => (steps, failure),
            Err(_) => shrink(steps, failure, &mut |steps| trial::run(self, seed, steps)),
        };
        let name = (self.job)().name;
        let mut told = format!(
            "the job {name:?} is not exact (seed {seed}): {}\n",
            failure.why
        );
        match again {
            Ok(()) => told.push_str(
                "The same steps did not fail again: the job, or the check, follows something besides its inputs and stores, such as a \
                 static, a file, or the clock of the machine. The steps were:",
            ),
            Err(_) if steps.is_empty() => told.push_str("It fails without any input or trouble."),
            Err(_) => {
                let _ = write!(told, "{} of {count} steps are enough:", steps.len());
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let is_failing = index == failure.at;
            let mark = if is_failing { "   <- fails here" } else { "" };
            let _ = write!(told, "\n  {}. {step}{mark}", index + 1);
        }
        let _ = write!(
            told,
            "\nrepeat it: {SEED_VARIABLE}={seed} cargo test {}",
            test_name()
        );
        told
    }
}

/// The test that this thread runs, as `cargo test` names its threads.
fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    name.unwrap_or_default().to_owned()
}

/// A number from the environment.
#[track_caller]
fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|e| panic!("{variable}={text:?} is no number: {e}")))
}

impl<I> Debug for CrashTest<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrashTest")
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}
