//! A job with windows in a process that is killed again and again: every window is right and closed once, nothing is late.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onceflow::broker::BrokerConfig;
use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::Durability;

use super::support::{Click, clicks_per_window, feed, late, ms, results, topic_of_clicks};

/// Tells the child where its data is, how many workers it has, and whether it goes on after the end of its input.
const VARIABLE: &str = "ONCEFLOW_CLICKS_CHILD";
/// The signal of `kill -9`.
const SIGKILL: i32 = 9;
pub(super) const PARTITIONS: i32 = 4;
pub(super) const MINUTE: u64 = 60_000;
/// Most disorder of clicks of a partition.
pub(super) const DISORDER: u64 = 30_000;

pub(crate) fn open(data: &Path) -> Log {
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    Log::embedded_with(data, config).unwrap()
}

/// The child's entry: the tests of this module run it in a process of its own.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn counts_clicks_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let windows = FixedWindows::tumbling(ms(MINUTE));
    let watermarks = Watermarks::out_of_order(ms(DISORDER));
    let job = clicks_per_window(windows, watermarks, is_endless == "true");
    let log = open(Path::new(data));
    let launch = job.exactly_once(Commit::every(ms(20))).state_partitions(8);
    let running = launch
        .workers(workers.parse().unwrap())
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

/// A process that is killed when the test fails.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Whether it ends by itself, at the failpoint that it was given.
    pub(crate) fn is_killed_within(&mut self, patience: Duration) -> bool {
        let begin = Instant::now();
        let mut is_alive = true;
        while is_alive && begin.elapsed() < patience {
            is_alive = self.0.try_wait().unwrap().is_none();
            std::thread::sleep(ms(5));
        }
        !is_alive
    }

    /// Waits for its end: whether it was killed at the failpoint that it was given, which else it did not meet.
    pub(crate) fn is_killed_at_its_failpoint(&mut self) -> bool {
        assert!(self.is_killed_within(ms(120_000)), "it hangs");
        let status = self.0.wait().unwrap();
        match status.signal() {
            Some(signal) => {
                assert_eq!(signal, SIGKILL);
                true
            }
            None => {
                assert!(status.success(), "{status}");
                false
            }
        }
    }
}

/// The work of a process that is to be killed at a failpoint: without an end to its input it stops in order some commits after it has
/// caught up, since it does not meet the failpoint then.
pub(crate) fn run_until_killed(launch: Launch, log: &Log, is_endless: bool) {
    let running = launch.start(log).unwrap();
    if is_endless {
        wait(running.caught_up()).unwrap();
        std::thread::sleep(ms(200));
        wait(running.stop()).unwrap();
    } else {
        wait(running.finished()).unwrap();
    }
    log.close().unwrap();
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(data: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    let test = "time::killed::counts_clicks_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

/// Runs one test of this binary, which finds its plan in a variable, in a process of its own.
pub(crate) fn start_child(test: &str, plan: (&str, &str), failpoint: &str) -> Process {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(plan.0, plan.1)
        .env(failpoint::VARIABLE, failpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// Clicks of each partition, out of order within the bound; the partitions are minutes apart, and each goes on where it was.
#[derive(Clone)]
pub(super) struct Clicks {
    state: u64,
    newest: Vec<i64>,
    /// The newest click of each partition.
    pub(super) newest_fed: Vec<i64>,
    pub(super) all: Vec<Click>,
}

impl Clicks {
    pub(super) fn new() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            newest: (0..i64::from(PARTITIONS))
                .map(|number| number * 7 * 60_000)
                .collect(),
            newest_fed: vec![i64::MIN; usize::try_from(PARTITIONS).unwrap()],
            all: Vec::new(),
        }
    }

    pub(super) fn next(&mut self, below: u64) -> i64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.state >> 33) % below).cast_signed()
    }

    pub(super) fn feed(&mut self, log: &Log, count_each: usize) {
        for number in 0..PARTITIONS {
            let mut clicks = Vec::new();
            for _ in 0..count_each {
                let on = self.next(300);
                let behind = self.next(DISORDER + 1);
                let user = format!("user-{}", self.next(50));
                let newest = &mut self.newest[usize::try_from(number).unwrap()];
                *newest += on;
                let time = *newest - behind;
                let newest_fed = &mut self.newest_fed[usize::try_from(number).unwrap()];
                *newest_fed = time.max(*newest_fed);
                clicks.push((user, time));
            }
            clicks
                .chunks(1_000)
                .for_each(|chunk| feed(log, "in", number, chunk));
            self.all.extend(clicks);
        }
    }

    /// A time behind all windows of all clicks.
    pub(super) fn end(&self) -> i64 {
        self.newest.iter().max().unwrap() + 10 * MINUTE.cast_signed()
    }

    /// The windows of all clicks, by the definition.
    pub(super) fn windows(&self) -> BTreeMap<(String, i64, i64), u64> {
        let minute = MINUTE.cast_signed();
        let mut windows = BTreeMap::new();
        for (user, time) in &self.all {
            let start = time.div_euclid(minute) * minute;
            *windows
                .entry((user.clone(), start, start + minute))
                .or_default() += 1;
        }
        windows
    }
}

/// The rest is processed to its end, and compared with the definition.
fn finish(data: &Path, clicks: &Clicks) {
    let mut last = start(data, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    let log = open(data);
    let (found, expected) = (results(&log), clicks.windows());
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "windows are wrong");
    assert_eq!(late(&log), []);
    log.close().unwrap();
}

/// Every window that is out already is right, and came once.
fn check(log: &Log, clicks: &Clicks) -> usize {
    let (found, expected) = (results(log), clicks.windows());
    for (window, count) in &found {
        assert_eq!(expected.get(window), Some(count), "{window:?}");
    }
    found.len()
}

#[test]
fn t1_t8_w12_w17_windows_of_unaligned_partitions_are_right_and_closed_after_five_kills() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut clicks = Clicks::new();
    let log = open(&data);
    topic_of_clicks(&log, "in", PARTITIONS);
    clicks.feed(&log, 50_000);
    log.close().unwrap();
    let mut is_out = 0;
    for kill in 0..5 {
        let process = start(&data, 1 + kill % 3, true, "");
        let wait_for = ms(700 + clicks.next(1_500).unsigned_abs());
        std::thread::sleep(wait_for);
        drop(process);
        let log = open(&data);
        is_out = check(&log, &clicks);
        log.close().unwrap();
    }
    assert!(is_out > 0, "five lives closed no window");
    finish(&data, &clicks);
}

#[test]
fn c2_c5_c6_c7_t8_w15_windows_are_right_after_a_kill_at_every_failpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut clicks = Clicks::new();
    let log = open(&data);
    topic_of_clicks(&log, "in", PARTITIONS);
    log.close().unwrap();
    let mut killed = 0;
    for (life, name) in failpoint::NAMES.iter().enumerate() {
        let log = open(&data);
        check(&log, &clicks);
        clicks.feed(&log, 400);
        log.close().unwrap();
        let mut process = start(&data, 1 + life % 3, true, &format!("{name}=kill"));
        killed += usize::from(process.is_killed_within(Duration::from_millis(600)));
    }
    assert!(killed >= 20, "only {killed} failpoints were met");
    finish(&data, &clicks);
}
