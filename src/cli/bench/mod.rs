//! `onceflow bench`: figures, each beside what a bare loop reaches in the same run.
//!
//! One file a benchmark, each with its baseline in it: the least that the same work could cost, so that a ratio says
//! how much the guarantees cost, on this machine, today.

mod calls;
mod commit;
mod connections;
mod effects;
mod joins;
mod latency;
mod log;
mod machine;
mod memory;
mod nexmark;
mod queries;
mod report;
mod restart;
mod savepoint;
mod state;
mod windows;
mod word_count;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use self::machine::Ticks;
use self::report::{Figure, Style};
pub(super) use self::restart::{RestartJobArguments, run_job as run_restart_job};
use super::output;
use super::session::Session;
use super::text::TemporaryDirectory;
use crate::broker::BrokerConfig;
use crate::env::Env;
use crate::types::{Durability, TopicName, TopicPartition};

const EXAMPLES: &str = "\
Examples:
  onceflow bench                                  everything, but for the hour of `memory`
  onceflow bench word-count --input book.txt
  onceflow bench commit latency --json > figures.jsonl
  onceflow bench nexmark --kafka localhost:9092   its queries on Apache Kafka, too

A ratio is value ÷ baseline. For latencies and costs, less is better; for rates, more.
Stolen and others are the shares of the processors that the host and other programs took meanwhile: a ratio to a loop of
one thread is only worth something where both are small.
Use a release build, and a directory (--dir) on the disk that you mean: on a memory file system a sync costs nothing.";

/// Measure this machine, each figure beside a bare loop in the same run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchArguments {
    /// Benchmarks to run; everything but `memory` if nothing is named
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    /// Text for word-count; else text of this repository and the system's documentation
    #[arg(long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Print one JSON object a line: name, value, unit, baseline, ratio, load
    #[arg(long)]
    json: bool,
    /// Where to make the temporary data directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Do a hundredth of the work: shows that everything runs, not how fast
    #[arg(long)]
    quick: bool,
    /// The state of the job of `savepoint`, in GiB; five times as much disk is needed
    #[arg(long, value_name = "GIB", default_value_t = 4)]
    state_gib: u64,
    /// For how long `memory` looks on, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    minutes: u64,
    /// Apache Kafka for `nexmark`, which makes topics of its own there and removes them
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Words counted exactly once, every update written, a commit every 100 ms
    WordCount,
    /// Bytes appended and fetched
    Log,
    /// Transactions with fsync
    Commit,
    /// The broker on TCP: 1,000 idle and 64 busy connections, and one beside attackers
    Connections,
    /// From produce to a read_committed reader
    Latency,
    /// Random updates of state larger than its memory
    State,
    /// Windows beside the same count without them, watermarks of a job without state, and timers
    Windows,
    /// Lookups of a stream in a table beside the same count, and the join of two streams within an hour
    Joins,
    /// Questions to a job at full load: how long an answer takes, and what they cost the job
    Queries,
    /// Calls of the world outside, ten thousand under way
    Calls,
    /// Effects on the world outside, beside the same job without them
    Effects,
    /// The queries of Nexmark, each beside a loop that only decodes the events (takes minutes)
    Nexmark,
    /// From `kill -9` to the first new commit, with 10 GiB of state (takes minutes, and 40 GiB of disk)
    Restart,
    /// The process's memory while a job runs at full load for an hour, or for as long as `--minutes` says
    Memory,
    /// Savepoints of a job with 4 GiB of state, and the way back (takes minutes, and 20 GiB of disk)
    Savepoint,
}

/// Input of every benchmark.
struct Bench<'a> {
    env: &'a Env,
    directory: &'a Path,
    inputs: &'a [PathBuf],
    is_quick: bool,
    state_gib: u64,
    minutes: u64,
    kafka: Option<&'a str>,
}

impl Bench<'_> {
    /// Scales the work: `full`, or its hundredth with `--quick`.
    fn scaled(&self, full: u64) -> u64 {
        match self.is_quick {
            true => full.div_ceil(100),
            false => full,
        }
    }

    /// A new embedded log called `name`.
    fn open(&self, name: &str, durability: Durability) -> anyhow::Result<Session> {
        let config = BrokerConfig {
            durability,
            ..BrokerConfig::default()
        };
        Session::open(self.env, &self.directory.join(name), config)
    }
}

/// Creates a topic and names its partitions.
fn create_topic(
    session: &Session,
    name: &str,
    partitions_count: i32,
) -> anyhow::Result<Vec<TopicPartition>> {
    let name = TopicName::new(name)?;
    session.wait(session.admin().create_topic(&name, partitions_count))?;
    Ok((0..partitions_count)
        .map(|partition| TopicPartition::new(name.clone(), partition))
        .collect())
}

/// Runs `onceflow bench`.
pub(super) fn run(env: &Env, arguments: &BenchArguments) -> anyhow::Result<()> {
    let all = Benchmark::value_variants().iter().copied();
    // An hour that nobody asked for is too long.
    let all: Vec<_> = all.filter(|it| *it != Benchmark::Memory).collect();
    let chosen = if arguments.benchmarks.is_empty() {
        &all
    } else {
        &arguments.benchmarks
    };
    let style = if arguments.json || super::output::is_json() {
        Style::JsonLines
    } else {
        Style::Table
    };
    let mut figures = Vec::new();
    for benchmark in chosen {
        let directory = TemporaryDirectory::create(env, arguments.dir.as_deref())?;
        let bench = Bench {
            env,
            directory: directory.path(),
            inputs: &arguments.inputs,
            is_quick: arguments.quick,
            state_gib: arguments.state_gib,
            minutes: arguments.minutes,
            kafka: arguments.kafka.as_deref(),
        };
        let begin = Ticks::now(env);
        let mut measured = measure(*benchmark, &bench)?;
        let load = Ticks::now(env).zip(begin);
        let load = load.map(|(end, begin)| end.since(begin));
        measured.iter_mut().for_each(|figure| figure.load = load);
        figures.extend(measured);
    }
    Ok(report::print(&figures, style, &mut output::stdout())?)
}

fn measure(benchmark: Benchmark, bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    match benchmark {
        Benchmark::WordCount => word_count::measure(bench),
        Benchmark::Log => log::measure(bench),
        Benchmark::Commit => commit::measure(bench),
        Benchmark::Connections => connections::measure(bench),
        Benchmark::Latency => latency::measure(bench),
        Benchmark::State => state::measure(bench),
        Benchmark::Windows => windows::measure(bench),
        Benchmark::Joins => joins::measure(bench),
        Benchmark::Queries => queries::measure(bench),
        Benchmark::Calls => calls::measure(bench),
        Benchmark::Effects => effects::measure(bench),
        Benchmark::Memory => memory::measure(bench),
        Benchmark::Nexmark => nexmark::measure(bench),
        Benchmark::Restart => restart::measure(bench),
        Benchmark::Savepoint => savepoint::measure(bench),
    }
}

/// `count` per second of `elapsed`.
#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn per_second(count: u64, elapsed: std::time::Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// Milliseconds, with their fraction.
fn millis(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value that `percent` of `sorted` do not exceed; the default if there are none.
fn percentile<T: Copy + Default>(sorted: &[T], percent: f64) -> T {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the length"
    )]
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u32> = (1..=1000).collect();
        assert_eq!(percentile(&sorted, 50.0), 500);
        assert_eq!(percentile(&sorted, 99.9), 999);
        assert_eq!(percentile(&sorted, 100.0), 1000);
        assert_eq!(percentile(&[7], 50.0), 7);
        assert_eq!(percentile::<u32>(&[], 50.0), 0);
    }
}
