//! State with a lifetime, against a run by hand.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use proptest::prelude::*;

use super::support::{
    Click, DISORDER, any_clicks, any_cut, any_runs, click, feed, left_in_store, ms, parse, run_cut,
    topic_of_clicks,
};
use crate::jobs::support::{Place, committed, committed_by_key, run, until};

/// Lifetime of a user's counts, if they do not live for ever.
type Lifetime = Option<u64>;

/// Counts clicks.
pub(super) fn count(count: &mut Option<u64>, _: &Click, results: &mut Results<'_, u64>) {
    let next = count.unwrap_or(0) + 1;
    *count = Some(next);
    results.push(next);
}

/// Counts the clicks of each user, from the beginning again where its count has expired.
fn counts(lifetime: Lifetime, watermarks: Watermarks, is_endless: bool) -> Launch {
    let job = Job::new("visits");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let clicks = job
        .source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by(|(user, _): &Click| user.clone());
    match lifetime {
        Some(lifetime) => clicks
            .ttl(Ttl::event_time(ms(lifetime)))
            .stateful("counts", count)
            .boxed(),
        None => clicks.stateful("counts", count).boxed(),
    }
    .sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

/// The counts of each user, click by click.
pub(super) fn by_hand(lifetime: i64, bound: i64, clicks: &[Click]) -> BTreeMap<String, Vec<u64>> {
    let mut held = BTreeMap::<String, (u64, i64)>::new();
    let (mut given, mut newest) = (BTreeMap::<String, Vec<u64>>::new(), i64::MIN);
    for (user, time) in clicks {
        let (count, last) = held.get(user).copied().unwrap_or((0, i64::MIN));
        let count = count + 1;
        held.insert(user.clone(), (count, last.max(*time)));
        given.entry(user.clone()).or_default().push(count);
        newest = newest.max(*time);
        held.retain(|_, (_, last)| *last + lifetime > newest - bound);
    }
    given
}

fn given(log: &Log) -> BTreeMap<String, Vec<u64>> {
    committed_by_key::<String, u64>(log, "out")
}

fn expected<const N: usize>(rows: [(&str, &[u64]); N]) -> BTreeMap<String, Vec<u64>> {
    BTreeMap::from(rows.map(|(user, counts)| (user.to_owned(), counts.to_vec())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 14, failure_persistence: None, ..ProptestConfig::default() })]

    /// And what expired is gone from the stores, with its timers, over restarts on other numbers of workers.
    #[test]
    fn a8_a11_state_expires_by_event_time_whatever_runs_it(
        partitions in any_clicks(),
        lifetime in 1i64..40,
        bound in 0i64..DISORDER,
        runs in any_runs(),
        cut in any_cut(),
    ) {
        let place = Place::new();
        let log = place.log();
        let one = &partitions[..1];
        let watermarks = Watermarks::out_of_order(ms(bound.unsigned_abs()));
        run_cut(|| counts(Some(lifetime.unsigned_abs()), watermarks, false), one, &runs, cut, &log);
        prop_assert_eq!(given(&log), by_hand(lifetime, bound, &one[0]));
        // Time goes on with another user: what all others had is gone, whichever run wrote it.
        feed(&log, "in", 0, &[click("z", 10_000), click("z", 10_000)]);
        let launch = counts(Some(lifetime.unsigned_abs()), watermarks, true);
        let running = launch.workers(cut.1).start(&log).unwrap();
        until("all others have expired", || {
            let left = |store| left_in_store(&log, "visits", store);
            given(&log).contains_key("z") && left("counts") == 1 && left("counts-ttl") == 2
        });
        wait(running.stop()).unwrap();
    }
}

/// Neither a stop nor the end of the input ages anything.
#[test]
fn a8_state_is_there_after_an_outage_as_time_stood_still() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 0), click("b", 2)]);
    run(counts(Some(10), Watermarks::default(), false), &log).unwrap();
    feed(
        &log,
        "in",
        0,
        &[click("a", 9), click("b", 13), click("b", 14)],
    );
    let running = counts(Some(10), Watermarks::default(), true);
    let running = running.workers(2).start(&log).unwrap();
    until("all are read", || running.progress().records == 3);
    wait(running.stop()).unwrap();
    feed(&log, "in", 0, &[click("a", 20)]);
    run(counts(Some(10), Watermarks::default(), false), &log).unwrap();
    // What b had at 2 is over at 12, which the 13 itself brings: it is counted before.
    assert_eq!(
        given(&log),
        expected([("a", &[1, 2, 3]), ("b", &[1, 2, 3])])
    );
    feed(&log, "in", 0, &[click("c", 40), click("a", 41)]);
    run(counts(Some(10), Watermarks::default(), false), &log).unwrap();
    let counts = given(&log);
    assert_eq!(counts["a"], [1, 2, 3, 1]);
}

/// A lifetime that is set finds the values that were there, and the values are there when it is taken away.
#[test]
fn a10_values_stay_readable_when_a_lifetime_is_set_and_taken_away() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let forever = |log: &Log| {
        let launch = counts(None, Watermarks::default(), false);
        run(launch.forget("counts-ttl"), log).unwrap();
    };
    feed(&log, "in", 0, &[click("a", 0), click("b", 0)]);
    forever(&log);
    feed(&log, "in", 0, &[click("a", 1), click("c", 5)]);
    run(counts(Some(10), Watermarks::default(), false), &log).unwrap();
    feed(&log, "in", 0, &[click("c", 14), click("a", 15)]);
    run(counts(Some(10), Watermarks::default(), false), &log).unwrap();
    assert_eq!(
        given(&log),
        expected([("a", &[1, 2, 1]), ("b", &[1]), ("c", &[1, 2])])
    );
    // Without `forget` it is said what would be lost.
    feed(
        &log,
        "in",
        0,
        &[click("a", 16), click("b", 90), click("c", 91)],
    );
    let refused = run(counts(None, Watermarks::default(), false), &log).unwrap_err();
    assert!(refused.to_string().contains("counts-ttl"), "{refused}");
    forever(&log);
    assert_eq!(
        given(&log),
        expected([("a", &[1, 2, 1, 2]), ("b", &[1, 2]), ("c", &[1, 2, 3])])
    );
}

/// The last time of each user as a table: an even time is a value, an odd one a deletion.
fn last_times<C: onceflow::operators::Clock>(ttl: Ttl<C>) -> Launch {
    let job = Job::new("table");
    job.source(topic::<str>("in"))
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::default())
        .key_by(|(user, _): &Click| user.clone())
        .map(|(_, time)| (time % 2 == 0).then_some(*time))
        .ttl(ttl)
        .to_table("last")
        .changes()
        .sink(topic::<i64>("out").as_option());
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

fn changes(log: &Log) -> Vec<(String, Option<i64>)> {
    let changes = committed(log, "out").into_iter().map(|seen| {
        let value = seen.value.is_some().then(|| seen.value::<i64>());
        (seen.key::<String>().clone(), value)
    });
    changes.collect()
}

/// An expired key is deleted from the table; a deletion that comes later is ignored and counted.
#[test]
fn a9_a_deletion_of_what_has_expired_is_ignored_and_counted() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(
        &log,
        "in",
        0,
        &[click("a", 0), click("b", 20), click("a", 21)],
    );
    let running = last_times(Ttl::event_time(ms(10))).start(&log).unwrap();
    until("all are read", || running.progress().records == 3);
    assert_eq!(running.progress().left_out_records, 1);
    wait(running.stop()).unwrap();
    let value = |user: &str, time| (user.to_owned(), time);
    let mut found = changes(&log);
    found.sort_by_key(|change| change.0.clone());
    let expected = [value("a", Some(0)), value("a", None), value("b", Some(20))];
    assert_eq!(found, expected);
}

/// Each way to fold values begins again with the first one behind the end of a lifetime, and deletes what expires.
#[test]
fn a8_folds_of_values_expire() {
    let fold = |name: &str| {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        let clicks = [click("a", 1), click("a", 9), click("b", 20), click("a", 21)];
        feed(&log, "in", 0, &clicks);
        let job = Job::new("folds");
        let times = job
            .source(topic::<str>("in").until_end())
            .try_map(parse)
            .event_time(|(_, time)| *time, Watermarks::default())
            .key_by(|(user, _): &Click| user.clone())
            .map(|(_, time)| *time)
            .ttl(Ttl::event_time(ms(10)));
        let out = topic::<i64>("out").as_option();
        match name {
            "count" => {
                let counts = times.count("folds").changes();
                counts.map(|n| n.map(u64::cast_signed)).sink(out);
            }
            "reduce" => {
                let sums = times.reduce("folds", |sum, time| *sum += time);
                sums.changes().sink(out);
            }
            _ => {
                let last = times.aggregate("folds", || 100, |sum, time| *sum -= time);
                last.changes().sink(out);
            }
        }
        let launch = job.exactly_once(Commit::every(ms(2))).state_partitions(8);
        run(launch, &log).unwrap();
        let of_a = changes(&log).into_iter().filter(|(user, _)| user == "a");
        of_a.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(fold("count"), [Some(1), Some(2), None, Some(1)]);
    assert_eq!(fold("reduce"), [Some(1), Some(10), None, Some(21)]);
    assert_eq!(fold("aggregate"), [Some(99), Some(90), None, Some(79)]);
}

#[test]
fn a8_state_expires_by_running_time_without_records() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 0)]);
    let launch = || last_times(Ttl::running_time(ms(40))).workers(2);
    let running = launch().start(&log).unwrap();
    until("it is there", || !changes(&log).is_empty());
    wait(running.stop()).unwrap();
    let running = launch().start(&log).unwrap();
    let expected = [("a".to_owned(), Some(0)), ("a".to_owned(), None)];
    until("it has expired", || changes(&log) == expected);
    wait(running.stop()).unwrap();
    assert_eq!(left_in_store(&log, "table", "last"), 0);
    assert_eq!(left_in_store(&log, "table", "last-ttl"), 0);
}
