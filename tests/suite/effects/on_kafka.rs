//! Processes that share a job with effects on a real Kafka: they come, go and are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::killed::{noting, told_in};
use super::support::assert_told;
use crate::jobs::support::committed;
use crate::support::peers;
use crate::time::scaled_kafka::{
    Life, SESSION, cluster, end_with_parent, open, owners, until, until_led,
};
use crate::time::support::{Click, feed, ms, topic_of_clicks};

const VARIABLE: &str = "ONCEFLOW_EFFECTS_ON_KAFKA_CHILD";
const PARTITIONS: i32 = 2;

/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 5] = [
    &["one"],
    &["one", "two"],
    &["two"],
    &["one", "two"],
    &["one"],
];

/// An instance, in a process of its own; its notes are where all write them.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_effects_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    end_with_parent();
    let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let state = Path::new(state);
    let log = open(brokers, state);
    let often = ScaleOut::instance(instance)
        .session_timeout(SESSION)
        .purge_interval(ms(200));
    let launch = noting(&state.with_file_name("notes"), true)
        .scale_out(often)
        .transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

#[test]
fn o1_o6_o8_on_kafka_effects_move_between_killed_processes_under_their_keys() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("feeder"));
    topic_of_clicks(&log, "in", PARTITIONS);
    until_led(&log, "in", PARTITIONS);
    let notes = folder.path().join("notes");
    let mut all = Vec::<Click>::new();
    let mut feed_some = || {
        for partition in 0..PARTITIONS {
            let first = i64::try_from(all.len()).unwrap();
            let some = (first..first + 150).map(|n| (format!("u{}-{partition}", n % 9), n));
            let some: Vec<Click> = some.collect();
            feed(&log, "in", partition, &some);
            all.extend(some);
        }
        all.clone()
    };
    let mut lives = BTreeMap::new();
    for members in MEMBERS {
        feed_some();
        lives.retain(|name, _| members.contains(name));
        for name in members {
            lives.entry(*name).or_insert_with(|| {
                let test = "effects::on_kafka::shares_the_effects_until_it_is_killed";
                Life::begin_child(test, VARIABLE, name, &brokers, folder.path())
            });
        }
        until("the state is shared by these and no others", || {
            let owners: BTreeSet<String> = owners(&log, "tells").into_values().collect();
            owners.len() == members.len() && members.iter().all(|name| owners.contains(*name))
        });
        let before = told_in(&notes).len();
        feed_some();
        until("some more are told", || {
            told_in(&notes).len() > before + 100
        });
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    let all = feed_some();
    let never: BTreeSet<i64> = all.iter().map(|it| it.1).filter(|n| n % 10 == 0).collect();
    until("each is told, or is a dead letter", || {
        let told: BTreeSet<i64> = told_in(&notes).iter().map(|it| it.1).collect();
        told.len() == all.len() && committed(&log, "dead").len() >= never.len()
    });
    drop(lives);
    assert_told(&told_in(&notes), &all);
    let dead = committed(&log, "dead");
    let dead: Vec<i64> = dead.iter().map(|it| it.value::<Click>().1).collect();
    assert_eq!(dead.len(), never.len(), "each dead letter once");
    assert!(dead.into_iter().collect::<BTreeSet<_>>() == never);
}
