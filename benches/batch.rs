//! Building and reading record batches, beside a plain copy of the same bytes in the same run.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use onceflow::internals::protocol::batch::{
    Batch, BatchBuilder, BatchError, BatchProducer, Compression, DecompressionLimit, RecordRules,
    check_client_batch, check_client_records,
};
use onceflow::types::Timestamp;

/// Size of the batches, in bytes: `batch.size` of a busy sink.
const BATCH_BYTES: usize = 1 << 20;

fn build(builder: &mut BatchBuilder, value: &[u8]) -> Bytes {
    let mut timestamp = 1_700_000_000_000;
    while builder.size_bytes() < BATCH_BYTES {
        builder.push(Timestamp(timestamp), None, Some(value));
        timestamp += 1;
    }
    builder.finish(BatchProducer::Plain).freeze()
}

/// Reads a batch as a source does, and returns how many value bytes it holds.
fn read(bytes: Bytes) -> Result<usize, BatchError> {
    let batch = Batch::parse(bytes)?;
    batch.check_crc()?;
    let mut records = batch.records(&DecompressionLimit::default())?;
    let mut value_bytes = 0;
    while let Some(record) = records.next() {
        value_bytes += record?.value.map_or(0, <[u8]>::len);
    }
    Ok(value_bytes)
}

/// Checks a batch that somebody else built, as the log does before it appends it.
fn check(bytes: Bytes) -> Result<Timestamp, BatchError> {
    let batch = Batch::parse(bytes)?;
    check_client_batch(batch.header())?;
    check_client_records(
        &batch,
        &DecompressionLimit::default(),
        &RecordRules::default(),
    )
}

fn uncompressed(criterion: &mut Criterion) {
    for value_bytes in [20, 1024] {
        let value = vec![b'x'; value_bytes];
        let mut builder = BatchBuilder::new(Compression::None, None);
        let batch = build(&mut builder, &value);
        let mut group = criterion.benchmark_group(format!("batch of {value_bytes} B records"));
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function("baseline: memcpy into a new buffer", |bencher| {
            bencher.iter(|| black_box(&batch[..]).to_vec());
        });
        group.bench_function("baseline: CRC-32C", |bencher| {
            bencher.iter(|| crc32c::crc32c(black_box(&batch)));
        });
        group.bench_function("push, without finish", |bencher| {
            bencher.iter(|| {
                let mut builder =
                    BatchBuilder::with_capacity(Compression::None, None, BATCH_BYTES + 2048);
                let mut timestamp = 1_700_000_000_000;
                while builder.size_bytes() < BATCH_BYTES {
                    builder.push(Timestamp(timestamp), None, Some(black_box(&value)));
                    timestamp += 1;
                }
                builder
            });
        });
        group.bench_function("encode", |bencher| {
            bencher.iter(|| build(&mut builder, black_box(&value)));
        });
        group.bench_function("parse, CRC and records", |bencher| {
            bencher.iter(|| read(black_box(&batch).clone()));
        });
        group.bench_function("check of a foreign batch, without CRC", |bencher| {
            bencher.iter(|| check(black_box(&batch).clone()));
        });
        group.finish();
    }
}

fn compressed(criterion: &mut Criterion) {
    let words = b"the quick brown fox jumps over the lazy dog and finds 1234 more words ";
    let value: Vec<u8> = words.iter().copied().cycle().take(1024).collect();
    let mut group = criterion.benchmark_group("compressed batch");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, None);
        let batch = build(&mut builder, &value);
        group.bench_function(BenchmarkId::new("encode", compression), |bencher| {
            bencher.iter(|| build(&mut builder, black_box(&value)));
        });
        group.bench_function(BenchmarkId::new("read", compression), |bencher| {
            bencher.iter(|| read(black_box(&batch).clone()));
        });
        group.bench_function(BenchmarkId::new("check", compression), |bencher| {
            bencher.iter(|| check(black_box(&batch).clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, uncompressed, compressed);
criterion_main!(benches);
