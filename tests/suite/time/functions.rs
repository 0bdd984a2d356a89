//! Functions over windows, against the same computed from a list of all values.

use std::collections::{BTreeMap, BTreeSet};

use onceflow::operators::TimeWindows;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::model::{Kind, any_kind, holding, windows};
use super::sessions::sessions;
use super::sliding::sliding;
use super::support::{
    Click, PerWindow, any_clicks, any_runs, left_in_store, ms, parse, results_of, run_in_parts,
    watermarks,
};
use crate::jobs::support::Place;

/// Values that `top_n` keeps.
const TOP: usize = 3;

/// Computes a number from a click.
fn number(click: &Click) -> i64 {
    (click.1 * 7).rem_euclid(11) - 5
}

/// Every function over the same clicks, each in a store and a topic of its own.
fn all_functions(windows: impl TimeWindows) -> Launch {
    let job = Job::new("functions");
    let clicks = job
        .source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by_ref(|(user, _): &Click| user);
    let mut rest = Some(clicks.boxed());
    let mut clicks = || {
        let (one, other) = rest.take().unwrap().tee();
        rest = Some(other);
        one.window(windows.clone())
    };
    clicks().sum("sum", number).sink(topic("sum"));
    clicks().avg("avg", number).sink(topic("avg"));
    clicks().min("min", number).sink(topic("min"));
    clicks().max("max", number).sink(topic("max"));
    clicks()
        .distinct("distinct", number)
        .sink(topic("distinct"));
    // So few are counted exactly.
    clicks()
        .approx_distinct("about", 9, number)
        .sink(topic("about"));
    clicks().top_n("top", TOP, number).sink(topic("top"));
    let newest = |newest: &mut Click, click: &Click| newest.1 = newest.1.max(click.1);
    let rest = rest.unwrap().window(windows);
    rest.reduce("reduce", newest).sink(topic("reduce"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// Checks each function on the clicks of each window.
fn check(log: &Log, windows: &PerWindow<Vec<i64>>) {
    fn each<T>(windows: &PerWindow<Vec<i64>>, of: impl Fn(&str, &[i64]) -> T) -> PerWindow<T> {
        let each = windows.iter();
        each.map(|(window, times)| (window.clone(), of(&window.0, times)))
            .collect()
    }
    let numbers = |user: &str, times: &[i64]| -> Vec<i64> {
        times
            .iter()
            .map(|time| number(&(user.to_owned(), *time)))
            .collect()
    };
    let sums = each(windows, |user, times| {
        numbers(user, times).iter().sum::<i64>()
    });
    assert_eq!(results_of(log, "sum"), sums);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let means = each(windows, |user, times| {
        numbers(user, times).iter().sum::<i64>() as f64 / times.len() as f64
    });
    assert_eq!(results_of(log, "avg"), means);
    let least = each(windows, |user, times| {
        *numbers(user, times).iter().min().unwrap()
    });
    assert_eq!(results_of(log, "min"), least);
    let most = each(windows, |user, times| {
        *numbers(user, times).iter().max().unwrap()
    });
    assert_eq!(results_of(log, "max"), most);
    let distinct = each(windows, |user, times| {
        numbers(user, times)
            .into_iter()
            .collect::<BTreeSet<i64>>()
            .len() as u64
    });
    assert_eq!(results_of(log, "distinct"), distinct);
    assert_eq!(results_of(log, "about"), distinct);
    let top = each(windows, |user, times| {
        let mut clicks: Vec<Click> = times.iter().map(|time| (user.to_owned(), *time)).collect();
        clicks.sort_by_key(|click| std::cmp::Reverse((number(click), click.clone())));
        clicks.truncate(TOP);
        clicks
    });
    assert_eq!(results_of(log, "top"), top);
    let newest = each(windows, |user, times| {
        (user.to_owned(), *times.iter().max().unwrap())
    });
    assert_eq!(results_of(log, "reduce"), newest);
    if !windows.is_empty() {
        for store in [
            "sum", "avg", "min", "max", "distinct", "about", "top", "reduce",
        ] {
            assert_eq!(left_in_store(log, "functions", store), 0, "{store}");
        }
    }
}

fn in_fixed(kind: Kind, clicks: impl Iterator<Item = Click>) -> PerWindow<Vec<i64>> {
    let mut times = BTreeMap::<_, Vec<i64>>::new();
    for (user, time) in clicks {
        for (start, end) in holding(kind, time) {
            times
                .entry((user.clone(), start, end))
                .or_default()
                .push(time);
        }
    }
    times
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// W13: and nothing is left in the stores when all windows are closed.
    #[test]
    fn w13_functions_in_windows_of_fixed_length_are_as_over_a_list(
        partitions in any_clicks(),
        kind in any_kind(),
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        run_in_parts(|| all_functions(windows(kind)), &partitions, &runs, &log);
        check(&log, &in_fixed(kind, partitions.iter().flatten().cloned()));
    }

    #[test]
    fn w11_w13_functions_in_sliding_windows_are_as_over_a_list(
        partitions in any_clicks(),
        difference in 0i64..12,
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SlidingWindows::difference(ms(difference.unsigned_abs()));
        run_in_parts(|| all_functions(windows), &partitions, &runs, &log);
        check(&log, &sliding(difference, partitions.iter().flatten().cloned()));
    }

    #[test]
    fn w13_functions_in_sessions_are_as_over_a_list(
        partitions in any_clicks(),
        gap in 0i64..12,
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SessionWindows::gap(ms(gap.unsigned_abs()));
        run_in_parts(|| all_functions(windows), &partitions, &runs, &log);
        check(&log, &sessions(gap, partitions.iter().flatten().cloned()));
    }
}

#[test]
fn a_sum_that_its_type_cannot_hold_is_its_end() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("sums");
    job.source(values("n", [i8::MAX, 100, i8::MIN, i8::MIN, i8::MIN]))
        .event_time(|n| i64::from(*n < 0), Watermarks::at_end_only())
        .key_by(|_| "all".to_owned())
        .window(FixedWindows::tumbling(ms(1)))
        .sum("sums", |n| *n)
        .sink(topic("sums"));
    let launch = job.exactly_once(Commit::every(ms(2)));
    crate::jobs::support::run(launch, &log).unwrap();
    let ends = [
        (("all".to_owned(), 0, 1), i8::MAX),
        (("all".to_owned(), 1, 2), i8::MIN),
    ];
    assert_eq!(results_of(&log, "sums"), BTreeMap::from(ends));
}
