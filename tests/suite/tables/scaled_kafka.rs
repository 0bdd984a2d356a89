//! Tables in processes that share a job on a real Kafka: they come, go and are killed while changes are on their way between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::scaled::{Input, STATE_PARTITIONS};
use super::support::{Kind, PARTITIONS, check, job, make_topic};
use crate::support::peers;
use crate::time::scaled_kafka::{
    Life, SESSION, cluster, end_with_parent, open, owners, until, until_led,
};

/// Tells the child which instance it is, where its state is, and where Kafka is.
const VARIABLE: &str = "ONCEFLOW_TABLES_ON_KAFKA_CHILD";
/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 5] = [
    &["one"],
    &["one", "two"],
    &["two"],
    &["one", "two"],
    &["one"],
];

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_tables_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    end_with_parent();
    let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(brokers, Path::new(state));
    let often = ScaleOut::instance(instance)
        .session_timeout(SESSION)
        .purge_interval(Duration::from_millis(200));
    let launch = job(Kind::Outer, true).exactly_once(Commit::every(Duration::from_millis(50)));
    let launch = launch.workers(2).state_partitions(STATE_PARTITIONS);
    let launch = launch
        .scale_out(often)
        .transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

#[test]
fn j6_j7_j15_j17_on_kafka_tables_move_between_killed_processes_and_all_that_is_made_of_them_is_right()
 {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("feeder"));
    for topic in ["left", "right"] {
        make_topic(&log, topic);
        until_led(&log, topic, PARTITIONS);
    }
    let mut input = Input::new(&log, 5);
    let mut lives = BTreeMap::new();
    for members in MEMBERS {
        input.feed(150);
        lives.retain(|name, _| members.contains(name));
        for name in members {
            let test = "tables::scaled_kafka::shares_the_tables_until_it_is_killed";
            lives.entry(*name).or_insert_with(|| {
                Life::begin_child(test, VARIABLE, name, &brokers, folder.path())
            });
        }
        input.feed(150);
        until("the state is shared by these and no others", || {
            let owners = owners(&log, "tables");
            let is_one_of_them = |it: &String| members.contains(&&**it);
            owners.len() == usize::from(STATE_PARTITIONS)
                && owners.values().all(is_one_of_them)
                && members
                    .iter()
                    .all(|name| owners.values().any(|it| it == name))
        });
        input.feed(150);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    input.end();
    until("all is out", || input.is_out());
    check(&log, Kind::Outer, &input.left, &input.right);
    drop(lives);
}
