//! Commits, bounds and stops that come in time, however long a record takes (B10).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceflow::client::TransactionState;
use onceflow::client::wait;
use onceflow::prelude::*;

use super::cycles::transactions;
use super::support::{AT_THE_END, Place, committed_values, fill_topic, run, until};

const SLOW: Duration = Duration::from_millis(2);
const INTERVAL: Duration = Duration::from_millis(40);
/// A fetch's answer as a whole.
const RECORDS: u64 = 4_000;

fn fill(log: &Log, partitions: i32) {
    let values: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
    fill_topic(log, "in", partitions, &values);
}

/// Copies numbers, each of which takes `slow`: in the source's chain, or behind a shuffle.
fn copy(slow: Duration, is_shuffled: bool) -> Job {
    let job = Job::new("copy");
    let numbers = job
        .source(topic::<str>("in").until_end())
        .try_map(|value: &str| value.parse::<u64>());
    let work = move |_: &u64| std::thread::sleep(slow);
    match is_shuffled {
        false => numbers.inspect(work).sink(topic("out")),
        true => numbers
            .key_by(|n| *n)
            .partitioned("slow")
            .inspect(work)
            .sink(topic("out")),
    }
    job
}

fn is_committed_and_stopped_within_a_fetch(is_shuffled: bool, workers: usize) {
    let place = Place::new();
    let log = place.log();
    fill(&log, 1);
    let launch = copy(SLOW, is_shuffled).exactly_once(Commit::every(INTERVAL));
    let running = launch.workers(workers).start(&log).unwrap();
    until("it commits often", || running.commits() >= 5);
    let begin = Instant::now();
    let summary = wait(running.stop()).unwrap();
    // All in flight is at most about an interval's work; the rest of the fetch would take eight seconds, or four.
    assert!(begin.elapsed() < Duration::from_secs(2), "{summary:?}");
    assert_eq!(summary.discarded_records, 0);
    assert!(summary.records < RECORDS / 2, "{summary:?}");
    let out: BTreeSet<u64> = committed_values::<u64>(&log, "out").into_iter().collect();
    assert!(
        out.into_iter().eq(0..summary.records),
        "what was read is committed"
    );
    let rest = copy(Duration::ZERO, is_shuffled).exactly_once(Commit::every(INTERVAL));
    let rest = run(rest.workers(workers), &log).unwrap();
    assert_eq!(summary.records + rest.records, RECORDS);
    let mut all = committed_values::<u64>(&log, "out");
    all.sort_unstable();
    assert!(all.into_iter().eq(0..RECORDS), "once each");
}

#[test]
fn x10_a_commit_and_a_stop_come_in_the_middle_of_a_fetch() {
    is_committed_and_stopped_within_a_fetch(false, 1);
}

#[test]
fn x10_a_commit_and_a_stop_come_in_time_where_slow_work_is_behind_a_shuffle() {
    is_committed_and_stopped_within_a_fetch(true, 2);
}

#[test]
fn x10_no_cycle_has_more_records_than_it_may() {
    for (partitions, workers) in [(1, 1), (3, 2)] {
        let place = Place::new();
        let log = place.log();
        fill(&log, partitions);
        let commit = Commit::every(AT_THE_END).or_records(500);
        let launch = copy(Duration::ZERO, false).exactly_once(commit);
        let summary = run(launch.workers(workers), &log).unwrap();
        assert_eq!(summary.records, RECORDS);
        assert!((8..=9).contains(&summary.commits), "{summary:?}");
    }
}

#[test]
fn x10_a_source_that_always_has_more_leaves_records_of_the_cycle_to_the_others() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("two");
    job.source(values("many", 0..u64::MAX)).sink(topic("out"));
    job.source(values("few", 0..10u64)).sink(topic("few"));
    let commit = Commit::every(AT_THE_END).or_records(1);
    let running = job.exactly_once(commit).workers(1).start(&log).unwrap();
    until("both are read", || {
        committed_values::<u64>(&log, "few").len() == 10
    });
    wait(running.stop()).unwrap();
}

#[test]
fn x10_a_commit_interval_beyond_the_transaction_timeout_loses_no_cycle() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("long");
    job.source(values("n", 0..1_000u64))
        .inspect(|_| std::thread::sleep(Duration::from_millis(1)))
        .map(|n: &u64| n.to_string().repeat(10_000))
        .sink(topic("out"));
    let launch = job.exactly_once(Commit::every(AT_THE_END)).workers(1);
    let summary = run(launch.transaction_timeout(Duration::from_millis(900)), &log).unwrap();
    assert_eq!((summary.records, summary.discarded_records), (1_000, 0));
    assert!(summary.commits >= 3, "{summary:?}");
}

#[test]
fn x10_a_record_that_outlives_its_transaction_is_committed_in_a_smaller_cycle() {
    let place = Place::new();
    let log = place.log();
    let timeout = Duration::from_millis(900);
    let log_in = log.clone();
    let job = Job::new("stubborn");
    job.source(values("n", 0..40u64))
        // Outlasts any transaction that is open.
        .inspect(move |n| {
            if *n == 20 {
                until("no transaction is open", || {
                    transactions(&log_in, TransactionState::Ongoing).is_empty()
                });
            }
        })
        // Two of these are appended before the cycle closes, so that its transaction is open.
        .map(|n: &u64| {
            let is_large = (18..=20).contains(n);
            format!("{n} {}", "x".repeat(if is_large { 100_000 } else { 0 }))
        })
        .sink(topic("out").partitions(1));
    let launch = job.exactly_once(Commit::every(AT_THE_END)).workers(1);
    let summary = run(launch.transaction_timeout(timeout), &log).unwrap();
    assert_eq!(summary.records, 40, "{summary:?}");
    assert!(summary.discarded_records > 0, "{summary:?}");
    let out = committed_values::<String>(&log, "out");
    let numbers = out
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert!(numbers.eq(0..40u64), "once each, in order");
}
