//! The rows T and W of the catalogue of faults that other systems had.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::support::{
    Click, click, feed, late, launch, launch_endless, ms, parse, results, results_of,
    topic_of_clicks,
};
use crate::jobs::support::{Place, committed, run, until};

fn expected<const N: usize>(rows: [(&str, i64, i64, u64); N]) -> BTreeMap<(String, i64, i64), u64> {
    let rows = rows.map(|(user, start, end, n)| ((user.to_owned(), start, end), n));
    BTreeMap::from(rows)
}

fn tens() -> FixedWindows {
    FixedWindows::tumbling(ms(10))
}

#[test]
fn t1_records_of_equal_time_are_never_late() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1_000), click("a", 1_000)]);
    run(launch(tens(), Watermarks::out_of_order(ms(0))), &log).unwrap();
    assert_eq!(results(&log), expected([("a", 1_000, 1_010, 2)]));
    assert_eq!(late(&log), []);
}

/// Window [0, 10), grace 0, a record at 25, a restart, a record at 3: late with the restart as without it.
#[test]
fn t8_w15_a_restart_does_not_accept_what_was_late_before() {
    for restarts in [false, true] {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        feed(&log, "in", 0, &[click("a", 1), click("a", 25)]);
        if restarts {
            let endless = launch_endless(tens(), Watermarks::default());
            let running = endless.start(&log).unwrap();
            until("the first window is closed", || results(&log).len() == 1);
            wait(running.stop()).unwrap();
        }
        feed(&log, "in", 0, &[click("a", 3), click("a", 26)]);
        run(launch(tens(), Watermarks::default()), &log).unwrap();
        let windows = [("a", 0, 10, 1), ("a", 20, 30, 2)];
        assert_eq!(results(&log), expected(windows), "restarts: {restarts}");
        assert_eq!(late(&log), [click("a", 3)]);
    }
}

/// A record is late by the watermark before it, and not by that of the batch that it comes in.
#[test]
fn t14_a_late_record_inside_a_batch_is_late() {
    for batches in [vec![3], vec![1, 1, 1], vec![2, 1]] {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        let clicks = [click("a", 1), click("b", 50), click("a", 2)];
        let mut rest = &clicks[..];
        for count in batches {
            let (batch, after) = rest.split_at(count);
            feed(&log, "in", 0, batch);
            rest = after;
        }
        run(launch(tens(), Watermarks::default()).workers(2), &log).unwrap();
        let windows = [("a", 0, 10, 1), ("b", 50, 60, 1)];
        assert_eq!(results(&log), expected(windows));
        assert_eq!(late(&log), [click("a", 2)]);
    }
}

/// The first windows' results come into the second ones although time has passed them.
#[test]
fn t12_windows_of_windows_find_nothing_late() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    for partition in 0..2 {
        let clicks: Vec<Click> = (0..200)
            .map(|n| click(["a", "b"][usize::try_from(n % 2).unwrap()], n))
            .collect();
        feed(&log, "in", partition, &clicks);
    }
    let job = Job::new("nested");
    let (by_ten, late) = job
        .source(topic::<str>("in").until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::default())
        .key_by_ref(|(user, _): &Click| user)
        .window(tens().grace(ms(7)))
        .count("tens")
        .entries(|user, count| (user.key.clone(), *count))
        .key_by_ref(|(user, _): &(String, u64)| user)
        .window(FixedWindows::tumbling(ms(50)))
        .late();
    late.sink(topic("late"));
    by_ten
        .aggregate(
            "fifties",
            || 0u64,
            |sum, (_, n)| *sum += n,
            |sum, other| *sum += other,
        )
        .sink(topic("counts"));
    let launch = job.exactly_once(Commit::every(ms(2))).workers(2);
    run(launch, &log).unwrap();
    let users = ["a", "b"].into_iter();
    let fifties =
        users.flat_map(|user| (0..4).map(move |n| ((user.to_owned(), n * 50, n * 50 + 50), 50)));
    assert_eq!(results(&log), fifties.collect());
    assert_eq!(committed(&log, "late"), []);
}

/// A partition without records holds time back, unless it may be idle.
#[test]
fn t6_t7_an_empty_partition_holds_time_until_it_is_idle() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    feed(&log, "in", 0, &[click("a", 1), click("a", 25)]);
    let job = |watermarks: Watermarks| {
        let job = Job::new("clicks");
        job.source(topic::<str>("in"))
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks)
            .key_by_ref(|(user, _): &Click| user)
            .window(tens())
            .count("per-window")
            .sink(topic("counts"));
        job.exactly_once(Commit::every(ms(2))).workers(2)
    };
    let running = job(Watermarks::default()).start(&log).unwrap();
    until("both are read", || running.progress().records == 2);
    wait(running.stop()).unwrap();
    assert_eq!(results(&log), BTreeMap::new());
    let idle = Watermarks::default().idle_after(ms(30));
    let running = job(idle).start(&log).unwrap();
    until("the window is closed", || !results(&log).is_empty());
    assert_eq!(results(&log), expected([("a", 0, 10, 1)]));
    wait(running.stop()).unwrap();
}

#[test]
fn t15_the_end_of_the_input_closes_all_windows_with_and_without_watermarks() {
    for watermarks in [Watermarks::default(), Watermarks::at_end_only()] {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        feed(
            &log,
            "in",
            0,
            &[click("a", 95), click("a", 3), click("b", -1)],
        );
        run(launch(tens(), watermarks), &log).unwrap();
        let (found, late) = (results(&log), late(&log));
        match watermarks == Watermarks::at_end_only() {
            true => {
                let windows = [("a", 90, 100, 1), ("a", 0, 10, 1), ("b", -10, 0, 1)];
                assert_eq!((found, late), (expected(windows), vec![]));
            }
            false => assert_eq!(late.len(), 2),
        }
    }
}

/// 500 records of ten milliseconds that are read over a much longer time are one row.
#[test]
fn w18_what_is_read_slowly_is_in_one_window() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let begin = std::time::Instant::now();
    let windows = FixedWindows::tumbling(ms(10));
    let running = launch_endless(windows, Watermarks::default())
        .workers(2)
        .start(&log)
        .unwrap();
    for batch in 1..=10i64 {
        let clicks: Vec<Click> = (0..50).map(|_| click("a", batch - 1)).collect();
        feed(&log, "in", 0, &clicks);
        let read = 50 * batch.unsigned_abs();
        until("the batch is read", || running.progress().records == read);
        assert_eq!(results(&log), BTreeMap::new());
    }
    assert!(begin.elapsed() > ms(10));
    feed(&log, "in", 0, &[click("b", 10)]);
    until("the window is closed", || !results(&log).is_empty());
    wait(running.stop()).unwrap();
    assert_eq!(results(&log), expected([("a", 0, 10, 500)]));
}

#[test]
fn w1_negative_times_round_down() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(
        &log,
        "in",
        0,
        &[click("a", -11), click("b", -10), click("c", -1)],
    );
    run(launch(tens(), Watermarks::default()), &log).unwrap();
    let windows = [("a", -20, -10, 1), ("b", -10, 0, 1), ("c", -10, 0, 1)];
    assert_eq!(results(&log), expected(windows));
}

#[test]
fn a_record_without_a_time_is_poison_that_says_what_to_do() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("untimed");
    job.source(values("n", [-1i64]))
        .key_by(|n| *n)
        .window(tens())
        .count("n")
        .sink(topic("counts"));
    let refused = run(job.exactly_once(Commit::every(ms(2))), &log).unwrap_err();
    assert!(
        refused.to_string().contains("with `event_time`"),
        "{refused}"
    );
    // A time of -1 that the value has is a time.
    let job = Job::new("timed");
    job.source(values("n", [-1i64]))
        .event_time(|n| *n, Watermarks::default())
        .key_by(|n| *n)
        .window(tens())
        .count("n")
        .sink(topic("counts"));
    run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    assert_eq!(committed(&log, "counts").len(), 1);
}

#[test]
fn event_time_behind_a_shuffle_is_refused() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("behind");
    job.source(values("n", [1u64]))
        .key_by(|n| *n)
        .partitioned("brought")
        .event_time(|n: &u64| n.cast_signed(), Watermarks::default())
        .window(tens())
        .count("n")
        .sink(topic("counts"));
    let refused = run(job.exactly_once(Commit::every(ms(2))), &log).unwrap_err();
    assert!(
        refused.to_string().contains("move it to the source"),
        "{refused}"
    );
}

/// The only split of the second source is read by the second worker; the first one never sends anything of it.
#[test]
fn t3_t15_a_source_that_the_first_worker_never_reads_closes_its_windows() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("two");
    for name in ["a", "b"] {
        topic_of_clicks(&log, name, 1);
        feed(&log, name, 0, &[click("u", 1), click("u", 25)]);
        job.source(topic::<str>(name).until_end())
            .try_map(parse)
            .event_time(|(_, time)| *time, Watermarks::default())
            .key_by(|(user, _)| user.clone())
            .window(tens())
            .count(&format!("of-{name}"))
            .sink(topic(&format!("counts-{name}")));
    }
    run(job.exactly_once(Commit::every(ms(2))).workers(2), &log).unwrap();
    for name in ["a", "b"] {
        let counts = results_of::<u64>(&log, &format!("counts-{name}"));
        assert_eq!(counts, expected([("u", 0, 10, 1), ("u", 20, 30, 1)]));
    }
}
