//! A place for a job, what it is fed, and what a `read_committed` reader sees of what it wrote.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use onceflow::broker::BrokerConfig;
use onceflow::client::consumer::PartitionReader;
use onceflow::client::wait;
use onceflow::codec::Datum;
use onceflow::internals::protocol::batch::BatchProducer;
use onceflow::internals::protocol::messages::{Acks, OffsetSpec, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Summary};
use onceflow::testing::Env;
use onceflow::types::{Durability, Isolation, Offset, Timestamp, TopicName, TopicPartition};
use tempfile::TempDir;

use crate::support::records::batch_at;

/// Longest time for a condition to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commits so often that even small inputs take many cycles.
pub(crate) const OFTEN: Duration = Duration::from_millis(2);
/// So seldom that a cycle ends with its input only.
pub(crate) const AT_THE_END: Duration = Duration::from_secs(3600);

/// A directory with a log and input files.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        // What jobs say about restarts is wanted when a test fails: cargo shows it then only.
        static TRACING: Once = Once::new();
        TRACING.call_once(|| {
            let _ = tracing_subscriber::fmt()
                .with_test_writer()
                .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
                .try_init();
        });
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state_dir(&self, job: &str) -> PathBuf {
        self.path("data").join("state").join(job)
    }

    /// The log, which survives this process's death only: what these tests are about needs no more.
    pub(crate) fn log(&self) -> Log {
        self.log_in(Env::real())
    }

    pub(crate) fn log_in(&self, env: Env) -> Log {
        let config = BrokerConfig {
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        Log::in_env(env, &self.path("data"), config).unwrap()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// Makes a file grow.
pub(crate) fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

/// Runs a job to its end.
pub(crate) fn run(launch: Launch, log: &Log) -> Result<Summary, JobError> {
    wait(launch.start(log)?.finished())
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A record as a `read_committed` reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Seen {
    pub(crate) fn key<K: Datum + ?Sized>(&self) -> K::Owned {
        decode::<K>(self.key.as_deref().unwrap())
    }

    pub(crate) fn value<V: Datum + ?Sized>(&self) -> V::Owned {
        decode::<V>(self.value.as_deref().unwrap())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|header| header.0 == name);
        std::str::from_utf8(&header.unwrap().1).unwrap()
    }
}

pub(crate) fn decode<T: Datum + ?Sized>(bytes: &[u8]) -> T::Owned {
    T::DefaultCodec::default()
        .decode(bytes)
        .unwrap()
        .into_owned()
}

/// All committed records of a topic, by partition and offset; none if there is no such topic.
pub(crate) fn committed(log: &Log, topic: &str) -> Vec<Seen> {
    let topic = TopicName::new(topic).unwrap();
    let metadata = wait(log.transport().topic(&topic)).unwrap();
    let count = metadata.map_or(0, |metadata| metadata.partitions_count);
    (0..count)
        .flat_map(|partition| partition_of(log, TopicPartition::new(topic.clone(), partition)))
        .collect()
}

/// Waits until no transaction is open in a topic: Kafka confirms the end of one before its markers are written, and until then a
/// `read_committed` reader does not see it.
pub(crate) fn wait_for_markers(log: &Log, topic: &str) {
    let topic = TopicName::new(topic).unwrap();
    let metadata = wait(log.transport().topic(&topic)).unwrap();
    let count = metadata.map_or(0, |metadata| metadata.partitions_count);
    let places = (0..count).map(|partition| TopicPartition::new(topic.clone(), partition));
    let places: Vec<_> = places.collect();
    until("all transactions have their markers", || {
        places.iter().all(|place| {
            let all = end_of(log, place, Isolation::ReadUncommitted);
            end_of(log, place, Isolation::ReadCommitted) == all
        })
    });
}

fn end_of(log: &Log, place: &TopicPartition, isolation: Isolation) -> Offset {
    let end = wait(
        log.admin()
            .list_offset(place, OffsetSpec::Latest, isolation),
    );
    end.unwrap().unwrap().offset
}

fn partition_of(log: &Log, place: TopicPartition) -> Vec<Seen> {
    let end = end_of(log, &place, Isolation::ReadCommitted);
    let (partition, mut seen) = (place.partition, Vec::new());
    let mut reader = PartitionReader::new(
        log.transport(),
        place,
        Offset::ZERO,
        Isolation::ReadCommitted,
    );
    while reader.position() < end {
        for batch in reader.fetch_now().unwrap() {
            for record in batch.unwrap().iter() {
                let record = record.unwrap();
                let header = |(name, value): (std::borrow::Cow<'_, str>, Option<&[u8]>)| {
                    (name.into_owned(), value.unwrap().to_vec())
                };
                seen.push(Seen {
                    partition,
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers.map(header).collect(),
                });
            }
        }
    }
    seen
}

/// The values of a topic.
pub(crate) fn committed_values<V: Datum + ?Sized>(log: &Log, topic: &str) -> Vec<V::Owned> {
    let seen = committed(log, topic);
    seen.iter().map(Seen::value::<V>).collect()
}

/// The values of each key, in order.
pub(crate) fn committed_by_key<K, V>(log: &Log, topic: &str) -> BTreeMap<K::Owned, Vec<V::Owned>>
where
    K: Datum<Owned: Ord> + ?Sized,
    V: Datum + ?Sized,
{
    let mut by_key: BTreeMap<K::Owned, Vec<V::Owned>> = BTreeMap::new();
    for seen in committed(log, topic) {
        by_key
            .entry(seen.key::<K>())
            .or_default()
            .push(seen.value::<V>());
    }
    by_key
}

/// Makes a topic with a record a value, from partition 0 on in turn.
pub(crate) fn fill_topic<V: AsRef<str>>(log: &Log, topic: &str, partitions: i32, values: &[V]) {
    let topic = TopicName::new(topic).unwrap();
    if wait(log.transport().topic(&topic)).unwrap().is_none() {
        wait(log.admin().create_topic(&topic, partitions)).unwrap();
    }
    for partition in 0..partitions {
        let skip = usize::try_from(partition).unwrap();
        let step = usize::try_from(partitions).unwrap();
        let own: Vec<_> = values.iter().skip(skip).step_by(step).collect();
        if own.is_empty() {
            continue;
        }
        let request = ProduceRequest {
            partition: TopicPartition::new(topic.clone(), partition),
            records: batch_at(log.env().clock.wall(), BatchProducer::Plain, &own).into(),
            acks: Acks::Leader,
            transactional_id: None,
        };
        wait(log.transport().produce(request)).unwrap();
    }
}

/// Lines of words, the same every time; some words are far more frequent than others.
pub(crate) fn text(seed: u64, lines: usize) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut text = String::new();
    for _ in 0..lines {
        for _ in 0..next(9) {
            let bound = next(400) + 1;
            text.push_str(&format!("w{} ", next(bound)));
        }
        text.push('\n');
    }
    text
}

pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// Counts as a plain program.
pub(crate) fn plain_count<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in texts.into_iter().flat_map(words) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

pub(crate) fn word_count(source: onceflow::runtime::Lines) -> Job {
    let job = Job::new("word-count");
    job.source(source)
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    job
}

/// The topic has every update of every key once, in order: no loss, no duplicate, at any moment.
pub(crate) fn assert_counted(log: &Log, expected: &BTreeMap<String, u64>) {
    let seen = committed_by_key::<str, u64>(log, "word-counts");
    for (word, updates) in &seen {
        let count = expected.get(word).copied().unwrap_or(0);
        let right: Vec<u64> = (1..=count).collect();
        assert_eq!(updates, &right, "the updates of {word:?}");
    }
    assert_eq!(seen.len(), expected.len(), "distinct words");
}
