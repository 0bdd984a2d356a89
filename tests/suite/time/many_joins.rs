//! Ten thousand random cases for each kind of join of streams, against nested loops: a case is a user of a random job, with records of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use onceflow::client::wait;
use onceflow::internals::protocol::murmur2;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::as_of::{self, Direction};
use super::joins::{self, Joined, Kind};
use super::support::{Click, DISORDER, ms, watermarks};
use super::two_inputs::{Input, feed_in_batches};
use super::{model, window_joins};
use crate::jobs::support::{Place, run};

const JOBS: u64 = 40;
const USERS: usize = 256;
const PARTITIONS: usize = 3;
/// Of both sides of a job.
const RECORDS: u64 = 3_000;

/// Names of users in pairs whose murmur2 is the same, first; then others.
fn names() -> Vec<String> {
    let mut by_hash = HashMap::new();
    let mut names: Vec<String> = Vec::new();
    let mut bytes = Vec::new();
    for number in 0..400_000u64 {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let name = format!("{:016x}", scattered.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        bytes.clear();
        Bincode.encode(&name, &mut bytes).unwrap();
        if let Some(other) = by_hash.insert(murmur2(&bytes), name.clone()) {
            names.extend([name, other]);
        }
    }
    assert!(names.len() >= 10, "only {} names of one hash", names.len());
    names.truncate(USERS / 2);
    let others = (0..).map(|number| format!("u{number}"));
    let missing = USERS - names.len();
    names.extend(others.take(missing));
    names
}

/// One random job: its input, and how it is run.
struct Case {
    state: u64,
    orders: Input,
    payments: Input,
    batch: usize,
    /// The workers of runs that are stopped, and after how many commits.
    runs: Vec<(usize, u64)>,
    last_workers: usize,
    state_partitions: u16,
}

impl Case {
    fn new(seed: u64, names: &[String], disorder: i64) -> Self {
        let mut case = Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            orders: vec![vec![]; PARTITIONS],
            payments: vec![vec![]; PARTITIONS],
            batch: 0,
            runs: Vec::new(),
            last_workers: 0,
            state_partitions: 0,
        };
        case.batch = [1, 7, 64, 4_096][case.below(4)];
        case.last_workers = [1, 2, 4][case.below(3)];
        case.state_partitions = [1, 8][case.below(2)];
        for _ in 0..case.below(3) {
            let run = (1 + case.below(4), case.below(40) as u64);
            case.runs.push(run);
        }
        // One record in so many lets time go on.
        let pace = 1 + case.below(24);
        let mut newest = [0; 2 * PARTITIONS];
        for _ in 0..RECORDS {
            let split = case.below(2 * PARTITIONS);
            newest[split] += i64::from(case.below(pace) == 0);
            let behind = case.between(0, disorder);
            let user = names[case.below(names.len())].clone();
            let record = (user, newest[split] - behind);
            match split < PARTITIONS {
                true => case.orders[split].push(record),
                false => case.payments[split - PARTITIONS].push(record),
            }
        }
        case
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from((self.state >> 11) % bound as u64).unwrap()
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        least + i64::try_from(self.below(usize::try_from(most - least + 1).unwrap())).unwrap()
    }

    fn any_kind(&mut self) -> Kind {
        let (a, b) = (self.between(-15, 15), self.between(-15, 15));
        Kind {
            left: self.below(2) == 0,
            right: self.below(2) == 0,
            before: -a.min(b),
            after: a.max(b),
            grace: self.between(0, 8),
        }
    }

    /// Feeds the input and runs the job to its end.
    fn run(&self, right: &str, launch: impl Fn() -> Launch) -> (Log, Place) {
        let place = Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &self.orders, self.batch);
        feed_in_batches(&log, right, &self.payments, self.batch);
        let launch = || launch().state_partitions(self.state_partitions);
        for (workers, enough) in &self.runs {
            let running = launch().workers(*workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < *enough && begin.elapsed() < ms(20) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch().workers(self.last_workers), &log).unwrap();
        (log, place)
    }
}

#[track_caller]
fn assert_same<K: Ord + std::fmt::Debug, T: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<K, T>,
    expected: &BTreeMap<K, T>,
    job: &str,
) {
    for key in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(key), expected.get(key), "{key:?} of {job}");
    }
}

/// Takes records out of the input that were late.
fn without(input: &Input, late: Vec<Click>) -> Input {
    let mut left = BTreeMap::<Click, usize>::new();
    for record in late {
        *left.entry(record).or_default() += 1;
    }
    let mut is_taken = |record: &Click| match left.get_mut(record) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    let mut input = input.clone();
    for records in &mut input {
        records.retain(&mut is_taken);
    }
    assert!(left.values().all(|it| *it == 0), "late without a record");
    input
}

/// The late records of a topic whose values are their times.
fn late(log: &Log, topic: &str) -> Vec<Click> {
    let late = crate::jobs::support::committed(log, topic).into_iter();
    late.map(|it| (it.key::<String>(), it.value::<i64>()))
        .collect()
}

#[test]
fn i16_j1_j2_j4_j5_j8_ten_thousand_joins_within_an_interval_are_those_of_nested_loops_in_one_order()
{
    let names = names();
    for seed in 0..JOBS {
        let mut case = Case::new(seed, &names, DISORDER);
        let kind = case.any_kind();
        let job = format!("job {seed}, {kind:?}");
        let launch = || {
            let job = joins::joining(kind, watermarks(), false);
            job.exactly_once(Commit::every(ms(2)))
        };
        let (log, _place) = case.run("payments", launch);
        let expected = joins::nested_loops(kind, &case.orders, &case.payments);
        assert_same(&joins::found(&log), &expected, &job);
        for topic in ["late-orders", "late-payments"] {
            assert_eq!(late(&log, topic), [], "{job}");
        }
    }
}

/// Records are farther out of order than was said: whatever is not late joins all that is not, and each is in a result or late.
#[test]
fn j1_j3_ten_thousand_joins_of_late_records_are_those_of_the_records_that_were_taken() {
    let names = names();
    let sorted = |joined: Joined| -> Joined {
        let sorted = joined.into_iter().map(|(user, mut results)| {
            results.sort();
            (user, results)
        });
        sorted.collect()
    };
    let mut late_count = 0;
    for seed in 0..JOBS {
        let mut case = Case::new(1_000 + seed, &names, 4 * DISORDER);
        let kind = case.any_kind();
        let launch = || {
            let job = joins::joining(kind, watermarks(), false);
            job.exactly_once(Commit::every(ms(2)))
        };
        let (log, _place) = case.run("payments", launch);
        let (late_orders, late_payments) = (late(&log, "late-orders"), late(&log, "late-payments"));
        late_count += late_orders.len() + late_payments.len();
        let orders = without(&case.orders, late_orders);
        let payments = without(&case.payments, late_payments);
        let expected = sorted(joins::nested_loops(kind, &orders, &payments));
        let found = sorted(joins::found(&log));
        assert_same(&found, &expected, &format!("job {seed}, {kind:?}"));
    }
    assert!(late_count > 1_000, "only {late_count} were late");
}

#[test]
fn i16_j2_j8_ten_thousand_joins_in_windows_are_those_of_nested_loops_in_one_order() {
    let names = names();
    for seed in 0..JOBS {
        let mut case = Case::new(2_000 + seed, &names, DISORDER);
        let kind = (
            1 + case.below(15) as u64,
            1 + case.below(9) as u64,
            case.below(2) == 0,
            case.between(-30, 30),
            case.below(5) as u64,
        );
        let is_outer = case.below(2) == 0;
        let launch = || window_joins::joining(model::windows(kind), is_outer, false);
        let (log, _place) = case.run("payments", launch);
        let expected = window_joins::nested_loops(kind, is_outer, &case.orders, &case.payments);
        let job = format!("job {seed}, {kind:?}, outer: {is_outer}");
        assert_same(&window_joins::found(&log, "joined"), &expected, &job);
        for topic in ["late-orders", "late-payments"] {
            assert_eq!(crate::jobs::support::committed(&log, topic), [], "{job}");
        }
    }
}

#[test]
fn i16_j10_j11_j14_ten_thousand_joins_as_of_a_time_are_those_of_a_list_of_versions_in_one_order() {
    let names = names();
    for seed in 0..JOBS {
        let mut case = Case::new(3_000 + seed, &names, DISORDER);
        let directions = [Direction::Previous, Direction::Next, Direction::Nearest];
        let tolerance = (case.below(3) > 0).then(|| case.between(0, 20));
        let bounds = (directions[case.below(3)], tolerance, case.between(0, 5));
        let launch = || as_of::pricing(bounds, watermarks(), false);
        let (log, _place) = case.run("prices", launch);
        let expected = as_of::by_hand(bounds, &case.orders, &case.payments);
        assert_same(
            &as_of::found(&log),
            &expected,
            &format!("job {seed}, {bounds:?}"),
        );
        for topic in ["late-orders", "late-prices"] {
            assert_eq!(
                crate::jobs::support::committed(&log, topic),
                [],
                "job {seed}"
            );
        }
    }
}
