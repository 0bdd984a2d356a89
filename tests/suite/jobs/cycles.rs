//! When cycles close, and what happens to those that cannot be committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use onceflow::client::wait;
use onceflow::internals::env::{Clock, Env, Instant};
use onceflow::internals::protocol::messages::{TransactionDescription, TransactionState};
use onceflow::prelude::*;
use onceflow::types::Timestamp;

use super::support::{
    AT_THE_END, OFTEN, Place, assert_counted, committed, committed_values, plain_count, run, text,
    until, word_count, words,
};

#[test]
fn a_cycle_closes_after_so_many_records() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("records");
    job.source(values("n", 0..20_000u64)).sink(topic("out"));
    let commit = Commit::every(AT_THE_END).or_records(2_000);
    let summary = run(job.exactly_once(commit).workers(1), &log).unwrap();
    assert!((10..=11).contains(&summary.commits), "{summary:?}");
    assert_eq!(committed(&log, "out").len(), 20_000);
}

#[test]
fn a_cycle_closes_after_so_much_state() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("state");
    job.source(values("n", 0..40_000u64))
        .key_by(|n| *n)
        .count("counts")
        .materialize();
    let commit = Commit::every(AT_THE_END).or_state_bytes(256 << 10);
    let summary = run(job.exactly_once(commit).workers(1), &log).unwrap();
    assert!(summary.commits >= 3, "{summary:?}");
}

/// A wall clock that jumps an hour back or a day ahead at every look.
struct Jumping {
    real: Arc<dyn Clock>,
    looks: AtomicI64,
}

impl Clock for Jumping {
    fn now(&self) -> Instant {
        self.real.now()
    }

    fn wall(&self) -> Timestamp {
        const HOUR_MS: i64 = 3_600_000;
        let jump = match self.looks.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => 0,
            1 => -HOUR_MS,
            _ => 24 * HOUR_MS,
        };
        Timestamp(self.real.wall().0 + jump)
    }

    fn sleep(&self, duration: Duration) {
        self.real.sleep(duration);
    }
}

#[test]
fn c24_a_wall_clock_that_jumps_disturbs_no_commit() {
    let place = Place::new();
    let all = text(21, 2_000);
    let path = place.file("book", &all);
    for end in [all.len() / 2, all.len()] {
        let end = all[..end].rfind('\n').unwrap() + 1;
        place.file("book", &all[..end]);
        let real = Env::real();
        let clock = Arc::new(Jumping {
            real: Arc::clone(&real.clock),
            looks: AtomicI64::new(0),
        });
        let log = place.log_in(Env { clock, ..real });
        let job = word_count(lines([&path])).exactly_once(Commit::every(OFTEN));
        run(job, &log).unwrap();
        assert_counted(&log, &plain_count([&all[..end]]));
        log.close().unwrap();
    }
}

/// Runs word count over one long cycle, in the middle of which `abort` sees to it that its transaction is aborted, once.
fn is_done_again_after(timeout: Duration, abort: impl Fn(&Log) + Send + Sync + 'static) {
    let place = Place::new();
    let all = format!("pad\npad\n{}stop here\n{}", text(1, 300), text(2, 3000));
    let path = place.file("book", &all);
    let log = place.log();
    let armed = Arc::new(AtomicBool::new(true));
    let (once, log_in, abort) = (Arc::clone(&armed), log.clone(), Arc::new(abort));
    let job = Job::new("word-count");
    let (pads, texts) = job.source(lines([&path])).tee();
    // The second pad does not fit beside the first, which is appended: so the transaction is open before the abort.
    pads.filter(|line| line == "pad")
        .map(|_: &str| "x".repeat(500_000))
        .sink(topic("pads"));
    texts
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .aggregate(
            "counts",
            || 0u64,
            move |count, word: &str| {
                *count += 1;
                if word == "stop" && once.swap(false, Ordering::Relaxed) {
                    abort(&log_in);
                }
            },
        )
        .changes()
        .sink(topic("word-counts"));
    let launch = job.exactly_once(Commit::every(AT_THE_END)).workers(2);
    run(launch.transaction_timeout(timeout), &log).unwrap();
    assert!(!armed.load(Ordering::Relaxed), "it was aborted");
    assert_counted(&log, &plain_count([all.as_str()]));
    assert_eq!(committed(&log, "pads").len(), 2);
}

pub(super) fn transactions(log: &Log, state: TransactionState) -> Vec<TransactionDescription> {
    let mut all = wait(log.admin().list_transactions()).unwrap();
    all.retain(|transaction| transaction.state == state);
    all
}

#[test]
fn c22_a_cycle_that_outlives_its_transaction_is_done_again() {
    is_done_again_after(Duration::from_secs(3), |log| {
        until("the coordinator loses its patience", || {
            !transactions(log, TransactionState::CompleteAbort).is_empty()
        });
    });
}

#[test]
fn a_cycle_that_an_operator_aborts_is_done_again() {
    is_done_again_after(Duration::from_secs(60), |log| {
        let open = transactions(log, TransactionState::Ongoing);
        wait(log.admin().abort_transaction(&open[0].transactional_id)).unwrap();
    });
}

#[test]
fn s17_a_second_job_in_the_chain_never_sees_what_the_first_aborts() {
    let place = Place::new();
    let log = place.log();
    let all: String = (0..6_000).map(|n| format!("{n}\n")).collect();
    let path = place.file("in", &all);
    let second = Job::new("second");
    second
        .source(topic::<u64>("between"))
        .key_by(|n| n % 10)
        .count("counts")
        .changes()
        .sink(topic("out"));
    let second = second
        .exactly_once(Commit::every(OFTEN))
        .start(&log)
        .unwrap();
    // The first fails in the middle of a cycle again and again, each time a little later.
    let attempts = Arc::new(AtomicU64::new(0));
    for attempt in 1..=6u64 {
        attempts.store(attempt, Ordering::Relaxed);
        let limit = attempt * 1_000;
        let first = Job::new("first");
        first
            .source(lines([&path]))
            .try_map(|line: &str| line.parse::<u64>())
            .inspect(move |n| assert!(*n + 1 < limit || limit == 6_000, "fails on purpose"))
            .sink(topic("between").partitions(2));
        let commit = Commit::every(OFTEN).or_records(100);
        let result = run(first.exactly_once(commit), &log);
        assert_eq!(result.is_ok(), limit == 6_000);
    }
    until("the second job has it all", || {
        committed(&log, "out").len() >= 6_000
    });
    wait(second.stop()).unwrap();
    let mut between = committed_values::<u64>(&log, "between");
    between.sort_unstable();
    assert_eq!(between, (0..6_000).collect::<Vec<_>>());
    let counts = super::support::committed_by_key::<u64, u64>(&log, "out");
    let expected = (0..10u64).map(|key| (key, (1..=600u64).collect::<Vec<_>>()));
    assert_eq!(counts, expected.collect());
}

#[test]
fn s13_a_slow_sink_holds_back_the_source() {
    const LINE_BYTES: usize = 64 << 10;
    const LINES: usize = 2_000;
    let place = Place::new();
    let line = format!("{}\n", "x".repeat(LINE_BYTES - 1));
    let path = place.file("in", line.repeat(LINES));
    let log = place.log();
    let in_flight = Arc::new(AtomicUsize::new(0));
    let (most, read, done) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::clone(&in_flight),
        Arc::clone(&in_flight),
    );
    let peak = Arc::clone(&most);
    let job = Job::new("slow");
    job.source(lines([&path]))
        .inspect(move |_| {
            peak.fetch_max(read.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        })
        .key_by(|_: &str| 0u64)
        .partitioned("slow")
        .sink(at_least_once(move |_: Record<'_, u64, str>| {
            std::thread::yield_now();
            let begin = std::time::Instant::now();
            while begin.elapsed() < Duration::from_micros(200) {
                std::hint::spin_loop();
            }
            done.fetch_sub(1, Ordering::Relaxed);
        }));
    run(job.exactly_once(Commit::every(AT_THE_END)).workers(2), &log).unwrap();
    assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    // The inbox holds 16 MiB; beyond it, at most a batch of the source and one of the shuffle.
    let most_bytes = most.load(Ordering::Relaxed) * LINE_BYTES;
    assert!(most_bytes < 24 << 20, "{most_bytes} bytes were in flight");
}
