//! The order of records of one key and one time behind `sorted_by_time`: what is promised of it, and exactly that.
//!
//! - In one process: that of their splits and offsets, behind any number of shuffles, whatever runs the job.
//! - Scaled out: that in which they are in the repartition topic in front. The topic keeps it, so it is the same in each replay behind it,
//!   on whichever process. A job that begins anew may bring records of different splits there in another order.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running};

use super::scaled::state_of;
use super::scaled_kafka::{self, cluster, until_led};
use super::support::{Click, feed, ms, parse, topic_of_clicks};
use crate::jobs::support::{Place, committed, committed_by_key, run, until, wait_for_markers};
use crate::support::peers;

const PARTITIONS: i32 = 3;
const DISORDER: i64 = 5;
/// The repartition topic in front of the step that sorts.
const BETWEEN: &str = "ordered-in-order-repartition";

/// Brings records together by their numbers, and then by their groups, and sorts those of each group.
fn ordered(is_endless: bool) -> Launch {
    let job = Job::new("ordered");
    let input = topic::<str>("in");
    let input = if is_endless { input } else { input.until_end() };
    let watermarks = Watermarks::out_of_order(ms(DISORDER.unsigned_abs()));
    let (in_order, late) = job
        .source(input)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by(|(name, _): &Click| name.len() as u64 + name.bytes().map(u64::from).sum::<u64>())
        .partitioned("by-number")
        .entries(|_, click| click.clone())
        .key_by(|(name, _): &Click| group(name))
        .sorted_by_time("in-order");
    late.sink(topic("late"));
    in_order.sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The group of a record, whose name has a number behind it.
fn group(name: &str) -> String {
    name.split('/').next().unwrap_or_default().to_owned()
}

/// Records of a few groups, of which many have one time; each has a name of its own.
struct Records {
    state: u64,
    newest: i64,
    fed: Vec<Vec<Click>>,
}

impl Records {
    fn new(log: &Log) -> Self {
        topic_of_clicks(log, "in", PARTITIONS);
        until_led(log, "in", PARTITIONS);
        Self {
            state: 11,
            newest: 100,
            fed: vec![vec![]; 3],
        }
    }

    fn below(&mut self, bound: u64) -> i64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.state >> 33) % bound).cast_signed()
    }

    fn feed(&mut self, log: &Log, count_each: usize) {
        for partition in 0..PARTITIONS {
            let place = usize::try_from(partition).unwrap();
            let first = self.fed[place].len();
            for number in first..first + count_each {
                let time = self.newest - self.below(DISORDER.unsigned_abs());
                let name = format!("g{}/{partition}-{number}", self.below(3));
                self.fed[place].push((name, time));
            }
            feed(log, "in", partition, &self.fed[place][first..]);
        }
        self.newest += 1;
    }

    /// Lets time go on until all others are out.
    fn end(&self, log: &Log) {
        let end = [("end/0".to_owned(), self.newest + 1_000)];
        (0..PARTITIONS).for_each(|partition| feed(log, "in", partition, &end));
    }

    fn count(&self) -> usize {
        self.fed.iter().map(Vec::len).sum()
    }
}

/// The records of each group in the order in which they came out.
fn found(log: &Log) -> BTreeMap<String, Vec<Click>> {
    let mut found = committed_by_key::<String, Click>(log, "out");
    found.remove("end");
    found
}

/// Records by group, those of one time in the order in which they are given here.
fn by_time(records: impl Iterator<Item = Click>) -> BTreeMap<String, Vec<Click>> {
    let mut groups = BTreeMap::<_, Vec<Click>>::new();
    for record in records {
        groups.entry(group(&record.0)).or_default().push(record);
    }
    groups.remove("end");
    for records in groups.values_mut() {
        records.sort_by_key(|(_, time)| *time);
    }
    groups
}

#[test]
fn i16_behind_two_shuffles_records_of_one_time_are_in_the_order_of_their_splits_and_offsets() {
    for workers in [1, 3] {
        let place = Place::new();
        let log = place.log();
        let mut records = Records::new(&log);
        for _ in 0..40 {
            records.feed(&log, 7);
        }
        for stops in [1, 4] {
            let running = ordered(false).workers(workers).start(&log).unwrap();
            let begin = std::time::Instant::now();
            while running.commits() < stops && begin.elapsed() < ms(20) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(ordered(false).workers(4 - workers), &log).unwrap();
        assert_eq!(committed(&log, "late"), []);
        let expected = by_time(records.fed.iter().flatten().cloned());
        assert!(
            found(&log) == expected,
            "{workers} workers: in another order"
        );
    }
}

/// Instances come and go while records are on their way; `open` gives each its log.
fn instances_come_and_go(log: &Log, open: impl Fn(&str) -> Log) {
    let mut records = Records::new(log);
    let start = |name: &str| -> Running {
        let instance =
            ScaleOut::instance(name).purge_interval(std::time::Duration::from_secs(3_600));
        let launch = ordered(true).workers(2).scale_out(instance);
        launch.start(&open(name)).unwrap()
    };
    let mut stays = start("first");
    for name in ["second", "third"] {
        records.feed(log, 20);
        let other = start(name);
        until("each has a share of the state", || {
            records.feed(log, 3);
            std::thread::sleep(ms(20));
            [&stays, &other].iter().all(|it| !state_of(it).is_empty())
        });
        records.feed(log, 20);
        wait(std::mem::replace(&mut stays, other).stop()).unwrap();
        records.feed(log, 20);
    }
    records.end(log);
    until("all are out", || {
        found(log).values().map(Vec::len).sum::<usize>() == records.count()
    });
    wait(stays.stop()).unwrap();
    for topic in [BETWEEN, "out", "late"] {
        wait_for_markers(log, topic);
    }
    assert_eq!(committed(log, "late"), []);
    let between = committed(log, BETWEEN);
    // A record without a key is a mark of time.
    let between = between.iter().filter(|it| it.key.is_some());
    let expected = by_time(between.map(|it| it.value::<Click>()));
    assert_eq!(
        expected.values().map(Vec::len).sum::<usize>(),
        records.count()
    );
    assert!(found(log) == expected, "not in the order of the topic");
}

#[test]
fn i16_scaled_out_records_of_one_time_are_in_the_order_of_the_repartition_topic() {
    let place = Place::new();
    let log = place.log();
    instances_come_and_go(&log, |_| log.clone());
}

#[test]
fn i16_on_kafka_records_of_one_time_are_in_the_order_of_the_repartition_topic() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let open = |name: &str| scaled_kafka::open(&brokers, &folder.path().join(name));
    instances_come_and_go(&open("feeder"), open);
}
