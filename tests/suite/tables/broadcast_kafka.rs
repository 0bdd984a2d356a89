//! Broadcast tables in processes that share a job on a real Kafka: they come and are killed while the table changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::broadcast::{look_up, set};
use super::support::{Entry, PARTITIONS, feed, make_topic};
use crate::jobs::support::{committed, decode};
use crate::support::peers;
use crate::time::scaled_kafka::{Life, SESSION, cluster, end_with_parent, open, until, until_led};

/// Tells the child which instance it is, where its state is, and where Kafka is.
const VARIABLE: &str = "ONCEFLOW_BROADCAST_ON_KAFKA_CHILD";
/// The processes that share the job, in turn. All others are killed before the table changes; a name that comes again is a restart.
const MEMBERS: [&[&str]; 5] = [
    &["one", "two"],
    &["three"],
    &["one", "two"],
    &["two"],
    &["one", "three"],
];
/// The keys of the table; 99 is none of them.
const KEYS: u64 = 90;
/// The records of a round.
const RECORDS: u64 = 300;

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn looks_values_up_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    end_with_parent();
    let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(brokers, Path::new(state));
    let often = ScaleOut::instance(instance).session_timeout(SESSION);
    let launch = look_up(true).exactly_once(Commit::every(Duration::from_millis(50)));
    let launch = launch.workers(2).state_partitions(4).scale_out(often);
    let launch = launch.transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

/// The records that are out: each one's number, with the key that it looked up and what it found.
fn out(log: &Log) -> Vec<(u64, (u64, u64))> {
    let seen = committed(log, "all").into_iter();
    let of = |seen: crate::jobs::support::Seen| {
        let number = decode::<u64>(seen.key.as_deref().unwrap());
        (number, seen.value::<(u64, u64)>())
    };
    seen.map(of).collect()
}

#[test]
fn j17_j21_on_kafka_a_broadcast_table_is_whole_before_the_first_record_in_processes_that_are_killed()
 {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("feeder"));
    for topic in ["in", "whole"] {
        make_topic(&log, topic);
        until_led(&log, topic, PARTITIONS);
    }
    let mut lives = BTreeMap::<&str, Life>::new();
    let (mut numbers, mut least) = (0, BTreeMap::new());
    for (round, members) in (1u64..).zip(MEMBERS) {
        let stay: BTreeSet<_> = members
            .iter()
            .filter(|it| lives.contains_key(*it))
            .collect();
        let is_anew = stay.is_empty();
        lives.retain(|name, _| members.contains(name));
        let with = |value: u64| (0..KEYS).map(move |key| (key, Some(value)));
        if is_anew {
            // A state on the way, which nobody sees who starts now.
            set(&log, &with(1_000).collect::<Vec<_>>());
        }
        set(&log, &with(round).collect::<Vec<_>>());
        let records: Vec<Entry> = (0..RECORDS)
            .map(|n| (numbers + n, Some(n % KEYS)))
            .collect();
        numbers += RECORDS;
        feed(&log, "in", &records);
        // Who was there before may see the state of then for a while; who starts sees this one.
        least.extend(
            records
                .iter()
                .map(|(number, _)| (*number, if is_anew { round } else { round - 1 })),
        );
        for name in members {
            let test = "tables::broadcast_kafka::looks_values_up_until_it_is_killed";
            lives.entry(name).or_insert_with(|| {
                Life::begin_child(test, VARIABLE, name, &brokers, folder.path())
            });
        }
        // Half of the rounds end in the middle of what was fed.
        let enough = match round % 2 {
            0 => numbers - RECORDS + 1,
            _ => numbers,
        };
        until("records are out", || out(&log).len() as u64 >= enough);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    until("all is out", || out(&log).len() as u64 >= numbers);
    drop(lives);
    let out = out(&log);
    assert_eq!(out.len() as u64, numbers);
    let found: BTreeMap<_, _> = out.into_iter().collect();
    assert_eq!(found.len() as u64, numbers, "each record once");
    for (number, (key, found)) in found {
        assert_eq!(key, number % RECORDS % KEYS);
        let least = least[&number];
        assert!(
            (least..=MEMBERS.len() as u64).contains(&found),
            "record {number} found {found}, and round {least} was there before"
        );
    }
}
