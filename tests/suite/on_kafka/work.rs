//! `Work`: a job under test, what it is fed, and a reader that knows at any moment whether what it reads can be true.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::{ClientError, wait};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{TopicName, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::support::transfers::{self, Ledger, Sum};

/// Partitions of the topics, but for that of the balances, which has one.
pub(super) const PARTITIONS: i32 = 3;
/// Longest life of a transaction: short, so that a test can outlast it.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(6);
/// After so long the others take over from an instance that died.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
const WORDS: u64 = 97;

/// Kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Counts words; each change of a count is written.
    Words,
    /// Keeps accounts; each change of a balance is written.
    Transfers,
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hands {
    /// One process. Counts of words are copied by a second job (S17).
    One,
    /// Several processes that share the job.
    Several,
}

/// A job under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) hands: Hands,
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// The words of a line.
fn words_of(line: u64) -> [u64; 3] {
    [line % WORDS, (line * 7 + 3) % WORDS, line % 11]
}

impl Work {
    pub(super) fn name(self) -> String {
        format!("{:?}-by-{:?}", self.kind, self.hands).to_lowercase()
    }

    pub(super) fn input(self) -> String {
        format!("{}-in", self.name())
    }

    pub(super) fn output(self) -> String {
        format!("{}-out", self.name())
    }

    /// Where the reader looks: at the end of the chain.
    fn seen_at(self) -> String {
        match self.is_copied() {
            true => format!("{}-copy", self.name()),
            false => self.output(),
        }
    }

    fn is_copied(self) -> bool {
        self.kind == Kind::Words && self.hands == Hands::One
    }

    /// The topic of the changes of its state.
    pub(super) fn changelog(self) -> String {
        match self.kind {
            Kind::Words => format!("{}-counts-changelog", self.name()),
            Kind::Transfers => format!("{}-accounts-changelog", self.name()),
        }
    }

    /// Counts the records of a line.
    pub(super) fn records_per_line(self) -> u64 {
        match self.kind {
            Kind::Words => 3,
            Kind::Transfers => 2,
        }
    }

    pub(super) fn create_topics(self, log: &Log) {
        let output_partitions = match self.kind {
            Kind::Words => PARTITIONS,
            Kind::Transfers => 1,
        };
        let mut topics = vec![
            (self.input(), PARTITIONS),
            (self.output(), output_partitions),
        ];
        if self.is_copied() {
            topics.push((self.seen_at(), PARTITIONS));
        }
        for (topic, partitions) in topics {
            let topic = TopicName::new(&topic).unwrap();
            wait(log.admin().create_topic(&topic, partitions)).unwrap();
        }
    }

    /// The jobs, ready to be started.
    pub(super) fn launches(self, instance: Option<&str>) -> Vec<Launch> {
        let job = Job::new(&self.name());
        match self.kind {
            Kind::Words => job
                .source(topic::<str>(&self.input()))
                .flat_map(words)
                .key_by_ref(|word: &str| word)
                .count("counts")
                .changes()
                .sink(topic::<u64>(&self.output()).codec(Text)),
            Kind::Transfers => {
                transfers::example::keep_accounts(&job, &self.input(), &self.output());
            }
        }
        let mut launches = vec![launch(job, instance)];
        if self.is_copied() {
            let copy = Job::new(&format!("{}-copier", self.name()));
            copy.keyed_source(keyed_topic::<str, str>(&self.output()))
                .sink(topic(&self.seen_at()));
            launches.push(launch(copy, instance));
        }
        launches
    }

    pub(super) fn line(self, number: u64) -> String {
        match self.kind {
            Kind::Words => words_of(number).map(|word| format!("w{word}")).join(" "),
            Kind::Transfers => transfers::line(number),
        }
    }

    pub(super) fn reader(self, log: &Log) -> Reader {
        let topic = self.seen_at();
        match (self.kind, self.hands) {
            (Kind::Words, _) => Reader::Words(Words::new(log, &topic)),
            (Kind::Transfers, Hands::One) => {
                Reader::Transfers(Ledger::new(log.transport(), &topic, Sum::Always))
            }
            (Kind::Transfers, Hands::Several) => {
                Reader::Transfers(Ledger::new(log.transport(), &topic, Sum::AtRest))
            }
        }
    }

    /// Compares what somebody else read of the output, by key in order, with the model after so many lines.
    pub(super) fn assert_output(self, seen: &BTreeMap<String, Vec<String>>, lines: u64) {
        match self.kind {
            Kind::Words => {
                let numbers = |count: u64| (1..=count).map(|number| number.to_string()).collect();
                let expected: BTreeMap<String, Vec<String>> = counts_after(lines)
                    .into_iter()
                    .map(|(word, count)| (word, numbers(count)))
                    .collect();
                let differing = expected.keys().chain(seen.keys());
                let differing: BTreeMap<&String, _> = differing
                    .filter(|word| seen.get(*word) != expected.get(*word))
                    .map(|word| {
                        (
                            word,
                            [seen, &expected].map(|side| first_and_last(side, word)),
                        )
                    })
                    .collect();
                assert!(
                    differing.is_empty(),
                    "{} of {} words differ from the model's [length, first, last], seen and expected: {differing:?}",
                    differing.len(),
                    expected.len(),
                );
            }
            Kind::Transfers => {
                let accounts = transfers::accounts_after(lines);
                assert_eq!(seen.len(), accounts.len());
                for (name, account) in &accounts {
                    let changes = &seen[name];
                    assert_eq!(changes.len() as u64, account.transfers, "{name}");
                    let last = changes.last().unwrap();
                    assert_eq!(*last, serde_json::to_string(account).unwrap(), "{name}");
                }
            }
        }
    }
}

fn launch(job: Job, instance: Option<&str>) -> Launch {
    let launch = job
        .exactly_once(Commit::every(Duration::from_millis(50)))
        .workers(2)
        .state_partitions(4)
        .transaction_timeout(TRANSACTION_TIMEOUT);
    match instance {
        Some(name) => launch.scale_out(ScaleOut::instance(name).session_timeout(SESSION_TIMEOUT)),
        None => launch,
    }
}

/// Sums a list of counts up: how many there are, and where they begin and end.
fn first_and_last<'a>(
    counts: &'a BTreeMap<String, Vec<String>>,
    word: &str,
) -> Option<(usize, &'a str, &'a str)> {
    let counts = counts.get(word)?;
    Some((counts.len(), counts.first()?, counts.last()?))
}

fn counts_after(lines: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in (0..lines).flat_map(words_of) {
        *counts.entry(format!("w{word}")).or_default() += 1;
    }
    counts
}

/// Reads the output as anybody would, and checks it record by record.
#[allow(clippy::large_enum_variant, reason = "there is one of it in a test")]
pub(super) enum Reader {
    Words(Words),
    Transfers(Ledger),
}

impl Reader {
    /// Reads what there is; a broker that is away is none of its business.
    pub(super) fn read(&mut self) {
        let read = match self {
            Self::Words(words) => words.read(),
            Self::Transfers(ledger) => ledger.read(),
        };
        match read {
            Err(e) if e.kind() != onceflow::client::ErrorKind::Retriable => panic!("{e}"),
            _ => {}
        }
    }

    pub(super) fn records_seen(&self) -> u64 {
        match self {
            Self::Words(words) => words.seen,
            Self::Transfers(ledger) => ledger.changes_count(),
        }
    }

    pub(super) fn assert_after(&self, lines: u64) {
        match self {
            Self::Words(words) => assert_eq!(words.counts, counts_after(lines)),
            Self::Transfers(ledger) => {
                ledger.assert_after(lines);
                assert!(ledger.cuts_count() > 20, "{}", ledger.cuts_count());
            }
        }
    }
}

/// Each word is counted up from 1 without a gap or a repeat.
pub(super) struct Words {
    consumer: Consumer<str, str>,
    counts: BTreeMap<String, u64>,
    seen: u64,
}

impl Words {
    fn new(log: &Log, topic: &str) -> Self {
        let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
        let mut consumer = Consumer::new(log.transport(), config);
        let topic = TopicName::new(topic).unwrap();
        consumer.assign((0..PARTITIONS).map(|number| TopicPartition::new(topic.clone(), number)));
        Self {
            consumer,
            counts: BTreeMap::new(),
            seen: 0,
        }
    }

    fn read(&mut self) -> Result<(), ClientError> {
        let records = wait(self.consumer.poll(Duration::from_millis(50)))?;
        for record in records.iter() {
            let word = record.key().unwrap().unwrap().into_owned();
            let count: u64 = record.value().unwrap().unwrap().parse().unwrap();
            let known = self.counts.entry(word.clone()).or_default();
            assert_eq!(count, *known + 1, "{word}: a gap or a repeat");
            *known = count;
            self.seen += 1;
        }
        Ok(())
    }
}
