//! A job with windows and timers in a process that is killed at every failpoint, and instances of a job where tasks change hands.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::internals::env::{Env, failpoint};
use onceflow::prelude::*;
use onceflow::types::Durability;

use super::everything::{self, Given, Input, create_topics, finish, launch};
use super::killed::{self, Clicks, PARTITIONS, start_child};
use super::scaled::{STATE_PARTITIONS, assert_right, close_all, counts, state_of};
use super::support::{ms, results, topic_of_clicks};
use crate::jobs::support::until;

const VARIABLE: &str = "ONCEFLOW_FAILPOINTS_CHILD";
const CHILD: &str = "time::failpoints::feeds_and_runs_a_job_until_it_is_killed";
const SCALED_CHILD: &str = "time::failpoints::runs_two_instances_until_they_are_killed";
/// Life of a child unless it is killed.
const LIFE: Duration = Duration::from_millis(350);
const PATIENCE: Duration = Duration::from_secs(30);
/// No part of these jobs: sinks of files, topics that are deleted, letters, and, of a job that is alone, tasks that change hands.
const ELSEWHERE: [&str; 11] = [
    "letters.",
    "savepoint.",
    "restore.",
    "sink.part",
    "sink.recovered",
    "sink.before_sync",
    "sink.after_sync",
    "topic.delete",
    "topic.directories_renamed",
    "tasks.let_go",
    "tasks.taken_on",
];
/// Failpoints of a recovery that had something to decide are met by luck alone, after a kill in the middle of a commit.
const ROUNDS_MAX: usize = 8;

fn open(data: &Path, durability: Durability) -> Log {
    everything::open(Env::real(), data, durability).unwrap()
}

/// The child's entry: it ends in order after a while.
#[test]
#[ignore = "the test of this module starts it, in a process that they kill"]
fn feeds_and_runs_a_job_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [life, is_synced, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let life: usize = life.parse().unwrap();
    let durability = match is_synced {
        "true" => Durability::Fsync,
        _ => Durability::Process,
    };
    let log = open(Path::new(data), durability);
    let mut input = Input::behind(&log, life as u64);
    let running = launch(true).workers(1 + life % 3).start(&log).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < LIFE {
        let keys_count = u64::from(input.random(8) == 0);
        assert!(input.feed(&log, 4, keys_count));
        std::thread::sleep(ms(3));
    }
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

/// The child's entry: one of two instances goes and comes again, so that tasks change hands both ways.
#[test]
#[ignore = "the test of this module starts it, in a process that they kill"]
fn runs_two_instances_until_they_are_killed() {
    let Ok(data) = std::env::var(VARIABLE) else {
        return;
    };
    let log = killed::open(Path::new(&data));
    let start = |name: &str| counts(ScaleOut::instance(name)).start(&log).unwrap();
    let (first, mut second) = (start("first"), start("second"));
    let all = usize::from(STATE_PARTITIONS);
    for _ in 0..2 {
        until("both have a share, and all of it is shared", || {
            let shares = [&first, &second].map(|it| state_of(it).len());
            !shares.contains(&0) && shares.iter().sum::<usize>() == all
        });
        wait(second.stop()).unwrap();
        until("the first has all", || state_of(&first).len() == all);
        second = start("second");
    }
    wait(second.stop()).unwrap();
    wait(first.stop()).unwrap();
    log.close().unwrap();
}

/// Starts a child, and says whether it was killed by its failpoint and not by its end.
fn is_killed(test: &str, plan: &str, failpoint: &str) -> bool {
    let mut child = start_child(test, (VARIABLE, plan), failpoint);
    assert!(
        child.is_killed_within(PATIENCE),
        "{failpoint}: the child hangs"
    );
    let status = child.0.wait().unwrap();
    assert!(
        status.success() || status.code().is_none(),
        "{failpoint}: the child failed by itself: {status}"
    );
    !status.success()
}

#[test]
fn a1_a3_c2_c5_c6_c7_s2_s8_t8_w15_windows_and_timers_are_right_after_a_kill_at_every_failpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data, Durability::Process);
    create_topics(&log);
    log.close().unwrap();
    let is_elsewhere = |name: &str| ELSEWHERE.iter().any(|it| name.starts_with(it));
    let names = failpoint::NAMES.iter().copied();
    let mut missed: BTreeSet<&str> = names.filter(|name| !is_elsewhere(name)).collect();
    // While the job's topics are not there yet.
    let first = [
        "topic.create_intended",
        "topic.partitions_made",
        "topic.created",
    ];
    let mut life = 0;
    for round in 0..ROUNDS_MAX {
        let left = missed.iter().copied().filter(|name| !first.contains(name));
        let names: Vec<&str> = first
            .into_iter()
            .filter(|name| missed.contains(name))
            .chain(left)
            .collect();
        for name in names {
            let is_once = name.starts_with("open.")
                || name.starts_with("start.")
                || name.starts_with("close.");
            let hit = if round > 0 || is_once || first.contains(&name) {
                1
            } else {
                1 + life % 4
            };
            life += 1;
            let is_synced = name.starts_with("commit.");
            let plan = format!("{life} {is_synced} {}", data.display());
            if is_killed(CHILD, &plan, &format!("{name}=kill@{hit}")) {
                missed.remove(name);
            }
        }
        let log = open(&data, Durability::Process);
        let input = Input::behind(&log, 0);
        Given::found(&log).assert_begins(&Given::expected(&input));
        log.close().unwrap();
        if missed.is_empty() {
            break;
        }
    }
    assert!(
        missed.is_empty(),
        "these failpoints were never met: {missed:?}"
    );
    let log = open(&data, Durability::Process);
    finish(&log, &Input::behind(&log, 0));
    log.close().unwrap();
}

#[test]
fn t8_a11_u5_windows_are_right_after_kills_between_a_hand_over_and_its_first_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut clicks = Clicks::new();
    let log = killed::open(&data);
    topic_of_clicks(&log, "in", PARTITIONS);
    log.close().unwrap();
    // Each of an instance's two workers meets them once in a change. What a life leaves of the group, the next one finds.
    for hit in [2, 4, 6] {
        for name in ["tasks.let_go", "tasks.taken_on"] {
            let log = killed::open(&data);
            clicks.feed(&log, 400);
            log.close().unwrap();
            let failpoint = format!("{name}=kill@{hit}");
            let plan = data.display().to_string();
            assert!(
                is_killed(SCALED_CHILD, &plan, &failpoint),
                "{failpoint} was not met"
            );
        }
    }
    let log = killed::open(&data);
    let instances = ["first", "second"];
    let running = instances.map(|name| counts(ScaleOut::instance(name)).start(&log).unwrap());
    close_all(&log, &clicks);
    let expected = clicks.windows().len();
    until("all windows are closed", || results(&log).len() >= expected);
    for running in running {
        wait(running.stop()).unwrap();
    }
    assert_right(&log, &clicks);
    log.close().unwrap();
}
