//! In its steady state a job allocates nothing per record: an allocator counts what jobs over twice as many records ask for.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails here has found something"
)]

use std::alloc::System;
use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::wait;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::types::{Durability, Timestamp, TopicName, TopicPartition};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: u32 = 200_000;
/// Batches, fetches and commits allocate, so that there is a little for each record; less than this, or it is the record that does.
const PER_RECORD_MAX: f64 = 0.05;

/// Lines of a user and a time, of 200 users, in two partitions.
fn fill(log: &Log, count: u32) {
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().create_topic(&topic, 2)).unwrap();
    for (number, start) in (0i32..).zip((0..count).step_by(1_000)) {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for n in start..start + 1_000 {
            let line = format!("user-{:03} {n}", n * 7 % 200);
            builder.push(Timestamp(i64::from(n)), None, Some(line.as_bytes()));
        }
        let request = ProduceRequest {
            partition: TopicPartition::new(topic.clone(), number % 2),
            records: builder.finish(BatchProducer::Plain).freeze().into(),
            acks: Acks::Leader,
            transactional_id: None,
        };
        wait(log.transport().produce(request)).unwrap();
    }
}

/// Counts the allocations of a job over so many records.
fn allocations(build: &impl Fn(&Job), count: u32) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    let log = Log::embedded_with(folder.path().join("data"), config).unwrap();
    fill(&log, count);
    let job = Job::new("counted");
    build(&job);
    let commit = Commit::every(Duration::from_secs(10)).or_records(50_000);
    let launch = job.exactly_once(commit).workers(2);
    let region = Region::new(ALLOCATOR);
    let running = launch.start(&log).unwrap();
    assert_eq!(wait(running.finished()).unwrap().records, u64::from(count));
    let change = region.change();
    log.close().unwrap();
    change.allocations + change.reallocations
}

fn assert_lean(name: &str, build: impl Fn(&Job)) {
    // The first run starts what a process has once.
    allocations(&build, RECORDS / 10);
    let once = allocations(&build, RECORDS);
    let twice = allocations(&build, 2 * RECORDS);
    let more = twice.saturating_sub(once);
    let per_record = f64::from(u32::try_from(more).unwrap()) / f64::from(RECORDS);
    println!("{name}: {once} and {twice}, {per_record:.4} a record");
    assert!(
        per_record < PER_RECORD_MAX,
        "{name} allocates {per_record:.4} times a record"
    );
}

fn user(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(user, _)| user)
}

/// One test: another one beside it would be counted, too.
#[test]
fn jobs_allocate_nothing_per_record() {
    assert_lean("a job without state", |job| {
        let lines = job.source(topic::<str>("in").until_end());
        lines
            .filter(|line: &str| !line.ends_with('3'))
            .sink(topic("out"));
    });
    assert_lean("a count", |job| {
        let lines = job.source(topic::<str>("in").until_end());
        let counts = lines.key_by_ref(user).count("counts");
        counts.changes().sink(topic("out"));
    });
    assert_lean("a lookup in a table", |job| {
        let lines = job.source(topic::<str>("in").until_end());
        let (counted, lines) = lines.key_by_ref(user).map(|line: &str| line.len()).tee();
        let counts = counted.count("counts");
        lines
            .left_join_table("lookup", counts, |length, count| (*length, count.copied()))
            .sink(topic("out"));
    });
    assert_lean("a count in windows", |job| {
        let lines = job.source(topic::<str>("in").until_end());
        let day = Duration::from_secs(24 * 60 * 60);
        lines
            .event_time(
                |line: &str| {
                    line.rsplit_once(' ')
                        .map_or(0, |(_, time)| time.parse().unwrap())
                },
                Watermarks::out_of_order(Duration::from_secs(3_600)),
            )
            .key_by_ref(user)
            .window(FixedWindows::tumbling(day))
            .count("per-day")
            .sink(topic("out"));
    });
}
