//! A process that may have few files open, and a log of many more segments (F14).

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{create_with, partition, read, topic_name, try_produce};
use crate::broker::{Broker, BrokerConfig};
use crate::env::Env;
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

#[test]
#[ignore = "the child process of the test below"]
fn child() {
    let dir = PathBuf::from(std::env::var(DIRECTORY).expect("run by the test below only"));
    let broker = open(&dir);
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
