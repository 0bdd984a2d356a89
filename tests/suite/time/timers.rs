//! Timers of event time and of the wall clock, and records in the order of their times.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Came, Due, Launch, Missed};
use onceflow::types::Timestamp;
use proptest::prelude::*;

use super::support::{Click, click, feed, ms, parse, topic_of_clicks};
use crate::jobs::support::{Place, committed, committed_by_key, run, until};

/// Says of each user that nothing came for 100 ms of event time: the timer is moved by every click.
pub(super) struct Absent {
    /// The time of the last click, and so of the timer.
    pub(super) store: TimedStore<i64>,
    pub(super) due: Due,
}

pub(super) const ABSENT_AFTER: i64 = 100;

impl Operator<String, Click> for Absent {
    type OutKey = String;
    type Out = i64;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, String, Click>,
        _out: &mut impl Output<String, i64>,
    ) -> Flow {
        let time = record.meta.timestamp;
        let before = self.store.update(record.key, |last| {
            let before = *last;
            *last = Some(before.map_or(time.0, |before| before.max(time.0)));
            before
        })?;
        if before.is_some_and(|before| before >= time.0) {
            return Ok(());
        }
        if let Some(before) = before {
            self.store
                .cancel_timer(record.key, Timestamp(before + ABSENT_AFTER))?;
        }
        self.store
            .set_timer(record.key, Timestamp(time.0 + ABSENT_AFTER))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<String, i64>) -> Flow {
        while let Some(came) = self.store.next_due(watermark, &mut self.due)? {
            assert_eq!(came, Came::Timer);
            let last = self.store.update(self.due.key::<String>(), Option::take)?;
            out.push(Record {
                key: self.due.key(),
                value: &last.unwrap(),
                meta: onceflow::runtime::Meta {
                    timestamp: self.due.time,
                    origin: onceflow::runtime::Origin::TIME,
                },
                headers: onceflow::runtime::Headers::NONE,
            })?;
        }
        Ok(())
    }
}

pub(super) fn absences(is_endless: bool) -> Launch {
    let job = Job::new("absences");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    job.source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::default())
        .key_by_ref(|(user, _): &Click| user)
        .with_timed_store::<i64>("last")
        .process("absent", |context| {
            Ok(Absent {
                store: context.timed_store("last")?,
                due: Due::default(),
            })
        })
        .sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

#[test]
fn a1_a3_a_timer_that_was_set_before_a_restart_fires_once() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(
        &log,
        "in",
        0,
        &[click("a", 10), click("b", 20), click("a", 50)],
    );
    let running = absences(true).workers(2).start(&log).unwrap();
    until("all are read", || running.progress().records == 3);
    wait(running.stop()).unwrap();
    assert_eq!(committed(&log, "out"), []);
    feed(&log, "in", 0, &[click("c", 140)]);
    run(absences(false).workers(1), &log).unwrap();
    let absent = committed_by_key::<String, i64>(&log, "out");
    let expected = [("a", vec![50]), ("b", vec![20]), ("c", vec![140])];
    let expected = expected.map(|(user, last)| (user.to_owned(), last));
    assert_eq!(absent, BTreeMap::from(expected));
}

/// Counts to five for each key, a step every 20 ms of the wall clock.
struct Ticks {
    store: TimedStore<u64>,
    now: Timestamp,
    due: Due,
}

const TICK: Duration = Duration::from_millis(20);

impl Operator<u64, u64> for Ticks {
    type OutKey = u64;
    type Out = u64;
    const KEEPS_KEY: bool = true;
    const USES_CLOCK: bool = true;

    fn process(&mut self, record: Record<'_, u64, u64>, _out: &mut impl Output<u64, u64>) -> Flow {
        self.store.set_timer(record.key, self.now.plus_millis(20))
    }

    fn on_clock(&mut self, now: Timestamp, out: &mut impl Output<u64, u64>) -> Flow {
        self.now = now;
        while self.store.next_due(now, &mut self.due)?.is_some() {
            let count = self.store.update(self.due.key::<u64>(), |count| {
                let next = count.unwrap_or(0) + 1;
                *count = Some(next);
                next
            })?;
            out.push(Record {
                key: self.due.key(),
                value: &count,
                meta: onceflow::runtime::Meta {
                    timestamp: self.due.time,
                    origin: onceflow::runtime::Origin::TIME,
                },
                headers: onceflow::runtime::Headers::NONE,
            })?;
            if count < 5 {
                let next = Missed::Skip.next(self.due.time, TICK, now);
                self.store.set_timer(self.due.key::<u64>(), next)?;
            }
        }
        Ok(())
    }
}

#[test]
fn a1_timers_of_the_wall_clock_fire_without_records_and_go_on_after_a_restart() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    let launch = || {
        let job = Job::new("ticks");
        job.source(topic::<str>("in"))
            .try_map(|text: &str| text.parse::<u64>())
            .key_by(|n| *n)
            .with_timed_store::<u64>("ticks")
            .process("ticks", |context| {
                Ok(Ticks {
                    store: context.timed_store("ticks")?,
                    now: Timestamp(0),
                    due: Due::default(),
                })
            })
            .sink(topic("out"));
        job.exactly_once(Commit::every(ms(2))).workers(2)
    };
    crate::jobs::support::fill_topic(&log, "in", 2, &["1", "2", "3"]);
    let counted = |log: &Log| committed(log, "out").len();
    let running = launch().start(&log).unwrap();
    until("some ticks are out", || counted(&log) >= 4);
    wait(running.stop()).unwrap();
    let running = launch().start(&log).unwrap();
    until("all ticks are out", || counted(&log) == 15);
    wait(running.stop()).unwrap();
    let each = committed_by_key::<u64, u64>(&log, "out");
    let expected = (1..=3).map(|key| (key, vec![1, 2, 3, 4, 5]));
    assert_eq!(each, expected.collect());
}

#[test]
fn a4_a_periodic_timer_stays_on_its_grid() {
    let times = |missed: Missed| {
        let (mut due, mut fired) = (Timestamp(10), Vec::new());
        // Nothing runs between 20 and 47.
        for now in [10, 20, 47, 50, 60] {
            while due <= Timestamp(now) {
                fired.push(due.0);
                due = missed.next(due, ms(10), Timestamp(now));
            }
        }
        fired
    };
    assert_eq!(times(Missed::Skip), [10, 20, 30, 50, 60]);
    assert_eq!(times(Missed::CatchUp), [10, 20, 30, 40, 50, 60]);
}

fn sorted(workers: usize) -> Launch {
    let job = Job::new("sorted");
    let (in_order, late) = job
        .source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::out_of_order(ms(5)))
        .key_by_ref(|(user, _): &Click| user)
        .sorted_by_time("in-order");
    late.sink(topic("late"));
    in_order.sink(topic("out"));
    job.exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
        .workers(workers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: one order of the records of each key, by time, then by partition and offset, whatever runs it.
    #[test]
    fn t14_records_come_in_the_order_of_their_times_whatever_runs_them(
        steps in prop::collection::vec((0i32..3, 0u8..3, 0i64..6, 0i64..=5), 0..90),
        workers in 1usize..5,
        stop_after in 0u64..6,
    ) {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 3);
        let mut newest = [0i64; 3];
        let mut partitions = [vec![], vec![], vec![]];
        for (partition, user, on, behind) in steps {
            let place = usize::try_from(partition).unwrap();
            newest[place] += on;
            partitions[place].push((format!("u{user}"), newest[place] - behind));
        }
        for (number, clicks) in (0..).zip(&partitions) {
            feed(&log, "in", number, clicks);
        }
        let running = sorted(workers).start(&log).unwrap();
        let begin = std::time::Instant::now();
        while running.commits() < stop_after && begin.elapsed() < ms(5) {
            std::thread::yield_now();
        }
        wait(running.stop()).unwrap();
        run(sorted(2), &log).unwrap();
        let mut expected: BTreeMap<String, Vec<Click>> = BTreeMap::new();
        for (user, time) in partitions.iter().flatten() {
            expected.entry(user.clone()).or_default().push((user.clone(), *time));
        }
        // Equal times of a user are equal records here: partitions and offsets cannot be told apart.
        expected.values_mut().for_each(|clicks| clicks.sort_by_key(|(_, time)| *time));
        prop_assert_eq!(committed_by_key::<String, Click>(&log, "out"), expected);
        prop_assert_eq!(committed(&log, "late"), vec![]);
    }
}
