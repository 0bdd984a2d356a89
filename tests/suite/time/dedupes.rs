//! `dedupe` over random input, against a list of all that passed.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::support::{
    Click, any_clicks, any_runs, click, feed, left_in_store, ms, parse, run_in_parts,
    topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed, decode, run, until};

/// The id of a click.
fn id(click: &Click) -> i64 {
    click.1.rem_euclid(3)
}

/// Passes the clicks of each user and id once within some time.
fn once(within: u64, grace: u64, watermarks: Watermarks, is_endless: bool) -> Launch {
    let job = Job::new("once");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let (clicks, late) = job
        .source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by_ref(|(user, _): &Click| user)
        .dedupe("seen", id)
        .grace(ms(grace))
        .late();
    late.sink(topic("late"));
    clicks.within(ms(within)).sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

fn clicks_of(log: &Log, topic: &str) -> Vec<Click> {
    let seen = committed(log, topic);
    let mut clicks: Vec<Click> = seen
        .iter()
        .map(|seen| decode::<Click>(seen.value.as_deref().unwrap()))
        .collect();
    clicks.sort();
    clicks
}

/// The records that pass, by the definition: nothing is ever forgotten.
fn passing(within: i64, clicks: &[Click]) -> Vec<Click> {
    let mut passed = Vec::<Click>::new();
    for click in clicks {
        let is_same = |it: &&Click| it.0 == click.0 && id(it) == id(click);
        let is_known = passed
            .iter()
            .filter(is_same)
            .any(|it| (it.1 - click.1).abs() < within);
        if !is_known {
            passed.push(click.clone());
        }
    }
    passed.sort();
    passed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Within the bound of disorder it cannot be seen that ids are forgotten, and nothing is late.
    #[test]
    fn a8_records_pass_once_whatever_runs_them(
        partitions in any_clicks(),
        (within, grace) in (0i64..25, 0u64..5),
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        // What is first in one split is the same for all that run it.
        let one = &partitions[..1];
        let launch = || once(within.unsigned_abs(), grace, watermarks(), false);
        run_in_parts(launch, one, &runs, &log);
        prop_assert_eq!(clicks_of(&log, "out"), passing(within, &one[0]));
        prop_assert_eq!(clicks_of(&log, "late"), Vec::<Click>::new());
    }

    /// Between splits any may be the first, but of those near each other one only.
    #[test]
    fn of_records_near_each_other_one_passes(
        partitions in any_clicks(),
        within in 0i64..25,
        runs in any_runs(),
    ) {
        let place = Place::new();
        let log = place.log();
        let launch = || once(within.unsigned_abs(), 0, watermarks(), false);
        run_in_parts(launch, &partitions, &runs, &log);
        let passed = clicks_of(&log, "out");
        prop_assert_eq!(&passing(within, &passed), &passed);
        for click in partitions.iter().flatten() {
            let is_near = |it: &Click| (it.1 - click.1).abs() < within.max(1);
            prop_assert!(passed.iter().any(|it| it.0 == click.0 && id(it) == id(click) && is_near(it)));
        }
    }
}

/// Neither a stop nor the end of the input ages an id: time does.
#[test]
fn a8_standing_still_forgets_nothing_and_time_does() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 0), click("b", 0)]);
    run(once(10, 0, Watermarks::default(), false), &log).unwrap();
    feed(&log, "in", 0, &[click("a", 9), click("b", 12)]);
    run(once(10, 0, Watermarks::default(), false), &log).unwrap();
    let passed = [click("a", 0), click("b", 0), click("b", 12)];
    assert_eq!(clicks_of(&log, "out"), passed);
    // The next one makes all of them forgotten, and is remembered itself: its times and its timer.
    feed(&log, "in", 0, &[click("c", 300)]);
    let running = once(10, 0, Watermarks::default(), true)
        .start(&log)
        .unwrap();
    until("all others are forgotten", || {
        left_in_store(&log, "once", "seen") == 2
    });
    wait(running.stop()).unwrap();
    // Behind the watermark nobody knows any more.
    feed(&log, "in", 0, &[click("a", 9), click("c", 300)]);
    run(once(10, 0, Watermarks::default(), false), &log).unwrap();
    assert_eq!(clicks_of(&log, "late"), [click("a", 9)]);
    assert_eq!(clicks_of(&log, "out").len(), 4);
}
