//! Savepoints of jobs that are scaled out: taken from the log of stopped instances, and restored for any number of them.

use std::collections::BTreeMap;
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running, Savepoint};
use onceflow::types::GroupId;

use super::killed::{Clicks, DISORDER, MINUTE, PARTITIONS};
use super::savepoints::{counts_of, last_counts_of};
use super::scaled::{close_all, state_of};
use super::scaled_kafka::{self, until_led};
use super::support::{
    Click, PerWindow, click, feed, late_of, ms, parse, results_of, topic_of_clicks,
};
use crate::jobs::support::{Place, committed, until, wait_for_markers};
use crate::support::peers;

pub(super) const TOPICS: [&str; 2] = ["in", "out"];
pub(super) const JOB: &str = "spread";

/// Counts clicks by user, as an instance of the job.
pub(super) fn counts(instance: &str) -> Launch {
    let instance = ScaleOut::instance(instance).purge_interval(ms(200));
    counts_of(JOB, "counts", TOPICS, true).scale_out(instance)
}

/// Clicks that a job was fed, by user.
#[derive(Default)]
pub(super) struct Fed(BTreeMap<String, u64>, u64);

impl Fed {
    pub(super) fn some(&mut self, log: &Log, count: u64) {
        for partition in 0..2 {
            let clicks: Vec<Click> = (0..count)
                .map(|_| {
                    self.1 += 1;
                    let user = format!("user-{}", self.1 * self.1 % 97);
                    *self.0.entry(user.clone()).or_default() += 1;
                    click(&user, 1)
                })
                .collect();
            feed(log, TOPICS[0], partition, &clicks);
        }
    }

    /// Starts instances, feeds them, and stops them one after the other while they have work.
    pub(super) fn work(&mut self, log: &Log, instances: &[&str]) {
        let running: Vec<Running> = instances
            .iter()
            .map(|it| counts(it).start(log).unwrap())
            .collect();
        until("each has a share", || {
            self.some(log, 5);
            std::thread::sleep(ms(5));
            let shares: Vec<usize> = running.iter().map(|it| state_of(it).len()).collect();
            shares.iter().sum::<usize>() == 4 && !shares.contains(&0)
        });
        for running in running {
            self.some(log, 200);
            wait(running.stop()).unwrap();
        }
        stop(log, JOB, vec![]);
    }

    /// Runs instances until all that the job was fed is counted, and no more.
    pub(super) fn assert_counted(&mut self, log: &Log, instances: &[&str], what: &str) {
        // With one more of each user, the counts are none that were there before.
        self.some(log, 100);
        let running: Vec<Running> = instances
            .iter()
            .map(|it| counts(it).start(log).unwrap())
            .collect();
        println!("{what}");
        until("all is counted", || {
            last_counts_of(log, TOPICS[1]) == self.0
        });
        stop(log, JOB, running);
        wait_for_markers(log, TOPICS[1]);
        assert_eq!(last_counts_of(log, TOPICS[1]), self.0, "{what}");
    }
}

/// Stops instances, one after the other, and waits until the group has none.
pub(super) fn stop(log: &Log, job: &str, running: Vec<Running>) {
    for running in running {
        wait(running.stop()).unwrap();
    }
    until("the group has no members", || {
        let described = wait(log.admin().describe_group(&GroupId::new(job).unwrap()));
        described.is_ok_and(|it| it.members.is_empty())
    });
}

/// Counts the records under way when it was taken.
fn under_way(savepoint: &Savepoint) -> u64 {
    let shown = savepoint.to_string();
    let line = shown.lines().find_map(|it| it.strip_prefix("under way: "));
    line.unwrap().split(' ').next().unwrap().parse().unwrap()
}

pub(super) const ONE: &[&str] = &["first"];
pub(super) const THREE: &[&str] = &["first", "second", "third"];

/// One instance, three, and one again; and back to where the one was, and the three, in other numbers.
fn from_one_to_three_and_back(log: &Log, folder: &Path) {
    topic_of_clicks(log, TOPICS[0], 2);
    until_led(log, TOPICS[0], 2);
    let mut fed = Fed::default();
    let mut savepoints = Vec::new();
    for (number, instances) in [ONE, THREE, ONE].into_iter().enumerate() {
        fed.work(log, instances);
        let path = folder.join(format!("savepoint-{number}"));
        let savepoint = match number {
            // Without the program, by what the log knows.
            1 => Savepoint::of_stopped(log, JOB, &path).unwrap(),
            _ => counts("any").savepoint(log, &path).unwrap(),
        };
        savepoint.verify().unwrap();
        println!("{savepoint}");
        assert_eq!(Savepoint::list(folder).unwrap().len(), number + 1);
        savepoints.push(savepoint);
    }
    let all: u64 = savepoints.iter().map(under_way).sum();
    assert!(all > 0, "nothing was under way");
    fed.assert_counted(log, ONE, "before");
    for (number, instances) in [(0, THREE), (1, ONE), (2, THREE), (0, ONE), (1, THREE)] {
        let savepoint = Savepoint::open(savepoints[number].path()).unwrap();
        let restored = match number {
            1 => savepoint.restore(log).unwrap(),
            _ => counts("any").restore(log, &savepoint).unwrap(),
        };
        println!("{restored:?}");
        fed.assert_counted(log, instances, &format!("from savepoint {number} on"));
    }
    // All of it is given up, and all of the input is read again.
    let given_up = counts("any").begin_anew(log).unwrap();
    assert!(given_up.rows >= fed.0.len() as u64, "{given_up:?}");
    fed.assert_counted(log, THREE, "anew");
}

#[test]
fn u5_u10_a_job_that_is_scaled_out_goes_from_one_instance_to_three_and_back_with_savepoints() {
    let place = Place::new();
    let folder = place.path("backup");
    std::fs::create_dir(&folder).unwrap();
    from_one_to_three_and_back(&place.log(), &folder);
}

#[test]
fn u5_u10_on_kafka_a_job_that_is_scaled_out_goes_from_one_instance_to_three_and_back_with_savepoints()
 {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = scaled_kafka::cluster();
    let folder = tempfile::tempdir().unwrap();
    let log = scaled_kafka::open(&cluster.bootstrap(), &folder.path().join("state"));
    let backup = folder.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    from_one_to_three_and_back(&log, &backup);
}

/// Counts per user and minute; what it gives goes to topics of this number.
fn windows(instance: &str, number: usize) -> Launch {
    let job = Job::new("clicks");
    let (clicks, late) = job
        .source(topic::<str>("in"))
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::out_of_order(ms(DISORDER)))
        .key_by_ref(|(user, _): &Click| user)
        .window(FixedWindows::tumbling(ms(MINUTE)))
        .late();
    late.sink(topic(&format!("late-{number}")));
    clicks
        .count("per-window")
        .sink(topic(&format!("counts-{number}")));
    job.exactly_once(Commit::every(ms(5)))
        .workers(2)
        .state_partitions(4)
        .scale_out(ScaleOut::instance(instance))
}

fn windows_of(log: &Log, number: usize) -> PerWindow<u64> {
    results_of(log, &format!("counts-{number}"))
}

/// Runs instances until all windows are closed.
fn close_windows(log: &Log, instances: &[&str], number: usize, left: usize) {
    let start = |it: &&str| windows(it, number).start(log).unwrap();
    let running: Vec<Running> = instances.iter().map(start).collect();
    until("all windows are closed", || {
        windows_of(log, number).len() >= left
    });
    stop(log, "clicks", running);
}

#[test]
fn u1_u2_u5_open_windows_and_times_of_instances_go_back_and_go_on_elsewhere() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", PARTITIONS);
    let mut clicks = Clicks::new();
    clicks.feed(&log, 1_000);
    let running = ["first", "second"].map(|it| windows(it, 0).start(&log).unwrap());
    until("windows are closed", || windows_of(&log, 0).len() > 50);
    clicks.feed(&log, 500);
    stop(&log, "clicks", running.into());
    let path = place.path("savepoint");
    let savepoint = windows("any", 0).savepoint(&log, &path).unwrap();
    println!("{savepoint}");
    let before = windows_of(&log, 0);
    clicks.feed(&log, 500);
    close_all(&log, &clicks);
    let expected = clicks.windows();
    close_windows(&log, &["first"], 0, expected.len());
    assert!(windows_of(&log, 0) == expected);
    // Back, on the same log, and on another one that has the input.
    let elsewhere = Place::new();
    let other = elsewhere.log();
    topic_of_clicks(&other, "in", PARTITIONS);
    for seen in committed(&log, "in") {
        let line = String::from_utf8(seen.value.unwrap()).unwrap();
        feed(&other, "in", seen.partition, &[parse(&line).unwrap()]);
    }
    for (number, log) in [(1, &log), (2, &other)] {
        windows("any", number).restore(log, &savepoint).unwrap();
        let instances = &["second", "third", "first"][..number + 1];
        close_windows(log, instances, number, expected.len() - before.len());
        let mut found = windows_of(log, number);
        for (window, count) in &before {
            let again = found.insert(window.clone(), *count);
            assert_eq!(again, None, "{window:?} was closed before");
        }
        assert!(found == expected, "round {number}");
        assert_eq!(late_of(log, &format!("late-{number}")), []);
    }
}

#[test]
fn u5_a_savepoint_of_instances_that_run_is_refused_and_so_is_its_restore() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, TOPICS[0], 2);
    let (mut fed, path) = (Fed::default(), place.path("savepoint"));
    let unknown = Savepoint::of_stopped(&log, JOB, &path)
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("knows no job"), "{unknown}");
    fed.work(&log, ONE);
    let savepoint = counts("any").savepoint(&log, &path).unwrap();
    let again = counts("any")
        .savepoint(&log, &path)
        .unwrap_err()
        .to_string();
    assert!(again.contains("the path exists"), "{again}");
    let running = counts("first").start(&log).unwrap();
    until("it has its share", || state_of(&running).len() == 4);
    let live = wait(running.savepoint(place.path("live")))
        .unwrap_err()
        .to_string();
    assert!(live.contains("--stopped"), "{live}");
    for why in [
        counts("any")
            .restore(&log, &savepoint)
            .unwrap_err()
            .to_string(),
        savepoint.restore(&log).unwrap_err().to_string(),
        counts("any").begin_anew(&log).unwrap_err().to_string(),
    ] {
        assert!(why.contains("in its group: first"), "{why}");
    }
    fed.some(&log, 100);
    until("it goes on", || last_counts_of(&log, TOPICS[1]) == fed.0);
    wait(running.stop()).unwrap();
    // As one process it could not go on with what is under way.
    let alone = || counts_of(JOB, "counts", TOPICS, false);
    let refused = alone().restore(&log, &savepoint).unwrap_err().to_string();
    assert!(refused.contains("`scale_out`"), "{refused}");
    let refused = alone().begin_anew(&log).unwrap_err().to_string();
    assert!(refused.contains("`scale_out`"), "{refused}");
    if under_way(&savepoint) > 0 {
        let other = counts("any").state_partitions(8);
        let elsewhere = Place::new();
        let log = elsewhere.log();
        topic_of_clicks(&log, TOPICS[0], 2);
        let refused = other.restore(&log, &savepoint).unwrap_err().to_string();
        assert!(refused.contains("ask for as many"), "{refused}");
    }
    fed.assert_counted(&log, THREE, "nothing of this changed anything");
}

#[test]
fn u5_a_job_alone_becomes_several_instances_with_a_savepoint_of_its_stopped_log() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, TOPICS[0], 2);
    let mut fed = Fed::default();
    fed.some(&log, 300);
    let running = counts_of(JOB, "counts", TOPICS, true).start(&log).unwrap();
    until("it works", || running.progress().records == 600);
    wait(running.stop()).unwrap();
    let path = place.path("savepoint");
    let savepoint = Savepoint::of_stopped(&log, JOB, &path).unwrap();
    fed.assert_counted(&log, THREE, "scaled out");
    counts("any").restore(&log, &savepoint).unwrap();
    fed.assert_counted(&log, THREE, "back");
    let elsewhere = Place::new();
    let other = elsewhere.log();
    topic_of_clicks(&other, TOPICS[0], 2);
    for seen in committed(&log, TOPICS[0]) {
        let line = String::from_utf8(seen.value.unwrap()).unwrap();
        feed(&other, TOPICS[0], seen.partition, &[parse(&line).unwrap()]);
    }
    counts("any").restore(&other, &savepoint).unwrap();
    fed.assert_counted(&other, ONE, "elsewhere");
}
