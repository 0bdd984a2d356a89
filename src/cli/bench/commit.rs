//! Transactions with fsync: how many a second, and what one costs depending on its size.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;

use super::report::Figure;
use super::{Bench, create_topic, millis, per_second, percentile};
use crate::cli::session::Session;
use crate::client::{CommitOutcome, PartitionWriter, TransactionalWriter, wait};
use crate::env::{Env, OpenMode};
use crate::protocol::batch::{BatchBuilder, Compression};
use crate::types::{Durability, TopicPartition, TransactionalId};

/// Producers that commit at the same time.
const PRODUCERS_COUNT: usize = 16;
/// The payload of every record.
const RECORD_BYTES: usize = 100;
/// Time for counting transactions.
const DURATION_MS: u64 = 4000;
/// Timed commits of each size.
const COMMITS_COUNT: u64 = 200;
/// The sizes of the commits timed, in records.
const SIZES: [u64; 3] = [1, 100, 10_000];
/// A transaction is aborted by the coordinator after so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures transactions.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let duration = Duration::from_millis(bench.scaled(DURATION_MS));
    let bare_rate = bare_syncs(bench, duration)?;
    let session = bench.open("commit", Durability::Fsync)?;
    let rate = concurrent(bench, &session, duration)?;
    let mut figures =
        vec![Figure::new("commit.16-producers", rate, "transactions/s").against(bare_rate)];
    for size in SIZES {
        let bare = bare_commit(bench, size)?;
        let cost = one_by_one(bench, &session, size)?;
        figures.push(
            Figure::new(
                format!("commit.{size}-records"),
                millis(cost),
                "ms (median)",
            )
            .against(millis(bare)),
        );
    }
    session.close()?;
    Ok(figures)
}

/// A transactional writer with its builder.
struct Writer {
    transactions: TransactionalWriter,
    partition: PartitionWriter,
    builder: BatchBuilder,
}

impl Writer {
    fn new(session: &Session, name: &str, partition: &TopicPartition) -> anyhow::Result<Self> {
        let id = TransactionalId::new(name)?;
        let transactions = wait(TransactionalWriter::init(session.transport(), id, TIMEOUT))?;
        Ok(Self {
            partition: transactions.partition(partition),
            transactions,
            builder: BatchBuilder::new(Compression::None, None),
        })
    }

    fn append(&mut self, env: &Env, records_count: u64) -> anyhow::Result<()> {
        let timestamp = env.clock.wall();
        for _ in 0..records_count {
            self.builder
                .push(timestamp, None, Some(&[b'x'; RECORD_BYTES]));
            if self.builder.size_bytes() > 900_000 {
                self.partition.append(&mut self.builder)?;
            }
        }
        if !self.builder.is_empty() {
            self.partition.append(&mut self.builder)?;
        }
        Ok(())
    }

    fn commit(&self) -> anyhow::Result<()> {
        match wait(self.transactions.commit())? {
            CommitOutcome::Committed => Ok(()),
            other => bail!("a commit ended as {other:?}"),
        }
    }
}

/// One-record transactions of all producers together, per second.
fn concurrent(bench: &Bench<'_>, session: &Session, duration: Duration) -> anyhow::Result<f64> {
    let partitions = create_topic(session, "concurrent", 4)?;
    let progress = Arc::new(Progress::default());
    let mut threads = Vec::new();
    for (producer, partition) in (0..PRODUCERS_COUNT).zip(partitions.iter().cycle()) {
        let mut writer = Writer::new(session, &format!("producer-{producer}"), partition)?;
        let (env, progress) = (bench.env.clone(), Arc::clone(&progress));
        let body = move || progress.run(|| writer.append(&env, 1).and_then(|()| writer.commit()));
        threads.push(bench.env.spawn.spawn("bench-producer", Box::new(body))?);
    }
    let begin = bench.env.clock.now();
    bench.env.clock.sleep(duration);
    progress.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(anyhow::Error::msg)?;
    }
    let elapsed = bench.env.clock.now().since(begin);
    if let Some(error) = progress.failure.lock().take() {
        return Err(error).context("a producer failed");
    }
    Ok(per_second(
        progress.done_count.load(Ordering::Relaxed),
        elapsed,
    ))
}

/// State of concurrent producers.
#[derive(Default)]
struct Progress {
    is_over: AtomicBool,
    done_count: AtomicU64,
    failure: Mutex<Option<anyhow::Error>>,
}

impl Progress {
    /// Repeats `step` until time is over or it fails.
    fn run(&self, mut step: impl FnMut() -> anyhow::Result<()>) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Err(error) = step() {
                *self.failure.lock() = Some(error);
                return;
            }
            self.done_count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The median time of a commit after `size` records were appended.
fn one_by_one(bench: &Bench<'_>, session: &Session, size: u64) -> anyhow::Result<Duration> {
    let partition = create_topic(session, &format!("size-{size}"), 1)?.remove(0);
    let mut writer = Writer::new(session, &format!("size-{size}"), &partition)?;
    median(bench, || {
        writer.append(bench.env, size)?;
        let begin = bench.env.clock.now();
        writer.commit()?;
        Ok(bench.env.clock.now().since(begin))
    })
}

fn median(
    bench: &Bench<'_>,
    mut timed: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Duration> {
    let mut times = (0..bench.scaled(COMMITS_COUNT))
        .map(|_| timed())
        .collect::<anyhow::Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(percentile(&times, 50.0))
}

/// One thread that appends a record and syncs, again and again, per second: what a log without group commit would do.
fn bare_syncs(bench: &Bench<'_>, duration: Duration) -> anyhow::Result<f64> {
    let file = bench
        .env
        .files
        .open(&bench.directory.join("bare-syncs"), OpenMode::CreateNew)?;
    let begin = bench.env.clock.now();
    let mut syncs = 0;
    while bench.env.clock.now().since(begin) < duration {
        file.write_all_at(&[b'x'; RECORD_BYTES], syncs * RECORD_BYTES as u64)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(per_second(syncs, bench.env.clock.now().since(begin)))
}

/// The median time of what no commit can do without: a sync of the data, then one of the decision.
fn bare_commit(bench: &Bench<'_>, size: u64) -> anyhow::Result<Duration> {
    let open = |name: &str| {
        bench.env.files.open(
            &bench.directory.join(format!("bare-{name}-{size}")),
            OpenMode::CreateNew,
        )
    };
    let (data, decisions) = (open("data")?, open("decisions")?);
    let records = vec![b'x'; RECORD_BYTES * usize::try_from(size)?];
    let mut position = 0;
    median(bench, || {
        data.write_all_at(&records, position)?;
        let begin = bench.env.clock.now();
        data.sync_data()?;
        decisions.write_all_at(&[b'x'; RECORD_BYTES], position / size)?;
        decisions.sync_data()?;
        position += records.len() as u64;
        Ok(bench.env.clock.now().since(begin))
    })
}
