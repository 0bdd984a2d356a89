//! The job's own process: it runs word count and says on standard output what a `read_committed` reader can see.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::process::Report;
use crate::broker::BrokerConfig;
use crate::cli::session::Session;
use crate::client::consumer::PartitionReader;
use crate::client::{Admin, wait};
use crate::codec::{Bincode, Codec};
use crate::env::Env;
use crate::protocol::messages::OffsetSpec;
use crate::runtime::{Commit, Job, Log, lines, topic};
use crate::types::{Isolation, Offset, TopicName, TopicPartition};

/// The hidden command that runs the job in a process of its own.
pub(super) const COMMAND: &str = "demo-job";
/// Where the job writes.
const OUTPUT: &str = "word-counts";
/// The output's partitions.
const PARTITIONS_COUNT: i32 = 4;
/// Commit interval.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// Bytes of one read of the output.
const FETCH_BYTES: usize = 4 << 20;
/// Interval of the watcher's looks at the output.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Orders to the job's process.
#[derive(Debug, Args)]
pub(in crate::cli) struct JobArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// Where it shows itself to browsers
    #[arg(long)]
    dashboard: Option<String>,
    /// The text
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// The words of a line.
pub(in crate::cli) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// Word count, the job of `examples/word_count.rs`: every word counted, every update written.
pub(in crate::cli) fn word_count(files: &[PathBuf]) -> Job {
    let job = Job::new("word-count");
    job.source(lines(files))
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic(OUTPUT));
    job
}

/// Runs the job until its input ends.
pub(in crate::cli) fn run(env: &Env, arguments: &JobArguments) -> anyhow::Result<()> {
    let log = Log::in_env(env.clone(), &arguments.data, BrokerConfig::default())?;
    let partitions = output_partitions(&log.admin())?;
    let mut watcher = Watcher {
        admin: log.admin(),
        partitions,
        env: env.clone(),
        visible: 0,
        commits: 0,
    };
    watcher.visible = watcher.count_visible()?;
    say(Report::Opened {
        updates: watcher.visible,
    })?;
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = {
        let is_over = Arc::clone(&is_over);
        // A watcher that cannot speak has lost its listener: then there is nobody to tell.
        Box::new(move || drop(watcher.watch(&is_over)))
    };
    let running = word_count(&arguments.files)
        .exactly_once(Commit::every(COMMIT_EVERY))
        .start(&log)?;
    let _page = match &arguments.dashboard {
        Some(address) => Some(running.dashboard(address)?),
        None => None,
    };
    let watcher = env.spawn.spawn("demo-watch", watching)?;
    let result = wait(running.finished());
    is_over.store(true, Ordering::Release);
    watcher.join().map_err(anyhow::Error::msg)?;
    result?;
    log.close()?;
    say(Report::Finished)?;
    Ok(())
}

/// The output topic's partitions, created by the first process.
fn output_partitions(admin: &Admin) -> anyhow::Result<Vec<TopicPartition>> {
    let name = TopicName::new(OUTPUT)?;
    let topics = wait(admin.topics())?;
    if !topics.iter().any(|topic| topic.name == name) {
        wait(admin.create_topic(&name, PARTITIONS_COUNT))?;
    }
    Ok((0..PARTITIONS_COUNT)
        .map(|partition| TopicPartition::new(name.clone(), partition))
        .collect())
}

fn say(report: Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{report}")?;
    out.flush()
}

/// Reads the whole output as any `read_committed` reader would: partition by partition, every word with its count, in
/// order.
pub(super) fn read_output(
    env: &Env,
    data: &Path,
    each: &mut dyn FnMut(&str, u64),
) -> anyhow::Result<()> {
    let session = Session::open(env, data, BrokerConfig::default())?;
    for partition in output_partitions(&session.admin())? {
        read_partition(&session, partition, each)?;
    }
    session.close()
}

fn read_partition(
    session: &Session,
    partition: TopicPartition,
    each: &mut dyn FnMut(&str, u64),
) -> anyhow::Result<()> {
    let isolation = Isolation::ReadCommitted;
    let end = wait(
        session
            .admin()
            .list_offset(&partition, OffsetSpec::Latest, isolation),
    )?;
    let end = end.map_or(Offset::ZERO, |listed| listed.offset);
    let mut reader = PartitionReader::new(session.transport(), partition, Offset::ZERO, isolation)
        .with_max_bytes(FETCH_BYTES);
    while reader.position() < end {
        for batch in wait(reader.fetch(Duration::ZERO))? {
            for record in batch?.iter() {
                let record = record?;
                let word = std::str::from_utf8(record.key.context("an update has a word")?)?;
                let count: Cow<'_, u64> =
                    Bincode.decode(record.value.context("an update has a count")?)?;
                each(word, *count);
            }
        }
    }
    Ok(())
}

/// Looks at the output as a reader does, and says when it grew.
struct Watcher {
    admin: Admin,
    partitions: Vec<TopicPartition>,
    env: Env,
    visible: u64,
    commits: u64,
}

impl Watcher {
    fn watch(mut self, is_over: &AtomicBool) -> anyhow::Result<()> {
        while !is_over.load(Ordering::Acquire) {
            self.env.clock.sleep(LOOK_EVERY);
            self.look()?;
        }
        self.look()
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let visible = self.count_visible()?;
        if visible > self.visible {
            self.visible = visible;
            self.commits += 1;
            say(Report::Committed {
                updates: visible,
                commits: self.commits,
            })?;
        }
        Ok(())
    }

    /// Counts offsets that a `read_committed` reader may see: the updates, and a marker for each commit and partition.
    fn count_visible(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for partition in &self.partitions {
            let end = wait(self.admin.list_offset(
                partition,
                OffsetSpec::Latest,
                Isolation::ReadCommitted,
            ))?;
            sum += end.map_or(0, |listed| u64::try_from(listed.offset.0).unwrap_or(0));
        }
        Ok(sum)
    }
}
