//! Windows and timers in jobs that are scaled out: what is open moves from instance to instance, and comes out once.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Route, Running};

use super::killed::{Clicks, DISORDER, MINUTE, PARTITIONS};
use super::support::{
    PerWindow, click, clicks_per_window, feed, late, left_in_store, ms, parse, results, results_of,
    topic_of_clicks,
};
use super::timers::{ABSENT_AFTER, absences};
use crate::jobs::support::{Place, committed, committed_by_key, run, until};

pub(super) const STATE_PARTITIONS: u16 = 8;

/// Counts per user and minute, as an instance of the job.
pub(super) fn counts(instance: ScaleOut) -> Launch {
    let windows = FixedWindows::tumbling(ms(MINUTE));
    let job = clicks_per_window(windows, Watermarks::out_of_order(ms(DISORDER)), true);
    job.exactly_once(Commit::every(ms(20)))
        .workers(2)
        .state_partitions(STATE_PARTITIONS)
        .scale_out(instance)
}

/// The windows that are open in each state partition, as committed.
pub(super) fn open_windows(log: &Log) -> BTreeMap<i32, usize> {
    let mut last = BTreeMap::new();
    for seen in committed(log, "clicks-per-window-changelog") {
        last.insert((seen.partition, seen.key), seen.value);
    }
    let mut open = BTreeMap::new();
    // A row of a window begins with a 2.
    let is_open = |(_, key): &(i32, Option<Vec<u8>>)| key.as_ref().unwrap()[0] == 2;
    for (place, value) in last {
        *open.entry(place.0).or_default() += usize::from(value.is_some() && is_open(&place));
    }
    open
}

/// The windows that close once all clicks are read: those that end before the least of the partitions' newest clicks, less the disorder.
pub(super) fn closed(clicks: &Clicks) -> PerWindow<u64> {
    let least = clicks.newest_fed.iter().min().unwrap() - DISORDER.cast_signed();
    let mut windows = clicks.windows();
    windows.retain(|(_, _, end), _| *end <= least);
    windows
}

/// Sends a click far behind all others to every partition, so that all windows close but those of these clicks.
pub(super) fn close_all(log: &Log, clicks: &Clicks) {
    for partition in 0..PARTITIONS {
        feed(log, "in", partition, &[click("end", clicks.end())]);
    }
}

/// Every window is right and came once, and nothing was late.
pub(super) fn assert_right(log: &Log, clicks: &Clicks) {
    let (found, expected) = (results(log), clicks.windows());
    let wrong: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|window| found.get(*window) != expected.get(*window))
        .map(|window| (window, found.get(window), expected.get(window)))
        .take(10)
        .collect();
    assert!(wrong.is_empty(), "window, found, expected: {wrong:?}");
    assert_eq!(late(log), []);
}

/// The state partitions that an instance reads.
pub(crate) fn state_of(running: &Running) -> Vec<i32> {
    let partitions = running.share().partitions.into_iter();
    let of_state = partitions.filter(|it| it.topic.as_str().ends_with("-repartition"));
    of_state.map(|it| it.partition).collect()
}

/// Feeds until every instance has a share of the state.
fn settle(log: &Log, clicks: &mut Clicks, running: &[&Running]) {
    until(
        "each has a share of the state, and all of it is shared",
        || {
            clicks.feed(log, 20);
            std::thread::sleep(ms(20));
            let shares: Vec<Vec<i32>> = running.iter().map(|it| state_of(it)).collect();
            let all: usize = shares.iter().map(Vec::len).sum();
            all == usize::from(STATE_PARTITIONS) && shares.iter().all(|share| !share.is_empty())
        },
    );
}

#[test]
fn t8_t10_a11_windows_that_move_from_one_instance_to_three_and_back_are_those_of_one() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", PARTITIONS);
    let mut clicks = Clicks::new();
    let start = |name: &str| counts(ScaleOut::instance(name)).start(&log).unwrap();
    clicks.feed(&log, 1_000);
    let first = start("first");
    until("windows are closed", || !results(&log).is_empty());
    let mut handed_over = 0;
    let mut owned = state_of(&first);
    for round in 0..3 {
        let second = start("second");
        let third = start(["third", "fourth", "fifth"][round]);
        settle(&log, &mut clicks, &[&first, &second, &third]);
        let open = open_windows(&log);
        let stays = state_of(&first);
        let went = owned.iter().filter(|it| !stays.contains(it));
        handed_over += went
            .map(|it| open.get(it).copied().unwrap_or(0))
            .sum::<usize>();
        clicks.feed(&log, 300);
        wait(third.stop()).unwrap();
        settle(&log, &mut clicks, &[&first, &second]);
        clicks.feed(&log, 300);
        wait(second.stop()).unwrap();
        settle(&log, &mut clicks, &[&first]);
        let open = open_windows(&log);
        owned = state_of(&first);
        let came = owned.iter().filter(|it| !stays.contains(it));
        handed_over += came
            .map(|it| open.get(it).copied().unwrap_or(0))
            .sum::<usize>();
    }
    close_all(&log, &clicks);
    let expected = clicks.windows().len();
    until("all windows are closed", || results(&log).len() >= expected);
    wait(first.stop()).unwrap();
    assert_right(&log, &clicks);
    println!("{handed_over} open windows were handed over");
    assert!(handed_over >= 1_000, "only {handed_over}");
    let left = left_in_store(&log, "clicks", "per-window");
    assert!(left <= 1, "{left} windows are left in the store");
}

#[test]
fn t8_a3_timers_that_are_handed_over_fire_once() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", PARTITIONS);
    let start = |name: &str| {
        let launch = absences(true).scale_out(ScaleOut::instance(name));
        launch.workers(2).start(&log).unwrap()
    };
    let mut expected = BTreeMap::new();
    let mut next = 0;
    let mut feed_some = |count: i64| {
        for number in next..next + count {
            let user = format!("user-{number}");
            let partition = i32::try_from(number).unwrap() % PARTITIONS;
            feed(&log, "in", partition, &[click(&user, 10 * number)]);
            expected.insert(user, vec![10 * number]);
        }
        next += count;
        expected.clone()
    };
    let first = start("first");
    feed_some(200);
    let mut second = start("second");
    until("the second has a share", || {
        feed_some(4);
        std::thread::sleep(ms(5));
        !state_of(&second).is_empty()
    });
    feed_some(200);
    wait(second.stop()).unwrap();
    feed_some(200);
    second = start("third");
    until("the third has a share", || {
        feed_some(4);
        std::thread::sleep(ms(5));
        !state_of(&second).is_empty()
    });
    wait(first.stop()).unwrap();
    let expected = feed_some(100);
    for partition in 0..PARTITIONS {
        let end = i64::try_from(expected.len()).unwrap() * 10 + 2 * ABSENT_AFTER;
        feed(&log, "in", partition, &[click("end", end)]);
    }
    until("all have fired", || {
        committed(&log, "out").len() >= expected.len()
    });
    wait(second.stop()).unwrap();
    let fired = committed_by_key::<String, i64>(&log, "out");
    assert_eq!(fired, expected);
}

/// Results of windows go into windows by way of another topic: they are placed by the key that they have in common, and their time
/// comes over two hops.
#[test]
fn w12_results_of_windows_go_through_a_second_topic_to_the_same_state_partition() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", PARTITIONS);
    let start = |name: &str| {
        let job = Job::new("clicks");
        let clicks = job
            .source(topic::<str>("in"))
            .try_map(parse)
            .event_time(|(_, time)| *time, Watermarks::out_of_order(ms(DISORDER)))
            .key_by_ref(|(user, _): &super::support::Click| user);
        let (one, other) = clicks.fork(|_| Route::Both);
        let one = one.window(FixedWindows::tumbling(ms(MINUTE))).count("one");
        let other = other
            .window(FixedWindows::tumbling(ms(MINUTE)))
            .count("other");
        one.merge(other)
            .window(FixedWindows::tumbling(ms(2 * MINUTE)))
            .sum("both", |count| *count)
            .sink(topic("counts"));
        let launch = job.exactly_once(Commit::every(ms(20))).workers(2);
        let launch = launch.state_partitions(STATE_PARTITIONS);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    let mut clicks = Clicks::new();
    clicks.feed(&log, 500);
    let first = start("first");
    let second = start("second");
    until("each has a share", || {
        clicks.feed(&log, 20);
        std::thread::sleep(ms(20));
        !state_of(&first).is_empty() && !state_of(&second).is_empty()
    });
    clicks.feed(&log, 500);
    wait(first.stop()).unwrap();
    close_all(&log, &clicks);
    // The result of the last clicks is not out: their minute is open. It closes the windows of the second step, though.
    let expected = clicks.windows();
    until("all is out", || {
        committed(&log, "counts").len() >= expected.len()
    });
    wait(second.stop()).unwrap();
    let mut found = BTreeMap::new();
    for seen in committed(&log, "counts") {
        let key = seen.key::<Windowed<Windowed<String>>>().key;
        let place = (key.key.clone(), key.window.start.0, key.window.end.0);
        assert!(
            found.insert(place, seen.value::<u64>()).is_none(),
            "{key:?} came twice"
        );
    }
    let twice: PerWindow<u64> = expected
        .into_iter()
        .map(|(at, count)| (at, 2 * count))
        .collect();
    assert!(found == twice, "windows are wrong");
}

#[test]
fn a_scaled_out_job_with_windows_does_not_end_with_its_input() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let job = clicks_per_window(
        FixedWindows::tumbling(ms(MINUTE)),
        Watermarks::default(),
        false,
    );
    let launch = job.exactly_once(Commit::every(ms(20)));
    let error = run(launch.scale_out(ScaleOut::instance("a")), &log).unwrap_err();
    assert!(
        error.to_string().contains("Leave out `until_end`"),
        "{error}"
    );
    assert_eq!(results_of::<u64>(&log, "counts"), PerWindow::new());
}
