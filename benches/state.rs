//! The stores beside the bare structures that they stand on, in the same run: a hash map, and RocksDB.
//!
//! `cargo bench --bench state` prints a line a figure; `-- --json` prints objects. `-- cached` or `-- large` runs one part.

#![allow(
    clippy::expect_used,
    reason = "a benchmark stops where its preparation fails"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use onceflow::codec::{Bincode, Codec, CodecId, Raw, Schema, TypeIdentity};
use onceflow::internals::protocol::murmur2;
use onceflow::state::{
    FlushUrgency, HashedKey, StateBackend, StateConfig, StateError, Store, StoreDeclaration,
    hash_key, rocksdb_options, state_partition,
};
use onceflow::testing::Env;
use onceflow::types::{Offset, TopicId};
use rocksdb::{DB, WriteBatch, WriteOptions};

const STORE: &str = "bench";
const STATE_PARTITIONS: u16 = 64;
/// Records of one batch, as the runtime hands them to an operator.
const BATCH_RECORDS: usize = 1_000;
/// Batches of one cycle.
const CYCLE_BATCHES: usize = 100;

const CACHED_KEYS: u32 = 300_000;
const CACHED_UPDATES: usize = 10_000_000;

const LARGE_KEYS: u64 = 2_000_000;
const LARGE_VALUE_BYTES: usize = 100;
const LARGE_MEMORY_BYTES: usize = 64 << 20;
const LARGE_UPDATES: usize = 1_000_000;

/// A generator with a fixed seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits")) / f64::from(u32::MAX)
    }
}

fn report(name: &str, count: usize, took: Duration, baseline: Duration) {
    let rate = |time: Duration| f64::from(u32::try_from(count).expect("few")) / time.as_secs_f64();
    let (value, base, ratio) = (rate(took), rate(baseline), rate(took) / rate(baseline));
    match std::env::args().any(|argument| argument == "--json") {
        true => println!(
            "{{\"name\":\"{name}\",\"value\":{value:.0},\"unit\":\"updates/s\",\"baseline\":{base:.0},\"ratio\":{ratio:.3}}}"
        ),
        false => println!(
            "{name:<40} {:>8.2} M/s   baseline {:>8.2} M/s   ratio {ratio:.2}",
            value / 1e6,
            base / 1e6
        ),
    }
}

fn timed(env: &Env, body: impl FnOnce()) -> Duration {
    let start = env.clock.now();
    body();
    env.clock.now().since(start)
}

fn open(env: &Env, path: &std::path::Path, memory_bytes: usize, codec: CodecId) -> StateBackend {
    let declaration = StoreDeclaration {
        name: STORE.to_owned(),
        schema: Schema {
            codec,
            key: TypeIdentity::named("raw bytes"),
            value: TypeIdentity::named("bench"),
            ..Schema::of::<[u8], [u8]>()
        },
        changelog: TopicId(1),
    };
    let config = StateConfig {
        memory_bytes,
        state_partitions: STATE_PARTITIONS,
        stores: vec![declaration],
        ..StateConfig::default()
    };
    StateBackend::open(env, path, config).expect("a fresh directory")
}

fn hashed(bytes: &[u8]) -> HashedKey<'_> {
    HashedKey::new(bytes)
}

/// Ends a cycle as the runtime does; the changelog is a buffer that is thrown away.
fn end_cycle<V: Clone + Send + 'static>(
    backend: &StateBackend,
    store: &mut Store<V>,
    changelog: &mut Vec<u8>,
    offset: &mut i64,
) {
    changelog.clear();
    let mut emit = |_: u16, key: &[u8], value: Option<&[u8]>| {
        changelog.extend_from_slice(key);
        changelog.extend_from_slice(value.unwrap_or_default());
        *offset += 1;
        Ok(())
    };
    store
        .drain_cycle::<StateError>(&mut emit)
        .expect("it encodes");
    if let Some(batch) = store.take_flush(FlushUrgency::WhenDue).expect("it encodes") {
        let ticket = batch.ticket();
        let positions: Vec<_> = (0..STATE_PARTITIONS)
            .map(|p| (p, Offset(*offset)))
            .collect();
        backend.flush(batch, &positions).expect("there is disk");
        store.flushed(ticket);
    }
}

/// Words as a text has them (few often, many rarely), or every key alike.
fn words(is_skewed: bool) -> Vec<Vec<u8>> {
    let mut numbers = Numbers(7);
    let keys = f64::from(CACHED_KEYS);
    let mut number = || match is_skewed {
        true => keys.powf(numbers.unit()),
        false => keys * numbers.unit(),
    };
    (0..CACHED_UPDATES)
        .map(|_| format!("word{:.0}", number().floor()).into_bytes())
        .collect()
}

fn cached(env: &Env, is_skewed: bool) {
    let words = words(is_skewed);
    let baseline = timed(env, || {
        let mut map: hashbrown::HashMap<Vec<u8>, u64, rapidhash::fast::RandomState> =
            hashbrown::HashMap::default();
        for word in &words {
            *map.entry_ref(&word[..]).or_insert(0) += 1;
        }
        black_box(map.len());
    });
    let directory = tempfile::tempdir().expect("a directory");
    let backend = open(
        env,
        &directory.path().join("state"),
        512 << 20,
        Codec::<u64>::id(&Bincode),
    );
    let partitions: Vec<_> = (0..STATE_PARTITIONS).collect();
    let mut store = Store::<u64>::open(&backend, STORE, &partitions, Bincode).expect("it is fresh");
    let mut count_all = || {
        for batch in words.chunks(BATCH_RECORDS) {
            store
                .prefetch(batch.iter().map(|word| hashed(word)))
                .expect("no disk is touched");
            for word in batch {
                let count = store.update(hashed(word), |count| {
                    let count = count.get_or_insert(0);
                    *count += 1;
                    *count
                });
                black_box(count.expect("no disk is touched"));
            }
        }
    };
    let updates = timed(env, &mut count_all);
    let name = if is_skewed { "words" } else { "uniform keys" };
    report(
        &format!("cached updates, {name}"),
        CACHED_UPDATES,
        updates,
        baseline,
    );
    let (mut changelog, mut offset) = (Vec::new(), 0);
    let with_cycles = timed(env, || {
        for (number, batch) in words.chunks(BATCH_RECORDS).enumerate() {
            store
                .prefetch(batch.iter().map(|word| hashed(word)))
                .expect("the disk works");
            for word in batch {
                store
                    .update(hashed(word), |count| *count.get_or_insert(0) += 1)
                    .expect("the disk works");
            }
            if number % CYCLE_BATCHES == CYCLE_BATCHES - 1 {
                end_cycle(&backend, &mut store, &mut changelog, &mut offset);
            }
        }
    });
    report(
        &format!("... with a cycle every 100 k, {name}"),
        CACHED_UPDATES,
        with_cycles,
        baseline,
    );
}

fn large_key(number: u64) -> [u8; 8] {
    // Spread, so that neighbours in a batch are no neighbours on disk.
    hash_key(&number.to_le_bytes()).to_be_bytes()
}

fn large_batches() -> impl Iterator<Item = Vec<[u8; 8]>> {
    let mut numbers = Numbers(11);
    (0..LARGE_UPDATES / BATCH_RECORDS).map(move |_| {
        (0..BATCH_RECORDS)
            .map(|_| large_key(numbers.next() % LARGE_KEYS))
            .collect()
    })
}

fn bump(value: &mut [u8]) {
    if let Some(first) = value.first_mut() {
        *first = first.wrapping_add(1);
    }
}

fn large_baseline(env: &Env, path: &std::path::Path) -> Duration {
    let db = DB::open_cf(&rocksdb_options(LARGE_MEMORY_BYTES), path, ["default"])
        .expect("a fresh directory");
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    let keys: Vec<_> = (0..LARGE_KEYS).map(large_key).collect();
    for batch in keys.chunks(BATCH_RECORDS) {
        let mut write = WriteBatch::default();
        batch
            .iter()
            .for_each(|key| write.put(key, [7; LARGE_VALUE_BYTES]));
        db.write_opt(write, &options).expect("there is disk");
    }
    db.flush().expect("there is disk");
    timed(env, || {
        let family = db.cf_handle("default").expect("it is always there");
        for mut batch in large_batches() {
            batch.sort_unstable();
            batch.dedup();
            let values = db.batched_multi_get_cf(&family, batch.iter(), true);
            let mut write = WriteBatch::default();
            for (key, value) in batch.iter().zip(values) {
                let mut value = value
                    .expect("the disk works")
                    .expect("it was loaded")
                    .to_vec();
                bump(&mut value);
                write.put(key, &value);
            }
            db.write_opt(write, &options).expect("there is disk");
        }
    })
}

fn large(env: &Env) {
    let directory = tempfile::tempdir().expect("a directory");
    let baseline = large_baseline(env, &directory.path().join("baseline"));
    let backend = open(
        env,
        &directory.path().join("state"),
        LARGE_MEMORY_BYTES,
        Codec::<Vec<u8>>::id(&Raw),
    );
    let partitions: Vec<_> = (0..STATE_PARTITIONS).collect();
    let mut store = Store::<Vec<u8>>::open(&backend, STORE, &partitions, Raw).expect("it is fresh");
    let mut offset = 0;
    for number in 0..LARGE_KEYS {
        let key = large_key(number);
        offset += 1;
        let partition = state_partition(murmur2(&key), STATE_PARTITIONS);
        store
            .restore(
                partition,
                &key,
                Some(&[7; LARGE_VALUE_BYTES]),
                Offset(offset),
            )
            .expect("there is disk");
    }
    backend.make_durable().expect("there is disk");
    let mut changelog = Vec::new();
    let mut cycle = VecDeque::new();
    let took = timed(env, || {
        for batch in large_batches() {
            store
                .prefetch(batch.iter().map(|key| hashed(key)))
                .expect("the disk works");
            for key in &batch {
                let found =
                    store.update(hashed(key), |value| value.as_mut().map(|value| bump(value)));
                found.expect("the disk works").expect("it was loaded");
            }
            cycle.push_back(batch.len());
            if cycle.len() == 10 {
                cycle.clear();
                end_cycle(&backend, &mut store, &mut changelog, &mut offset);
            }
        }
    });
    report(
        "state of 2 M x 100 B in 64 MiB",
        LARGE_UPDATES,
        took,
        baseline,
    );
}

fn main() {
    let env = Env::real();
    let is_wanted = |part: &str| {
        let parts = ["cached", "large"];
        let mut named = std::env::args()
            .filter(|argument| parts.contains(&argument.as_str()))
            .peekable();
        named.peek().is_none() || named.any(|argument| argument == part)
    };
    if is_wanted("cached") {
        cached(&env, true);
        cached(&env, false);
    }
    if is_wanted("large") {
        large(&env);
    }
}
