//! Windows of random kinds over random input, against the definition.

use std::collections::BTreeMap;

use onceflow::prelude::*;
use proptest::prelude::*;

use super::support::{
    Click, any_clicks, any_runs, click, feed, late, launch, ms, results, run_in_parts,
    topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, run};

/// A kind of windows: its length and step, whether they are cumulative, an origin, a grace.
pub(super) type Kind = (u64, u64, bool, i64, u64);

pub(super) fn windows((a, b, is_cumulative, origin, grace): Kind) -> FixedWindows {
    let windows = match is_cumulative {
        true => FixedWindows::cumulative(ms(a * b), ms(a)),
        false => FixedWindows::hopping(ms(a), ms(b)),
    };
    windows
        .aligned_to(onceflow::types::Timestamp(origin))
        .grace(ms(grace))
}

/// All windows of the kind that hold a time, by the definition.
pub(super) fn holding((a, b, is_cumulative, origin, _): Kind, time: i64) -> Vec<(i64, i64)> {
    let (a, b) = (i64::try_from(a).unwrap(), i64::try_from(b).unwrap());
    let apart = if is_cumulative { a * b } else { b };
    let starts = (time - 500..=time).filter(|start| (start - origin).rem_euclid(apart) == 0);
    let all: Vec<(i64, i64)> = match is_cumulative {
        true => starts
            .flat_map(|s| (1..=b).map(move |n| (s, s + n * a)))
            .collect(),
        false => starts.map(|s| (s, s + a)).collect(),
    };
    all.into_iter()
        .filter(|(s, e)| *s <= time && time < *e)
        .collect()
}

pub(super) fn counted(
    kind: Kind,
    clicks: impl Iterator<Item = Click>,
) -> BTreeMap<(String, i64, i64), u64> {
    let mut counts = BTreeMap::new();
    for (user, time) in clicks {
        for (start, end) in holding(kind, time) {
            *counts.entry((user.clone(), start, end)).or_default() += 1;
        }
    }
    counts
}

pub(super) fn any_kind() -> impl Strategy<Value = Kind> {
    (1u64..16, 1u64..10, any::<bool>(), -30i64..30, 0u64..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: within the bound of disorder every window is right and comes once, nothing is late, and neither the number of workers nor
    /// where one run ends and the next begins can be seen.
    #[test]
    fn t1_t8_t10_t14_t15_w1_w2_w12_w15_w17_windows_are_right_whatever_runs_them(
        partitions in any_clicks(),
        kind in any_kind(),
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        run_in_parts(|| launch(windows(kind), watermarks()), &partitions, &runs, &log);
        let all = partitions.iter().flatten().cloned();
        prop_assert_eq!(results(&log), counted(kind, all));
        prop_assert_eq!(late(&log), Vec::<Click>::new());
    }
}

#[test]
fn what_comes_after_the_end_of_an_earlier_run_is_late_only_for_what_that_run_closed() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let tumbling = || launch(FixedWindows::tumbling(ms(10)), Watermarks::default());
    feed(&log, "in", 0, &[click("a", 3), click("b", 14)]);
    run(tumbling(), &log).unwrap();
    // The run's end closed [10, 20), though the watermark was 14.
    feed(
        &log,
        "in",
        0,
        &[click("a", 16), click("a", 21), click("b", 25)],
    );
    run(tumbling(), &log).unwrap();
    let expected = [
        (("a", 0, 10), 1),
        (("a", 20, 30), 1),
        (("b", 10, 20), 1),
        (("b", 20, 30), 1),
    ];
    let expected = expected.map(|((user, start, end), n)| ((user.to_owned(), start, end), n));
    assert_eq!(results(&log), BTreeMap::from(expected));
    assert_eq!(late(&log), [click("a", 16)]);
}
