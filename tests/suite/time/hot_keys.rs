//! Joins of a key that has nearly all records: what they cost grows with the records, not with their square.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use onceflow::prelude::*;
use onceflow::runtime::{OrderedStore, Upstream};

use super::joins::text;
use super::support::{Click, click, feed, left_in_store, ms, parse, topic_of_clicks, watermarks};
use crate::jobs::support::{Place, committed, run};

const RECORDS: i64 = 60_000;
/// The work of a job that looks at all earlier rows of a key for each one takes many times as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A job whose inputs have one record each millisecond, all of one key.
fn hot(log: &Log, build: impl FnOnce(&Job)) -> Duration {
    for (name, every) in [("orders", 1), ("payments", 1_000)] {
        topic_of_clicks(log, name, 1);
        let clicks: Vec<_> = (0..RECORDS / every)
            .map(|n| click("hot", n * every))
            .collect();
        for clicks in clicks.chunks(2_000) {
            feed(log, name, 0, clicks);
        }
    }
    let job = Job::new("hot");
    build(&job);
    let begin = Instant::now();
    run(job.exactly_once(Commit::every(ms(50))), log).unwrap();
    begin.elapsed()
}

fn input(job: &Job, name: &str) -> Keyed<String, i64, impl Upstream<String, i64> + use<>> {
    job.source(topic::<str>(name).until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _)| user.clone())
        .map(|(_, time)| *time)
}

#[test]
fn a_hot_key_costs_an_outer_join_no_more_for_each_row_the_more_it_has() {
    let place = Place::new();
    let log = place.log();
    let took = hot(&log, |job| {
        let joined = input(job, "orders").join("join", input(job, "payments"));
        joined.within(ms(2), ms(2)).outer(text).sink(topic("out"));
    });
    // Five orders are near each payment, three near the first one.
    let payments = RECORDS / 1_000;
    let matches = 5 * payments - 2;
    let expected = usize::try_from(RECORDS).unwrap();
    let out = committed(&log, "out");
    assert_eq!(out.len(), expected);
    let is_match = |text: &str| !text.contains('-');
    let found = out.iter().filter(|it| is_match(&it.value::<String>()));
    assert_eq!(i64::try_from(found.count()).unwrap(), matches);
    assert!(took < PATIENCE, "{took:?}");
}

#[test]
fn a_hot_key_costs_a_join_as_of_a_time_no_more_for_each_record_the_more_wait() {
    let place = Place::new();
    let log = place.log();
    let took = hot(&log, |job| {
        let prices = input(job, "payments").map(|time| Some(*time));
        input(job, "orders")
            .join_as_of("price", prices)
            .inner(|order, price| (*order, *price))
            .sink(topic("out"));
    });
    let out = committed(&log, "out");
    assert_eq!(out.len(), usize::try_from(RECORDS).unwrap());
    for seen in &out {
        let (order, price) = seen.value::<(i64, i64)>();
        assert_eq!(price, order / 1_000 * 1_000);
    }
    assert!(took < PATIENCE, "{took:?}");
}

/// Keeps the times of a user's clicks; a click of a negative time forgets them all, and tells how many there were and how many are left.
struct Forget {
    times: OrderedStore<i64, ()>,
}

impl Operator<String, Click> for Forget {
    type OutKey = String;
    type Out = (u64, u64);
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, String, Click>,
        out: &mut impl Output<String, (u64, u64)>,
    ) -> Flow {
        let time = record.value.1;
        if time >= 0 {
            return self.times.put(record.key, &time, ());
        }
        let removed = self.times.remove_range(record.key, ..)?;
        let mut left = 0;
        self.times.visit(record.key, .., |_, ()| {
            left += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        out.push(record.with_value(&(removed as u64, left)))
    }
}

/// The rows of a key are removed at once, however many there are, and stay so.
#[test]
fn a_million_rows_of_one_key_are_removed_in_one_go() {
    const ROWS: i64 = 1_000_000;
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let launch = || {
        let job = Job::new("forgets");
        job.source(topic::<str>("in").until_end())
            .try_map(parse)
            .key_by(|(user, _): &Click| user.clone())
            .with_ordered_store::<i64, ()>("times")
            .process("forget", |context| {
                Ok(Forget {
                    times: context.ordered_store("times")?,
                })
            })
            .sink(topic("out"));
        job.exactly_once(Commit::every(ms(50)))
    };
    for first in (0..ROWS).step_by(5_000) {
        let clicks: Vec<_> = (first..first + 5_000)
            .map(|time| click("hot", time))
            .collect();
        feed(&log, "in", 0, &clicks);
    }
    feed(&log, "in", 0, &[click("other", 1), click("other", 2)]);
    run(launch(), &log).unwrap();
    assert_eq!(left_in_store(&log, "forgets", "times"), 1_000_002);
    // Once from what an earlier run left on the disk, and once more: nothing comes back.
    for expected in [ROWS.unsigned_abs(), 0] {
        feed(&log, "in", 0, &[click("hot", -1)]);
        run(launch(), &log).unwrap();
        let out = committed(&log, "out");
        let last = out.last().unwrap();
        assert_eq!(last.value::<(u64, u64)>(), (expected, 0));
    }
    assert_eq!(left_in_store(&log, "forgets", "times"), 2);
}
