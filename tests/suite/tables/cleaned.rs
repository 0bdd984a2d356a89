//! Tables whose rows are cleaned by time, and changes that come behind that: nothing is taken out twice.

use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::Timestamp;

use super::support::{Entry, feed_at, input, last, make_topic_of_even_keys, written};
use crate::jobs::support::{OFTEN, Place, until};

/// Rows of the table live for 10 ms of event time; their sum, their number and the list of the greatest are kept beside.
fn job() -> Job {
    let job = Job::new("cleaned");
    let rows = input(&job, "in", true)
        .ttl(Ttl::event_time(Duration::from_millis(10)))
        .to_table("rows");
    let (sums, rest) = rows.tee();
    let (counts, rest) = rest.tee();
    let (lists, rows) = rest.tee();
    rows.changes().sink(topic::<u64>("rows").as_option());
    sums.group_by(|_, value| (0u64, *value))
        .aggregate(
            "sum",
            || 0i64,
            |sum, it| *sum += it.cast_signed(),
            |sum, it| *sum -= it.cast_signed(),
        )
        .changes()
        .sink(topic::<i64>("sum").as_option());
    counts
        .group_by(|_, value| (0u64, *value))
        .count("count")
        .changes()
        .sink(topic::<u64>("count").as_option());
    lists
        .group_by(|key, value| (0u64, (*value, *key)))
        .top_n("list", 2, |(value, _)| *value)
        .changes()
        .sink(topic::<Vec<(u64, u64)>>("list").as_option());
    job
}

/// Feeds changes at times, one after the other, and runs the job, as a run of its own, until all are read.
fn run_with(log: &Log, changes: &[(i64, Entry)]) -> u64 {
    for (time, change) in changes {
        feed_at(log, "in", Timestamp(*time), &[*change]);
    }
    let launch = job().exactly_once(Commit::every(OFTEN)).workers(2);
    let running = launch.start(log).unwrap();
    until("all are read", || {
        running.progress().records == changes.len() as u64
    });
    let left_out = running.progress().left_out_records;
    wait(running.stop()).unwrap();
    left_out
}

/// The values of a group's only key, and `None` where it was deleted.
fn totals<V: onceflow::codec::Datum<Owned = V>>(log: &Log, topic: &str) -> Vec<Option<V>> {
    let seen = crate::jobs::support::committed(log, topic).into_iter();
    seen.map(|it| it.value.is_some().then(|| it.value::<V>()))
        .collect()
}

#[test]
fn j18_changes_below_what_was_cleaned_away_are_ignored_also_in_a_later_run() {
    let place = Place::new();
    let log = place.log();
    make_topic_of_even_keys(&log, "in");
    // At 25 both rows are over.
    let rows = [(0, (2, Some(7))), (1, (4, Some(8))), (25, (6, Some(9)))];
    assert_eq!(run_with(&log, &rows), 0);
    assert!(last(&written(&log, "rows")).into_iter().eq([(6, 9)]));
    // Late deletions, late values, old and young ones: nothing comes back, and nothing is taken out twice.
    let late = [
        (26, (2, None)),
        (3, (4, None)),
        (4, (2, Some(70))),
        (14, (4, Some(80))),
        (15, (4, None)),
    ];
    assert_eq!(run_with(&log, &late), 5);
    assert!(last(&written(&log, "rows")).into_iter().eq([(6, 9)]));
    assert_eq!(totals::<u64>(&log, "count").pop(), Some(Some(1)));
    assert_eq!(totals::<i64>(&log, "sum").pop(), Some(Some(9)));
    let lists = totals::<Vec<(u64, u64)>>(&log, "list");
    assert_eq!(lists.last(), Some(&Some(vec![(9, 6)])));
    // No total was ever less than nothing, and no key was deleted where it was not.
    assert!(
        totals::<i64>(&log, "sum")
            .into_iter()
            .flatten()
            .all(|sum| sum > 0)
    );
    let rows = written(&log, "rows");
    for key in [2, 4] {
        let own = rows.iter().filter(|row| row.0 == key);
        let deletions = own.filter(|row| row.1.is_none()).count();
        assert_eq!(deletions, 1, "{key}: {rows:?}");
    }
    // A late value within the lifetime is one.
    assert_eq!(run_with(&log, &[(20, (2, Some(71)))]), 0);
    assert!(
        last(&written(&log, "rows"))
            .into_iter()
            .eq([(2, 71), (6, 9)])
    );
    assert_eq!(totals::<i64>(&log, "sum").pop(), Some(Some(80)));
}
