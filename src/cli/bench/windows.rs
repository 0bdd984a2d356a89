//! Windows of event time, each beside the same work without windows, or beside tumbling ones.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::Figure;
use super::{Bench, per_second};
use crate::broker::BrokerConfig;
use crate::cli::text::remove_tree;
use crate::client::wait;
use crate::env::OpenMode;
use crate::operators::SessionWindows;
use crate::runtime::{
    Commit, Due, FixedWindows, Flow, Job, Log, Meta, Operator, Origin, Output, Record, Stream,
    TimedStore, Unkeyed, Upstream, Watermarks, lines, topic, values,
};
use crate::types::Timestamp;

/// Events to count.
const EVENTS: u64 = 8_000_000;
/// Of how many keys they are.
const KEYS: u64 = 1_000_000;
/// Of how many, where windows overlap: each has a result a second.
const KEYS_OF_HOPPING: u64 = 1_000;
/// Event time that they cover.
const MINUTES: u64 = 2;
/// Most disorder among them.
const DISORDER: Duration = Duration::from_secs(1);
/// Into how many files they are cut; workers share them.
const FILES_COUNT: u64 = 4;
const MINUTE: Duration = Duration::from_secs(60);
/// A key has an event each 15 s on average.
const SESSION_GAP: Duration = Duration::from_secs(30);
const TIMERS_PENDING: u64 = 10_000_000;

/// Measures a count by key and minute, with results when the minute closes.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let events = bench.scaled(EVENTS);
    let many = write_events(bench, "many", events, KEYS.min(events))?;
    let count = run(bench, events, "count", |job| {
        let events = job.source(lines(&many)).filter_map(parse);
        events
            .key_by_ref(|(key, _)| key)
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
    let sessions = run(bench, events, "sessions", |job| {
        by_key(job, &many)
            .window(SessionWindows::gap(SESSION_GAP))
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
    let plain = run(bench, events, "plain", |job| {
        let events = job.source(lines(&few)).filter_map(parse);
        events.filter(is_rare).sink(topic("out"));
    })?;
    let with_time = run(bench, events, "with-time", |job| {
        let events = job.source(lines(&few)).filter_map(parse);
        timed(events).filter(is_rare).sink(topic("out"));
    })?;
    let figure = |name: &str, value: f64, baseline: f64| {
        Figure::new(format!("windows.{name}"), value, "events/s").against(baseline)
    };
    Ok(vec![
        figure("tumbling", tumbling, count),
        figure("hopping-60", hopping, few_tumbling),
        figure("sessions", sessions, tumbling),
        figure("stateless", with_time, plain),
        Figure::new("windows.timers", timers(bench)?, "timers/s").against(timers_in_a_set(bench)),
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

/// One event of sixteen.
fn is_rare(event: &(u64, i64)) -> bool {
    event.0.is_multiple_of(16)
}

/// Sets a timer for each record, takes every fourth back, and lets the rest fire when their time comes.
struct Timers {
    store: TimedStore<u64>,
    due: Due,
    delay: i64,
    fired: u64,
}

impl Operator<u64, u64> for Timers {
    type OutKey = u64;
    type Out = u64;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(&mut self, record: Record<'_, u64, u64>, _out: &mut impl Output<u64, u64>) -> Flow {
        let time = record.meta.timestamp.plus_millis(self.delay);
        self.store.set_timer(record.key, time)?;
        if record.value.is_multiple_of(4) {
            self.store.cancel_timer(record.key, time)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<u64, u64>) -> Flow {
        while self.store.next_due(watermark, &mut self.due)?.is_some() {
            self.fired += 1;
            if self.fired.is_multiple_of(1_000) {
                let meta = Meta {
                    timestamp: self.due.time,
                    origin: Origin::TIME,
                };
                out.push(Record::new(self.due.key(), &self.fired, meta))?;
            }
        }
        Ok(())
    }
}

/// Measures one worker's timers a second, set, cancelled and fired, each counted, with `TIMERS_PENDING` at once.
fn timers(bench: &Bench<'_>) -> anyhow::Result<f64> {
    let pending = bench.scaled(TIMERS_PENDING);
    let records = pending + pending / 4;
    let delay = i64::try_from(pending)?;
    let each = run_on(bench, records, "timers", 1, |job| {
        job.source(values("numbers", 0..records))
            .event_time(|n| n.cast_signed(), Watermarks::default())
            .key_by(|n| scattered(*n))
            .with_timed_store::<u64>("timers")
            .process("timers", move |context| {
                Ok(Timers {
                    store: context.timed_store("timers")?,
                    due: Due::default(),
                    delay,
                    fired: 0,
                })
            })
            .sink(topic("out"));
    })?;
    // Of four records: four timers set, one cancelled, three fired.
    Ok(each * 2.0)
}

/// Measures timers a second of the same calls in a sorted set of the standard library: without bytes, state or commits.
fn timers_in_a_set(bench: &Bench<'_>) -> f64 {
    let pending = bench.scaled(TIMERS_PENDING);
    let records = pending + pending / 4;
    let mut set = BTreeSet::new();
    let begin = bench.env.clock.now();
    for record in 0..records {
        let timer = (record + pending, scattered(record));
        set.insert(timer);
        if record.is_multiple_of(4) {
            set.remove(&timer);
        }
        while set.first().is_some_and(|(time, _)| *time <= record) {
            set.pop_first();
        }
    }
    while set.pop_first().is_some() {}
    per_second(records, bench.env.clock.now().since(begin)) * 2.0
}

/// A number for each number, far from that of its neighbours.
pub(super) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
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

/// Measures events a second of a job on an empty log, from its start to the end of its last commit.
fn run(
    bench: &Bench<'_>,
    events: u64,
    name: &str,
    build: impl FnOnce(&Job),
) -> anyhow::Result<f64> {
    run_on(bench, events, name, 2, build)
}

pub(super) fn run_on(
    bench: &Bench<'_>,
    events: u64,
    name: &str,
    workers: usize,
    build: impl FnOnce(&Job),
) -> anyhow::Result<f64> {
    let data = bench.directory.join(format!("data-{name}"));
    let log = Log::in_env(bench.env.clone(), &data, BrokerConfig::default())?;
    let job = Job::new("windows");
    build(&job);
    let launch = job
        .exactly_once(Commit::every(Duration::from_millis(100)))
        .workers(workers);
    let begin = bench.env.clock.now();
    wait(launch.start(&log)?.finished())?;
    let elapsed = bench.env.clock.now().since(begin);
    log.close()?;
    remove_tree(bench.env, &data);
    Ok(per_second(events, elapsed))
}
