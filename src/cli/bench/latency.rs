//! From produce to a `read_committed` reader: 50,000 records a second of 100 bytes, a commit every 5 ms.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use super::report::Figure;
use super::{Bench, create_topic, millis, percentile};
use crate::cli::session::Session;
use crate::client::{PartitionWriter, TransactionalWriter, Transport, wait};
use crate::env::{Env, File, Instant, OpenMode};
use crate::protocol::batch::DecompressionLimit;
use crate::protocol::batch::{BatchBuilder, Batches, Compression};
use crate::protocol::messages::{FetchPartition, FetchRequest};
use crate::types::{Durability, Isolation, Offset, TopicPartition, TransactionalId};

/// The payload of every record.
const RECORD_BYTES: usize = 100;
/// Interval of new records.
const TICK: Duration = Duration::from_millis(1);
/// Records of each: 50,000 a second.
const RECORDS_PER_TICK: u64 = 50;
/// A commit closes so many ticks.
const TICKS_PER_COMMIT: u64 = 5;
/// Commits in all.
const COMMITS_COUNT: u64 = 1000;
/// The first part is not counted: files and memory are new.
const WARM_UP_PERCENT: usize = 10;
/// A reader that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(10);

/// Measures how long a record takes to be seen.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let commits = bench.scaled(COMMITS_COUNT);
    let bare = bare(bench, commits)?;
    let seen = through_the_log(bench, commits)?;
    let figure = |name: &str, percent: f64| {
        Figure::new(
            format!("latency.{name}"),
            millis(percentile(&seen, percent)),
            "ms",
        )
        .against(millis(percentile(&bare, percent)))
    };
    Ok(vec![
        figure("p50", 50.0),
        figure("p99", 99.0),
        figure("p99.9", 99.9),
    ])
}

/// Calls `record` for every record at its time, and `commit` every five ticks.
fn paced(
    env: &Env,
    commits: u64,
    mut record: impl FnMut(Instant),
    mut commit: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begin = env.clock.now();
    for tick in 1..=commits * TICKS_PER_COMMIT {
        // The schedule is absolute: a slow commit makes the records after it late, and that counts.
        let due = begin.plus(TICK * u32::try_from(tick)?);
        env.clock.sleep(due.since(env.clock.now()));
        for _ in 0..RECORDS_PER_TICK {
            record(due);
        }
        if tick % TICKS_PER_COMMIT == 0 {
            commit()?;
        }
    }
    Ok(())
}

/// A record's payload: when it was due, in nanoseconds, and filling.
fn payload(due: Instant) -> [u8; RECORD_BYTES] {
    let mut bytes = [b'x'; RECORD_BYTES];
    let nanos = u64::try_from(due.0.as_nanos()).unwrap_or(u64::MAX);
    bytes[..8].copy_from_slice(&nanos.to_le_bytes());
    bytes
}

fn due_of(payload: &[u8]) -> Option<Instant> {
    let nanos = payload.first_chunk::<8>()?;
    Some(Instant(Duration::from_nanos(u64::from_le_bytes(*nanos))))
}

/// The latencies of all records through the log, sorted.
fn through_the_log(bench: &Bench<'_>, commits: u64) -> anyhow::Result<Vec<Duration>> {
    let session = bench.open("latency", Durability::Fsync)?;
    let partition = create_topic(&session, "latency", 1)?.remove(0);
    let expected = commits * TICKS_PER_COMMIT * RECORDS_PER_TICK;
    let reader = Reader {
        env: bench.env.clone(),
        transport: session.transport(),
        partition: partition.clone(),
    };
    let latencies = collect(
        bench,
        expected,
        move |seen| reader.read(expected, seen),
        || write(bench, &session, &partition, commits),
    )?;
    session.close()?;
    Ok(latencies)
}

fn write(
    bench: &Bench<'_>,
    session: &Session,
    partition: &TopicPartition,
    commits: u64,
) -> anyhow::Result<()> {
    let id = TransactionalId::new("latency")?;
    let writer = wait(TransactionalWriter::init(
        session.transport(),
        id,
        Duration::from_secs(60),
    ))?;
    let mut output: PartitionWriter = writer.partition(partition);
    let builder = std::cell::RefCell::new(BatchBuilder::new(Compression::None, None));
    let timestamp = bench.env.clock.wall();
    paced(
        bench.env,
        commits,
        |due| {
            builder
                .borrow_mut()
                .push(timestamp, None, Some(&payload(due)))
        },
        || {
            output.append(&mut builder.borrow_mut())?;
            let _ = wait(writer.commit())?;
            Ok(())
        },
    )
}

/// Reads at `read_committed` as fast as records become visible.
struct Reader {
    env: Env,
    transport: Arc<dyn Transport>,
    partition: TopicPartition,
}

impl Reader {
    fn read(&self, expected: u64, latencies: &mut Vec<Duration>) -> anyhow::Result<()> {
        let (mut offset, mut seen) = (Offset::ZERO, 0);
        while seen < expected {
            let records = self.fetch(offset)?;
            let now = self.env.clock.now();
            for batch in Batches::new(records) {
                let batch = batch?;
                offset = batch.header().next_offset();
                if batch.header().is_control() {
                    continue;
                }
                let mut records = batch.records(&DecompressionLimit::default())?;
                while let Some(record) = records.next() {
                    let due = record?
                        .value
                        .and_then(due_of)
                        .context("a record holds its time")?;
                    latencies.push(now.since(due));
                    seen += 1;
                }
            }
        }
        Ok(())
    }

    fn fetch(&self, offset: Offset) -> anyhow::Result<bytes::Bytes> {
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                partition: self.partition.clone(),
                offset,
                max_bytes: 1 << 20,
            }],
            isolation: Isolation::ReadCommitted,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_wait: SILENCE,
        };
        let fetched = wait(self.transport.fetch(request))?;
        let records = fetched
            .into_iter()
            .next()
            .context("a fetch answers for its partition")?
            .result?
            .records;
        anyhow::ensure!(
            !records.is_empty(),
            "nothing became visible within {} s",
            SILENCE.as_secs()
        );
        Ok(records)
    }
}

/// The least that a commit can cost: the same pace, a write and two syncs every five ticks, then the records are handed
/// to the reader through a channel.
fn bare(bench: &Bench<'_>, commits: u64) -> anyhow::Result<Vec<Duration>> {
    let file = bench
        .env
        .files
        .open(&bench.directory.join("bare"), OpenMode::CreateNew)?;
    let expected = commits * TICKS_PER_COMMIT * RECORDS_PER_TICK;
    let (sender, receiver) = crossbeam_channel::unbounded::<Vec<Instant>>();
    let env = bench.env.clone();
    let read = move |latencies: &mut Vec<Duration>| {
        while (latencies.len() as u64) < expected {
            let visible = receiver
                .recv_timeout(SILENCE)
                .context("nothing became visible")?;
            let now = env.clock.now();
            latencies.extend(visible.into_iter().map(|due| now.since(due)));
        }
        Ok(())
    };
    let open = std::cell::RefCell::new(Vec::new());
    let mut position = 0;
    collect(bench, expected, read, || {
        paced(
            bench.env,
            commits,
            |due| open.borrow_mut().push(due),
            || {
                let dues = open.take();
                let bytes: Vec<u8> = dues.iter().flat_map(|due| payload(*due)).collect();
                position = append_and_sync(&*file, &bytes, position)?;
                Ok(sender.send(dues)?)
            },
        )
    })
}

fn append_and_sync(file: &dyn File, bytes: &[u8], position: u64) -> std::io::Result<u64> {
    file.write_all_at(bytes, position)?;
    file.sync_data()?;
    file.write_all_at(&[b'x'; RECORD_BYTES], position + bytes.len() as u64)?;
    file.sync_data()?;
    Ok(position + (bytes.len() + RECORD_BYTES) as u64)
}

/// Runs `read` on a thread of its own beside `write`, and sorts what it saw, without the warm-up.
fn collect(
    bench: &Bench<'_>,
    expected: u64,
    read: impl FnOnce(&mut Vec<Duration>) -> anyhow::Result<()> + Send + 'static,
    write: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
    let seen = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&seen);
    let capacity = usize::try_from(expected)?;
    let body = move || {
        let mut latencies = Vec::with_capacity(capacity);
        let result = read(&mut latencies);
        *shared.lock() = Some(result.map(|()| latencies));
    };
    let reader = bench.env.spawn.spawn("bench-reader", Box::new(body))?;
    let written = write();
    reader.join().map_err(anyhow::Error::msg)?;
    written?;
    let result = seen.lock().take();
    let mut latencies = result.context("the reader ended without a word")??;
    latencies.drain(..latencies.len() * WARM_UP_PERCENT / 100);
    latencies.sort_unstable();
    Ok(latencies)
}
