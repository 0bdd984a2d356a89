//! Replay: the committed output of a job of event time is a function of its input, whatever runs it (I16).
//!
//! Random topologies over random input run with other numbers of workers, sizes of batches, stops, kills, speeds, and logs; the output
//! of a plain run is the measure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use onceflow::broker::BrokerConfig;
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::operators::TimeWindows;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{Durability, Timestamp, TopicName};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::model::{Kind, any_kind, counted, windows};
use super::support::{
    Click, DISORDER, any_clicks, feed, late, ms, parse, results, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed, run, until, wait_for_markers};
use crate::on_kafka::stage::stage;

/// A value on its way, by its key.
type Values = Keyed<u64, i64>;

/// A part of a topology: each step takes values by key, and gives such.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Step {
    /// Leaves out the multiples of a number.
    Filter(i64),
    /// Gives them other keys: a shuffle.
    Rekey(u64),
    /// Folds them in windows.
    Window(Kind, Fold),
    /// Folds them in sessions with this gap.
    Session(u64, Fold),
    /// Chains them in the order of time: each result depends on all values before.
    Chain,
    /// Joins each with those that are so much older and newer, or with none.
    Join(u64, u64),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Fold {
    Count,
    Sum,
    Max,
    Distinct,
}

fn any_step() -> impl Strategy<Value = Step> {
    let fold = || prop::sample::select(vec![Fold::Count, Fold::Sum, Fold::Max, Fold::Distinct]);
    prop_oneof![
        1 => (2i64..5).prop_map(Step::Filter),
        2 => (1u64..5).prop_map(Step::Rekey),
        3 => (any_kind(), fold()).prop_map(|(kind, fold)| Step::Window(kind, fold)),
        2 => (1u64..12, fold()).prop_map(|(gap, fold)| Step::Session(gap, fold)),
        2 => Just(Step::Chain),
        2 => (0u64..4, 0u64..4).prop_map(|(before, after)| Step::Join(before, after)),
    ]
}

fn folded<W: TimeWindows + onceflow::operators::Windows<Key<u64> = Windowed<u64>>>(
    values: Values,
    windows: W,
    fold: Fold,
    prefix: &str,
    name: &str,
) -> Values {
    let (values, late) = values.window(windows).late();
    late.sink(topic(&format!("{prefix}late")));
    let results: Keyed<Windowed<u64>, i64> = match fold {
        Fold::Count => values.count(name).map(|n| n.cast_signed()).boxed(),
        Fold::Sum => values
            .reduce(name, |sum, v| *sum = sum.wrapping_add(*v))
            .boxed(),
        Fold::Max => values.max(name, |v| *v).boxed(),
        Fold::Distinct => values
            .distinct(name, |v| v % 3)
            .map(|n| n.cast_signed())
            .boxed(),
    };
    let pairs = results.entries(|key, value| (key.key, *value));
    pairs
        .key_by(|(key, _)| *key)
        .map(|(_, value)| *value)
        .boxed()
}

fn step(values: Values, step: &Step, prefix: &str, name: &str) -> Values {
    match *step {
        Step::Filter(n) => values.filter(move |v| v % n != 0).boxed(),
        Step::Rekey(n) => {
            let pairs = values
                .entries(move |key, value| ((key.wrapping_add(value.cast_unsigned())) % n, *value));
            pairs
                .key_by(|(key, _)| *key)
                .map(|(_, value)| *value)
                .boxed()
        }
        Step::Window(kind, fold) => folded(values, windows(kind), fold, prefix, name),
        Step::Session(gap, fold) => {
            folded(values, SessionWindows::gap(ms(gap)), fold, prefix, name)
        }
        Step::Join(before, after) => {
            let (left, right) = values.tee();
            let right = right.filter(|v| v % 3 != 0);
            let (joined, late_left, late_right) =
                left.join(name, right).within(ms(before), ms(after)).late();
            late_left.sink(topic(&format!("{prefix}late")));
            late_right.sink(topic(&format!("{prefix}late")));
            joined
                .left(|l, r| l.wrapping_mul(31).wrapping_add(r.copied().unwrap_or(-1)))
                .boxed()
        }
        Step::Chain => {
            let (in_order, late) = values.sorted_by_time(&format!("{name}-order"));
            late.sink(topic(&format!("{prefix}late")));
            in_order
                .stateful(name, |chain: &mut Option<i64>, value, results| {
                    let next = chain
                        .unwrap_or_default()
                        .wrapping_mul(31)
                        .wrapping_add(*value);
                    *chain = Some(next);
                    results.push(next);
                })
                .boxed()
        }
    }
}

/// The job of a topology, whose topics and name begin with `prefix`.
fn job(prefix: &str, steps: &[Step], is_endless: bool) -> Job {
    let job = Job::new(&format!("{prefix}replayed"));
    let source = topic::<str>(&format!("{prefix}in"));
    let source = if is_endless {
        source
    } else {
        source.until_end()
    };
    let mut values: Values = job
        .source(source)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _): &Click| u64::from(user.as_bytes()[1]))
        .map(|(_, time)| time.rem_euclid(17))
        .boxed();
    for (number, it) in steps.iter().enumerate() {
        values = step(values, it, prefix, &format!("step-{number}"));
    }
    values.sink(topic(&format!("{prefix}out")));
    job
}

/// The output by key: in order, if the topology promises one, or else as a set.
type Outcome = BTreeMap<u64, Vec<(Timestamp, i64)>>;

fn outcome(prefix: &str, steps: &[Step], log: &Log) -> Outcome {
    let mut by_key = Outcome::new();
    for seen in committed(log, &format!("{prefix}out")) {
        let of_key = by_key.entry(seen.key::<u64>()).or_default();
        of_key.push((seen.timestamp, seen.value::<i64>()));
    }
    let orders = |it: &&Step| !matches!(it, Step::Filter(_));
    let is_ordered = !matches!(steps.iter().rev().find(orders), None | Some(Step::Rekey(_)));
    if !is_ordered {
        by_key
            .values_mut()
            .for_each(|values| values.sort_unstable());
    }
    let late = committed(log, &format!("{prefix}late"));
    assert!(late.is_empty(), "something was late: {steps:?}");
    by_key
}

/// Two outputs are the same, or the first difference is told.
fn assert_same(found: &Outcome, expected: &Outcome, steps: &[Step]) {
    let none = Vec::new();
    for key in found.keys().chain(expected.keys()) {
        let found = found.get(key).unwrap_or(&none);
        let expected = expected.get(key).unwrap_or(&none);
        let same = found.iter().zip(expected).take_while(|(a, b)| a == b);
        let from = same.count();
        assert!(
            found.len() == from && expected.len() == from,
            "{steps:?}: of the key {key} {} and {} results, from {from} on {:?} and not {:?}",
            found.len(),
            expected.len(),
            &found[from..found.len().min(from + 8)],
            &expected[from..expected.len().min(from + 8)],
        );
    }
}

/// Way to run a topology.
#[derive(Debug, Clone)]
struct Way {
    workers: usize,
    batch: usize,
    commit_millis: u64,
    /// Commits after which it is stopped and started again.
    stops: Vec<u64>,
    /// Whether the input comes while it runs.
    is_live: bool,
}

fn any_way() -> impl Strategy<Value = Way> {
    (
        prop::sample::select(vec![1, 2, 4]),
        prop::sample::select(vec![1, 7, 64, 4_096]),
        prop::sample::select(vec![1, 3, 50]),
        prop::collection::vec(0u64..40, 0..3),
        any::<bool>(),
    )
        .prop_map(|(workers, batch, commit_millis, stops, is_live)| Way {
            workers,
            batch,
            commit_millis,
            stops,
            is_live,
        })
}

/// Appends the input, the partitions in turn, a batch each.
fn feed_all(log: &Log, topic: &str, partitions: &[Vec<Click>], batch: usize) {
    let longest = partitions.iter().map(Vec::len).max().unwrap_or_default();
    for start in (0..longest).step_by(batch) {
        for (number, clicks) in partitions.iter().enumerate() {
            let end = clicks.len().min(start + batch);
            let part = clicks.get(start..end).unwrap_or_default();
            feed(log, topic, i32::try_from(number).unwrap(), part);
        }
    }
}

fn launch(prefix: &str, steps: &[Step], way: &Way, is_endless: bool) -> Launch {
    let commit = Commit::every(ms(way.commit_millis));
    job(prefix, steps, is_endless)
        .exactly_once(commit)
        .state_partitions(8)
        .workers(way.workers)
}

fn run_on(log: &Log, steps: &[Step], partitions: &[Vec<Click>], way: &Way) -> Outcome {
    topic_of_clicks(log, "in", i32::try_from(partitions.len()).unwrap());
    if !way.is_live {
        feed_all(log, "in", partitions, way.batch);
    }
    std::thread::scope(|threads| {
        if way.is_live {
            threads.spawn(|| feed_all(log, "in", partitions, way.batch));
        }
        for &enough in &way.stops {
            let running = launch("", steps, way, true).start(log).unwrap();
            let begin = std::time::Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(20) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
    });
    run(launch("", steps, way, false), log).unwrap();
    outcome("", steps, log)
}

/// One worker, everything in a few batches, no stop.
fn plain() -> Way {
    Way {
        workers: 1,
        batch: 4_096,
        commit_millis: 50,
        stops: vec![],
        is_live: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i16_the_output_of_any_topology_is_the_same_whatever_runs_it(
        steps in prop::collection::vec(any_step(), 1..5),
        partitions in any_clicks(),
        ways in prop::collection::vec(any_way(), 3),
    ) {
        let place = Place::new();
        let log = place.log();
        let expected = run_on(&log, &steps, &partitions, &plain());
        for way in &ways {
            let place = Place::new();
            let log = place.log();
            prop_assert_eq!(&run_on(&log, &steps, &partitions, way), &expected, "{:?}", way);
        }
    }
}

/// Topologies of all kinds of steps.
fn topologies() -> [Vec<Step>; 3] {
    let tumbling: Kind = (10, 10, false, 0, 2);
    let hopping: Kind = (12, 4, false, 3, 0);
    [
        vec![
            Step::Window(hopping, Fold::Sum),
            Step::Rekey(3),
            Step::Chain,
        ],
        vec![
            Step::Session(4, Fold::Count),
            Step::Window(tumbling, Fold::Max),
        ],
        vec![
            Step::Chain,
            Step::Rekey(2),
            Step::Session(3, Fold::Distinct),
        ],
    ]
}

/// Clicks of three partitions, out of order within the bound.
fn many_clicks(count_each: usize) -> Vec<Vec<Click>> {
    let mut state = 7u64;
    let mut next = |below: i64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        i64::try_from(state >> 33).unwrap() % below
    };
    let mut partition = |_| {
        let mut newest = 0;
        let clicks = (0..count_each).map(|_| {
            newest += next(3);
            (format!("u{}", next(6)), newest - next(DISORDER + 1))
        });
        clicks.collect()
    };
    (0..3).map(&mut partition).collect()
}

/// Time for a life to commit records, about: all of them may be committed.
const PATIENCE_MILLIS: u64 = 3_000;
/// Tells the child which topology it runs where.
const VARIABLE: &str = "ONCEFLOW_REPLAY_CHILD";

#[derive(Serialize, Deserialize)]
struct Plan {
    prefix: String,
    steps: Vec<Step>,
    workers: usize,
    data: PathBuf,
    brokers: Option<String>,
}

fn open(data: &Path, brokers: Option<&str>) -> Log {
    if let Some(brokers) = brokers {
        let settings = KafkaSettings::new(brokers)
            .and_then(|it| it.with("state.dir", &data.display().to_string()));
        return Log::kafka_with(settings.unwrap()).unwrap();
    }
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    Log::embedded_with(data, config).unwrap()
}

/// The child's entry: the tests of this module run it in a process of its own.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn runs_a_topology_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let plan: Plan = serde_json::from_str(&plan).unwrap();
    let way = Way {
        workers: plan.workers,
        commit_millis: 10,
        ..plain()
    };
    let log = open(&plan.data, plan.brokers.as_deref());
    let running = launch(&plan.prefix, &plan.steps, &way, true)
        .start(&log)
        .unwrap();
    while running.progress().records == 0 && !running.is_finished() {
        std::thread::sleep(ms(1));
    }
    std::fs::write(at_work(&plan), "").unwrap();
    wait(running.finished()).unwrap();
}

/// Where a life says that it has committed records.
fn at_work(plan: &Plan) -> PathBuf {
    plan.data.with_extension("at-work")
}

/// Kills the child some time after it committed records, or after its patience; says whether it did.
fn live_until_it_commits(plan: &Plan, millis: u64) -> bool {
    let is_at_work = || at_work(plan).exists();
    live_until(plan, |_| {
        for _ in 0..PATIENCE_MILLIS {
            if is_at_work() {
                break;
            }
            std::thread::sleep(ms(1));
        }
        std::thread::sleep(ms(millis));
    });
    let was_at_work = is_at_work();
    if was_at_work {
        std::fs::remove_file(at_work(plan)).unwrap();
    }
    was_at_work
}

fn live(plan: &Plan, millis: u64) {
    live_until(plan, |_| std::thread::sleep(ms(millis)));
}

fn live_until(plan: &Plan, wait: impl FnOnce(&mut Child)) {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "time::replay::runs_a_topology_until_it_is_killed",
        ])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, serde_json::to_string(plan).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait(&mut child);
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn i16_the_output_is_the_same_with_and_without_twenty_kills() {
    let partitions = many_clicks(30_000);
    for (number, steps) in topologies().into_iter().enumerate() {
        let place = Place::new();
        let expected = run_on(&place.log(), &steps, &partitions, &plain());
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let log = open(&data, None);
        topic_of_clicks(&log, "in", 3);
        feed_all(&log, "in", &partitions, 500);
        log.close().unwrap();
        let mut at_work = 0;
        for kill in 0..20u64 {
            let plan = Plan {
                prefix: String::new(),
                steps: steps.clone(),
                workers: [1, 2, 4][usize::try_from(kill % 3).unwrap()],
                data: data.clone(),
                brokers: None,
            };
            let millis = (kill * 7 + u64::try_from(number).unwrap() * 11) % 20;
            at_work += u32::from(live_until_it_commits(&plan, millis));
        }
        assert!(at_work > 2, "{at_work} lives had records to commit");
        let log = open(&data, None);
        run(launch("", &steps, &plain(), false), &log).unwrap();
        let found = outcome("", &steps, &log);
        assert_same(&found, &expected, &steps);
        log.close().unwrap();
    }
}

#[test]
fn i16_the_output_on_kafka_is_that_on_the_embedded_log() {
    let Some(stage) = stage() else { return };
    let partitions = many_clicks(2_000);
    let brokers = stage.cluster.bootstrap();
    for (steps, workers) in topologies().into_iter().zip([1, 2, 4]) {
        let place = Place::new();
        let expected = run_on(&place.log(), &steps, &partitions, &plain());
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path(), Some(&brokers));
        let prefix = format!("replay-{workers}-");
        let input = format!("{prefix}in");
        until("the topic is created", || {
            wait(
                log.admin()
                    .create_topic(&TopicName::new(&input).unwrap(), 3),
            )
            .is_ok()
        });
        feed_all(&log, &input, &partitions, 64);
        for kill in 0..3 {
            let plan = Plan {
                prefix: prefix.clone(),
                steps: steps.clone(),
                workers,
                data: folder.path().to_owned(),
                brokers: Some(brokers.clone()),
            };
            live(&plan, 1_500 + kill * 700);
        }
        let way = Way { workers, ..plain() };
        run(launch(&prefix, &steps, &way, false), &log).unwrap();
        wait_for_markers(&log, &format!("{prefix}out"));
        let found = outcome(&prefix, &steps, &log);
        assert_same(&found, &expected, &steps);
    }
}

/// Beyond the bound of disorder only what is late may differ: every record is in its window or in the stream of late ones.
#[test]
fn i14_beyond_the_bound_every_record_is_in_a_result_or_late() {
    let partitions = many_clicks(3_000);
    let windows = FixedWindows::tumbling(ms(10));
    let expected = counted((10, 10, false, 0, 0), partitions.iter().flatten().cloned());
    let total: u64 = expected.values().sum();
    let mut were_late = 0;
    for (workers, batch) in [(1, 4_096), (2, 7), (4, 64)] {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 3);
        feed_all(&log, "in", &partitions, batch);
        let job = super::support::launch(windows, Watermarks::out_of_order(ms(2)));
        run(job.workers(workers), &log).unwrap();
        let found = results(&log);
        for (window, count) in &found {
            assert!(*count <= expected[window], "{window:?}");
        }
        let late = late(&log);
        assert_eq!(found.values().sum::<u64>() + late.len() as u64, total);
        were_late += late.len();
    }
    assert!(were_late > 0, "nothing was late");
}
