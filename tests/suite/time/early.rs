//! Windows that give results early: what is left of them is what windows give when they close.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::operators::{Clock, TimeWindows};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::model::{any_kind, counted, windows};
use super::sessions::sessions;
use super::support::{
    Click, PerWindow, any_clicks, any_cut, any_runs, click, feed, left_in_store, ms, parse,
    run_cut, topic_of_clicks, watermarks,
};
use super::updates::{Change, change, changes, gone, table};
use crate::jobs::support::{Place, run, until};

/// Counts clicks by user and window, with early results.
fn counts<C: Clock>(
    windows: impl TimeWindows,
    every: Every<C>,
    watermarks: Watermarks,
    is_endless: bool,
) -> Launch {
    let job = Job::new("clicks");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    job.source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by(|(user, _): &Click| user.clone())
        .window(windows)
        .early(every)
        .count("per-window")
        .sink(topic::<u64>("counts").as_option());
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The results of clicks of one partition in one run.
fn given(windows: impl TimeWindows, every: u64, bound: u64, clicks: &[Click]) -> Vec<Change> {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, clicks);
    let bound = Watermarks::out_of_order(ms(bound));
    let every = Every::event_time(ms(every));
    run(counts(windows, every, bound, false), &log).unwrap();
    changes(&log)
}

/// The rows left in the two stores of a job that is through.
fn left(log: &Log) -> usize {
    left_in_store(log, "clicks", "per-window") + left_in_store(log, "clicks", "per-window-early")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn w14_what_is_left_of_early_results_are_the_windows(
        partitions in any_clicks(),
        kind in any_kind(),
        every in 1u64..30,
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let every = Every::event_time(ms(every));
        let launch = || counts(windows(kind), every, watermarks(), false);
        run_cut(launch, &partitions, &runs, cut, &log);
        let expected = counted(kind, partitions.iter().flatten().cloned());
        prop_assert_eq!(&table(&log), &expected);
        // No result stands for as much as the one before it.
        let mut last = BTreeMap::new();
        for (user, start, end, value) in changes(&log) {
            let before = last.insert((user, start, end), value.unwrap());
            prop_assert!(before.is_none_or(|before| before < value.unwrap()));
        }
        prop_assert_eq!(if expected.is_empty() { 0 } else { left(&log) }, 0);
    }

    /// No session is ended that nobody was told of, and one that gave a result knows its bounds.
    #[test]
    fn w7_w9_what_is_left_of_early_results_are_the_sessions(
        partitions in any_clicks(),
        gap in 0i64..12,
        every in 1u64..30,
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SessionWindows::gap(ms(gap.unsigned_abs()));
        let every = Every::event_time(ms(every));
        let launch = || counts(windows, every, watermarks(), false);
        run_cut(launch, &partitions, &runs, cut, &log);
        let all = sessions(gap, partitions.iter().flatten().cloned());
        let is_empty = all.is_empty();
        let expected = all.into_iter().map(|(window, times)| (window, times.len() as u64));
        prop_assert_eq!(table(&log), expected.collect::<PerWindow<u64>>());
        let mut standing = BTreeMap::new();
        for (user, start, end, value) in changes(&log) {
            let before = standing.insert((user, start, end), value);
            prop_assert!(value.is_some() || before.flatten().is_some());
        }
        prop_assert_eq!(if is_empty { 0 } else { left(&log) }, 0);
    }
}

/// Every 20 of event time the windows that changed, and each for the last time when it closes.
#[test]
fn w14_early_results_come_when_event_time_has_gone_on() {
    let clicks = [1, 5, 21, 22, 45, 47, 61, 70, 120].map(|time| click("a", time));
    let found = given(FixedWindows::tumbling(ms(100)), 20, 0, &clicks);
    // Before the first watermark there is no time: the first result comes with it.
    let expected = [
        change("a", 0, 100, 1),
        change("a", 0, 100, 3),
        change("a", 0, 100, 5),
        change("a", 0, 100, 7),
        change("a", 0, 100, 8),
        change("a", 100, 200, 1),
    ];
    assert_eq!(found, expected);
}

/// A session that gave a result early is prolonged, and not begun anew.
#[test]
fn w9_a_session_that_gave_an_early_result_is_prolonged() {
    let clicks = [
        click("b", -100),
        click("a", 0),
        click("b", 12),
        click("a", 9),
        click("b", 40),
    ];
    let found = given(SessionWindows::gap(ms(10)), 10, 6, &clicks);
    let of_a: Vec<Change> = found.into_iter().filter(|it| it.0 == "a").collect();
    let expected = [
        change("a", 0, 11, 1),
        gone("a", 0, 11),
        change("a", 0, 20, 2),
    ];
    assert_eq!(of_a, expected);
}

/// By the wall clock without any more records; the window is open all the time.
#[test]
fn w14_early_results_come_when_the_wall_clock_has_gone_on() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let launch = || {
        let windows = FixedWindows::tumbling(ms(1_000));
        let every = Every::wall_clock(ms(30));
        counts(windows, every, Watermarks::default(), true).workers(2)
    };
    feed(&log, "in", 0, &[click("a", 1), click("a", 2)]);
    let running = launch().start(&log).unwrap();
    until("there is a result", || table(&log).values().eq([&2]));
    wait(running.stop()).unwrap();
    // What changed before a stop is given by the next run.
    feed(&log, "in", 0, &[click("a", 3)]);
    let running = launch().start(&log).unwrap();
    until("there is another", || table(&log).values().eq([&3]));
    wait(running.stop()).unwrap();
    assert!(changes(&log).len() <= 3, "{:?}", changes(&log));
}
