//! Questions about windows that are open.

use onceflow::client::wait;
use onceflow::operators::{Filling, TimeWindows};
use onceflow::prelude::*;
use onceflow::runtime::{QueryError, Running};
use onceflow::types::{Offset, Timestamp, TopicName, TopicPartition};

use super::support::{Click, click, feed, launch_endless, ms, parse, topic_of_clicks};
use crate::jobs::support::Place;

/// Waits until so many clicks of the only partition are processed.
fn processed(running: &Running, clicks: i64) {
    let place = TopicPartition::new(TopicName::new("in").unwrap(), 0);
    wait(running.query().processed(&place, Offset(clicks - 1))).unwrap();
}

fn bounds(windows: Vec<(Window, u64)>) -> Vec<(i64, i64, u64)> {
    let windows = windows.into_iter();
    windows
        .map(|(window, clicks)| (window.start.0, window.end.0, clicks))
        .collect()
}

#[test]
fn u12_open_windows_of_a_key_are_read_and_closed_ones_are_not() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let windows = FixedWindows::tumbling(ms(10)).grace(ms(100));
    let running = launch_endless(windows, Watermarks::out_of_order(ms(0)))
        .start(&log)
        .unwrap();
    let clicks: Vec<_> = [1, 2, 13, 25, 26, 27]
        .iter()
        .map(|time| click("ada", *time))
        .chain([click("bob", 29)])
        .collect();
    feed(&log, "in", 0, &clicks);
    processed(&running, 7);
    let query = running.query();
    let open = query.windows::<String, u64>("per-window").unwrap();
    let of = |user: &str, from, to| {
        let times = Timestamp(from)..Timestamp(to);
        bounds(wait(open.of(&user.to_owned(), times)).unwrap().value)
    };
    assert_eq!(of("ada", -50, 50), [(0, 10, 2), (10, 20, 1), (20, 30, 3)]);
    assert_eq!(of("ada", 12, 20), [(10, 20, 1)]);
    assert_eq!(of("bob", 0, 50), [(20, 30, 1)]);
    assert_eq!(of("eve", 0, 50), []);

    // Time goes on: the first two windows close.
    feed(&log, "in", 0, &[click("bob", 125)]);
    processed(&running, 8);
    assert_eq!(of("ada", -50, 200), [(20, 30, 3)]);

    let ada = "ada".to_owned();
    let too_many = wait(open.of(&ada, Timestamp(0)..Timestamp(1_000_000)));
    let too_many = too_many.unwrap_err();
    assert!(matches!(too_many, QueryError::TooMany { .. }), "{too_many}");
    let other = query.windows::<String, i64>("per-window").err().unwrap();
    assert!(matches!(other, QueryError::WrongType { .. }), "{other}");
    wait(running.stop()).unwrap();
}

#[test]
fn u12_open_sessions_of_a_key_are_read() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let sessions = SessionWindows::gap(ms(10)).grace(ms(1_000));
    let running = launch_endless(sessions, Watermarks::out_of_order(ms(0)))
        .start(&log)
        .unwrap();
    let clicks = [5, 9, 14, 40, 45].map(|time| click("ada", time));
    feed(&log, "in", 0, &clicks);
    processed(&running, 5);
    let query = running.query();
    let open = query.windows::<String, u64>("per-window").unwrap();
    let of = |from, to| {
        let times = Timestamp(from)..Timestamp(to);
        bounds(wait(open.of(&"ada".to_owned(), times)).unwrap().value)
    };
    assert_eq!(of(0, 100), [(5, 25, 3), (40, 56, 2)]);
    assert_eq!(of(25, 41), [(40, 56, 2)]);
    // A click that joins the two.
    feed(&log, "in", 0, &[click("ada", 30), click("ada", 24)]);
    processed(&running, 7);
    assert_eq!(of(0, 100), [(5, 56, 7)]);
    wait(running.stop()).unwrap();
}

/// The open windows of "ada" in these windows, without grace, once her clicks of these times and one of "bob" are processed.
fn open_windows(windows: impl TimeWindows, times: &[i64], bob: i64) -> Vec<(i64, i64, u64)> {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let launch = launch_endless(windows, Watermarks::out_of_order(ms(0)));
    let running = launch.start(&log).unwrap();
    let clicks: Vec<_> = times.iter().map(|time| click("ada", *time)).collect();
    feed(&log, "in", 0, &clicks);
    feed(&log, "in", 0, &[click("bob", bob)]);
    processed(&running, i64::try_from(times.len()).unwrap() + 1);
    let open = running
        .query()
        .windows::<String, u64>("per-window")
        .unwrap();
    let all = Timestamp(-200)..Timestamp(200);
    let found = wait(open.of(&"ada".to_owned(), all)).unwrap().value;
    wait(running.stop()).unwrap();
    bounds(found)
}

#[test]
fn u12_windows_that_overlap_are_read_whole_and_only_while_they_are_open() {
    let times = [1, 6, 11, 12];
    let hopping = FixedWindows::hopping(ms(10), ms(5));
    assert_eq!(
        open_windows(hopping, &times, 12),
        [(5, 15, 3), (10, 20, 2)],
        "[-5, 5) and [0, 10) are closed, though [0, 10) has a slice of [5, 15)"
    );
    assert_eq!(open_windows(hopping, &times, 16), [(10, 20, 2)]);
    let cumulative = FixedWindows::cumulative(ms(20), ms(5));
    assert_eq!(
        open_windows(cumulative, &times, 13),
        [(0, 15, 4), (0, 20, 4)]
    );
    // Windows of 4 begin every 10: what is between them is in none.
    let gaps = FixedWindows::hopping(ms(4), ms(10)).grace(ms(50));
    assert_eq!(open_windows(gaps, &times, 13), [(0, 4, 1), (10, 14, 2)]);
    let sliding = SlidingWindows::difference(ms(5));
    assert_eq!(
        open_windows(sliding, &times, 12),
        [(7, 13, 2), (12, 18, 1)],
        "those that ended by 12 are closed"
    );
}

#[test]
fn u12_windows_of_a_number_of_records_are_read_while_they_fill() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let job = Job::new("counts");
    job.source(topic::<str>("in"))
        .try_map(parse)
        .key_by_ref(|(user, _): &Click| user)
        .window(CountWindows::hopping(4, 2))
        .count("per-window")
        .sink(topic("out"));
    let launch = job.exactly_once(Commit::every(ms(2)));
    let running = launch.start(&log).unwrap();
    let clicks = [1, 2, 3, 4, 5].map(|time| click("ada", time));
    feed(&log, "in", 0, &clicks);
    processed(&running, 5);
    let query = running.query();
    let filling = query.store::<String, Filling<u64>>("per-window").unwrap();
    let filling = wait(filling.get(&"ada".to_owned())).unwrap().value.unwrap();
    assert_eq!((filling.count, filling.slices), (3, vec![2, 1]));
    let none = query.windows::<String, u64>("per-window").err().unwrap();
    assert!(matches!(none, QueryError::NoWindows { .. }), "{none}");
    wait(running.stop()).unwrap();
}
