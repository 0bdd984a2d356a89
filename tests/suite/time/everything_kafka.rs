//! Windows, timers, joins and calls in one job on a real Kafka, shared by two processes that come, go and are killed.

use std::collections::BTreeMap;
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::everything::{Given, Input, create_topics, launch};
use super::scaled_kafka::{
    Life, SESSION, cluster, end_with_parent, open, owners, until, until_led,
};
use super::support::ms;
use crate::support::peers;

/// Tells the child which instance it is, where its state is, and where Kafka is.
const VARIABLE: &str = "ONCEFLOW_EVERYTHING_KAFKA_CHILD";
const TEST: &str = "time::everything_kafka::shares_the_job_until_it_is_killed";
/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 6] = [
    &["one"],
    &["one", "two"],
    &["two"],
    &["one", "two"],
    &["one"],
    &["one", "two"],
];

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_job_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    end_with_parent();
    let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(brokers, Path::new(state));
    let share = ScaleOut::instance(instance)
        .session_timeout(SESSION)
        .purge_interval(ms(200));
    let launch = launch(true).scale_out(share).workers(2);
    let launch = launch.transaction_timeout(std::time::Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

#[test]
fn a7_a11_on_kafka_windows_timers_joins_and_calls_are_right_in_two_processes_that_are_killed() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("feeder"));
    create_topics(&log);
    until_led(&log, "in", 1);
    until_led(&log, "keys", 1);
    let mut input = Input::new(5);
    // Behind a topic between processes time goes on cycle by cycle, so that it is not the input alone that says what is late.
    input.has_late = false;
    let last = "last";
    let mut lives = BTreeMap::new();
    for members in MEMBERS {
        // In the middle of what is being fed.
        assert!(input.feed(&log, 60, 2));
        lives.retain(|name, _| members.contains(name));
        for name in members {
            lives.entry(*name).or_insert_with(|| {
                Life::begin_child(TEST, VARIABLE, name, &brokers, folder.path())
            });
        }
        assert!(input.feed(&log, 60, 2));
        until("the state is shared by these and no others", || {
            input.feed(&log, 2, 0);
            let owners = owners(&log, "everything");
            let is_one_of_them = |it: &String| members.contains(&&**it);
            owners.len() == 4
                && owners.values().all(is_one_of_them)
                && members
                    .iter()
                    .all(|name| owners.values().any(|it| it == name))
        });
        assert!(input.feed(&log, 60, 2));
        let expected = Given::expected(&input).without(last);
        Given::found(&log).without(last).assert_begins(&expected);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    assert!(input.end(&log, last));
    let expected = Given::expected(&input).without(last);
    until("all is out", || {
        Given::found(&log).without(last).counts() == expected.counts()
    });
    drop(lives);
    let found = Given::found(&log).without(last);
    found.assert_begins(&expected);
    assert!(found == expected);
    println!("{:?}", expected.counts());
}
