//! Plan of a child process: where its data is, how it is configured, and what it shall do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The environment variable that carries a [`Plan`] to the child.
pub(super) const VARIABLE: &str = "ONCEFLOW_KILL_CHILD";

/// Partitions of the input topic.
pub(super) const LINES_PARTITIONS: i32 = 3;
/// Partitions of the output topics.
pub(super) const OUTPUT_PARTITIONS: i32 = 3;
/// State partitions of the job, and so partitions of its changelogs.
pub(super) const STATE_PARTITIONS: u16 = 4;
/// Number of words.
const WORDS_COUNT: u64 = 400;
/// The first job.
pub(super) const JOB: &str = "wc";
/// The second job, which reads what the first one writes.
pub(super) const CHAINED_JOB: &str = "mirror-job";
/// The job that copies the input into files.
pub(super) const FILES_JOB: &str = "copy-job";
/// The folder of its files, in the data's.
pub(super) const FILES_FOLDER: &str = "files";
/// The folder of a sink that is not one of the crate's, in the data's.
pub(super) const LEDGER_FOLDER: &str = "ledger";

/// One life of the child.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) data: PathBuf,
    /// The input is a function of this.
    pub(super) input_seed: u64,
    pub(super) workers: usize,
    pub(super) commit_ms: u64,
    /// Lines that are sent to each partition at once.
    pub(super) lines_at_once: i64,
    /// Lines that this life adds to each partition at most.
    pub(super) lines_max: i64,
    pub(super) segment_bytes: u64,
    pub(super) memory_bytes: usize,
    pub(super) changelog_tail_bytes_max: u64,
    pub(super) housekeeping_ms: u64,
    pub(super) transaction_timeout_ms: u64,
    /// Where the snapshot and the readers begin, by `topic partition`; 0 if absent.
    pub(super) from: BTreeMap<String, i64>,
    /// Whether a commit waits for the disk.
    pub(super) is_fsync: bool,
    /// Compression of the job, by Kafka's name.
    pub(super) compression: String,
    /// Whether the second job runs too.
    pub(super) is_chained: bool,
    /// Whether the input is copied into files, too.
    pub(super) has_files: bool,
    /// Whether a topic is created and deleted while the job runs.
    pub(super) has_scratch_topic: bool,
    /// The job panics at so many lines, once.
    pub(super) panic_at: Option<u64>,
    /// Nothing is fed: the job catches up, and the child ends well.
    pub(super) is_last: bool,
}

/// A small generator: the runs of a seed are alike.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `from..to`.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 100) < chance
    }

    /// From 1 to `max`, every order of magnitude as likely as any other.
    pub(super) fn log_uniform(&mut self, max: u64) -> u64 {
        let bits = u64::from(max.ilog2()) + 1;
        let power = self.between(0, bits);
        self.between(1 << power, 2 << power).min(max)
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.between(0, items.len() as u64) as usize]
    }
}

/// The line at `offset` of a partition: 1 to 7 words.
pub(super) fn line(seed: u64, partition: i32, offset: i64) -> String {
    let place = (partition as u64) << 48 ^ offset as u64;
    let mut random = Random::new(seed ^ place.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    let words = random.between(1, 8);
    let words = (0..words).map(|_| {
        // The square makes some words frequent and many rare.
        let number = random.between(0, WORDS_COUNT) * random.between(0, WORDS_COUNT) / WORDS_COUNT;
        let initial = char::from(b'a' + (number % 26) as u8);
        format!("{initial}{number}")
    });
    words.collect::<Vec<_>>().join(" ")
}

impl Plan {
    /// A configuration drawn anew.
    pub(super) fn draw(random: &mut Random, data: PathBuf, input_seed: u64) -> Self {
        Self {
            data,
            input_seed,
            workers: random.between(1, 3) as usize,
            commit_ms: random.between(5, 51),
            lines_at_once: random.between(1, 30) as i64,
            lines_max: 300,
            segment_bytes: *random.pick(&[4_000, 30_000, 1 << 20]),
            memory_bytes: *random.pick(&[128 << 10, 1 << 20, 64 << 20]),
            changelog_tail_bytes_max: *random.pick(&[2_000, 20_000, 256 << 20]),
            housekeeping_ms: *random.pick(&[20, 100, 15_000]),
            transaction_timeout_ms: 5_000,
            from: BTreeMap::new(),
            is_fsync: true,
            compression: (*random.pick(&["none", "none", "gzip", "snappy", "lz4", "zstd"]))
                .to_owned(),
            is_chained: false,
            has_files: false,
            has_scratch_topic: random.percent(20),
            panic_at: None,
            is_last: false,
        }
    }
}
