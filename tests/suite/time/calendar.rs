//! Windows that follow the calendar of a zone.

use std::collections::BTreeMap;

use onceflow::prelude::*;

use super::support::{
    Click, PerWindow, click, feed, launch, left_in_store, results, topic_of_clicks,
};
use crate::jobs::support::{Place, run};

const HOUR: i64 = 3_600_000;

fn counted(windows: CalendarWindows, clicks: &[Click]) -> PerWindow<u64> {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, clicks);
    run(launch(windows, Watermarks::at_end_only()), &log).unwrap();
    assert_eq!(left_in_store(&log, "clicks", "per-window"), 0);
    results(&log)
}

#[test]
fn w3_days_have_23_and_25_hours_where_clocks_are_changed() {
    // 2026-03-28T23:00Z, 2026-10-24T22:00Z and 2026-05-31T22:00Z: days of Berlin begin.
    for (start, hours) in [
        (1774738800000, 23),
        (1792879200000, 25),
        (1780264800000, 24),
    ] {
        let end = start + hours * HOUR;
        let clicks = [start - 1, start, end - 1, end].map(|time| click("a", time));
        let counts = counted(CalendarWindows::days("Europe/Berlin").unwrap(), &clicks);
        assert_eq!(counts[&("a".to_owned(), start, end)], 2);
        let counts: Vec<u64> = counts.into_values().collect();
        assert_eq!(counts, [1, 2, 1]);
    }
}

#[test]
fn weeks_begin_on_monday_and_months_and_years_on_their_first() {
    // 2026-11-27T12:00Z, a Friday.
    let clicks = [click("a", 1795780800000)];
    for (windows, start, end) in [
        // 2026-11-23 to 2026-11-30.
        (CalendarWindows::weeks("UTC"), 1795392000000, 1795996800000),
        // 2026-11-01 to 2026-12-01.
        (CalendarWindows::months("UTC"), 1793491200000, 1796083200000),
        // 2026-01-01 to 2027-01-01.
        (CalendarWindows::years("UTC"), 1767225600000, 1798761600000),
    ] {
        let counts = counted(windows.unwrap(), &clicks);
        assert_eq!(counts, BTreeMap::from([(("a".to_owned(), start, end), 1)]));
    }
}

#[test]
fn a_zone_that_is_not_there_is_an_error_that_names_it() {
    let refused = CalendarWindows::days("Europe/Atlantis").unwrap_err();
    assert!(refused.to_string().contains("Europe/Atlantis"), "{refused}");
}
