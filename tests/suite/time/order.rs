//! The order of records of one key and one time behind `sorted_by_time`: that of their splits and offsets, behind any number of shuffles,
//! whatever runs the job. Scaled out, it is not promised: a split has a number of its own in each process.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::support::{Click, feed, ms, parse, topic_of_clicks};
use crate::jobs::support::{Place, committed, committed_by_key, run};

const PARTITIONS: i32 = 3;
const DISORDER: i64 = 5;

/// Brings records together by their numbers, and then by their groups, and sorts those of each group.
fn ordered() -> Launch {
    let job = Job::new("ordered");
    let input = topic::<str>("in").until_end();
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
}

/// Records by group, those of one time in the order in which they are given here.
fn by_time(records: impl Iterator<Item = Click>) -> BTreeMap<String, Vec<Click>> {
    let mut groups = BTreeMap::<_, Vec<Click>>::new();
    for record in records {
        groups.entry(group(&record.0)).or_default().push(record);
    }
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
            let running = ordered().workers(workers).start(&log).unwrap();
            let begin = std::time::Instant::now();
            while running.commits() < stops && begin.elapsed() < ms(20) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(ordered().workers(4 - workers), &log).unwrap();
        assert_eq!(committed(&log, "late"), []);
        let expected = by_time(records.fed.iter().flatten().cloned());
        let found = committed_by_key::<String, Click>(&log, "out");
        assert!(found == expected, "{workers} workers: in another order");
    }
}
