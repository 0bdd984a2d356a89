//! A table whose topic is its changelog, in a process that is killed while the topic is compacted.

use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::internals::env::failpoint;

use super::source_changelog::{PARTITIONS, feed, launch, make_topic, open, sums, sums_of};
use super::support::{Entry, Last};
use crate::jobs::support::until;
use crate::time::killed::{Process, start_child};

const VARIABLE: &str = "ONCEFLOW_SOURCE_TABLE_CHILD";

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn sums_a_table_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, life, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let launch = launch(Duration::from_millis(40)).workers(workers.parse().unwrap());
    let running = launch.start(&log).unwrap();
    // Changes come while it runs, so that there are some behind each commit.
    let mut unknown = Last::new();
    let life: u64 = life.parse().unwrap();
    for round in 0.. {
        feed(&log, &mut unknown, &changes(life * 1_000 + round), None);
        if round == 400 {
            break;
        }
    }
    wait(running.finished()).unwrap();
}

fn changes(seed: u64) -> Vec<Entry> {
    let entry = |number: u64| {
        let drawn = (seed * 31 + number).wrapping_mul(6_364_136_223_846_793_005) >> 40;
        (
            drawn % 9,
            (!drawn.is_multiple_of(4)).then_some(drawn % 1_000),
        )
    };
    (0..5).map(entry).collect()
}

/// The rows of the topic.
fn rows_of(log: &onceflow::prelude::Log) -> Last {
    let mut rows = Last::new();
    for seen in crate::jobs::support::committed(log, "in") {
        match seen.value {
            Some(_) => rows.insert(seen.key::<u64>(), seen.value::<u64>()),
            None => rows.remove(&seen.key::<u64>()),
        };
    }
    rows
}

#[test]
fn a_table_without_a_changelog_is_right_after_kills_while_its_topic_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data);
    make_topic(&log, "in", PARTITIONS);
    log.close().unwrap();
    let is_of_interest = |name: &&&str| {
        let of = [
            "start.",
            "cycle.",
            "housekeeping.",
            "state.",
            "commit.",
            "open.",
        ];
        of.iter().any(|it| name.starts_with(it))
    };
    let names = failpoint::NAMES.iter().filter(is_of_interest);
    let names = names.copied().chain([""; 6]);
    let mut killed = 0;
    for (life, name) in names.enumerate() {
        let plan = format!("{} {life} {}", 1 + life % 3, data.display());
        let test = "tables::source_killed::sums_a_table_until_it_is_killed";
        let failpoint = match name {
            "" => String::new(),
            name => format!("{name}=kill"),
        };
        let mut process: Process = start_child(test, (VARIABLE, &plan), &failpoint);
        // One that meets none is killed as it runs.
        let patience = Duration::from_millis(300 + 130 * (life as u64 % 7));
        killed += usize::from(process.is_killed_within(patience));
        drop(process);
        let state = data.join("state").join("totals");
        if life % 3 == 1 && state.exists() {
            std::fs::remove_dir_all(&state).unwrap();
        }
    }
    assert!(killed >= 10, "only {killed} failpoints were met");
    let log = open(&data);
    let running = launch(Duration::from_millis(10)).start(&log).unwrap();
    until("the sums are those of the topic", || {
        sums_of(&log) == sums(&rows_of(&log))
    });
    wait(running.stop()).unwrap();
    log.close().unwrap();
}
