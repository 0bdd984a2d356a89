//! Windows of a number of records, against a list of them.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Keyed, Launch, Upstream};
use proptest::prelude::*;

use super::support::{
    Click, any_clicks, any_cut, any_runs, click, feed, left_in_store, ms, parse, run_cut,
    topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed_by_key, run, until};

/// The times of the clicks of each window, of windows of so many clicks every so many, by user and in order.
fn per_count((size, step): (u32, u32), is_sorted: bool, is_endless: bool) -> Launch {
    let job = Job::new("clicks");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let clicks = job
        .source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _): &Click| user.clone())
        .map(|(_, time)| *time);
    let clicks = match is_sorted {
        true => clicks.sorted_by_time("in-order").0.boxed(),
        false => clicks.boxed(),
    };
    times(clicks, (size, step), "windows").sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The times in each window of so many records every so many.
pub(super) fn times<U: Upstream<String, i64>>(
    clicks: Keyed<String, i64, U>,
    (size, step): (u32, u32),
    store: &str,
) -> Keyed<String, Vec<i64>> {
    clicks
        .window(CountWindows::hopping(size, step))
        .aggregate(
            store,
            Vec::new,
            |times: &mut Vec<i64>, time| times.push(*time),
            |times, other| times.extend(other),
        )
        .boxed()
}

/// The windows of each user, by the definition.
pub(super) fn windows(
    (size, step): (u32, u32),
    clicks: &[Click],
) -> BTreeMap<String, Vec<Vec<i64>>> {
    let mut by_user = BTreeMap::<String, Vec<i64>>::new();
    for (user, time) in clicks {
        by_user.entry(user.clone()).or_default().push(*time);
    }
    let mut windows = BTreeMap::new();
    for (user, times) in by_user {
        let full = times.windows(size as usize).step_by(step as usize);
        let full: Vec<Vec<i64>> = full.map(<[i64]>::to_vec).collect();
        if !full.is_empty() {
            windows.insert(user, full);
        }
    }
    windows
}

fn any_size() -> impl Strategy<Value = (u32, u32)> {
    (1u32..9).prop_flat_map(|size| (Just(size), 1..=size))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 14, failure_persistence: None, ..ProptestConfig::default() })]

    /// In the order of one split, whatever runs them.
    #[test]
    fn count_windows_hold_the_records_in_the_order_of_their_split(
        partitions in any_clicks(),
        size in any_size(),
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let one = &partitions[..1];
        run_cut(|| per_count(size, false, false), one, &runs, cut, &log);
        prop_assert_eq!(committed_by_key::<String, Vec<i64>>(&log, "out"), windows(size, &one[0]));
    }

    /// Behind `sorted_by_time` it does not matter in how many splits the records are.
    #[test]
    fn count_windows_behind_sorted_by_time_hold_the_records_in_the_order_of_their_times(
        partitions in any_clicks(),
        size in any_size(),
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        run_cut(|| per_count(size, true, false), &partitions, &runs, cut, &log);
        let mut all: Vec<Click> = partitions.iter().flatten().cloned().collect();
        all.sort_by_key(|(_, time)| *time);
        prop_assert_eq!(committed_by_key::<String, Vec<i64>>(&log, "out"), windows(size, &all));
    }
}

/// A window not full at the end of the input, or at a stop, is filled by the next run.
#[test]
fn a_count_window_that_is_not_full_waits_for_the_next_run() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let full = |log: &Log| committed_by_key::<String, Vec<i64>>(log, "out");
    let expected = |windows: &[&[i64]]| {
        let windows = windows.iter().map(|times| times.to_vec()).collect();
        BTreeMap::from([("a".to_owned(), windows)])
    };
    feed(&log, "in", 0, &[click("a", 1), click("a", 2)]);
    run(per_count((3, 3), false, false), &log).unwrap();
    assert_eq!(full(&log), BTreeMap::new());
    feed(
        &log,
        "in",
        0,
        &[click("a", 3), click("a", 4), click("a", 5)],
    );
    let running = per_count((3, 3), false, true)
        .workers(2)
        .start(&log)
        .unwrap();
    until("all are read", || running.progress().records == 3);
    wait(running.stop()).unwrap();
    assert_eq!(full(&log), expected(&[&[1, 2, 3]]));
    assert_eq!(left_in_store(&log, "clicks", "windows"), 1);
    feed(&log, "in", 0, &[click("a", 6)]);
    run(per_count((3, 3), false, false).workers(4), &log).unwrap();
    assert_eq!(full(&log), expected(&[&[1, 2, 3], &[4, 5, 6]]));
    assert_eq!(left_in_store(&log, "clicks", "windows"), 0);
}

/// Windows of other numbers cannot go on with what was cut for these.
#[test]
fn count_windows_that_are_cut_otherwise_than_their_store_are_refused() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1), click("a", 2)]);
    run(per_count((3, 3), false, false), &log).unwrap();
    feed(&log, "in", 0, &[click("a", 3)]);
    let refused = run(per_count((4, 2), false, false), &log).unwrap_err();
    let why = refused.to_string();
    assert!(
        why.contains("every 3 records") && why.contains("every 2"),
        "{why}"
    );
}
