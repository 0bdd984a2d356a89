//! Mutated bytes: record batches, requests, the producers' snapshots and the coordinators' journals.
//!
//! Each target takes whole bytes that are right, changes some of them, and asks what must hold for any bytes: nothing
//! panics, nothing takes memory that the bytes do not justify, and what has a checksum is not believed when it was changed. Briefly
//! here; `make fuzz SECONDS=3600` goes on with new seeds. A failure prints the seed: `ONCEFLOW_FUZZ_SEED=n` repeats it.

use std::time::{Duration, Instant};

/// The time that each target plays in an ordinary run of the tests.
const BRIEFLY: Duration = Duration::from_millis(400);

/// Where changes are drawn from: SplitMix64, by a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    /// Changes the bytes in one to four places; they are different afterwards.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
        let mut changed = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(changed.len());
            match self.below(6) {
                0 => changed.truncate(at),
                1 => changed.insert(at, EDGES[self.below(6)]),
                2 if !changed.is_empty() => {
                    let _ = changed.remove(at);
                }
                3 => {
                    let end = (at + 4).min(changed.len());
                    changed[at..end].fill(EDGES[self.below(6)]);
                }
                _ if !changed.is_empty() => changed[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        if changed == bytes {
            changed.push(0);
        }
        changed
    }
}

/// Plays a target until its time is over; by hand for as long as is said, with other seeds each time.
fn play(target: &str, mut round: impl FnMut(&mut Chance)) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|it| it.parse::<u64>().unwrap())
    };
    let time = number("ONCEFLOW_FUZZ_SECONDS").map_or(BRIEFLY, Duration::from_secs);
    if let Some(seed) = number("ONCEFLOW_FUZZ_SEED") {
        return round(&mut Chance(seed));
    }
    let now = std::time::SystemTime::now();
    let first = match time == BRIEFLY {
        true => 1,
        false => now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() << 20,
    };
    let begin = Instant::now();
    let mut seed = first;
    while seed == first || begin.elapsed() < time {
        let caught = std::panic::AssertUnwindSafe(|| round(&mut Chance(seed)));
        if let Err(why) = std::panic::catch_unwind(caught) {
            eprintln!("{target}: repeat it with ONCEFLOW_FUZZ_SEED={seed}");
            std::panic::resume_unwind(why);
        }
        seed += 1;
    }
}

mod batches {
    use onceflow::internals::protocol::batch::{
        Batch, BatchBuilder, BatchProducer, Compression, DecompressionLimit,
    };
    use onceflow::types::Timestamp;

    use super::play;

    const COMPRESSIONS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    /// The bytes of a batch that its checksum does not cover.
    const UNCHECKED_BYTES: usize = 21;
    /// No small batch may become more than this.
    const LIMIT_BYTES: usize = 1 << 20;

    fn batch(compression: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new(compression, None);
        for n in 0..20 {
            let (key, value) = (format!("key {}", n % 3), format!("value {n}").repeat(n));
            let headers = [("n", Some(value.as_bytes())), ("none", None)];
            let (key, value) = (key.as_bytes(), value.as_bytes());
            builder.push_with_headers(Timestamp(1), Some(key), Some(value), &headers);
        }
        builder.finish(BatchProducer::Plain).freeze().to_vec()
    }

    /// Reads all that a batch says, as far as it can be read.
    fn read(bytes: Vec<u8>) -> Option<usize> {
        let batch = Batch::parse(bytes.into()).ok()?;
        let is_sound = batch.check_crc().is_ok();
        let limit = DecompressionLimit {
            output_bytes_max: LIMIT_BYTES,
            ..DecompressionLimit::default()
        };
        let _ = batch.control();
        let mut records = batch.records(&limit).ok()?;
        let mut bytes_count = 0;
        while let Some(record) = records.next() {
            let Ok(record) = record else { break };
            bytes_count += record.value.map_or(0, <[u8]>::len);
            bytes_count += record.headers.map(|(name, _)| name.len()).sum::<usize>();
        }
        assert!(bytes_count <= LIMIT_BYTES, "the bound holds");
        is_sound.then_some(bytes_count)
    }

    #[test]
    fn a_changed_batch_is_read_without_a_panic_and_never_believed() {
        let originals = COMPRESSIONS.map(batch);
        for original in &originals {
            assert!(read(original.clone()).is_some(), "the original is right");
        }
        play("batch", |chance| {
            let original = &originals[chance.below(originals.len())];
            let changed = chance.mutate(original);
            let is_checked = changed.get(UNCHECKED_BYTES..) != original.get(UNCHECKED_BYTES..);
            let sound = read(changed);
            assert!(
                !(is_checked && sound.is_some()),
                "the checksum did not see it"
            );
        });
    }
}

#[cfg(feature = "net")]
mod wire {
    use onceflow::internals::protocol::wire::messages::{
        CreateTopicsRequest, FetchRequest, JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
        TxnOffsetCommitRequest, WriteTxnMarkersRequest,
    };
    use onceflow::internals::protocol::wire::{Reader, Request, decode_request};

    use super::play;

    /// Takes the bytes for a request of this kind, in any version.
    fn decode<R: Request>(bytes: &[u8]) {
        for version in -1..20 {
            let _ = decode_request::<R>(Reader::new(bytes.to_vec().into()), version);
        }
    }

    /// Bytes that begin like requests: lengths, names, arrays of one and of many, compact and not.
    const ORIGINALS: [&[u8]; 4] = [
        b"\x00\x04test\x00\x00\x00\x01\x00\x05lines\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07",
        b"\x05test\x02\x06lines\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00",
        b"\xff\xff\xff\xff\x00\x00\x01\xf4\x00\x00\x00\x01\x03\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x7f\xff\xff\xff\x80\x80\x80\x80\x0f\xff\xff\xff\xff\x07\x00\x01a\x00\x00\x00\x00",
    ];

    #[test]
    fn changed_requests_are_decoded_or_refused_without_a_panic() {
        play("wire", |chance| {
            let original = ORIGINALS[chance.below(ORIGINALS.len())];
            let bytes = chance.mutate(original);
            decode::<FetchRequest>(&bytes);
            decode::<MetadataRequest>(&bytes);
            decode::<CreateTopicsRequest>(&bytes);
            decode::<JoinGroupRequest>(&bytes);
            decode::<OffsetCommitRequest>(&bytes);
            decode::<TxnOffsetCommitRequest>(&bytes);
            decode::<WriteTxnMarkersRequest>(&bytes);
        });
    }
}

mod files {
    use std::path::{Path, PathBuf};

    use onceflow::broker::BrokerConfig;
    use onceflow::client::{Producer, ProducerConfig, ProducerRecord, wait};
    use onceflow::prelude::Log;
    use onceflow::testing::Env;
    use onceflow::types::{Durability, TopicName, TransactionalId};
    use tempfile::TempDir;

    use super::play;

    fn open(path: &Path) -> Result<Log, onceflow::broker::BrokerError> {
        let config = BrokerConfig {
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        Log::in_env(Env::real(), path, config)
    }

    /// A data directory with committed and aborted transactions, closed well: then it has snapshots.
    fn filled(path: &Path) {
        let log = open(path).unwrap();
        let topic = TopicName::new("lines").unwrap();
        wait(log.admin().create_topic(&topic, 1)).unwrap();
        let config = ProducerConfig::default().transactional_id(TransactionalId::new("t").unwrap());
        let producer: Producer<str, str> = Producer::new(log.transport(), config).unwrap();
        wait(producer.init_transactions()).unwrap();
        for n in 0..6 {
            producer.begin_transaction().unwrap();
            let value = format!("line {n}");
            let record = ProducerRecord::new(&topic).value(value.as_str());
            drop(wait(producer.send(record)).unwrap());
            match n % 3 {
                2 => {
                    let _ = wait(producer.abort_transaction()).unwrap();
                }
                _ => {
                    let _ = wait(producer.commit_transaction()).unwrap();
                }
            }
        }
        wait(producer.close()).unwrap();
        log.close().unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => {
                    let _ = std::fs::copy(entry.path(), target).unwrap();
                }
            }
        }
    }

    /// All files below a directory whose path has this in it, from the directory on.
    fn named(root: &Path, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let relative = path.strip_prefix(root).unwrap().to_owned();
                match path.is_dir() {
                    true => open.push(path),
                    false if relative.to_str().unwrap().contains(part) => found.push(relative),
                    false => {}
                }
            }
        }
        found.sort();
        found
    }

    /// Opens the directory and closes it again; the end of the topic if that was possible.
    fn end_of_lines(path: &Path) -> Option<i64> {
        use onceflow::internals::protocol::messages::OffsetSpec;
        use onceflow::types::{Isolation, TopicPartition};
        let log = match open(path) {
            Ok(log) => log,
            Err(why) => {
                assert!(!why.to_string().is_empty(), "a refusal says why");
                return None;
            }
        };
        let lines = TopicPartition::new(TopicName::new("lines").unwrap(), 0);
        let spec = OffsetSpec::Latest;
        let found = wait(
            log.admin()
                .list_offset(&lines, spec, Isolation::ReadCommitted),
        );
        drop(log.close());
        found.ok().flatten().map(|it| it.offset.0)
    }

    /// Changes one of the files whose path has `part` in it, and opens the directory.
    fn play_files(target: &str, part: &str, check: impl Fn(Option<i64>, Option<i64>)) {
        let place = TempDir::new().unwrap();
        let original = place.path().join("original");
        filled(&original);
        let files = named(&original, part);
        assert!(!files.is_empty(), "there is no {part} to change");
        let end = end_of_lines(&original);
        assert!(end.is_some());
        // Opening may have written files anew.
        let files: Vec<_> = files
            .into_iter()
            .filter(|it| original.join(it).exists())
            .collect();
        play(target, |chance| {
            let changed = place.path().join("changed");
            copy(&original, &changed);
            let file = changed.join(&files[chance.below(files.len())]);
            let bytes = chance.mutate(&std::fs::read(&file).unwrap());
            std::fs::write(&file, bytes).unwrap();
            let found = end_of_lines(&changed);
            std::fs::remove_dir_all(&changed).unwrap();
            check(end, found);
        });
    }

    #[test]
    fn a_changed_snapshot_of_producers_changes_nothing_that_readers_see() {
        play_files("snapshot", ".snapshot", |end, found| {
            assert_eq!(found, end, "a snapshot is derived, and made anew");
        });
    }

    #[test]
    fn a_changed_journal_is_refused_or_read_without_a_panic() {
        play_files("journal", "__transaction_state", |end, found| {
            assert!(
                found.is_none_or(|found| Some(found) >= end),
                "nothing acknowledged is dropped"
            );
        });
    }
}
