//! The log itself: bytes appended and fetched, on one thread, beside bare writes and reads of a file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::report::Figure;
use super::{Bench, create_topic, per_second};
use crate::cli::session::Session;
use crate::client::wait;
use crate::env::OpenMode;
use crate::protocol::batch::{BatchBuilder, BatchProducer, BuiltBatch, Compression, NewRecords};
use crate::protocol::messages::{Acks, FetchPartition, FetchRequest, ProduceRequest};
use crate::types::{Durability, Isolation, Offset, TopicPartition};

/// The payload of every record.
const RECORD_BYTES: usize = 1024;
/// A batch is closed once it has so many bytes: with one more record it stays below `max.message.bytes`.
const BATCH_BYTES: usize = 1_040_000;
/// Bytes to append.
const TOTAL_BYTES: u64 = 1 << 30;
/// Bytes of a fetch, and of one write or read of the baselines.
const CHUNK_BYTES: usize = 1 << 20;

/// Measures appends and fetches.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let total = bench.scaled(TOTAL_BYTES);
    let session = bench.open("log", Durability::Process)?;
    let partition = create_topic(&session, "bench", 1)?.remove(0);
    let appended = append(bench, &session, &partition, total, NewRecords::Built)?;
    let other = create_topic(&session, "bench-foreign", 1)?.remove(0);
    let foreign = |batch: BuiltBatch| NewRecords::Foreign(NewRecords::Built(batch).into_bytes());
    let foreign = append(bench, &session, &other, total, foreign)?;
    let fetched = fetch(bench, &session, &partition, appended.bytes)?;
    session.close()?;
    let bare = bare_file(bench, appended.bytes)?;
    Ok(vec![
        Figure::new(
            "log.produce",
            gib_per_second(appended.bytes, appended.elapsed),
            "GiB/s",
        )
        .against(gib_per_second(appended.bytes, bare.write)),
        Figure::new(
            "log.produce.foreign",
            gib_per_second(foreign.bytes, foreign.elapsed),
            "GiB/s",
        )
        .against(gib_per_second(appended.bytes, appended.elapsed)),
        Figure::new(
            "log.fetch",
            gib_per_second(appended.bytes, fetched),
            "GiB/s",
        )
        .against(gib_per_second(appended.bytes, bare.read)),
    ])
}

#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn gib_per_second(bytes: u64, elapsed: Duration) -> f64 {
    per_second(bytes, elapsed) / (1u64 << 30) as f64
}

struct Appended {
    bytes: u64,
    elapsed: Duration,
}

/// Builds batches of 1 KiB records and appends them, from one thread, until there are `total` bytes. `origin` says whose
/// they are: a foreign batch is read before it is appended.
fn append(
    bench: &Bench<'_>,
    session: &Session,
    partition: &TopicPartition,
    total: u64,
    origin: impl Fn(BuiltBatch) -> NewRecords,
) -> anyhow::Result<Appended> {
    let payload = vec![b'x'; RECORD_BYTES];
    let timestamp = bench.env.clock.wall();
    let mut builder = BatchBuilder::new(Compression::None, None);
    let mut bytes = 0;
    let begin = bench.env.clock.now();
    while bytes < total {
        while builder.size_bytes() < BATCH_BYTES {
            builder.push(timestamp, None, Some(&payload));
        }
        let batch = builder.build(BatchProducer::Plain);
        bytes += batch.bytes().len() as u64;
        wait(session.transport().produce(ProduceRequest {
            partition: partition.clone(),
            records: origin(batch),
            acks: Acks::Leader,
            transactional_id: None,
        }))?;
    }
    Ok(Appended {
        bytes,
        elapsed: bench.env.clock.now().since(begin),
    })
}

/// Fetches the whole partition from its start, a chunk at a time.
fn fetch(
    bench: &Bench<'_>,
    session: &Session,
    partition: &TopicPartition,
    total: u64,
) -> anyhow::Result<Duration> {
    let begin = bench.env.clock.now();
    let (mut bytes, mut offset) = (0, Offset::ZERO);
    while bytes < total {
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                partition: partition.clone(),
                offset,
                max_bytes: 4 * CHUNK_BYTES,
            }],
            isolation: Isolation::ReadCommitted,
            min_bytes: 1,
            max_bytes: 4 * CHUNK_BYTES,
            max_wait: Duration::from_secs(5),
        };
        let fetched = wait(session.transport().fetch(request))?;
        let records = fetched
            .into_iter()
            .next()
            .context("a fetch answers for its partition")?
            .result?
            .records;
        if records.is_empty() {
            bail!("the log ended after {bytes} of {total} bytes");
        }
        bytes += records.len() as u64;
        offset = next_offset(records)?;
    }
    Ok(bench.env.clock.now().since(begin))
}

/// One past the last record of the last whole batch.
fn next_offset(records: bytes::Bytes) -> anyhow::Result<Offset> {
    let mut next = None;
    for batch in crate::protocol::batch::Batches::new(records) {
        next = Some(batch?.header().next_offset());
    }
    next.context("a fetch returns whole batches")
}

struct Bare {
    write: Duration,
    read: Duration,
}

/// Writes and reads a file of the same size, without checks, headers, or a second copy.
fn bare_file(bench: &Bench<'_>, total: u64) -> anyhow::Result<Bare> {
    let path: &Path = &bench.directory.join("bare");
    let file = bench.env.files.open(path, OpenMode::CreateNew)?;
    let mut chunk = vec![b'x'; CHUNK_BYTES];
    let begin = bench.env.clock.now();
    in_chunks(total, |position| file.write_all_at(&chunk, position))?;
    let written = bench.env.clock.now();
    in_chunks(total, |position| {
        file.read_full_at(&mut chunk, position).map(drop)
    })?;
    Ok(Bare {
        write: written.since(begin),
        read: bench.env.clock.now().since(written),
    })
}

fn in_chunks(total: u64, mut each: impl FnMut(u64) -> std::io::Result<()>) -> std::io::Result<()> {
    (0..total).step_by(CHUNK_BYTES).try_for_each(&mut each)
}
