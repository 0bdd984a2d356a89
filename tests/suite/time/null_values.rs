//! Records without a value in joins of streams: `None` is a value like any other, is joined and is never lost.
//!
//! Kafka Streams drops such records before a join of streams, with a warning and a metric. Here a source of values refuses them, and who
//! reads them as `None` has them joined, or takes them out in front of the join.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Upstream};

use super::as_of::{self, Direction, version};
use super::joins::{self, Kind};
use super::support::{click, feed, ms, parse, topic_of_clicks, watermarks};
use super::two_inputs::Shop;
use super::{model, window_joins};
use crate::jobs::support::{Place, committed_by_key, run, until};

const WINDOWS: model::Kind = (10, 5, false, 0, 2);
const AS_OF: as_of::Bounds = (Direction::Nearest, Some(9), 0);

type Maybe = Option<i64>;

/// The times of a topic's records, of which every fifth is no value.
fn input(job: &Job, name: &str) -> Keyed<String, Maybe, impl Upstream<String, Maybe> + use<>> {
    job.source(topic::<str>(name).until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _)| user.clone())
        .map(|(_, time)| version(*time))
}

fn text(left: Option<&Maybe>, right: Option<&Maybe>) -> String {
    let side = |it: Option<&Maybe>| match it {
        None => "-".to_owned(),
        Some(None) => "null".to_owned(),
        Some(Some(time)) => time.to_string(),
    };
    format!("{} {}", side(left), side(right))
}

/// The text of a result of records that all have values, for those that have none at every fifth time.
fn with_nulls(text: &str) -> String {
    let side = |side: &str| match side.parse() {
        Ok(time) if version(time).is_none() => "null".to_owned(),
        _ => side.to_owned(),
    };
    text.split(' ').map(side).collect::<Vec<_>>().join(" ")
}

fn joining() -> Launch {
    let job = Job::new("nulls");
    let (near, orders) = input(&job, "orders").tee();
    let (in_windows, priced) = orders.tee();
    let (to_near, payments) = input(&job, "payments").tee();
    let (to_windows, prices) = payments.tee();
    near.join("near", to_near)
        .within(ms(7), ms(12))
        .outer(text)
        .sink(topic("joined"));
    in_windows
        .join("in-windows", to_windows)
        .window(model::windows(WINDOWS))
        .outer(text)
        .sink(topic("windowed"));
    priced
        .join_as_of("price", prices)
        .nearest_within(ms(9))
        .left(|order, price| (order.unwrap_or(-1), price.copied()))
        .sink(topic("priced"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

#[test]
fn j8_records_without_a_value_are_joined_as_others_are() {
    let place = Place::new();
    let log = place.log();
    for name in ["orders", "payments"] {
        topic_of_clicks(&log, name, 2);
    }
    let mut shop = Shop::new();
    shop.feed(&log, 400);
    // Rows that wait are state, also those of records without a value.
    let running = joining().workers(2).start(&log).unwrap();
    until("some of it is committed", || running.commits() > 2);
    wait(running.stop()).unwrap();
    run(joining(), &log).unwrap();

    let (orders, payments) = (&shop.orders, &shop.payments);
    let texts =
        |results: Vec<String>| -> Vec<_> { results.iter().map(|it| with_nulls(it)).collect() };
    let near = joins::nested_loops(Kind::outer(7, 12, 0), orders, payments);
    let near: joins::Joined = near
        .into_iter()
        .map(|(user, it)| (user, texts(it)))
        .collect();
    assert!(near.values().flatten().any(|it| it == "null null"));
    assert!(joins::found(&log) == near, "joined wrongly");
    let windowed = window_joins::nested_loops(WINDOWS, true, orders, payments);
    let windowed = windowed.into_iter().map(|(place, it)| (place, texts(it)));
    let windowed: window_joins::Joined = windowed.collect();
    let found = window_joins::found(&log, "windowed");
    assert!(found == windowed, "wrong in windows");
    let mut priced = as_of::by_hand(AS_OF, orders, payments);
    for (order, _) in priced.values_mut().flatten() {
        *order = version(*order).unwrap_or(-1);
    }
    assert!(as_of::found(&log) == priced, "priced wrongly");
}

/// Null values of topics reach a join as `None`, from either side, and a filter in front of it takes them out.
#[test]
fn x6_tombstones_of_both_topics_are_joined_and_a_filter_keeps_them_out() {
    let place = Place::new();
    let log = place.log();
    for name in ["left", "right"] {
        topic_of_clicks(&log, name, 1);
        feed(
            &log,
            name,
            0,
            &[click("a", 5), click("b", 6), click("c", 10)],
        );
        // The record at a fifth time is a tombstone.
        let job = Job::new(&format!("write-{name}"));
        let out = topic::<i64>(&format!("{name}-or-null"))
            .as_option()
            .partitions(1);
        input(&job, name).sink(out);
        run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    }
    let job = Job::new("joining");
    let read = |name: &str| {
        let source = keyed_topic::<String, i64>(&format!("{name}-or-null"));
        job.keyed_source(source.as_option().until_end())
    };
    let (left, left_values) = read("left").tee();
    let (right, right_values) = read("right").tee();
    left.join("all", right)
        .within(ms(1), ms(1))
        .outer(text)
        .sink(topic("all"));
    left_values
        .filter(Option::is_some)
        .join("values", right_values)
        .within(ms(1), ms(1))
        .outer(text)
        .sink(topic("values"));
    run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    let results = |topic: &str| -> Vec<_> {
        let results = committed_by_key::<String, String>(&log, topic);
        results.into_values().flatten().collect()
    };
    assert_eq!(results("all"), ["null null", "6 6", "null null"]);
    assert_eq!(results("values"), ["- null", "6 6", "- null"]);
}
