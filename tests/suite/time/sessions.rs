//! Sessions over random input, against the definition, and the rows W of the catalogue that are about them.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use proptest::prelude::*;

use super::support::{
    Click, PerWindow, any_clicks, any_runs, click, feed, late, launch, launch_endless,
    left_in_store, ms, results, run_in_parts, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, run, until};

/// The times of each session, by the definition.
pub(super) fn sessions(gap: i64, clicks: impl Iterator<Item = Click>) -> PerWindow<Vec<i64>> {
    let mut by_user = BTreeMap::<String, Vec<i64>>::new();
    for (user, time) in clicks {
        by_user.entry(user).or_default().push(time);
    }
    let mut sessions = BTreeMap::new();
    for (user, mut times) in by_user {
        times.sort_unstable();
        for session in times.chunk_by(|one, next| next - one <= gap) {
            let (first, last) = (session[0], session[session.len() - 1]);
            sessions.insert((user.clone(), first, last + gap + 1), session.to_vec());
        }
    }
    sessions
}

fn expected<const N: usize>(rows: [(&str, i64, i64, u64); N]) -> PerWindow<u64> {
    BTreeMap::from(rows.map(|(user, first, end, n)| ((user.to_owned(), first, end), n)))
}

/// Feeds each batch to a partition of its own topic, and runs a job over them.
fn counted(
    windows: SessionWindows,
    watermarks: Watermarks,
    batches: &[&[Click]],
) -> (PerWindow<u64>, Vec<Click>) {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    for batch in batches {
        feed(&log, "in", 0, batch);
    }
    run(launch(windows, watermarks), &log).unwrap();
    (results(&log), late(&log))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: within the bound of disorder every session is right and comes once, nothing is late and nothing is left.
    #[test]
    fn w6_w8_w10_w13_sessions_are_right_whatever_runs_them(
        partitions in any_clicks(),
        (gap, grace) in (0i64..12, 0u64..5),
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let windows = SessionWindows::gap(ms(gap.unsigned_abs())).grace(ms(grace));
        run_in_parts(|| launch(windows, watermarks()), &partitions, &runs, &log);
        let all = sessions(gap, partitions.iter().flatten().cloned());
        let is_empty = all.is_empty();
        let counts = all.into_iter().map(|(window, times)| (window, times.len() as u64));
        prop_assert_eq!(results(&log), counts.collect::<PerWindow<u64>>());
        prop_assert_eq!(late(&log), Vec::<Click>::new());
        prop_assert_eq!(if is_empty { 0 } else { left_in_store(&log, "clicks", "per-window") }, 0);
    }
}

/// Gap 5, grace 2, the last record at 10: the session is open until time is behind 17, and no longer.
#[test]
fn w4_a_session_is_open_until_gap_and_grace_are_over() {
    let windows = SessionWindows::gap(ms(5)).grace(ms(2));
    let prolongs = [click("a", 10), click("b", 17), click("a", 14)];
    let (found, late) = counted(windows, Watermarks::default(), &[&prolongs]);
    assert_eq!(found, expected([("a", 10, 20, 2), ("b", 17, 23, 1)]));
    assert_eq!(late, []);
    // One millisecond later it is closed; the record begins a session of its own, which is still open.
    let begins = [
        click("a", 10),
        click("b", 18),
        click("a", 14),
        click("a", 9),
    ];
    let (found, late) = counted(windows, Watermarks::default(), &[&begins]);
    let sessions = [("a", 10, 16, 1), ("a", 9, 20, 2), ("b", 18, 24, 1)];
    assert_eq!(found, expected(sessions));
    assert_eq!(late, []);
    // A session that would be closed already is late.
    let late_click = [click("a", 10), click("b", 18), click("a", 3)];
    let (found, late) = counted(windows, Watermarks::default(), &[&late_click]);
    assert_eq!(found, expected([("a", 10, 16, 1), ("b", 18, 24, 1)]));
    assert_eq!(late, [click("a", 3)]);
}

/// A session that ends exactly where time stands is given once, at that time, also over a restart.
#[test]
fn w5_a_session_that_ends_at_the_watermark_is_given_once() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let windows = SessionWindows::gap(ms(5));
    feed(&log, "in", 0, &[click("a", 10), click("b", 16)]);
    let running = launch_endless(windows, Watermarks::default())
        .start(&log)
        .unwrap();
    until("the session is closed", || !results(&log).is_empty());
    wait(running.stop()).unwrap();
    assert_eq!(results(&log), expected([("a", 10, 16, 1)]));
    // Late with the restart as without it.
    feed(&log, "in", 0, &[click("a", 10), click("b", 17)]);
    run(launch(windows, Watermarks::default()), &log).unwrap();
    assert_eq!(
        results(&log),
        expected([("a", 10, 16, 1), ("b", 16, 23, 2)])
    );
    assert_eq!(late(&log), [click("a", 10)]);
}

#[test]
fn w6_a_session_is_not_cut_where_a_batch_ends() {
    let windows = SessionWindows::gap(ms(5));
    let batches: [&[Click]; 2] = [&[click("a", 0), click("a", 3)], &[click("a", 6)]];
    let (found, _) = counted(windows, Watermarks::default(), &batches);
    assert_eq!(found, expected([("a", 0, 12, 3)]));
}

/// A record between two sessions makes them one, in whatever order the three come.
#[test]
fn w7_w8_a_record_between_two_sessions_joins_them() {
    let windows = SessionWindows::gap(ms(5));
    for order in [
        [0, 10, 5],
        [10, 0, 5],
        [5, 10, 0],
        [5, 0, 10],
        [0, 5, 10],
        [10, 5, 0],
    ] {
        let clicks = order.map(|time| click("a", time));
        let watermarks = Watermarks::out_of_order(ms(10));
        let (found, late) = counted(windows, watermarks, &[&clicks]);
        assert_eq!(found, expected([("a", 0, 16, 3)]), "{order:?}");
        assert_eq!(late, []);
    }
}

#[test]
fn w10_a_session_of_one_record_is_closed_by_the_time_of_others() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 0), click("b", 100)]);
    let windows = SessionWindows::gap(ms(5));
    let running = launch_endless(windows, Watermarks::default())
        .start(&log)
        .unwrap();
    until("the session is closed", || !results(&log).is_empty());
    wait(running.stop()).unwrap();
    assert_eq!(results(&log), expected([("a", 0, 6, 1)]));
}
