//! The rows J of the catalogue that are about tables, and what a table shows to those that read it.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::Timestamp;

use super::support::{feed, feed_at, input, make_topic, values_of, written};
use crate::jobs::support::{OFTEN, Place, run, until};

/// FULL OUTER: "there is a bucket" is not "there is a match".
#[test]
fn j6_a_key_that_was_deleted_on_one_side_is_not_there_any_more() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "left");
    make_topic(&log, "right");
    let launch = || {
        let job = Job::new("outer");
        let left = input(&job, "left", false).to_table("left");
        let right = input(&job, "right", false).to_table("right");
        left.outer_join("joined", right, |l, r| (l.copied(), r.copied()))
            .changes()
            .sink(topic::<(Option<u64>, Option<u64>)>("joined").as_option());
        job.exactly_once(Commit::every(OFTEN)).workers(2)
    };
    feed(&log, "right", &[(3, Some(7)), (3, None)]);
    run(launch(), &log).unwrap();
    feed(&log, "left", &[(3, Some(1))]);
    run(launch(), &log).unwrap();
    let seen = crate::jobs::support::committed(&log, "joined");
    let values: Vec<_> = seen
        .iter()
        .map(|it| {
            it.value
                .as_ref()
                .map(|_| it.value::<(Option<u64>, Option<u64>)>())
        })
        .collect();
    assert_eq!(values, [Some((None, Some(7))), None, Some((Some(1), None))]);
}

/// Runs a job that joins two tables; returns what it has written, with the times.
fn outer_of(log: &Log) -> Vec<(Option<u64>, i64)> {
    let job = Job::new("timed");
    let left = input(&job, "left", false).to_table("left");
    let right = input(&job, "right", false).to_table("right");
    let (inner, outer) = (left.tee(), right.tee());
    inner
        .0
        .join("inner", outer.0, |l, r| l * 100 + r)
        .changes()
        .sink(topic::<u64>("inner").as_option());
    inner
        .1
        .outer_join("outer", outer.1, |l, r| {
            l.copied().unwrap_or(0) * 100 + r.copied().unwrap_or(0)
        })
        .changes()
        .sink(topic::<u64>("outer").as_option());
    run(job.exactly_once(Commit::every(OFTEN)).workers(2), log).unwrap();
    timed(log, "outer")
}

fn timed(log: &Log, topic: &str) -> Vec<(Option<u64>, i64)> {
    let seen = crate::jobs::support::committed(log, topic).into_iter();
    seen.map(|it| {
        (
            it.value.is_some().then(|| it.value::<u64>()),
            it.timestamp.0,
        )
    })
    .collect()
}

/// Each change in a run of its own, so that they come in this order, whichever side they are of.
#[test]
fn j16_the_time_of_a_joined_row_never_goes_back_also_where_it_is_deleted() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "left");
    make_topic(&log, "right");
    let steps = [
        ("right", 2, Some(1)),
        ("left", 0, Some(3)),
        ("left", 1, None),
        ("left", 1, Some(4)),
        ("right", 5, Some(2)),
        ("left", 5, Some(5)),
        ("right", 3, None),
        ("left", 4, None),
        // Nothing was left of the key: it begins anew.
        ("left", 0, Some(6)),
    ];
    for (side, time, value) in steps {
        feed_at(&log, side, Timestamp(time), &[(1, value)]);
        outer_of(&log);
    }
    let inner = [
        (Some(301), 2),
        (None, 2),
        (Some(401), 2),
        (Some(402), 5),
        (Some(502), 5),
        (None, 5),
    ];
    assert_eq!(timed(&log, "inner"), inner);
    let outer = [
        (Some(1), 2),
        (Some(301), 2),
        (Some(1), 2),
        (Some(401), 2),
        (Some(402), 5),
        (Some(502), 5),
        (Some(500), 5),
        (None, 5),
        (Some(600), 0),
    ];
    assert_eq!(timed(&log, "outer"), outer);
}

/// The greatest value is the next one when it goes, whichever worker has its group, also over a restart.
#[test]
fn w16_an_extreme_that_is_taken_back_leaves_the_next_one() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "bids");
    let launch = || {
        let job = Job::new("auctions");
        let (highest, lowest) = input(&job, "bids", false).to_table("bids").tee();
        let highest = highest.group_by(|key, cents| (key % 2, *cents)).max("max");
        highest.changes().sink(topic::<u64>("max").as_option());
        let lowest = lowest.group_by(|key, cents| (key % 2, *cents)).min("min");
        lowest.changes().sink(topic::<u64>("min").as_option());
        job.exactly_once(Commit::every(OFTEN)).workers(2)
    };
    let last = |topic: &str| {
        let written = written(&log, topic).into_iter();
        written.collect::<std::collections::BTreeMap<_, _>>()
    };
    let group = |even, odd| std::collections::BTreeMap::from([(0, even), (1, odd)]);
    let first = [
        (0, Some(5)),
        (2, Some(9)),
        (4, Some(9)),
        (1, Some(3)),
        (6, Some(7)),
    ];
    feed(&log, "bids", &first);
    run(launch(), &log).unwrap();
    assert_eq!(last("max"), group(Some(9), Some(3)));
    assert_eq!(last("min"), group(Some(5), Some(3)));
    // One of two equal ones goes, then the other; a lower bid takes the place of the least.
    feed(&log, "bids", &[(2, None), (1, None)]);
    run(launch(), &log).unwrap();
    assert_eq!(last("max"), group(Some(9), None));
    feed(&log, "bids", &[(4, Some(1))]);
    run(launch(), &log).unwrap();
    assert_eq!(last("max"), group(Some(7), None));
    assert_eq!(last("min"), group(Some(1), None));
    feed(&log, "bids", &[(0, None), (4, None), (6, None)]);
    run(launch(), &log).unwrap();
    assert_eq!(last("max"), group(None, None));
    assert_eq!(last("min"), group(None, None));
}

/// No total lacks a value that changes within its group, at any moment.
#[test]
fn a_value_that_changes_within_its_group_is_one_change_of_the_total() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "people");
    let people: Vec<_> = (0..5).map(|key| (key, Some(10))).collect();
    let again = people.iter().cycle().take(100).copied();
    let all: Vec<_> = people.iter().copied().chain(again).collect();
    feed(&log, "people", &all);
    let job = Job::new("totals");
    input(&job, "people", false)
        .to_table("people")
        .group_by(|_, age| (0u64, *age))
        .aggregate("total", || 0u64, |sum, it| *sum += it, |sum, it| *sum -= it)
        .changes()
        .sink(topic::<u64>("totals").as_option());
    run(job.exactly_once(Commit::every(OFTEN)).workers(3), &log).unwrap();
    let totals: Vec<_> = written(&log, "totals").into_iter().map(|it| it.1).collect();
    assert_eq!(totals.len(), 105);
    // It grows with each of the five, and no change of one of them takes it back.
    assert!(totals.is_sorted(), "{totals:?}");
    assert_eq!(totals.last(), Some(&Some(50)));
}

/// A change that is looked up in its own table finds itself, in the same cycle.
#[test]
fn j17_a_lookup_sees_the_state_of_its_own_cycle() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "in");
    let changes: Vec<_> = (0..200).map(|n| (n % 7, Some(n))).collect();
    feed(&log, "in", &changes);
    let job = Job::new("itself");
    let (table, changes) = input(&job, "in", false).to_table("table").tee();
    changes
        .changes()
        .join_table("found", table, |change, value| (*change, *value))
        .sink(topic::<(Option<u64>, u64)>("found"));
    run(job.exactly_once(Commit::every(OFTEN)).workers(3), &log).unwrap();
    let found = values_of::<(Option<u64>, u64)>(&log, "found");
    assert_eq!(found.len(), 200);
    assert!(found.iter().all(|(change, value)| *change == Some(*value)));
}

#[test]
fn a_stream_finds_what_tables_have_counts_filtered_and_joined_ones_too() {
    let place = Place::new();
    let log = place.log();
    for name in ["users", "visits", "clicks"] {
        make_topic(&log, name);
    }
    let launch = || {
        let job = Job::new("lookups");
        let users = input(&job, "users", false).to_table("users");
        let visits = input(&job, "visits", false).count("visits");
        let few = visits.filter(|visits| *visits < 3);
        let both = users.left_join("both", few, |user, visits| (*user, visits.copied()));
        let clicks = input(&job, "clicks", false);
        clicks
            .left_join_table("rated", both, |click, both| (*click, both.copied()))
            .sink(topic::<(Option<u64>, Option<(u64, Option<u64>)>)>("rated"));
        job.exactly_once(Commit::every(OFTEN)).workers(2)
    };
    feed(
        &log,
        "users",
        &[
            (1, Some(11)),
            (2, Some(12)),
            (3, Some(13)),
            (4, Some(14)),
            (4, None),
        ],
    );
    feed(
        &log,
        "visits",
        &[(1, Some(0)), (2, Some(0)), (2, Some(0)), (2, Some(0))],
    );
    run(launch(), &log).unwrap();
    feed(
        &log,
        "clicks",
        &[(1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(4))],
    );
    run(launch(), &log).unwrap();
    let mut rated = values_of::<(Option<u64>, Option<(u64, Option<u64>)>)>(&log, "rated");
    rated.sort();
    let expected = [
        (Some(1), Some((11, Some(1)))),
        (Some(2), Some((12, None))),
        (Some(3), Some((13, None))),
        (Some(4), None),
    ];
    assert_eq!(rated, expected);
}

/// A deletion keeps its time; of two of one time the later one in its partition counts.
#[test]
fn j12_j20_an_older_change_is_ignored_and_counted_where_a_table_goes_by_time() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "in");
    let changes = [
        (5, Some(50)),
        (10, None),
        (7, Some(70)),
        (8, None),
        (10, Some(100)),
        (10, Some(101)),
        (9, Some(90)),
    ];
    for (time, value) in changes {
        feed_at(&log, "in", Timestamp(time), &[(1, value)]);
    }
    // One that never was is not deleted.
    feed_at(&log, "in", Timestamp(0), &[(2, None), (3, Some(30))]);
    let job = Job::new("by-time");
    let (table, looked_up) = input(&job, "in", true).to_table_by_time("newest").tee();
    table.changes().sink(topic::<u64>("newest").as_option());
    input(&job, "clicks", false)
        .left_join_table("found", looked_up, |_, found| found.copied())
        .sink(topic::<Option<u64>>("found"));
    make_topic(&log, "clicks");
    let launch = job.exactly_once(Commit::every(OFTEN)).workers(2);
    let running = launch.start(&log).unwrap();
    until("all are read", || running.progress().records == 9);
    assert_eq!(running.progress().left_out_records, 3);
    wait(running.stop()).unwrap();
    let of = |key| {
        let written = written(&log, "newest").into_iter();
        let own = written.filter(move |it| it.0 == key);
        own.map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [Some(50), None, Some(100), Some(101)]);
    assert_eq!(of(2), []);
    assert_eq!(of(3), [Some(30)]);
}

/// The changes of a table are the versions with which records of their times are joined.
#[test]
fn j10_a_stream_is_joined_as_of_its_time_with_the_changes_of_a_table() {
    let place = Place::new();
    let log = place.log();
    for topic in ["prices", "orders"] {
        make_topic(&log, topic);
    }
    for (time, cents) in [(10, Some(1)), (20, Some(2)), (30, None), (40, Some(4))] {
        feed_at(&log, "prices", Timestamp(time), &[(2, cents)]);
    }
    for time in [5i64, 15, 25, 35, 45] {
        let pieces = time.unsigned_abs();
        feed_at(&log, "orders", Timestamp(time), &[(2, Some(pieces))]);
    }
    let job = Job::new("priced");
    let prices = input(&job, "prices", false).to_table("prices").changes();
    input(&job, "orders", false)
        .join_as_of("priced", prices)
        .left(|pieces, cents| (pieces.unwrap_or(0), cents.copied()))
        .sink(topic::<(u64, Option<u64>)>("priced"));
    run(job.exactly_once(Commit::every(OFTEN)).workers(2), &log).unwrap();
    let priced = values_of::<(u64, Option<u64>)>(&log, "priced");
    let expected = [
        (5, None),
        (15, Some(1)),
        (25, Some(2)),
        (35, None),
        (45, Some(4)),
    ];
    assert_eq!(priced, expected);
}

#[test]
fn changes_with_old_have_the_values_before_and_after() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "in");
    feed(
        &log,
        "in",
        &[
            (1, Some(5)),
            (1, Some(6)),
            (1, None),
            (1, None),
            (1, Some(7)),
        ],
    );
    let job = Job::new("old");
    input(&job, "in", false)
        .to_table("table")
        .changes_with_old()
        .map(|change| (change.old, change.new))
        .sink(topic::<(Option<u64>, Option<u64>)>("changes"));
    run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let changes = values_of::<(Option<u64>, Option<u64>)>(&log, "changes");
    let expected = [
        (None, Some(5)),
        (Some(5), Some(6)),
        (Some(6), None),
        (None, Some(7)),
    ];
    assert_eq!(changes, expected);
}
