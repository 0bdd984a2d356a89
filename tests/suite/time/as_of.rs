//! Joins of records with the version that was valid at their time, against the list of all versions.

use std::collections::BTreeMap;
use std::time::Instant;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::support::{
    any_runs, click, feed, left_in_store, ms, parse, topic_of_clicks, watermarks,
};
use super::two_inputs::{Input, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run};

/// The tolerance, if there is one, and the grace.
type Bounds = (Option<i64>, i64);

/// Every fifth version is a deletion.
fn version(time: i64) -> Option<i64> {
    (time % 5 != 0).then_some(time)
}

/// Joins `orders` with `prices`, texts of a user and a time each, into `priced`: the time of each order and that of its version.
fn pricing(bounds: Bounds, watermarks: Watermarks) -> Launch {
    let job = Job::new("pricing");
    let input = |name: &str| {
        job.source(topic::<str>(name).until_end())
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks)
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let prices = input("prices").map(|time| version(*time));
    let (priced, late_orders, late_prices) = input("orders")
        .join_as_of("price", prices)
        .grace(ms(bounds.1.unsigned_abs()))
        .late();
    let priced = match bounds.0 {
        Some(tolerance) => priced.tolerance(ms(tolerance.unsigned_abs())),
        None => priced,
    };
    late_orders.sink(topic("late-orders"));
    late_prices.sink(topic("late-prices"));
    priced
        .left(|order, price| (*order, price.copied()))
        .sink(topic("priced"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The results of each user, in order.
type Priced = BTreeMap<String, Vec<(i64, Option<i64>)>>;

fn found(log: &Log) -> Priced {
    committed_by_key::<String, (i64, Option<i64>)>(log, "priced")
}

/// The results by definition.
fn by_hand(bounds: Bounds, orders: &Input, prices: &Input) -> Priced {
    let rows = |input: &Input| {
        let mut rows = Vec::new();
        for (partition, records) in input.iter().enumerate() {
            for (offset, (user, time)) in records.iter().enumerate() {
                rows.push((user.clone(), *time, partition, offset));
            }
        }
        rows.sort();
        rows
    };
    let prices = rows(prices);
    let mut priced = Priced::new();
    for (user, time, ..) in rows(orders) {
        let valid = prices.iter().rev().find(|(of, at, ..)| {
            *of == user && *at <= time && bounds.0.is_none_or(|it| time - at <= it)
        });
        let price = valid.and_then(|(_, at, ..)| version(*at));
        priced.entry(user).or_default().push((time, price));
    }
    priced
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: the same results in the same order for each key, whatever runs the job.
    #[test]
    fn j10_j11_j14_j20_records_find_the_version_of_their_time_whatever_runs_the_job(
        orders in any_input(),
        prices in any_input(),
        bounds in (prop::option::of(0i64..20), 0i64..5),
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &orders, batch);
        feed_in_batches(&log, "prices", &prices, batch);
        let launch = || pricing(bounds, watermarks());
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
        run(pricing(bounds, Watermarks::out_of_order(ms(10))), &log).unwrap();
    }
    (log, place)
}

#[test]
fn j10_a_record_finds_the_version_of_its_time_and_not_the_latest() {
    let prices: &[i64] = &[1, 3];
    let (log, _place) = run_parts((None, 9), &[("prices", prices), ("orders", &[1, 4, 2])]);
    assert_eq!(found(&log)["u"], [(1, Some(1)), (2, Some(1)), (4, Some(3))]);
}

#[test]
fn j11_j13_a_version_that_is_superseded_goes_and_the_one_that_is_valid_stays() {
    // The order of 61 lets time go on to 62, so that nothing finds the price of 1 any more.
    let prices: &[i64] = &[1, 4, 107];
    let orders: &[i64] = &[60, 99];
    let (log, _place) = run_parts(
        (None, 40),
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
    let (log, _place) = run_parts((None, 20), parts);
    assert_eq!(found(&log)["u"], [(8, Some(7)), (12, None)]);
}
