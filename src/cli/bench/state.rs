//! State far larger than its memory: random read-modify-writes, beside a bare loop on the same RocksDB.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rocksdb::{DB, WriteBatch, WriteOptions};

use super::report::Figure;
use super::{Bench, per_second};
use crate::codec::{Codec, Raw, Schema};
use crate::protocol::murmur2;
use crate::state::{
    FlushUrgency, HashedKey, StateBackend, StateConfig, StateError, Store, StoreDeclaration,
    hash_key, rocksdb_options, state_partition,
};
use crate::types::{Offset, TopicId};

const STORE: &str = "bench";
const STATE_PARTITIONS: u16 = 64;
const VALUE_BYTES: usize = 100;
/// Number of keys: with their values several times the memory.
const KEYS_COUNT: u64 = 2_000_000;
/// Reads, changes and writes.
const UPDATES_COUNT: u64 = 1_000_000;
/// Memory of both sides, in bytes.
const MEMORY_BYTES: usize = 64 << 20;
/// Records of one batch, as the runtime hands them to an operator.
const BATCH_RECORDS: u64 = 1_000;
/// Batches of one cycle.
const CYCLE_BATCHES: u64 = 10;

/// Measures updates of state.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let work = Work {
        keys_count: bench.scaled(KEYS_COUNT),
        updates_count: bench.scaled(UPDATES_COUNT),
    };
    let bare = bare_loop(bench, &work, &bench.directory.join("bare-rocksdb"))?;
    let took = through_the_store(bench, &work, &bench.directory.join("state"))?;
    let rate = |elapsed| per_second(work.updates_count, elapsed);
    Ok(vec![
        Figure::new("state.larger-than-memory", rate(took), "updates/s").against(rate(bare)),
    ])
}

/// Amount of work.
struct Work {
    keys_count: u64,
    updates_count: u64,
}

impl Work {
    /// The same random keys for both sides, batch by batch.
    fn batches(&self) -> impl Iterator<Item = Vec<[u8; 8]>> + '_ {
        let mut state = 11;
        (0..self.updates_count / BATCH_RECORDS).map(move |_| {
            (0..BATCH_RECORDS)
                .map(|_| key(next_number(&mut state) % self.keys_count))
                .collect()
        })
    }
}

/// The next number of a fixed sequence (splitmix64).
fn next_number(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keys are spread, so that neighbours in a batch are no neighbours on disk.
fn key(number: u64) -> [u8; 8] {
    hash_key(&number.to_le_bytes()).to_be_bytes()
}

fn hashed(bytes: &[u8]) -> HashedKey<'_> {
    HashedKey::new(bytes)
}

fn change(value: &mut [u8]) {
    if let Some(first) = value.first_mut() {
        *first = first.wrapping_add(1);
    }
}

/// Reads a batch with one sorted lookup, changes it, writes it with one write batch, without a log of its own.
fn bare_loop(bench: &Bench<'_>, work: &Work, path: &Path) -> anyhow::Result<Duration> {
    let db = DB::open_cf(&rocksdb_options(MEMORY_BYTES), path, ["default"])?;
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    for number in 0..work.keys_count {
        db.put_opt(key(number), [7; VALUE_BYTES], &options)?;
    }
    db.flush()?;
    let begin = bench.env.clock.now();
    let family = db.cf_handle("default").context("every database has it")?;
    for mut batch in work.batches() {
        batch.sort_unstable();
        batch.dedup();
        let values = db.batched_multi_get_cf(&family, batch.iter(), true);
        let mut write = WriteBatch::default();
        for (key, value) in batch.iter().zip(values) {
            let mut value = value?.context("it was loaded")?.to_vec();
            change(&mut value);
            write.put(key, &value);
        }
        db.write_opt(write, &options)?;
    }
    Ok(bench.env.clock.now().since(begin))
}

/// The same through a store, with its cycles and flushes. The changelog's bytes are made, and dropped.
fn through_the_store(bench: &Bench<'_>, work: &Work, path: &Path) -> anyhow::Result<Duration> {
    let declaration = StoreDeclaration {
        name: STORE.to_owned(),
        schema: Schema {
            codec: Codec::<Vec<u8>>::id(&Raw),
            ..Schema::of::<[u8], [u8]>()
        },
        changelog: TopicId(1),
    };
    let config = StateConfig {
        memory_bytes: MEMORY_BYTES,
        state_partitions: STATE_PARTITIONS,
        stores: vec![declaration],
        ..StateConfig::default()
    };
    let backend = StateBackend::open(bench.env, path, config)?;
    let partitions: Vec<_> = (0..STATE_PARTITIONS).collect();
    let mut store = Store::<Vec<u8>>::open(&backend, STORE, &partitions, Raw)?;
    let mut changelog = Changelog {
        bytes: Vec::new(),
        end: 0,
    };
    for number in 0..work.keys_count {
        let key = key(number);
        changelog.end += 1;
        store.restore(
            state_partition(murmur2(&key), STATE_PARTITIONS),
            &key,
            Some(&[7; VALUE_BYTES]),
            Offset(changelog.end),
        )?;
    }
    backend.make_durable()?;
    let begin = bench.env.clock.now();
    for (batch, number) in work.batches().zip(1..) {
        store.prefetch(batch.iter().map(|key| hashed(key)))?;
        for key in &batch {
            let found = store.update(hashed(key), |value| {
                value.as_mut().map(|value| change(value))
            })?;
            found.context("it was loaded")?;
        }
        if number % CYCLE_BATCHES == 0 {
            changelog.end_cycle(&backend, &mut store)?;
        }
    }
    Ok(bench.env.clock.now().since(begin))
}

/// Stands for the changelog topic.
struct Changelog {
    bytes: Vec<u8>,
    end: i64,
}

impl Changelog {
    /// Ends a cycle as the runtime does.
    fn end_cycle(
        &mut self,
        backend: &StateBackend,
        store: &mut Store<Vec<u8>>,
    ) -> anyhow::Result<()> {
        self.bytes.clear();
        store.drain_cycle::<StateError>(&mut |_, key, value| {
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(value.unwrap_or_default());
            self.end += 1;
            Ok(())
        })?;
        if let Some(batch) = store.take_flush(FlushUrgency::WhenDue)? {
            let ticket = batch.ticket();
            let positions: Vec<_> = (0..STATE_PARTITIONS)
                .map(|p| (p, Offset(self.end)))
                .collect();
            backend.flush(batch, &positions)?;
            store.flushed(ticket);
        }
        Ok(())
    }
}
