//! Windows that slide, windows by number, early results, sketches and state that expires, in a process that is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Job;

use super::by_count;
use super::killed::{Process, open, start_child};
use super::model::{Kind, counted};
use super::sliding::sliding;
use super::support::{Click, PerWindow, feed, ms, parse, results_of, topic_of_clicks};
use super::ttl;
use super::updates::table_of;
use crate::jobs::support::committed_by_key;

const VARIABLE: &str = "ONCEFLOW_KINDS_CHILD";
const CHILD: &str = "time::killed_kinds::computes_windows_of_all_kinds_until_it_is_killed";
/// Most disorder of clicks.
pub(super) const DISORDER: i64 = 20;
const DIFFERENCE: i64 = 15;
const TUMBLING: Kind = (50, 50, false, 0, 0);
const NUMBERS: (u32, u32) = (4, 2);
pub(super) const LIFETIME: i64 = 60;
/// The user whose clicks, far behind all others, close what is open.
pub(super) const END: &str = "end";

fn about(click: &Click) -> i64 {
    click.1 % 7
}

fn job(is_endless: bool) -> Job {
    let job = Job::new("kinds");
    compute_all_kinds(&job, is_endless);
    job
}

/// Windows of all these kinds over the clicks of the topic `in`.
pub(super) fn compute_all_kinds(job: &Job, is_endless: bool) {
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let clicks = job
        .source(clicks)
        .try_map(parse)
        .event_time(
            |(_, time)| *time,
            Watermarks::out_of_order(ms(DISORDER.unsigned_abs())),
        )
        .key_by(|(user, _): &Click| user.clone());
    let (slide, clicks) = clicks.tee();
    let (number, clicks) = clicks.tee();
    let (early, clicks) = clicks.tee();
    let (sketch, expire) = clicks.tee();
    slide
        .window(SlidingWindows::difference(ms(DIFFERENCE.unsigned_abs())))
        .count("sliding")
        .sink(topic("sliding"));
    by_count::times(number.map(|(_, time)| *time), NUMBERS, "by-number").sink(topic("by-number"));
    let tumbling = || FixedWindows::tumbling(ms(TUMBLING.0));
    early
        .window(tumbling())
        .early(Every::event_time(ms(10)))
        .count("tumbling")
        .sink(topic::<u64>("early").as_option());
    sketch
        .window(tumbling())
        .approx_distinct("sketched", 8, about)
        .sink(topic("about"));
    expire
        .ttl(Ttl::event_time(ms(LIFETIME.unsigned_abs())))
        .stateful("expiring", ttl::count)
        .sink(topic("expiring"));
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn computes_windows_of_all_kinds_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let job = job(is_endless == "true");
    let launch = job.exactly_once(Commit::every(ms(20))).state_partitions(8);
    let running = launch
        .workers(workers.parse().unwrap())
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

fn start(data: &Path, workers: usize, is_endless: bool) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    start_child(CHILD, (VARIABLE, &plan), "")
}

/// Clicks of forty users, out of order within the bound.
fn clicks(count: usize) -> Vec<Click> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % below).cast_signed()
    };
    let mut newest = -500;
    let mut clicks = Vec::new();
    for _ in 0..count {
        newest += next(2);
        let behind = next(DISORDER.unsigned_abs() + 1);
        clicks.push((format!("user-{}", next(40)), newest - behind));
    }
    clicks
}

/// Those of the users that the input is about.
fn without_end<T: Datum<Owned = T>>(log: &Log, topic: &str) -> PerWindow<T> {
    let mut results = results_of(log, topic);
    results.retain(|(user, _, _), _| user != END);
    results
}

fn check(log: &Log, clicks: &[Click]) {
    check_windows(log, clicks);
    let counts = ttl::by_hand(LIFETIME, DISORDER, clicks);
    assert!(
        committed_by_key::<String, u64>(log, "expiring") == counts,
        "state that expires"
    );
}

/// Counts the clicks' windows that slide, windows by number, and windows that have sketches.
pub(super) fn windows_count(clicks: &[Click]) -> [usize; 3] {
    let by_number = by_count::windows(NUMBERS, clicks);
    [
        sliding(DIFFERENCE, clicks.iter().cloned()).len(),
        by_number.values().map(Vec::len).sum(),
        counted(TUMBLING, clicks.iter().cloned()).len(),
    ]
}

pub(super) fn check_windows(log: &Log, clicks: &[Click]) {
    let all = || clicks.iter().cloned();
    let counts = sliding(DIFFERENCE, all()).into_iter();
    let counts: BTreeMap<_, u64> = counts.map(|(at, it)| (at, it.len() as u64)).collect();
    assert!(without_end(log, "sliding") == counts, "sliding windows");
    let mut found = committed_by_key::<String, Vec<i64>>(log, "by-number");
    found.remove(END);
    assert!(found == by_count::windows(NUMBERS, clicks), "by number");
    let mut early = table_of(log, "early");
    early.retain(|(user, _, _), _| user != END);
    assert!(early == counted(TUMBLING, all()), "early results");
    let mut different = BTreeMap::<_, BTreeSet<i64>>::new();
    for click in clicks {
        for (window, _) in counted(TUMBLING, std::iter::once(click.clone())) {
            different.entry(window).or_default().insert(about(click));
        }
    }
    let different = different.into_iter().map(|(at, it)| (at, it.len() as u64));
    assert!(
        without_end(log, "about") == different.collect(),
        "sketches of few"
    );
}

#[test]
fn a8_w11_w14_all_kinds_of_windows_are_right_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let clicks = clicks(12_000);
    let log = open(&data);
    topic_of_clicks(&log, "in", 1);
    for clicks in clicks.chunks(500) {
        feed(&log, "in", 0, clicks);
    }
    log.close().unwrap();
    for kill in 0..5u64 {
        let process = start(&data, 1 + usize::try_from(kill).unwrap() % 4, true);
        std::thread::sleep(ms(500 + 157 * kill));
        drop(process);
    }
    let mut last = start(&data, 2, false);
    assert!(last.0.wait().unwrap().success());
    let log = open(&data);
    check(&log, &clicks);
    log.close().unwrap();
}
