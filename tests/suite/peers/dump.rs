//! Kafka's own dump tool reads the files of our data directory and finds them whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onceflow::client::producer::ProducerConfig;
use onceflow::client::{Producer, ProducerRecord, wait};
use onceflow::internals::protocol::messages::{CommittedOffset, GroupMember, OffsetCommitRequest};
use onceflow::prelude::*;
use onceflow::types::{GroupId, Offset, TopicName, TopicPartition};

use crate::support::peers;

/// Every codec has a topic of its own, with committed and aborted transactions.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Transactions a topic; every third is aborted.
const TRANSACTIONS: usize = 12;

/// Records a transaction.
const RECORDS: usize = 150;

/// A data directory that a broker of ours wrote and closed.
struct Written {
    directory: tempfile::TempDir,
}

impl Written {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::embedded(directory.path()).unwrap();
        for codec in CODECS {
            write_topic(&log, codec);
        }
        commit_offsets(&log);
        log.close().unwrap();
        Self { directory }
    }

    /// The files of a partition with one of these suffixes, in order.
    fn files(&self, partition: &str, suffix: &str) -> Vec<PathBuf> {
        let folder = self.directory.path().join("log").join(partition);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|own| own == suffix))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{partition} has no .{suffix}");
        files
    }
}

fn write_topic(log: &Log, codec: &str) {
    let topic = TopicName::new(codec).unwrap();
    let configs = [("segment.bytes", "65536"), ("index.interval.bytes", "1024")];
    let configs: BTreeMap<String, String> = configs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    wait(log.admin().create_topic_with(&topic, 1, configs)).unwrap();
    let id = format!("writer-{codec}");
    let settings = [
        ("transactional.id", id.as_str()),
        ("compression.type", codec),
        ("batch.size", "2048"),
    ];
    let config = ProducerConfig::from_map(&settings).unwrap();
    let producer: Producer<str, str> = Producer::new(log.transport(), config).unwrap();
    wait(producer.init_transactions()).unwrap();
    for transaction in 0..TRANSACTIONS {
        producer.begin_transaction().unwrap();
        for record in 0..RECORDS {
            let (key, value) = (format!("k{record}"), value(transaction, record));
            let record = ProducerRecord::new(&topic)
                .key(key.as_str())
                .value(value.as_str());
            drop(wait(producer.send(record.header("h", b"of a record"))).unwrap());
        }
        send_offsets(&producer, &topic, transaction);
        let _ = if is_aborted(transaction) {
            wait(producer.abort_transaction()).unwrap()
        } else {
            wait(producer.commit_transaction()).unwrap()
        };
    }
    wait(producer.close()).unwrap();
    write_end(log, &topic);
}

/// One record of an idempotent producer without transactions, so that the last snapshot holds a producer's batch.
fn write_end(log: &Log, topic: &TopicName) {
    let config = ProducerConfig::default();
    let producer: Producer<str, str> = Producer::new(log.transport(), config).unwrap();
    drop(wait(producer.send(ProducerRecord::new(topic).value("end"))).unwrap());
    wait(producer.close()).unwrap();
}

fn value(transaction: usize, record: usize) -> String {
    format!("t{transaction}-r{record}-of-some-length-to-fill-a-batch")
}

fn is_aborted(transaction: usize) -> bool {
    transaction % 3 == 2
}

fn position(transaction: usize) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(i64::try_from(transaction).unwrap()),
        leader_epoch: -1,
        metadata: "in a transaction".to_owned(),
    }
}

fn send_offsets(producer: &Producer<str, str>, topic: &TopicName, transaction: usize) {
    let offsets = vec![(TopicPartition::new(topic.clone(), 0), position(transaction))];
    let group = GroupId::new("readers").unwrap();
    wait(producer.send_offsets(group, GroupMember::default(), offsets)).unwrap();
}

/// A position outside any transaction.
fn commit_offsets(log: &Log) {
    let request = OffsetCommitRequest {
        group: GroupId::new("plain").unwrap(),
        member: GroupMember::default(),
        offsets: vec![(
            TopicPartition::new(TopicName::new("none").unwrap(), 0),
            position(77),
        )],
    };
    wait(log.transport().offset_commit(request)).unwrap();
}

/// Prints these files by Kafka's tool, which must not complain.
fn dump(files: &[PathBuf], options: &[&str]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let mut java = peers::java();
    java.arg("kafka.tools.DumpLogSegments")
        .args(options)
        .args(["--files", &files.join(",")]);
    let output = java.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{complaints}\n{text}"
    );
    for complaint in ["isvalid: false", "Found", "ismatch", "orrupt"] {
        assert!(!text.contains(complaint), "{complaint:?} in\n{text}");
    }
    text
}

/// The value behind `name: ` in a line of the tool.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split(&format!("{name}: ")).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {name} in {line:?}"));
    rest.split(' ').next().unwrap_or_default()
}

fn number(line: &str, name: &str) -> i64 {
    field(line, name).parse().unwrap()
}

/// A partition's log as the tool shows it.
#[derive(Default)]
struct Dumped {
    /// Each record's offset and value.
    records: Vec<(i64, String)>,
    /// Each marker's offset and kind.
    markers: Vec<(i64, String)>,
    /// Each batch's place in its file, and its last offset.
    batches: Vec<(i64, i64)>,
}

impl Dumped {
    fn parse(text: &str, codec: &str) -> Self {
        let mut dumped = Self::default();
        for line in text.lines() {
            if line.starts_with("baseOffset") {
                let batch = (number(line, "position"), number(line, "lastOffset"));
                dumped.batches.push(batch);
                let is_control = field(line, "isControl") == "true";
                let expected = if is_control { "none" } else { codec };
                let is_end = field(line, "isTransactional") == "false";
                assert!(is_end || field(line, "compresscodec") == expected);
            } else if line.contains("endTxnMarker") {
                let kind = field(line, "endTxnMarker").to_owned();
                dumped.markers.push((number(line, "offset"), kind));
            } else if line.contains("payload") {
                let value = field(line, "payload").to_owned();
                dumped.records.push((number(line, "offset"), value));
            }
        }
        dumped
    }

    /// Every transaction is there in order, with its marker: whole if committed, and what was sent of it if aborted.
    fn check(&self) {
        let mut next = 0;
        let mut records = self.records.iter();
        let mut record = records.next();
        assert_eq!(self.markers.len(), TRANSACTIONS);
        for (transaction, (marker, kind)) in self.markers.iter().enumerate() {
            let is_aborted = is_aborted(transaction);
            assert_eq!(kind, if is_aborted { "ABORT" } else { "COMMIT" });
            let mut count = 0;
            while let Some((offset, seen)) = record.filter(|(offset, _)| offset < marker) {
                assert_eq!((*offset, seen), (next, &value(transaction, count)));
                (next, count) = (next + 1, count + 1);
                record = records.next();
            }
            assert!(is_aborted || count == RECORDS, "{transaction} has {count}");
            assert_eq!(*marker, next);
            next += 1;
        }
        assert_eq!(record, Some(&(next, "end".to_owned())));
        assert_eq!(records.next(), None);
    }

    /// The last snapshot: no transaction is open, and the last record is known as its producer's last batch.
    fn check_snapshot(&self, text: &str) {
        let producers: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("producerId: "))
            .collect();
        let is_closed = |line: &&str| line.contains("currentTxnFirstOffset: OptionalLong.empty");
        assert!(producers.iter().all(is_closed), "{text}");
        let batches: Vec<(i64, i64)> = producers
            .into_iter()
            .filter(|line| line.contains("firstSequence"))
            .map(|line| (number(line, "lastSequence"), number(line, "lastOffset")))
            .collect();
        let end = self.records.last().map(|(offset, _)| (0, *offset));
        assert_eq!(batches.last().copied(), end, "{text}");
    }

    /// The first and last offsets of aborted transactions, as the index of them has it.
    fn aborted(&self) -> Vec<(i64, i64)> {
        let starts = std::iter::once(0).chain(self.markers.iter().map(|(marker, _)| marker + 1));
        let aborted = starts
            .zip(&self.markers)
            .filter(|(_, (_, kind))| kind == "ABORT");
        aborted
            .map(|(start, (marker, _))| (start, *marker))
            .collect()
    }
}

#[test]
fn kafkas_dump_tool_reads_every_segment_and_its_indexes() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let written = Written::new();
    for codec in CODECS {
        let partition = format!("{codec}-0");
        let files = |suffix: &str| written.files(&partition, suffix);
        let text = dump(&files("log"), &["--print-data-log"]);
        let dumped = Dumped::parse(&text, codec);
        dumped.check();
        // For the indexes, the tool itself compares each entry with the log; without entries it would have nothing to do.
        let indexes = [
            files("index"),
            files("timeindex"),
            files("txnindex"),
            files("snapshot"),
        ];
        let text = dump(&indexes.concat(), &[]);
        let entries = |start: &str| {
            text.lines()
                .filter(|line| line.starts_with(start))
                .collect::<Vec<_>>()
        };
        for entry in entries("offset: ") {
            let entry = (number(entry, "position"), number(entry, "offset"));
            assert!(dumped.batches.contains(&entry), "{entry:?} in\n{text}");
        }
        assert!(entries("offset: ").len() > 10, "{text}");
        assert!(entries("timestamp: ").len() > 10, "{text}");
        let aborted: Vec<(i64, i64)> = entries("version: ")
            .into_iter()
            .map(|entry| (number(entry, "firstOffset"), number(entry, "lastOffset")))
            .collect();
        assert_eq!(aborted, dumped.aborted());
        dumped.check_snapshot(text.rsplit("Dumping ").next().unwrap_or_default());
    }
}

#[test]
fn kafkas_dump_tool_decodes_both_journals() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let written = Written::new();
    let journal = written.files("__transaction_state-0", "log");
    let text = dump(&journal, &["--transaction-log-decoder"]);
    for codec in CODECS {
        let own = format!("\"transactionalId\":\"writer-{codec}\"");
        let statuses: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(&own))
            .filter_map(|line| {
                line.split("\"transactionStatus\":")
                    .nth(1)?
                    .split(',')
                    .next()
            })
            .collect();
        let count = |status: &str| statuses.iter().filter(|own| **own == status).count();
        let aborted = (0..TRANSACTIONS).filter(|index| is_aborted(*index)).count();
        // Prepared and completed commits, then aborts, by Kafka's numbers.
        assert_eq!(
            [count("2"), count("4")],
            [TRANSACTIONS - aborted; 2],
            "{text}"
        );
        assert_eq!([count("3"), count("5")], [aborted; 2], "{text}");
    }
    let journal = written.files("__consumer_offsets-0", "log");
    let text = dump(&journal, &["--offsets-decoder"]);
    let of_group = |group: &str| {
        let own = format!("\"group\":\"{group}\"");
        text.lines().filter(|line| line.contains(&own)).count()
    };
    assert_eq!(of_group("readers"), CODECS.len() * TRANSACTIONS, "{text}");
    assert_eq!(of_group("plain"), 1, "{text}");
    assert!(text.contains("\"data\":{\"offset\":77,"), "{text}");
    assert_eq!(text.matches("endTxnMarker: ABORT").count(), 20, "{text}");
}
