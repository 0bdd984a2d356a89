//! Clicks, how they are fed, and the windows that they belong to by definition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onceflow::client::ErrorCode;
use onceflow::client::wait;
use onceflow::internals::protocol::batch::BatchProducer;
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::operators::TimeWindows;
use onceflow::prelude::*;
use onceflow::runtime::{Job, Launch};
use onceflow::types::{TopicName, TopicPartition};

use proptest::prelude::*;

use crate::jobs::support::{committed, decode, run, until};
use crate::support::records::batch_at;

/// A user and the time of a click.
pub(crate) type Click = (String, i64);

pub(crate) fn click(user: &str, time: i64) -> Click {
    (user.to_owned(), time)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn topic_of_clicks(log: &Log, topic: &str, partitions: i32) {
    let topic = TopicName::new(topic).unwrap();
    wait(log.admin().create_topic(&topic, partitions)).unwrap();
}

fn to_append(log: &Log, topic: &str, partition: i32, clicks: &[Click]) -> ProduceRequest {
    let lines: Vec<String> = clicks
        .iter()
        .map(|(user, time)| format!("{user} {time}"))
        .collect();
    ProduceRequest {
        partition: TopicPartition::new(TopicName::new(topic).unwrap(), partition),
        records: batch_at(log.env().clock.wall(), BatchProducer::Plain, &lines).into(),
        acks: Acks::Leader,
        transactional_id: None,
    }
}

/// Appends clicks to a partition of a log that may fail; returns whether they were acknowledged.
pub(crate) fn try_feed(log: &Log, topic: &str, partition: i32, clicks: &[Click]) -> bool {
    let request = to_append(log, topic, partition, clicks);
    wait(log.transport().produce(request)).is_ok()
}

/// Appends clicks to a partition, in one batch.
pub(crate) fn feed(log: &Log, topic: &str, partition: i32, clicks: &[Click]) {
    if clicks.is_empty() {
        return;
    }
    let request = to_append(log, topic, partition, clicks);
    // A broker may be asked before it leads what was created a moment ago.
    until("the partition is led", || {
        let produced = wait(log.transport().produce(request.clone()));
        let is_led = !matches!(&produced, Err(error) if error.code() == Some(ErrorCode::NotLeaderOrFollower));
        assert!(produced.is_ok() || !is_led, "{produced:?}");
        is_led
    });
}

pub(crate) fn parse(line: &str) -> Result<Click, String> {
    let (user, time) = line.split_once(' ').ok_or("no time")?;
    let time = time
        .parse()
        .map_err(|e| format!("{time:?} is no time: {e}"))?;
    Ok((user.to_owned(), time))
}

/// Counts clicks of the topic `in` by user and window into `counts`; late ones go to `late`.
pub(crate) fn clicks_per_window(
    windows: impl TimeWindows,
    watermarks: Watermarks,
    is_endless: bool,
) -> Job {
    let job = Job::new("clicks");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let (clicks, late) = job
        .source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by_ref(|(user, _): &Click| user)
        .window(windows)
        .late();
    late.sink(topic("late"));
    clicks.count("per-window").sink(topic("counts"));
    job
}

pub(crate) fn launch(windows: impl TimeWindows, watermarks: Watermarks) -> Launch {
    clicks_per_window(windows, watermarks, false)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// The same job, which goes on until it is stopped.
pub(crate) fn launch_endless(windows: impl TimeWindows, watermarks: Watermarks) -> Launch {
    clicks_per_window(windows, watermarks, true)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// The committed counts: each once, or the test fails.
pub(crate) fn results(log: &Log) -> PerWindow<u64> {
    results_of(log, "counts")
}

/// The committed late clicks, in order.
pub(crate) fn late(log: &Log) -> Vec<Click> {
    late_of(log, "late")
}

/// The committed late clicks of a topic, in order.
pub(crate) fn late_of(log: &Log, topic: &str) -> Vec<Click> {
    let mut late: Vec<Click> = committed(log, topic)
        .iter()
        .map(|seen| decode::<Click>(seen.value.as_deref().unwrap()))
        .collect();
    late.sort();
    late
}

/// Keys and windows with what belongs to them.
pub(crate) type PerWindow<T> = BTreeMap<(String, i64, i64), T>;

/// The committed results of a topic: each once, or the test fails.
pub(crate) fn results_of<T: Datum<Owned = T>>(log: &Log, topic: &str) -> PerWindow<T> {
    let mut results = BTreeMap::new();
    for seen in committed(log, topic) {
        let key = seen.key::<Windowed<String>>();
        let place = (key.key.clone(), key.window.start.0, key.window.end.0);
        let again = results.insert(place, seen.value::<T>());
        assert!(again.is_none(), "{key:?} was closed twice");
    }
    results
}

/// Most disorder of clicks of one partition.
pub(crate) const DISORDER: i64 = 6;

/// The watermarks that this disorder asks for.
pub(crate) fn watermarks() -> Watermarks {
    Watermarks::out_of_order(ms(DISORDER.unsigned_abs()))
}

/// Clicks of three partitions, each out of order within the bound.
pub(crate) fn any_clicks() -> impl Strategy<Value = Vec<Vec<Click>>> {
    // A user, how far time goes on, how far the click is behind.
    let click = (0u8..4, 0i64..9, 0i64..=DISORDER);
    let partition = prop::collection::vec(click, 0..60).prop_map(|steps| {
        let mut newest = -40;
        let mut clicks = Vec::new();
        for (user, on, behind) in steps {
            newest += on;
            clicks.push((format!("u{user}"), newest - behind));
        }
        clicks
    });
    prop::collection::vec(partition, 3)
}

/// Workers and commits of runs that are stopped in the middle, which is no end of the input.
pub(crate) fn any_runs() -> impl Strategy<Value = Vec<(usize, u64)>> {
    prop::collection::vec((1usize..5, 0u64..60), 0..3)
}

/// Runs a job over clicks to its end, with stops in between.
pub(crate) fn run_in_parts(
    launch: impl Fn() -> Launch,
    partitions: &[Vec<Click>],
    runs: &[(usize, u64)],
    log: &Log,
) {
    run_cut(launch, partitions, runs, (4_096, 2), log);
}

/// Draws the clicks of a batch, and the workers of the last run.
pub(crate) fn any_cut() -> impl Strategy<Value = (usize, usize)> {
    (
        prop::sample::select(vec![1usize, 7, 4_096]),
        prop::sample::select(vec![1usize, 4]),
    )
}

/// As `run_in_parts`, with clicks in batches of one size, and the last run by a number of workers.
pub(crate) fn run_cut(
    launch: impl Fn() -> Launch,
    partitions: &[Vec<Click>],
    runs: &[(usize, u64)],
    (batch, last_workers): (usize, usize),
    log: &Log,
) {
    topic_of_clicks(log, "in", i32::try_from(partitions.len()).unwrap());
    for (number, clicks) in partitions.iter().enumerate() {
        for clicks in clicks.chunks(batch) {
            feed(log, "in", i32::try_from(number).unwrap(), clicks);
        }
    }
    for &(workers, enough) in runs {
        let running = launch().workers(workers).start(log).unwrap();
        let begin = Instant::now();
        while running.commits() < enough && begin.elapsed() < ms(5) {
            std::thread::yield_now();
        }
        wait(running.stop()).unwrap();
    }
    run(launch().workers(last_workers), log).unwrap();
}

/// The last committed values of the keys of a store, without how far its operator has come.
pub(crate) fn left_in_store(log: &Log, job: &str, store: &str) -> usize {
    let changelog = format!("{job}-{store}-changelog");
    // It is empty where all keys came and went within one cycle each.
    let topic = TopicName::new(&changelog).unwrap();
    let is_there = wait(log.transport().topic(&topic)).unwrap().is_some();
    assert!(is_there, "there is no store {store}");
    let mut last = BTreeMap::new();
    for seen in committed(log, &changelog) {
        last.insert((seen.partition, seen.key), seen.value);
    }
    let times = vec![0];
    let left = last
        .iter()
        .filter(|((_, key), value)| key.as_ref() != Some(&times) && value.is_some());
    left.count()
}
