//! Windows that slide, against the definition and against a run by hand.

use std::collections::{BTreeMap, BTreeSet};

use onceflow::prelude::*;
use proptest::prelude::*;

use super::support::{
    Click, DISORDER, PerWindow, any_clicks, any_cut, any_runs, click, feed, late, launch,
    left_in_store, ms, results, run_cut, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, run};

/// The starts of the windows that there are for the times of a key, as Kafka Streams defines them.
fn starts(difference: i64, times: &[i64]) -> BTreeSet<i64> {
    let mut starts = BTreeSet::new();
    for time in times {
        starts.insert(match *time {
            0.. => (time - difference).max(0),
            _ => time - difference,
        });
        let behind = time + 1;
        if times
            .iter()
            .any(|it| (behind..=behind + difference).contains(it))
        {
            starts.insert(behind);
        }
    }
    starts
}

/// The times in each window, by the definition.
pub(super) fn sliding(difference: i64, clicks: impl Iterator<Item = Click>) -> PerWindow<Vec<i64>> {
    let mut by_user = BTreeMap::<String, Vec<i64>>::new();
    for (user, time) in clicks {
        by_user.entry(user).or_default().push(time);
    }
    let mut windows = BTreeMap::new();
    for (user, times) in by_user {
        for start in starts(difference, &times) {
            let end = start + difference + 1;
            let within = times.iter().copied().filter(|it| (start..end).contains(it));
            windows.insert((user.clone(), start, end), within.collect());
        }
    }
    windows
}

/// Results and late clicks of one partition whose disorder is beyond the bound, click by click.
fn by_hand(
    (difference, grace, bound): (i64, i64, i64),
    clicks: &[Click],
) -> (PerWindow<u64>, Vec<Click>) {
    let (mut results, mut late) = (BTreeMap::new(), Vec::new());
    let (mut held, mut watermark) = (Vec::<Click>::new(), i64::MIN);
    let mut newest = i64::MIN;
    let ends = clicks.iter().map(Some).chain([None]);
    for click in ends {
        let next = match click {
            Some(click) if click.1 + difference + 1 + grace <= watermark => {
                late.push(click.clone());
                continue;
            }
            Some(click) => {
                held.push(click.clone());
                newest = newest.max(click.1);
                newest - bound
            }
            None => i64::MAX,
        };
        for (window, times) in sliding(difference, held.iter().cloned()) {
            let closes_at = window.2 + grace;
            if watermark < closes_at && closes_at <= next {
                results.insert(window, times.len() as u64);
            }
        }
        watermark = next;
    }
    late.sort();
    (results, late)
}

fn windows(difference: i64, grace: i64) -> SlidingWindows {
    SlidingWindows::difference(ms(difference.unsigned_abs())).grace(ms(grace.unsigned_abs()))
}

fn given(
    windows: SlidingWindows,
    watermarks: Watermarks,
    clicks: &[Click],
) -> (PerWindow<u64>, Vec<Click>) {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, clicks);
    run(launch(windows, watermarks), &log).unwrap();
    (results(&log), late(&log))
}

fn expected<const N: usize>(rows: [(&str, i64, i64, u64); N]) -> PerWindow<u64> {
    BTreeMap::from(rows.map(|(user, start, end, n)| ((user.to_owned(), start, end), n)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: within the bound of disorder every window is right and comes once, nothing is late and nothing is left.
    #[test]
    fn w11_w13_sliding_windows_are_right_whatever_runs_them(
        partitions in any_clicks(),
        (difference, grace) in (0i64..14, 0i64..5),
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let launch = || launch(windows(difference, grace), watermarks());
        run_cut(launch, &partitions, &runs, cut, &log);
        let all = sliding(difference, partitions.iter().flatten().cloned());
        let is_empty = all.is_empty();
        let counts = all.into_iter().map(|(window, times)| (window, times.len() as u64));
        prop_assert_eq!(results(&log), counts.collect::<PerWindow<u64>>());
        prop_assert_eq!(late(&log), Vec::<Click>::new());
        prop_assert_eq!(if is_empty { 0 } else { left_in_store(&log, "clicks", "per-window") }, 0);
    }

    /// Beyond the bound each window takes the clicks that come before it closes, and a click is late when none can have it.
    #[test]
    fn w11_late_clicks_count_in_the_sliding_windows_that_are_open(
        partitions in any_clicks(),
        (difference, grace, bound) in (0i64..14, 0i64..5, 0i64..DISORDER),
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let one = &partitions[..1];
        let watermarks = Watermarks::out_of_order(ms(bound.unsigned_abs()));
        run_cut(|| launch(windows(difference, grace), watermarks), one, &runs, cut, &log);
        let found = (results(&log), late(&log));
        prop_assert_eq!(found, by_hand((difference, grace, bound), &one[0]));
    }
}

/// The example of the catalogue: Kafka's [0, 10]: 2, [1, 11]: 1, [2, 12]: 2, [6, 16]: 1.
#[test]
fn w11_sliding_windows_without_grace_hold_what_those_of_kafka_streams_do() {
    let clicks = [click("a", 0), click("a", 5), click("a", 12)];
    let (found, late) = given(windows(10, 0), Watermarks::default(), &clicks);
    let windows = [
        ("a", 0, 11, 2),
        ("a", 1, 12, 1),
        ("a", 2, 13, 2),
        ("a", 6, 17, 1),
    ];
    assert_eq!((found, late), (expected(windows), vec![]));
}

/// No window of a time from 1970 on begins before, and one of an earlier time may.
#[test]
fn w11_the_first_sliding_window_begins_at_zero() {
    let clicks = [click("a", -3), click("a", 2), click("a", 4)];
    let (found, _) = given(windows(10, 0), Watermarks::default(), &clicks);
    let windows = [
        ("a", -13, -2, 1),
        ("a", -2, 9, 2),
        ("a", 0, 11, 2),
        ("a", 3, 14, 1),
    ];
    assert_eq!(found, expected(windows));
}
