//! The time of a record is the same whenever the record is read again.

use std::sync::{Arc, Mutex};

use onceflow::prelude::*;
use onceflow::runtime::Record;
use onceflow::types::Timestamp;

use super::support::{OFTEN, Place, committed, fill_topic, run};

/// Times that a job's functions saw, with the record's value.
type Times = Arc<Mutex<Vec<(String, Timestamp)>>>;

fn noted<K: ?Sized>(
    times: &Times,
) -> impl Fn(Record<'_, K, String>) + Clone + Send + Sync + use<K> {
    let times = Arc::clone(times);
    move |record| {
        let seen = (record.value.clone(), record.meta.timestamp);
        times.lock().unwrap().push(seen);
    }
}

#[test]
fn values_and_lines_have_no_time_in_any_run_and_results_that_of_their_writing() {
    let place = Place::new();
    let path = place.file("in", "a line\n");
    let log = place.log();
    for round in ["one", "two"] {
        let times = Times::default();
        let job = Job::new(round);
        let both = job
            .source(lines([&path]))
            .map(str::to_owned)
            .merge(job.source(values("values", ["a value".to_owned()])));
        let (left, right) = both.tee();
        left.sink(at_least_once(noted(&times)));
        right.key_by_ref(String::as_str).sink(topic(round));
        let before = log.env().clock.wall();
        run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
        let after = log.env().clock.wall();
        let mut seen = times.lock().unwrap().clone();
        seen.sort();
        let none = |value: &str| (value.to_owned(), Timestamp::NONE);
        assert_eq!(seen, [none("a line"), none("a value")]);
        let written = committed(&log, round);
        assert_eq!(written.len(), 2);
        for record in written {
            assert!(
                before <= record.timestamp && record.timestamp <= after,
                "{record:?}"
            );
        }
    }
}

#[test]
fn records_of_a_topic_keep_their_time_to_the_end() {
    let place = Place::new();
    let log = place.log();
    let before = log.env().clock.wall();
    fill_topic(&log, "in", 1, &["a", "b"]);
    let after = log.env().clock.wall();
    let of_input = committed(&log, "in");
    let job = Job::new("counting");
    job.source(topic::<str>("in").until_end())
        .key_by_ref(|value: &str| value)
        .count("counts")
        .changes()
        .sink(topic("out"));
    run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let written = committed(&log, "out");
    assert_eq!(written.len(), 2);
    for record in written {
        assert!(before <= record.timestamp && record.timestamp <= after);
        assert!(of_input.iter().any(|of| of.timestamp == record.timestamp));
    }
}
