//! Joins of two streams in windows, against nested loops over all of both.

use std::collections::BTreeMap;
use std::time::Instant;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::model::{Kind, any_kind, holding, windows};
use super::support::{any_runs, ms, parse, watermarks};
use super::two_inputs::{Input, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run};

fn text(left: Option<&i64>, right: Option<&i64>) -> String {
    let side = |it: Option<&i64>| it.map_or("-".to_owned(), i64::to_string);
    format!("{} {}", side(left), side(right))
}

/// Joins `orders` with `payments`, texts of a user and a time each, in windows, into `joined`.
fn joining(kind: Kind, is_outer: bool) -> Launch {
    let job = Job::new("joining");
    let input = |name: &str| {
        job.source(topic::<str>(name).until_end())
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks())
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let (joined, late_orders, late_payments) = input("orders")
        .join("join", input("payments"))
        .window(windows(kind))
        .late();
    late_orders.sink(topic("late-orders"));
    late_payments.sink(topic("late-payments"));
    let joined = match is_outer {
        true => joined.outer(text).boxed(),
        false => joined.inner(|l, r| text(Some(l), Some(r))).boxed(),
    };
    joined.sink(topic("joined"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The results of each user and window, in order.
type Joined = BTreeMap<(String, i64, i64), Vec<String>>;

fn found(log: &Log) -> Joined {
    let found = committed_by_key::<Windowed<String>, String>(log, "joined");
    let place = |key: Windowed<String>| (key.key, key.window.start.0, key.window.end.0);
    found
        .into_iter()
        .map(|(key, it)| (place(key), it))
        .collect()
}

/// The records of each user and window, in the order of their partitions.
fn in_windows(kind: Kind, input: &Input) -> BTreeMap<(String, i64, i64), Vec<i64>> {
    let mut records = BTreeMap::<_, Vec<i64>>::new();
    for (user, time) in input.iter().flatten() {
        for (start, end) in holding(kind, *time) {
            let of_window = records.entry((user.clone(), start, end)).or_default();
            of_window.push(*time);
        }
    }
    records
}

/// The results by definition, in the order that is promised: all matches of a window, by the right record and then by the left one;
/// then what has none.
fn nested_loops(kind: Kind, is_outer: bool, orders: &Input, payments: &Input) -> Joined {
    let (left, right) = (in_windows(kind, orders), in_windows(kind, payments));
    let mut joined = Joined::new();
    for place in left.keys().chain(right.keys()) {
        let none = Vec::new();
        let (left, right) = (
            left.get(place).unwrap_or(&none),
            right.get(place).unwrap_or(&none),
        );
        let pairs = right.iter().flat_map(|r| left.iter().map(move |l| (l, r)));
        let mut results: Vec<String> = pairs.map(|(l, r)| text(Some(l), Some(r))).collect();
        if is_outer && results.is_empty() {
            results.extend(left.iter().map(|l| text(Some(l), None)));
            results.extend(right.iter().map(|r| text(None, Some(r))));
        }
        if !results.is_empty() {
            joined.insert(place.clone(), results);
        }
    }
    joined
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j2_j8_w1_w17_records_that_share_a_window_are_joined_whatever_runs_the_job(
        orders in any_input(),
        payments in any_input(),
        kind in any_kind(),
        is_outer in any::<bool>(),
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &orders, batch);
        feed_in_batches(&log, "payments", &payments, batch);
        for (workers, enough) in runs {
            let running = joining(kind, is_outer).workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(joining(kind, is_outer).workers(workers), &log).unwrap();
        let expected = nested_loops(kind, is_outer, &orders, &payments);
        prop_assert_eq!(found(&log), expected);
        prop_assert_eq!(committed(&log, "late-orders"), vec![]);
        prop_assert_eq!(committed(&log, "late-payments"), vec![]);
    }
}
