//! Every event is there once, whatever happens to the job.

use std::collections::HashMap;

use onceflow::testing::{Chance, crash_test};

const HOUR_MS: i64 = 3_600_000;
const DISORDER_MS: i64 = 60_000;

/// A user, an id, and a time.
type Event = (&'static str, u64, i64);

/// Ids come again at once, within the hour and after it, from either user; some events are late.
fn events(chance: &mut Chance) -> Vec<Event> {
    let mut time = 100_000;
    chance.list(1..40, |chance| {
        time += *chance.pick(&[0, 1_000, 1_500_000]);
        let behind = *chance.pick(&[0, 0, DISORDER_MS / 2, DISORDER_MS + 10_000]);
        let user = *chance.pick(&["ann", "bob"]);
        (user, chance.below(3), time - behind)
    })
}

/// The events that are neither late nor near one that is there.
fn first_ones(events: &[Event]) -> Vec<(String, String)> {
    let (mut newest, mut seen) = (i64::MIN + DISORDER_MS, HashMap::new());
    let mut first_ones = Vec::new();
    for (user, id, time) in events {
        let is_late = *time < newest - DISORDER_MS;
        newest = newest.max(*time);
        let times: &mut Vec<i64> = seen.entry((user, id)).or_default();
        let is_known = times.iter().any(|it| (it - time).abs() < HOUR_MS);
        if !is_late && !is_known {
            times.push(*time);
            first_ones.push(((*user).to_owned(), format!("e{id}")));
        }
    }
    first_ones
}

#[test]
fn every_event_is_there_once() {
    crash_test(super::jobs::dedupe_events::job)
        .inputs(events, |bed, (user, id, time)| {
            bed.send_value("events", format!("e{id} {time} {user}").as_str())
        })
        .partitions("events", 1)
        .expect::<str, str>("events-once", first_ones)
        .run();
}
