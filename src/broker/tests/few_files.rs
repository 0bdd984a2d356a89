//! A process that may have few files open, and a log of many more segments (F14).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{
    Producer, create, create_with, open_simulated, partition, produce, read, read_committed,
    topic_name, try_create, try_produce,
};
use crate::broker::{Broker, BrokerConfig, BrokerError, SyncMode};
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use crate::env::{Env, block_on};
use crate::protocol::ErrorKind;
use crate::protocol::messages::TransactionResult;
use crate::types::{Durability, Isolation};

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

/// Does it again until there is a file handle to spare; whatever is refused before must be worth a retry.
fn insist<T>(world: &SimulatedWorld, mut attempt: impl FnMut() -> Result<T, BrokerError>) -> T {
    attempt().unwrap_or_else(|error| {
        assert_eq!(error.kind(), ErrorKind::Retriable, "{error}");
        assert!(error.message.contains("file handle"), "{error}");
        world.clear_faults();
        attempt().unwrap_or_else(|error| panic!("refused though there is a file handle: {error}"))
    })
}

/// Segments are rolled, compacted and deleted, topics made, grown and deleted.
fn work(world: &SimulatedWorld, broker: &Broker) {
    let filler = "x".repeat(300);
    let mut producer = Producer::new(broker, "p");
    for count in 0..6 {
        let value = format!("{count}{filler}");
        for topic in ["a", "b"] {
            let request = producer.request(&partition(topic, 0), &[&value]);
            insist(world, || block_on(broker.produce(request.clone())));
        }
        insist(world, || producer.try_end(TransactionResult::Commit));
    }
    insist(world, || try_create(broker, "c"));
    insist(world, || broker.create_partitions(&topic_name("c"), 2));
    broker.housekeep();
    insist(world, || broker.delete_topic(&topic_name("c")));
    broker.housekeep();
    world.clear_faults();
    broker.housekeep();
}

#[test]
fn f14_a_missing_file_handle_at_any_call_stops_nothing() {
    for skip in 0.. {
        let world = SimulatedWorld::new(skip);
        let broker = open_simulated(&world);
        create_with(
            &broker,
            "a",
            1,
            &[("segment.bytes", "700"), ("retention.ms", "-1")],
        );
        let compacted = [
            ("segment.bytes", "700"),
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0"),
        ];
        create_with(&broker, "b", 1, &compacted);
        create_with(
            &broker,
            "d",
            1,
            &[("segment.bytes", "700"), ("retention.bytes", "0")],
        );
        for _ in 0..4 {
            produce(&broker, &partition("d", 0), &["x".repeat(300).as_str()]);
        }
        let missing = Fault::new(FaultEffect::TooManyFiles).on(&[Call::Open]);
        world.inject(missing.after(skip).for_ever());
        work(&world, &broker);
        let struck = world.faults_struck();
        let check = |broker: &Broker| {
            let starts = |topic: &str| -> Vec<char> {
                let values = read_committed(broker, topic);
                values.iter().filter_map(|it| it.chars().next()).collect()
            };
            assert_eq!(starts("a"), ['0', '1', '2', '3', '4', '5'], "{skip}");
            assert_eq!(starts("b").last(), Some(&'5'), "{skip}");
            assert!(starts("b").len() < 6, "{skip}: compacted");
            assert_eq!(starts("d").len(), 1, "{skip}: deleted by size");
            assert_eq!(broker.topics().unwrap().len(), 5, "{skip}");
        };
        check(&broker);
        let left = world.env().files.read_dir("/data/log".as_ref()).unwrap();
        assert!(
            !left.iter().any(|it| it.name.ends_with("-delete")),
            "{left:?}"
        );
        drop(broker);
        check(&open_simulated(&world.after_power_loss(PowerLoss::STRICT)));
        if struck == 0 {
            assert!(skip > 40, "the work was over after {skip} files");
            return;
        }
    }
}

#[test]
fn f14_f11_a_flush_that_lacks_a_file_handle_is_tried_again_and_a_failed_one_is_not() {
    for effect in [FaultEffect::TooManyFiles, FaultEffect::InputOutput] {
        let world = SimulatedWorld::new(14);
        let config = BrokerConfig {
            sync_mode: SyncMode::Inline,
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        let broker = Broker::open(world.env(), "/data".as_ref(), config).unwrap();
        create_with(
            &broker,
            "a",
            1,
            &[("segment.bytes", "700"), ("retention.ms", "-1")],
        );
        create(&broker, "b", 1);
        for _ in 0..4 {
            produce(&broker, &partition("a", 0), &["x".repeat(300).as_str()]);
        }
        // The directory's new names are to be synced: first it is opened.
        let call = match effect {
            FaultEffect::TooManyFiles => Call::Open,
            _ => Call::SyncDir,
        };
        world.inject(Fault::new(effect).on(&[call]).in_path("a-0").for_ever());
        broker.core.flush();
        assert!(world.faults_struck() > 0);
        world.clear_faults();
        let synced = || {
            let partition = broker.core.partition(&partition("a", 0)).unwrap();
            partition
                .lock()
                .map(|log| (log.synced_end(), log.log_end_offset()))
        };
        if effect == FaultEffect::InputOutput {
            assert!(try_produce(&broker, &partition("b", 0), &["refused"]).is_err());
            continue;
        }
        produce(&broker, &partition("b", 0), &["goes on"]);
        broker.core.flush();
        let (synced, end) = synced().unwrap();
        assert_eq!(synced, end);
    }
}
