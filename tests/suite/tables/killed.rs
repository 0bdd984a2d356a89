//! A job of tables in a process that is killed at every failpoint.

use std::path::Path;
use std::time::Duration;

use onceflow::internals::env::failpoint;
use onceflow::prelude::*;

use super::support::{Kind, changes, check, feed, job, make_topic};
use crate::time::killed::{Process, open, run_until_killed, start_child};

const VARIABLE: &str = "ONCEFLOW_TABLES_CHILD";

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn joins_tables_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let job = job(Kind::Outer, is_endless == "true");
    let launch = job.exactly_once(Commit::every(Duration::from_millis(20)));
    let workers = workers.parse().unwrap();
    let launch = launch.state_partitions(8).workers(workers);
    run_until_killed(launch, &log, is_endless == "true");
}

fn start(data: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    let test = "tables::killed::joins_tables_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

#[test]
fn j6_j7_tables_are_right_after_a_kill_at_every_failpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data);
    make_topic(&log, "left");
    make_topic(&log, "right");
    log.close().unwrap();
    let (mut state, mut left, mut right) = (11, Vec::new(), Vec::new());
    let mut killed = 0;
    for (life, name) in failpoint::NAMES.iter().enumerate() {
        let log = open(&data);
        let (l, r) = (changes(&mut state, 300), changes(&mut state, 300));
        feed(&log, "left", &l);
        feed(&log, "right", &r);
        left.extend(l);
        right.extend(r);
        log.close().unwrap();
        let workers = [1, 4][life % 2];
        let mut process = start(&data, workers, true, &format!("{name}=kill"));
        killed += usize::from(process.is_killed_at_its_failpoint());
    }
    assert!(killed >= 20, "only {killed} failpoints were met");
    let mut last = start(&data, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    let log = open(&data);
    check(&log, Kind::Outer, &left, &right);
    log.close().unwrap();
}
