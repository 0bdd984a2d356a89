//! A job of tables that is scaled out: state, and who reads it, moves from instance to instance.

use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running};

use super::support::{Entry, Kind, changes, check, feed, job, last, make_topic, written};
use crate::jobs::support::{Place, until};

fn instance(name: &str) -> Launch {
    job(Kind::Outer, true)
        .exactly_once(Commit::every(Duration::from_millis(20)))
        .workers(2)
        .state_partitions(8)
        .scale_out(ScaleOut::instance(name))
}

/// Whether an instance reads partitions of the state.
fn has_state(running: &Running) -> bool {
    let partitions = running.share().partitions;
    let mut topics = partitions.iter().map(|it| it.topic.as_str());
    topics.any(|topic| topic.ends_with("-repartition"))
}

struct Input<'a> {
    log: &'a Log,
    state: u64,
    left: Vec<Entry>,
    right: Vec<Entry>,
}

impl Input<'_> {
    fn feed(&mut self, count: usize) {
        let left = changes(&mut self.state, count);
        let right = changes(&mut self.state, count);
        feed(self.log, "left", &left);
        feed(self.log, "right", &right);
        self.left.extend(left);
        self.right.extend(right);
    }
}

#[test]
fn j6_j7_j17_tables_and_those_that_read_them_move_between_instances() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "left");
    make_topic(&log, "right");
    let mut input = Input {
        log: &log,
        state: 5,
        left: vec![],
        right: vec![],
    };
    let start = |name: &str| instance(name).start(&log).unwrap();
    input.feed(300);
    let mut stays = start("first");
    for name in ["second", "third", "fourth"] {
        let other = start(name);
        until("each has a share of the state", || {
            input.feed(20);
            std::thread::sleep(Duration::from_millis(20));
            [&stays, &other].iter().all(|it| has_state(it))
        });
        input.feed(200);
        wait(std::mem::replace(&mut stays, other).stop()).unwrap();
        input.feed(200);
    }
    // A key of its own at the end, which comes last in its partition of each input.
    input.left.extend([(1_000, Some(1)), (1_001, Some(1))]);
    feed(&log, "left", &[(1_000, Some(1)), (1_001, Some(1))]);
    until("all is out", || {
        let copied = last(&written(&log, "left-copied"));
        let joined = last(&written(&log, "joined"));
        let counts = last(&written(&log, "counts"));
        let is_read = copied == last(&input.left) && joined.contains_key(&1_001);
        is_read && counts.values().sum::<u64>() == joined.len() as u64 && is_joined(&log, &input)
    });
    wait(stays.stop()).unwrap();
    check(&log, Kind::Outer, &input.left, &input.right);
}

/// Whether the joined table has the keys that either table has.
fn is_joined(log: &Log, input: &Input<'_>) -> bool {
    let (left, right) = (last(&input.left), last(&input.right));
    let mut keys: Vec<u64> = left.into_keys().chain(right.into_keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    last(&written(log, "joined")).into_keys().eq(keys)
}
