//! Windows that give a result with each change: what is left of them is what windows give when they close.

use std::collections::BTreeMap;

use onceflow::operators::TimeWindows;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::model::{any_kind, counted, windows};
use super::sessions::sessions;
use super::sliding::sliding;
use super::support::{
    Click, PerWindow, any_clicks, any_runs, click, feed, late, left_in_store, ms, parse,
    run_in_parts, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed, run};

/// Counts clicks by user and window, and gives each change.
fn each_change(windows: impl TimeWindows, watermarks: Watermarks) -> Launch {
    let job = Job::new("clicks");
    let (clicks, late) = job
        .source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by_ref(|(user, _): &Click| user)
        .window(windows)
        .on_update()
        .late();
    late.sink(topic("late"));
    let counts = clicks.count("per-window");
    counts.sink(topic::<u64>("counts").as_option());
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// A user, a window's bounds, and its result so far; none if the window is gone.
pub(super) type Change = (String, i64, i64, Option<u64>);

/// All committed changes, those of one user in order.
pub(super) fn changes(log: &Log) -> Vec<Change> {
    changes_of(log, "counts")
}

fn changes_of(log: &Log, topic: &str) -> Vec<Change> {
    let changes = committed(log, topic).into_iter().map(|seen| {
        let key = seen.key::<Windowed<String>>();
        let value = seen.value.is_some().then(|| seen.value::<u64>());
        (key.key.clone(), key.window.start.0, key.window.end.0, value)
    });
    changes.collect()
}

/// The content of a table that takes in all changes.
pub(super) fn table(log: &Log) -> PerWindow<u64> {
    table_of(log, "counts")
}

pub(super) fn table_of(log: &Log, topic: &str) -> PerWindow<u64> {
    let mut table = BTreeMap::new();
    for (user, start, end, value) in changes_of(log, topic) {
        match value {
            Some(value) => table.insert((user, start, end), value),
            None => table.remove(&(user, start, end)),
        };
    }
    table
}

fn given(
    windows: impl TimeWindows,
    clicks: &[Click],
    watermarks: Watermarks,
) -> (Vec<Change>, Vec<Click>) {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, clicks);
    run(each_change(windows, watermarks), &log).unwrap();
    (changes(&log), late(&log))
}

pub(super) fn change(user: &str, start: i64, end: i64, n: u64) -> Change {
    (user.to_owned(), start, end, Some(n))
}

pub(super) fn gone(user: &str, start: i64, end: i64) -> Change {
    (user.to_owned(), start, end, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    /// A window of n records gives n results, each the whole of it so far.
    #[test]
    fn w14_each_record_gives_each_of_its_windows_once(
        partitions in any_clicks(),
        kind in any_kind(),
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        run_in_parts(|| each_change(windows(kind), watermarks()), &partitions, &runs, &log);
        let expected = counted(kind, partitions.iter().flatten().cloned());
        prop_assert_eq!(&table(&log), &expected);
        let mut found = BTreeMap::<_, Vec<u64>>::new();
        for (user, start, end, value) in changes(&log) {
            found.entry((user, start, end)).or_default().push(value.unwrap());
        }
        for (window, values) in found {
            prop_assert_eq!(values, (1..=expected[&window]).collect::<Vec<u64>>());
        }
        if !expected.is_empty() {
            prop_assert_eq!(left_in_store(&log, "clicks", "per-window"), 0);
        }
    }

    /// A window's last result is the whole of it, and none of its results is less than the one before.
    #[test]
    fn w11_w14_what_is_left_of_changing_sliding_windows_are_the_windows(
        partitions in any_clicks(),
        difference in 0i64..12,
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SlidingWindows::difference(ms(difference.unsigned_abs()));
        run_in_parts(|| each_change(windows, watermarks()), &partitions, &runs, &log);
        let all = sliding(difference, partitions.iter().flatten().cloned());
        let counts = all.into_iter().map(|(window, times)| (window, times.len() as u64));
        prop_assert_eq!(table(&log), counts.collect::<PerWindow<u64>>());
        let mut last = BTreeMap::new();
        for (user, start, end, value) in changes(&log) {
            let before = last.insert((user, start, end), value.unwrap());
            prop_assert!(before.is_none_or(|before| before < value.unwrap()));
        }
    }

    #[test]
    fn w7_w9_what_is_left_of_changing_sessions_are_the_sessions(
        partitions in any_clicks(),
        gap in 0i64..12,
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SessionWindows::gap(ms(gap.unsigned_abs()));
        run_in_parts(|| each_change(windows, watermarks()), &partitions, &runs, &log);
        let all = sessions(gap, partitions.iter().flatten().cloned());
        let counts = all.into_iter().map(|(window, times)| (window, times.len() as u64));
        prop_assert_eq!(table(&log), counts.collect::<PerWindow<u64>>());
    }
}

/// A record between two sessions: both are gone before the one that they are now.
#[test]
fn w7_a_record_between_two_sessions_replaces_both() {
    let clicks = [click("a", 0), click("a", 10), click("a", 5)];
    let windows = SessionWindows::gap(ms(5));
    let (found, late) = given(windows, &clicks, Watermarks::out_of_order(ms(10)));
    let expected = [
        change("a", 0, 6, 1),
        change("a", 10, 16, 1),
        gone("a", 0, 6),
        gone("a", 10, 16),
        change("a", 0, 16, 3),
    ];
    assert_eq!(found, expected);
    assert_eq!(late, []);
}

/// A session that gave a result knows its bounds: what comes within the gap prolongs it, what comes inside counts in it.
#[test]
fn w9_a_session_that_gave_a_result_is_prolonged() {
    let clicks = [click("a", 0), click("a", 4), click("a", 4), click("a", 2)];
    let windows = SessionWindows::gap(ms(5));
    let (found, _) = given(windows, &clicks, Watermarks::out_of_order(ms(10)));
    let expected = [
        change("a", 0, 6, 1),
        gone("a", 0, 6),
        change("a", 0, 10, 2),
        change("a", 0, 10, 3),
        change("a", 0, 10, 4),
    ];
    assert_eq!(found, expected);
}

/// A late record that the grace allows gives the whole result again, and not what it adds; behind the grace it is late.
#[test]
fn w14_a_late_record_within_the_grace_gives_the_whole_window_again() {
    let windows = FixedWindows::tumbling(ms(10)).grace(ms(5));
    let clicks = [
        click("a", 1),
        click("a", 14),
        click("a", 2),
        click("a", 15),
        click("a", 3),
    ];
    let (found, late) = given(windows, &clicks, Watermarks::default());
    let expected = [
        change("a", 0, 10, 1),
        change("a", 10, 20, 1),
        change("a", 0, 10, 2),
        change("a", 10, 20, 2),
    ];
    assert_eq!(found, expected);
    assert_eq!(late, [click("a", 3)]);
}
