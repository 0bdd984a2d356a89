//! X20, X21: a running job says how it fares, and what it does that its user may not expect reaches standard error.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{TopicName, TopicPartition};

use super::support::{OFTEN, Place, committed, fill_topic, run, until};

fn copy() -> Launch {
    let job = Job::new("copy");
    job.source(topic::<str>("in"))
        .sink(topic("out").partitions(1));
    job.exactly_once(Commit::every(OFTEN))
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("in").unwrap(), partition)
}

#[test]
fn x21_a_job_is_waited_for_until_it_has_caught_up() {
    let fixture = Place::new();
    let log = fixture.log();
    let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    fill_topic(&log, "in", 2, &values);
    let running = copy().start(&log).unwrap();
    wait(running.caught_up()).unwrap();
    assert_eq!(committed(&log, "out").len(), 1000);
    let lag = wait(running.lag()).unwrap();
    assert_eq!(lag, [(place(0), 0), (place(1), 0)].into());
    let progress = running.progress();
    assert_eq!(progress.records, 1000, "{progress:?}");
    assert!(progress.commits > 0, "{progress:?}");
    assert!(progress.slowest_commit >= progress.last_commit);
    assert!(progress.last_commit > Some(Duration::ZERO), "{progress:?}");
    assert_eq!((progress.restarts, progress.last_restart), (0, None));
    fill_topic(&log, "in", 2, &["later"]);
    wait(running.caught_up()).unwrap();
    assert_eq!(committed(&log, "out").len(), 1001);
    wait(running.stop()).unwrap();
}

#[test]
fn x21_lag_is_what_was_not_committed_yet() {
    let fixture = Place::new();
    let log = fixture.log();
    fill_topic(&log, "in", 2, &["a", "b", "c"]);
    let job = Job::new("stuck");
    job.source(topic::<str>("in"))
        .sink(topic("out").partitions(1));
    let never = Commit::every(Duration::from_secs(3600));
    let running = job.exactly_once(never).start(&log).unwrap();
    until("the topics are known", || {
        wait(running.lag()).unwrap() == [(place(0), 2), (place(1), 1)].into()
    });
    wait(running.stop()).unwrap();
}

#[test]
fn x21_waiting_ends_with_the_job_and_where_nobody_knows_the_end() {
    let fixture = Place::new();
    let log = fixture.log();
    fill_topic(&log, "in", 1, &["a", "b"]);
    let job = Job::new("failing");
    job.source(topic::<str>("in"))
        .try_map(|_: &str| Err::<u64, _>("never"))
        .sink(topic("out"));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    let error = wait(running.caught_up()).unwrap_err().to_string();
    assert!(error.contains("has ended"), "{error}");
    wait(running.finished()).unwrap_err();
    let path = fixture.file("lines", "a\n");
    let job = Job::new("files");
    job.source(lines([&path]).follow()).sink(topic("out"));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    let error = wait(running.caught_up()).unwrap_err().to_string();
    assert!(error.contains("source lines"), "{error}");
    wait(running.stop()).unwrap();
}

#[test]
fn x21_restarts_are_counted_with_their_reason() {
    let fixture = Place::new();
    restart(&fixture.log());
}

/// A job that starts again, because its topic grew.
fn restart(log: &Log) {
    fill_topic(log, "in", 1, &["a"]);
    let running = copy().start(log).unwrap();
    wait(running.caught_up()).unwrap();
    let input = TopicName::new("in").unwrap();
    wait(log.admin().create_partitions(&input, 2)).unwrap();
    fill_topic(log, "in", 2, &["b", "c"]);
    // Not `caught_up`: what the leader alone acknowledged counts only once it is synced.
    until("all is copied", || running.progress().records == 3);
    let progress = running.progress();
    assert_eq!(progress.restarts, 1, "{progress:?}");
    let why = progress.last_restart.unwrap();
    assert!(why.contains("starts again"), "{why}");
    wait(running.stop()).unwrap();
}

const VARIABLE: &str = "ONCEFLOW_TOLD_IN";

#[test]
#[ignore = "started by the test below, in a process in which nobody subscribed to `tracing`"]
fn tells_standard_error() {
    let Ok(folder) = std::env::var(VARIABLE) else {
        return;
    };
    let log = Log::embedded(Path::new(&folder).join("data")).unwrap();
    restart(&log);
    let with_a_store = Job::new("copy");
    let lines = with_a_store.source(topic::<str>("in").until_end());
    let counts = lines.key_by(|line: &str| line.to_owned()).count("counts");
    counts.changes().sink(topic("counts"));
    run(with_a_store.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let renamed = Job::new("copy-2");
    renamed
        .source(topic::<str>("in").until_end())
        .sink(topic("out").partitions(1));
    run(renamed.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    log.close().unwrap();
}

#[test]
fn x20_x21_warnings_reach_standard_error_where_nobody_subscribed() {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobs::watching::tells_standard_error"])
        .args(["--ignored", "--nocapture"])
        .env(VARIABLE, folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}");
    for expected in [
        "onceflow: warning: a topic that is read has more partitions than before",
        "onceflow: warning: starting again from the last commit",
        "onceflow: warning: the store is new and begins empty",
        "has records already",
        "topic=out",
    ] {
        assert!(told.contains(expected), "{expected:?} is missing: {told}");
    }
    // One that was not renamed, and has no new store, is quiet.
    assert_eq!(told.matches("begins empty").count(), 1, "{told}");
    assert_eq!(told.matches("has records already").count(), 1, "{told}");
}
