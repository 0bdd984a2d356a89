//! Nexmark: each query on events that are in the log already, beside a loop that only decodes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;

use super::report::Figure;
use super::{Bench, millis, per_second, percentile};
use crate::broker::BrokerConfig;
use crate::cli::nexmark::{
    EVENTS as EVENTS_TOPIC, Event, Format, Generator, Inputs, Pace, Query, SIDE_INPUT, load,
};
use crate::cli::text::remove_tree;
use crate::client::transport::KafkaSettings;
use crate::client::wait;
use crate::codec::Codec;
use crate::env::{Env, OpenMode};
use crate::protocol::messages::OffsetSpec;
use crate::runtime::{Commit, JobProgress, Log};
use crate::types::{Isolation, TopicName, TopicPartition};

const EVENTS: u64 = 1_000_000;
/// Events in a second of event time.
const RATE: u64 = 10_000;
const PARTITIONS_COUNT: i32 = 4;
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// The bound of a job's memory of state: the default.
const MEMORY_BYTES: u64 = 512 << 20;
/// The kernel's words about this process.
const KERNEL_BYTES_MAX: usize = 64 << 10;
/// Interval of looks at the last commit's duration.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Measures every query: events a second with one worker and with two, in the native form and as JSON, on Kafka as JSON where one is
/// named, and what the native one with two workers takes besides.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let events = bench.scaled(EVENTS);
    let generator = Generator::new(Pace::over_days(events, RATE));
    let mut figures = Vec::new();
    let forms = [
        ("native", Format::Native),
        ("json", Format::Json),
        ("kafka-json", Format::Json),
    ];
    for (form, format) in forms {
        let log = match (form, bench.kafka) {
            ("kafka-json", None) => continue,
            ("kafka-json", Some(brokers)) => kafka(bench, brokers)?,
            _ => Log::in_env(
                bench.env.clone(),
                &bench.directory.join(form),
                BrokerConfig::default(),
            )?,
        };
        let input = Input::load(bench, log, form, &generator, format, events)?;
        for query in queries() {
            let workers: &[usize] = match format {
                Format::Native => &[1, 2],
                Format::Json => &[2],
            };
            for &workers in workers {
                let run = input.run(bench, query, workers)?;
                let (name, rate) = (query.name(), per_second(events, run.elapsed));
                let name = format!("nexmark.{name}.{form}-{workers}");
                figures.push(Figure::new(name, rate, "events/s").against(input.decoded));
                if (format, workers) == (Format::Native, 2) {
                    figures.extend(run.costs(query, &input));
                }
            }
        }
        for topic in [EVENTS_TOPIC, SIDE_INPUT] {
            wait(input.log.admin().delete_topic(&TopicName::new(topic)?))?;
        }
        input.log.close()?;
        remove_tree(bench.env, &input.data);
    }
    Ok(figures)
}

fn queries() -> impl Iterator<Item = Query> {
    <Query as clap::ValueEnum>::value_variants().iter().copied()
}

/// The log of a Kafka cluster; its jobs keep their state in the directory of the benchmark.
fn kafka(bench: &Bench<'_>, brokers: &str) -> anyhow::Result<Log> {
    let state = bench.directory.join("kafka-state");
    let settings = KafkaSettings::from_environment(bench.env)?
        .with("bootstrap.servers", brokers)?
        .with("state.dir", &state.to_string_lossy())?;
    Ok(Log::kafka_with(settings)?)
}

/// The events in the log, in one form.
struct Input {
    log: Log,
    data: PathBuf,
    form: &'static str,
    format: Format,
    events: u64,
    bytes: u64,
    /// Events a second that a loop on one thread decodes.
    decoded: f64,
}

impl Input {
    fn load(
        bench: &Bench<'_>,
        log: Log,
        form: &'static str,
        generator: &Generator,
        format: Format,
        events: u64,
    ) -> anyhow::Result<Self> {
        let data = bench.directory.join(form);
        load(&log, generator, format, events, PARTITIONS_COUNT)?;
        let mut bytes = 0;
        // As many as fit into the caches would say too much for the loop, and all of them need not be in memory at once.
        let sample = events.min(EVENTS / 10);
        let mut encoded = Vec::new();
        for number in 0..sample {
            let mut event = Vec::new();
            format.encode(&generator.event(number), &mut event)?;
            bytes += event.len() as u64;
            encoded.push(event);
        }
        let begin = bench.env.clock.now();
        let mut sum = 0i64;
        for event in &encoded {
            sum ^= Codec::<Event>::decode(&format, event)?.date_time();
        }
        std::hint::black_box(sum);
        let decoded = per_second(sample, bench.env.clock.now().since(begin));
        let bytes = bytes * events / sample.max(1);
        Ok(Self {
            log,
            data,
            form,
            format,
            events,
            bytes,
            decoded,
        })
    }

    /// Runs a query over all events, from its start to the end of its last commit.
    fn run(&self, bench: &Bench<'_>, query: Query, workers: usize) -> anyhow::Result<Run> {
        let clock = &bench.env.clock;
        // A Kafka may have seen this job before, and remembers how far it came.
        let started = clock.wall().0;
        let inputs = Inputs {
            format: self.format,
            clock: clock.clone(),
            delay: Duration::ZERO,
            directory: self.data.join("files"),
            run: format!("-{}-{}-{workers}-{started}", query.name(), self.form),
        };
        let written_before = kernel_says(bench.env, "/proc/self/io", "write_bytes:");
        let launch = query
            .job(&inputs)
            .exactly_once(Commit::every(COMMIT_INTERVAL));
        let begin = clock.now();
        let running = launch.workers(workers).start(&self.log)?;
        let mut commits = Vec::new();
        let mut progress = running.progress();
        while !running.is_finished() {
            clock.sleep(LOOK_EVERY);
            let now = running.progress();
            if now.commits > progress.commits {
                commits.extend(now.last_commit);
            }
            progress = now;
        }
        let summary = wait(running.finished())?;
        // The side input of q13 counts, too.
        let (read, events) = (summary.records, self.events);
        ensure!(
            read >= events,
            "{} read {read} of {events} events",
            query.name()
        );
        let elapsed = clock.now().since(begin);
        let written = kernel_says(bench.env, "/proc/self/io", "write_bytes:");
        let resident = kernel_says(bench.env, "/proc/self/status", "VmRSS:");
        let rows = self.remove_rows(&TopicName::new(&inputs.results_topic())?)?;
        commits.sort_unstable();
        Ok(Run {
            elapsed,
            rows,
            commits,
            progress,
            written_bytes: written
                .zip(written_before)
                .map_or(0, |(to, from)| to - from),
            resident_bytes: resident.map_or(0, |kibibytes| kibibytes << 10),
        })
    }

    /// Removes a run's rows; returns how many offsets they took, with those of markers.
    fn remove_rows(&self, topic: &TopicName) -> anyhow::Result<u64> {
        let admin = self.log.admin();
        let Some(found) = wait(admin.topics())?
            .into_iter()
            .find(|it| it.name == *topic)
        else {
            return Ok(0);
        };
        let mut rows = 0;
        for partition in 0..found.partitions_count {
            let place = TopicPartition::new(topic.clone(), partition);
            let end = admin.list_offset(&place, OffsetSpec::Latest, Isolation::ReadCommitted);
            let end = wait(end)?.map_or(0, |listed| listed.offset.0);
            rows += u64::try_from(end).unwrap_or(0);
        }
        wait(admin.delete_topic(topic))?;
        Ok(rows)
    }
}

/// One run of a query.
struct Run {
    elapsed: Duration,
    rows: u64,
    /// Durations of commits, the shortest first.
    commits: Vec<Duration>,
    progress: JobProgress,
    /// The bytes that this process gave to the disk meanwhile; 0 where the kernel does not tell.
    written_bytes: u64,
    /// The memory that it had at the end: the log and its caches, too.
    resident_bytes: u64,
}

/// A number that the kernel says of this process, without its unit.
pub(super) fn kernel_says(env: &Env, path: &str, name: &str) -> Option<u64> {
    let mut bytes = vec![0; KERNEL_BYTES_MAX];
    let file = env.files.open(Path::new(path), OpenMode::Read).ok()?;
    // Its length is said to be 0.
    let read_bytes = file.read_full_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..read_bytes)?).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix(name))?;
    number.split_whitespace().next()?.parse().ok()
}

impl Run {
    /// Rows beside events, state and what was written beside the bytes of the events, memory beside its bound, and the commits beside their interval; what is none is left out.
    #[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
    fn costs(&self, query: Query, input: &Input) -> Vec<Figure> {
        let stores = self.progress.stores.values();
        let state: u64 = stores.map(|it| it.memory_bytes + it.disk_bytes).sum();
        let commit = percentile(&self.commits, 99.0);
        let name = |what: &str| format!("nexmark.{}.{what}", query.name());
        let figures = [
            (name("rows"), self.rows as f64, "rows", input.events as f64),
            (name("state"), state as f64, "bytes", input.bytes as f64),
            (
                name("written"),
                self.written_bytes as f64,
                "bytes",
                input.bytes as f64,
            ),
            (
                name("memory"),
                self.resident_bytes as f64,
                "bytes",
                MEMORY_BYTES as f64,
            ),
            (
                name("commit-p99"),
                millis(commit),
                "ms",
                millis(COMMIT_INTERVAL),
            ),
        ];
        let figures = figures.into_iter().filter(|(_, value, ..)| *value > 0.0);
        figures
            .map(|(name, value, unit, baseline)| Figure::new(name, value, unit).against(baseline))
            .collect()
    }
}
