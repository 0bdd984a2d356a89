//! Late records say why they are late and behind which time they came; what windows leave out is counted (I14).

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{HeaderList, JobProgress, LateReason};
use onceflow::types::{Timestamp, TopicName};

use super::support::{Click, click, feed, ms, parse, results, topic_of_clicks, watermarks};
use crate::jobs::support::{Place, Seen, committed, decode, run, until};

/// Clicks of the topic `in` by user.
fn clicks(job: &Job) -> Keyed<String, Click> {
    job.source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::default())
        .key_by_ref(|(user, _): &Click| user)
        .boxed()
}

/// The clicks of the topic `late`, each with its reason and bound.
fn late(log: &Log) -> Vec<(i64, String, i64)> {
    let told = |seen: &Seen| {
        let header = |name: &str| {
            let own = seen.headers.iter().find(|(own, _)| own == name);
            String::from_utf8(own.unwrap().1.clone()).unwrap()
        };
        let (_, time) = decode::<Click>(seen.value.as_deref().unwrap());
        let bound = header("onceflow.watermark").parse().unwrap();
        (time, header("onceflow.late"), bound)
    };
    committed(log, "late").iter().map(told).collect()
}

#[test]
fn a_late_record_says_why_and_what_it_came_behind() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let times = [1, 25, 3, 26, 40, 12];
    feed(&log, "in", 0, &times.map(|time| click("a", time)));
    let job = Job::new("clicks");
    let (clicks, behind) = clicks(&job).window(FixedWindows::tumbling(ms(10))).late();
    behind.sink(topic("late").keep_headers());
    clicks.count("per-window").sink(topic("counts"));
    run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    let closed = LateReason::Closed.as_str().to_owned();
    assert_eq!(late(&log), [(3, closed.clone(), 25), (12, closed, 40)]);
}

/// One record of the year 58,000 (microseconds) neither moves time nor becomes part of a window.
#[test]
fn a_time_that_is_out_of_the_years_is_poison() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let times = [1, i64::MIN, 1_764_244_800_000_000, 2, i64::MAX, 25];
    feed(&log, "in", 0, &times.map(|time| click("a", time)));
    let job = || {
        let job = Job::new("clicks");
        let clicks = clicks(&job).window(FixedWindows::tumbling(ms(10)));
        clicks.count("per-window").sink(topic("counts"));
        job.exactly_once(Commit::every(ms(2)))
    };
    let stopped = run(job(), &log).unwrap_err().to_string();
    assert!(
        stopped.contains("not in the years -9999 to 9999"),
        "{stopped}"
    );
    let set_apart = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    run(job().on_poison(set_apart), &log).unwrap();
    assert_eq!(committed(&log, "dead").len(), 3);
    let counts: Vec<_> = results(&log).into_iter().collect();
    let of = |start: i64, count| (("a".to_owned(), start, start + 10), count);
    assert_eq!(counts, [of(0, 2), of(20, 1)]);
}

#[test]
fn records_between_windows_are_counted() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let times = [0, 4, 5, 9, 10, 99, 103];
    feed(&log, "in", 0, &times.map(|time| click("a", time)));
    let job = Job::new("clicks");
    let sampled = FixedWindows::hopping(ms(5), ms(10));
    job.source(topic::<str>("in"))
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by_ref(|(user, _): &Click| user)
        .window(sampled)
        .count("per-window")
        .sink(topic("counts"));
    let running = job.exactly_once(Commit::every(ms(2))).start(&log).unwrap();
    let told = |progress: &JobProgress| (progress.records, progress.left_out_records);
    until("all are read", || told(&running.progress()) == (7, 3));
    assert_eq!(running.progress().late_records, 0);
    wait(running.stop()).unwrap();
}

#[test]
fn records_that_waited_for_their_time_keep_their_headers() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(
        &log,
        "in",
        0,
        &[click("a", 5), click("a", 1), click("a", 9)],
    );
    let job = Job::new("clicks");
    let (sorted, _) = job
        .source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by_ref(|(user, _): &Click| user)
        .process("mark", |_| Ok(Mark))
        .sorted_by_time("in-order");
    sorted.sink(topic("out").keep_headers());
    run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    let seen: Vec<_> = committed(&log, "out")
        .into_iter()
        .map(|seen| (seen.timestamp, seen.headers))
        .collect();
    let expected = [1i64, 5, 9].map(|time| {
        let own = ("time".to_owned(), time.to_string().into_bytes());
        (Timestamp(time), vec![own])
    });
    assert_eq!(seen, expected);
}

/// Gives each click a header with its time.
struct Mark;

impl Operator<String, Click> for Mark {
    type OutKey = String;
    type Out = Click;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, String, Click>,
        out: &mut impl Output<String, Click>,
    ) -> Flow {
        let mut headers = HeaderList::default();
        headers.add("time", Some(record.value.1.to_string().as_bytes()));
        out.push(record.with_headers(headers.headers()))
    }
}
