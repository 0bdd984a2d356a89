//! Joins of records with the version that was valid at their time, against the list of all versions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::support::{
    any_runs, click, feed, left_in_store, ms, parse, topic_of_clicks, watermarks,
};
use super::two_inputs::{Input, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run};

/// Which version is found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Previous,
    Next,
    Nearest,
}

use Direction::{Nearest, Next, Previous};

/// Which version is found, the tolerance, if there is one, and the grace.
pub(super) type Bounds = (Direction, Option<i64>, i64);

/// Every fifth version is a deletion.
pub(super) fn version(time: i64) -> Option<i64> {
    (time % 5 != 0).then_some(time)
}

/// Joins `orders` with `prices`, texts of a user and a time each, into `priced`: the time of each order and that of its version.
pub(super) fn pricing(bounds: Bounds, watermarks: Watermarks, is_endless: bool) -> Launch {
    let job = Job::new("pricing");
    let input = |name: &str| {
        let input = topic::<str>(name);
        let input = if is_endless { input } else { input.until_end() };
        job.source(input)
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks)
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let prices = input("prices").map(|time| version(*time));
    let (priced, late_orders, late_prices) = input("orders")
        .join_as_of("price", prices)
        .grace(ms(bounds.2.unsigned_abs()))
        .late();
    let tolerance = bounds.1.map(|it| ms(it.unsigned_abs()));
    let priced = match (bounds.0, tolerance) {
        (Previous, None) => priced,
        (Previous, Some(tolerance)) => priced.tolerance(tolerance),
        (Next, tolerance) => priced.next_within(tolerance.unwrap_or(Duration::MAX)),
        (Nearest, tolerance) => priced.nearest_within(tolerance.unwrap_or(Duration::MAX)),
    };
    late_orders.sink(topic("late-orders"));
    late_prices.sink(topic("late-prices"));
    priced
        .left(|order, price| (*order, price.copied()))
        .sink(topic("priced"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The results of each user, in order.
pub(super) type Priced = BTreeMap<String, Vec<(i64, Option<i64>)>>;

pub(super) fn found(log: &Log) -> Priced {
    committed_by_key::<String, (i64, Option<i64>)>(log, "priced")
}

/// The results by definition.
pub(super) fn by_hand(bounds: Bounds, orders: &Input, prices: &Input) -> Priced {
    let rows = |input: &Input| {
        let mut rows = BTreeMap::<String, Vec<i64>>::new();
        for (user, time) in input.iter().flatten() {
            rows.entry(user.clone()).or_default().push(*time);
        }
        rows.values_mut().for_each(|times| times.sort_unstable());
        rows
    };
    let prices = rows(prices);
    let mut priced = Priced::new();
    for (user, times) in rows(orders) {
        let of_user = prices.get(&user).map_or(&[][..], Vec::as_slice);
        let results = times.into_iter().map(|time| {
            let at = version_at(bounds, of_user, time);
            (time, at.and_then(version))
        });
        priced.insert(user, results.collect());
    }
    priced
}

/// The time of the version that a record at a time finds among those at these times.
fn version_at((direction, tolerance, _): Bounds, versions: &[i64], time: i64) -> Option<i64> {
    let near = |it: &&i64| tolerance.is_none_or(|tolerance| (time - **it).abs() <= tolerance);
    let mut near = versions.iter().filter(near).copied();
    match direction {
        Previous => near.rfind(|it| *it <= time),
        Next => near.find(|it| *it >= time),
        // The older one of two.
        Nearest => near.min_by_key(|it| ((time - it).abs(), *it)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: the same results in the same order for each key, whatever runs the job.
    #[test]
    fn j10_j11_j14_j20_records_find_the_version_of_their_time_whatever_runs_the_job(
        orders in any_input(),
        prices in any_input(),
        bounds in (
            prop::sample::select(vec![Previous, Next, Nearest]),
            prop::option::of(0i64..20),
            0i64..5,
        ),
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &orders, batch);
        feed_in_batches(&log, "prices", &prices, batch);
        let launch = || pricing(bounds, watermarks(), false);
        for (workers, enough) in runs {
            let running = launch().workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch().workers(workers), &log).unwrap();
        prop_assert_eq!(found(&log), by_hand(bounds, &orders, &prices));
        prop_assert_eq!(committed(&log, "late-orders"), vec![]);
        prop_assert_eq!(committed(&log, "late-prices"), vec![]);
        if orders.iter().any(|it| !it.is_empty()) {
            prop_assert_eq!(left_in_store(&log, "pricing", "price-waiting"), 0);
        }
    }
}

/// Runs the job to the end of what is fed, in order, a run for each part.
fn run_parts(bounds: Bounds, parts: &[(&str, &[i64])]) -> (Log, support::Place) {
    let place = support::Place::new();
    let log = place.log();
    topic_of_clicks(&log, "orders", 1);
    topic_of_clicks(&log, "prices", 1);
    for (topic, times) in parts {
        let clicks: Vec<_> = times.iter().map(|time| click("u", *time)).collect();
        feed(&log, topic, 0, &clicks);
        let watermarks = Watermarks::out_of_order(ms(10));
        run(pricing(bounds, watermarks, false), &log).unwrap();
    }
    (log, place)
}

#[test]
fn j10_a_record_finds_the_version_of_its_time_and_not_the_latest() {
    let prices: &[i64] = &[1, 3];
    let (log, _place) = run_parts(
        (Previous, None, 9),
        &[("prices", prices), ("orders", &[1, 4, 2])],
    );
    assert_eq!(found(&log)["u"], [(1, Some(1)), (2, Some(1)), (4, Some(3))]);
}

#[test]
fn j11_j13_a_version_that_is_superseded_goes_and_the_one_that_is_valid_stays() {
    // The order of 61 lets time go on to 62, so that nothing finds the price of 1 any more.
    let prices: &[i64] = &[1, 4, 107];
    let orders: &[i64] = &[60, 99];
    let (log, _place) = run_parts(
        (Previous, None, 40),
        &[("prices", prices), ("orders", &[61]), ("orders", orders)],
    );
    assert_eq!(
        found(&log)["u"],
        [(61, Some(4)), (60, Some(4)), (99, Some(4))]
    );
    let left = left_in_store(&log, "pricing", "price-versions");
    assert_eq!(left, 2, "those of 4 and of 107");
}

#[test]
fn j12_a_deletion_keeps_its_time_and_an_older_version_is_history() {
    let parts: &[(&str, &[i64])] = &[("prices", &[4, 10]), ("prices", &[7]), ("orders", &[8, 12])];
    let (log, _place) = run_parts((Previous, None, 20), parts);
    assert_eq!(found(&log)["u"], [(8, Some(7)), (12, None)]);
}

#[test]
fn the_next_version_is_awaited_until_none_can_be_near_enough() {
    // The watermark is 10 behind: at 17 nothing can be within 5 of 11 any more, at 16 something can.
    let orders: &[i64] = &[11, 26];
    let prices: &[i64] = &[16];
    let bounds = (Next, Some(5), 0);
    let (log, _place) = run_parts(bounds, &[("prices", prices), ("orders", orders)]);
    assert_eq!(found(&log)["u"], [(11, Some(16)), (26, None)]);
}

#[test]
fn of_two_versions_that_are_equally_near_the_older_one_is_found() {
    let orders: &[i64] = &[14, 15, 16];
    let prices: &[i64] = &[11, 19];
    let bounds = (Nearest, Some(9), 0);
    let (log, _place) = run_parts(bounds, &[("prices", prices), ("orders", orders)]);
    let expected = [(14, Some(11)), (15, Some(11)), (16, Some(19))];
    assert_eq!(found(&log)["u"], expected);
}
