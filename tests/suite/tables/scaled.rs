//! A job of tables that is scaled out: state, and who reads it, moves from instance to instance.

use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running};

use super::support::{
    Entry, Kind, are_lists_out, changes, check, expected, feed, job, last, make_topic, written,
};
use crate::jobs::support::{Place, committed, until};

pub(super) const STATE_PARTITIONS: u16 = 8;

fn instance(name: &str) -> Launch {
    job(Kind::Outer, true)
        .exactly_once(Commit::every(Duration::from_millis(20)))
        .workers(2)
        .state_partitions(STATE_PARTITIONS)
        .scale_out(ScaleOut::instance(name))
}

/// Whether an instance reads partitions of the state.
fn has_state(running: &Running) -> bool {
    let partitions = running.share().partitions;
    let mut topics = partitions.iter().map(|it| it.topic.as_str());
    topics.any(|topic| topic.ends_with("-repartition"))
}

/// The changes that were fed to both tables.
pub(super) struct Input<'a> {
    log: &'a Log,
    state: u64,
    pub(super) left: Vec<Entry>,
    pub(super) right: Vec<Entry>,
}

impl<'a> Input<'a> {
    pub(super) fn new(log: &'a Log, seed: u64) -> Self {
        Self {
            log,
            state: seed,
            left: vec![],
            right: vec![],
        }
    }

    pub(super) fn feed(&mut self, count: usize) {
        let left = changes(&mut self.state, count);
        let right = changes(&mut self.state, count);
        feed(self.log, "left", &left);
        feed(self.log, "right", &right);
        self.left.extend(left);
        self.right.extend(right);
    }

    /// A key of its own at the end, which comes last in its partition of each input.
    pub(super) fn end(&mut self) {
        let end = [(1_000, Some(1)), (1_001, Some(1))];
        feed(self.log, "left", &end);
        self.left.extend(end);
    }

    /// Whether all is out that is made of it.
    pub(super) fn is_out(&self) -> bool {
        let (left, right) = (last(&self.left), last(&self.right));
        let set = self.left.iter().filter(|(_, value)| value.is_some());
        let expected = expected(Kind::Outer, &left, &right);
        let mut all = expected.iter();
        all.all(|(topic, expected)| last(&written(self.log, topic)) == *expected)
            && are_lists_out(self.log, &left)
            && committed(self.log, "itself").len() == set.count()
    }
}

#[test]
fn j6_j7_j17_tables_and_those_that_read_them_move_between_instances() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "left");
    make_topic(&log, "right");
    let mut input = Input::new(&log, 5);
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
    input.end();
    until("all is out", || input.is_out());
    wait(stays.stop()).unwrap();
    check(&log, Kind::Outer, &input.left, &input.right);
}
