//! Windows of event time, each beside the same work without windows, or beside tumbling ones.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::Figure;
use super::{Bench, per_second};
use crate::broker::BrokerConfig;
use crate::cli::text::remove_tree;
use crate::client::wait;
use crate::env::OpenMode;
use crate::runtime::{
    Commit, FixedWindows, Job, Log, Stream, Unkeyed, Upstream, Watermarks, lines, topic,
};

/// How many events are counted.
const EVENTS: u64 = 8_000_000;
/// Of how many keys they are.
const KEYS: u64 = 1_000_000;
/// Of how many, where windows overlap: each has a result a second.
const KEYS_OF_HOPPING: u64 = 1_000;
/// How much event time they cover.
const MINUTES: u64 = 2;
/// How far out of order they are at most.
const DISORDER: Duration = Duration::from_secs(1);
/// Into how many files they are cut; workers share them.
const FILES_COUNT: u64 = 4;
const MINUTE: Duration = Duration::from_secs(60);

/// Measures a count by key and minute, with results when the minute closes.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let events = bench.scaled(EVENTS);
    let many = write_events(bench, "many", events, KEYS.min(events))?;
    let count = run(bench, events, "count", |job| {
        by_key(job, &many)
            .count("counts")
            .changes()
            .sink(topic("out"));
    })?;
    let tumbling = run(bench, events, "tumbling", |job| {
        let windows = FixedWindows::tumbling(MINUTE);
        by_key(job, &many)
            .window(windows)
            .count("counts")
            .sink(topic("out"));
    })?;
    let few = write_events(bench, "few", events, KEYS_OF_HOPPING)?;
    let few_tumbling = run(bench, events, "few-tumbling", |job| {
        let windows = FixedWindows::tumbling(MINUTE);
        by_key(job, &few)
            .window(windows)
            .count("counts")
            .sink(topic("out"));
    })?;
    let hopping = run(bench, events, "hopping", |job| {
        let windows = FixedWindows::hopping(MINUTE, Duration::from_secs(1));
        by_key(job, &few)
            .window(windows)
            .count("counts")
            .sink(topic("out"));
    })?;
    let figure = |name: &str, value: f64, baseline: f64| {
        Figure::new(format!("windows.{name}"), value, "events/s").against(baseline)
    };
    Ok(vec![
        figure("tumbling", tumbling, count),
        figure("hopping-60", hopping, few_tumbling),
    ])
}

/// Writes events as lines of a key and a time, in order but for a second.
fn write_events(
    bench: &Bench<'_>,
    name: &str,
    events: u64,
    keys: u64,
) -> anyhow::Result<Vec<PathBuf>> {
    let folder = bench.directory.join(name);
    bench.env.files.create_dir(&folder)?;
    let each = events / FILES_COUNT;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let disorder_millis = u64::try_from(DISORDER.as_millis())?;
    (0..FILES_COUNT)
        .map(|number| {
            let path = folder.join(format!("{number}.txt"));
            let file = bench.env.files.open(&path, OpenMode::CreateNew)?;
            let (mut buffer, mut position) = (Vec::new(), 0u64);
            for event in 0..each {
                let time = event * MINUTES * 60_000 / each.max(1) + disorder_millis;
                let time = time - next(disorder_millis);
                writeln!(buffer, "{} {time}", next(keys))?;
                if buffer.len() > 1 << 20 || event + 1 == each {
                    file.write_all_at(&buffer, position)?;
                    position += buffer.len() as u64;
                    buffer.clear();
                }
            }
            Ok(path)
        })
        .collect()
}

fn parse(line: &str) -> Option<(u64, i64)> {
    let (key, time) = line.split_once(' ')?;
    Some((key.parse().ok()?, time.parse().ok()?))
}

fn by_key(
    job: &Job,
    files: &[impl AsRef<Path>],
) -> crate::runtime::Keyed<u64, (u64, i64), impl Upstream<u64, (u64, i64)>> {
    let events: Stream<(u64, i64), _> = job.source(lines(files)).filter_map(parse);
    timed(events).key_by_ref(|(key, _)| key)
}

fn timed<U: Upstream<Unkeyed, (u64, i64)>>(
    events: Stream<(u64, i64), U>,
) -> Stream<(u64, i64), impl Upstream<Unkeyed, (u64, i64)>> {
    events.event_time(|(_, time)| *time, Watermarks::out_of_order(DISORDER))
}

/// How many events a second a job on an empty log counts, from its start to the end of its last commit.
fn run(
    bench: &Bench<'_>,
    events: u64,
    name: &str,
    build: impl FnOnce(&Job),
) -> anyhow::Result<f64> {
    let data = bench.directory.join(format!("data-{name}"));
    let log = Log::in_env(bench.env.clone(), &data, BrokerConfig::default())?;
    let job = Job::new("windows");
    build(&job);
    let launch = job.exactly_once(Commit::every(Duration::from_millis(100)));
    let begin = bench.env.clock.now();
    wait(launch.start(&log)?.finished())?;
    let elapsed = bench.env.clock.now().since(begin);
    log.close()?;
    remove_tree(bench.env, &data);
    Ok(per_second(events, elapsed))
}
