//! A process that may have few files open, and a log of many more segments (F14).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{create_with, partition, read, topic_name, try_create, try_produce};
use crate::broker::{Broker, BrokerConfig};
use crate::env::Env;
use crate::protocol::ErrorKind;
use crate::types::Isolation;

/// Where the child works.
const DIRECTORY: &str = "ONCEFLOW_TEST_FEW_FILES";
/// Fewer than the segments of one partition, and than the segment cache would keep if it did not ask.
const FILES_MAX: usize = 48;
const PARTITIONS_COUNT: i32 = 3;
const RECORDS_COUNT: usize = 150;

fn open(dir: &Path) -> Broker {
    Broker::open(Env::real(), &dir.join("data"), BrokerConfig::default()).unwrap()
}

fn check(broker: &Broker) {
    for index in 0..PARTITIONS_COUNT {
        let values = read(broker, &partition("a", index), Isolation::ReadCommitted);
        assert_eq!(values.len(), RECORDS_COUNT);
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(n, value)| value.starts_with(&format!("{n}:")))
        );
    }
    let open_count = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open_count < FILES_MAX, "{open_count} files are open");
}

/// Somebody else takes every file handle that is left: all that needs one is refused, nothing is lost, and as soon
/// as handles are free again all goes on.
fn starve(broker: &Broker, filler: &str) {
    let before = read_count(broker);
    let mut others: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut appended = 0;
    let refused = loop {
        match try_produce(broker, &partition("b", 0), &[filler]) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        // The cache of sealed segments gives its files up first; they are taken, too.
        others.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
    };
    for error in [
        refused,
        try_create(broker, "c").unwrap_err(),
        broker.create_partitions(&topic_name("b"), 2).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Retriable, "{error}");
        assert!(error.message.contains("ulimit"), "{error}");
    }
    broker.housekeep();
    drop(others);
    for _ in 0..3 {
        try_produce(broker, &partition("b", 0), &[filler]).unwrap();
    }
    try_create(broker, "c").unwrap();
    broker.create_partitions(&topic_name("b"), 2).unwrap();
    broker.delete_topic(&topic_name("c")).unwrap();
    broker.housekeep();
    assert_eq!(read_count(broker), before + appended + 3);
}

fn read_count(broker: &Broker) -> usize {
    read(broker, &partition("b", 0), Isolation::ReadCommitted).len()
}

#[test]
#[ignore = "the child process of the test below"]
fn child() {
    let dir = PathBuf::from(std::env::var(DIRECTORY).expect("run by the test below only"));
    let broker = open(&dir);
    create_with(
        &broker,
        "b",
        1,
        &[("segment.bytes", "1000"), ("retention.ms", "-1")],
    );
    let configs = [("segment.bytes", "1000"), ("retention.ms", "-1")];
    create_with(&broker, "a", PARTITIONS_COUNT, &configs);
    let filler = "x".repeat(600);
    for n in 0..RECORDS_COUNT {
        for index in 0..PARTITIONS_COUNT {
            try_produce(&broker, &partition("a", index), &[&format!("{n}:{filler}")]).unwrap();
        }
    }
    check(&broker);
    broker.housekeep();
    starve(&broker, &filler);
    check(&broker);
    // As after a crash, and then in order.
    drop(broker);
    let broker = open(&dir);
    check(&broker);
    broker.close().unwrap();
    drop(broker);
    let broker = open(&dir);
    check(&broker);
    assert_eq!(
        broker.describe_partitions(&topic_name("a")).unwrap().len(),
        3
    );
    broker.close().unwrap();
}

#[test]
fn f14_a_process_with_few_file_handles_keeps_a_log_of_many_more_segments() {
    let dir = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -n {FILES_MAX} && exec \"$0\" \"$@\""),
    ]);
    command.arg(this);
    command.args(["--ignored", "--exact", "broker::tests::few_files::child"]);
    command.env(DIRECTORY, dir.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    let segments = std::fs::read_dir(dir.path().join("data/log/a-0")).unwrap();
    let is_segment = |name: &str| name.ends_with(".log");
    let count =
        segments.filter(|it| is_segment(&it.as_ref().unwrap().file_name().to_string_lossy()));
    assert!(count.count() > 2 * FILES_MAX);
}
