//! Joins of two streams in windows, against nested loops over all of both.

use std::collections::BTreeMap;
use std::time::Instant;

use onceflow::client::wait;
use onceflow::operators::JoinWindows;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::joins::text;
use super::model::{Kind, any_kind, holding, windows};
use super::support::{any_runs, ms, parse, watermarks};
use super::two_inputs::{Input, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run};

/// Joins `orders` with `payments`, texts of a user and a time each, in windows, into `joined`.
pub(super) fn joining(windows: impl JoinWindows, is_outer: bool, is_endless: bool) -> Launch {
    let job = Job::new("joining");
    let input = |name: &str| {
        let input = topic::<str>(name);
        let input = if is_endless { input } else { input.until_end() };
        job.source(input)
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks())
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let (joined, late_orders, late_payments) = input("orders")
        .join("join", input("payments"))
        .window(windows)
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
pub(super) type Joined = BTreeMap<(String, i64, i64), Vec<String>>;

pub(super) fn found(log: &Log, topic: &str) -> Joined {
    let found = committed_by_key::<Windowed<String>, String>(log, topic);
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
pub(super) fn nested_loops(kind: Kind, is_outer: bool, orders: &Input, payments: &Input) -> Joined {
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
            let running = joining(windows(kind), is_outer, false).workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(joining(windows(kind), is_outer, false).workers(workers), &log).unwrap();
        let expected = nested_loops(kind, is_outer, &orders, &payments);
        prop_assert_eq!(found(&log, "joined"), expected);
        prop_assert_eq!(committed(&log, "late-orders"), vec![]);
        prop_assert_eq!(committed(&log, "late-payments"), vec![]);
    }
}

/// In Berlin the 29th of March 2026 has 23 hours, and ends at 22:00 UTC.
#[test]
fn w3_records_of_one_day_of_a_zone_are_joined() {
    const HOUR: i64 = 3_600_000;
    let place = support::Place::new();
    let log = place.log();
    let midnight = 1_774_738_800_000;
    let at = |hours: i64| vec![("u".to_owned(), midnight + hours * HOUR)];
    let orders = vec![[at(0), at(22)].concat()];
    let payments = vec![[at(1), at(23)].concat()];
    feed_in_batches(&log, "orders", &orders, 7);
    feed_in_batches(&log, "payments", &payments, 7);
    let days = CalendarWindows::days("Europe/Berlin").unwrap();
    run(joining(days, true, false), &log).unwrap();
    let (first, second) = (midnight + 23 * HOUR, midnight + 47 * HOUR);
    let results = |pairs: &[(Option<i64>, i64)]| {
        let time = |hours: &i64| midnight + hours * HOUR;
        let texts = pairs.iter();
        texts
            .map(|(l, r)| text(l.as_ref().map(time).as_ref(), Some(&time(r))))
            .collect::<Vec<_>>()
    };
    let expected = [
        (
            ("u".to_owned(), midnight, first),
            results(&[(Some(0), 1), (Some(22), 1)]),
        ),
        (("u".to_owned(), first, second), results(&[(None, 23)])),
    ];
    assert_eq!(found(&log, "joined"), BTreeMap::from(expected));
}
