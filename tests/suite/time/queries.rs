//! Questions about windows that are open.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{QueryError, Running};
use onceflow::types::{Offset, Timestamp, TopicName, TopicPartition};

use super::support::{click, feed, launch_endless, ms, topic_of_clicks};
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
    let open = query
        .windows::<String, u64, _>("per-window", windows)
        .unwrap();
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
    let hopping = FixedWindows::hopping(ms(10), ms(5));
    let shared = query.windows::<String, u64, _>("per-window", hopping);
    assert!(matches!(shared.err().unwrap(), QueryError::Shared { .. }));
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
    let open = query
        .windows::<String, u64, _>("per-window", sessions)
        .unwrap();
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
    // Windows of another kind are another type.
    let fixed = query.windows::<String, u64, _>("per-window", FixedWindows::tumbling(ms(10)));
    assert!(matches!(fixed.err().unwrap(), QueryError::WrongType { .. }));
    wait(running.stop()).unwrap();
}
