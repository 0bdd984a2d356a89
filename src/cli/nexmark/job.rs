//! A query in a process of its own, which may be killed: `onceflow nexmark-job`, hidden.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::events::Format;
use super::generator::{Generator, Pace};
use super::load::load;
use super::queries::{Inputs, Query};
use crate::broker::BrokerConfig;
use crate::client::wait;
use crate::env::Env;
use crate::runtime::{Commit, Log};
use crate::types::Durability;

/// Interval of the process's looks for a commit.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Beginning of the place of a Kafka cluster.
const KAFKA_SCHEME: &str = "kafka://";

/// The orders of the process.
#[derive(Debug, Args)]
pub(in crate::cli) struct QueryJobArguments {
    /// The data directory, or kafka://HOST:PORT
    #[arg(long)]
    data: PathBuf,
    /// The end of the names of the job and of its topic of results, where several runs share a log
    #[arg(long, default_value = "")]
    run: String,
    /// Where q10 writes its files; in the data directory if nothing is named
    #[arg(long)]
    files: Option<PathBuf>,
    /// Whether a data directory's log syncs each commit
    #[arg(long)]
    fsync: bool,
    /// The query; without one the events are loaded
    #[arg(long, value_enum)]
    query: Option<Query>,
    /// The form of events and rows
    #[arg(long, value_enum, default_value = "native")]
    format: Format,
    /// Workers that run the query
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Milliseconds between commits
    #[arg(long, default_value_t = 100)]
    commit_millis: u64,
    /// Microseconds that each event is held up
    #[arg(long, default_value_t = 0)]
    delay_micros: u64,
    /// Events to load
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Events in a second of event time
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Partitions of the events
    #[arg(long, default_value_t = 4)]
    partitions: i32,
}

/// Loads events, or runs a query until its input ends, and says each commit; at the end, how many records it read and how many
/// seconds lie between its start and the end of its last commit.
pub(in crate::cli) fn run_job(env: &Env, arguments: &QueryJobArguments) -> anyhow::Result<()> {
    let log = match arguments.data.to_str() {
        Some(place) if place.starts_with(KAFKA_SCHEME) => Log::open(place)?,
        _ => {
            let durability = match arguments.fsync {
                true => Durability::Fsync,
                false => Durability::Process,
            };
            let config = BrokerConfig {
                durability,
                ..BrokerConfig::default()
            };
            Log::in_env(env.clone(), &arguments.data, config)?
        }
    };
    match arguments.query {
        Some(query) => run_query(env, &log, query, arguments)?,
        None => {
            let pace = Pace::over_days(arguments.events, arguments.rate);
            let (events, partitions) = (arguments.events, arguments.partitions);
            load(
                &log,
                &Generator::new(pace),
                arguments.format,
                events,
                partitions,
            )?;
        }
    }
    Ok(log.close()?)
}

fn run_query(
    env: &Env,
    log: &Log,
    query: Query,
    arguments: &QueryJobArguments,
) -> anyhow::Result<()> {
    let inputs = Inputs {
        format: arguments.format,
        clock: Arc::clone(&env.clock),
        delay: Duration::from_micros(arguments.delay_micros),
        directory: (arguments.files.clone()).unwrap_or_else(|| arguments.data.join("files")),
        run: arguments.run.clone(),
    };
    let commit = Commit::every(Duration::from_millis(arguments.commit_millis));
    let launch = query.job(&inputs).exactly_once(commit);
    let begin = env.clock.now();
    let running = launch.workers(arguments.workers).start(log)?;
    let mut said = 0;
    while !running.is_finished() {
        env.clock.sleep(LOOK_EVERY);
        if running.commits() > said {
            said = running.commits();
            let mut out = std::io::stdout().lock();
            writeln!(out, "{said}")?;
            out.flush()?;
        }
    }
    let summary = wait(running.finished())?;
    let seconds = env.clock.now().since(begin).as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} records in {seconds:.3} s", summary.records)?;
    Ok(())
}
