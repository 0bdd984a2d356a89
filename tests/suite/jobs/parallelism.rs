//! A job that was run in another way before: whoever ran it so is fenced first (C30).

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{JobErrorKind, Launch};
use onceflow::types::TopicName;

use super::support::{OFTEN, Place, committed_values, fill_topic, until};

/// Copies records, so that each one that is read twice or never shows.
fn copy() -> Launch {
    let job = Job::new("copier");
    job.source(topic::<str>("in")).sink(topic::<str>("out"));
    job.exactly_once(Commit::every(OFTEN))
        .workers(2)
        .transaction_timeout(Duration::from_secs(5))
}

/// Writes numbered records, and knows how often each came out.
struct Feeder<'a> {
    log: &'a Log,
    fed: usize,
}

impl Feeder<'_> {
    fn feed(&mut self) {
        let values: Vec<String> = (self.fed..self.fed + 20).map(|n| n.to_string()).collect();
        fill_topic(self.log, "in", 2, &values);
        self.fed += values.len();
    }

    fn assert_copied_once(&self) {
        until("all is copied", || {
            committed_values::<str>(self.log, "out").len() >= self.fed
        });
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for value in committed_values::<str>(self.log, "out") {
            *times.entry(value).or_default() += 1;
        }
        times.retain(|_, times| *times != 1);
        assert!(times.is_empty(), "more than once: {times:?}");
    }
}

#[test]
fn c30_a_process_that_ran_the_job_alone_is_fenced_once_the_job_is_spread() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder { log: &log, fed: 0 };
    feeder.feed();
    let alone = copy().start(&log).unwrap();
    until("it commits", || alone.commits() > 0);
    let instance = copy()
        .scale_out(ScaleOut::instance("a").session_timeout(Duration::from_secs(6)))
        .start(&log)
        .unwrap();
    until("the one that ran alone has ended", || {
        feeder.feed();
        alone.is_finished()
    });
    let ended = wait(alone.finished()).unwrap_err();
    assert_eq!(ended.kind(), JobErrorKind::Fenced, "{ended}");
    until("the instance commits", || {
        feeder.feed();
        instance.commits() > 2
    });
    feeder.assert_copied_once();
    wait(instance.stop()).unwrap();
}

#[test]
fn s16_a_topic_that_is_created_anew_under_a_job_stops_it_with_the_reason() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder { log: &log, fed: 0 };
    feeder.feed();
    let running = copy().start(&log).unwrap();
    feeder.assert_copied_once();
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().delete_topic(&topic)).unwrap();
    wait(log.admin().create_topic(&topic, 2)).unwrap();
    for _ in 0..5 {
        feeder.feed();
    }
    until("the job has stopped", || running.is_finished());
    let ended = wait(running.finished()).unwrap_err();
    assert_eq!(ended.kind(), JobErrorKind::Setup, "{ended}");
    assert!(ended.to_string().contains("created anew"), "{ended}");
    // Started again, it begins with the new one's first record.
    let running = copy().start(&log).unwrap();
    feeder.assert_copied_once();
    wait(running.stop()).unwrap();
}

#[test]
fn x8_a_source_topic_that_is_deleted_under_its_job_is_never_created_by_it() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder { log: &log, fed: 0 };
    feeder.feed();
    let running = copy().start(&log).unwrap();
    feeder.assert_copied_once();
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().delete_topic(&topic)).unwrap();
    until("the job has stopped", || running.is_finished());
    let ended = wait(running.finished()).unwrap_err();
    assert!(ended.to_string().contains("was deleted"), "{ended}");
    // Nor by a later run of it, nor when it is shared out.
    let again = wait(copy().start(&log).unwrap().finished()).unwrap_err();
    assert!(again.to_string().contains("was deleted"), "{again}");
    let shared = copy().scale_out(ScaleOut::instance("a"));
    let shared = wait(shared.start(&log).unwrap().finished()).unwrap_err();
    assert!(shared.to_string().contains("was deleted"), "{shared}");
    assert_eq!(wait(log.transport().topic(&topic)).unwrap(), None);
    // Who creates it himself has it read from its beginning.
    wait(log.admin().create_topic(&topic, 3)).unwrap();
    feeder.feed();
    let running = copy().start(&log).unwrap();
    feeder.assert_copied_once();
    wait(running.stop()).unwrap();
}

#[test]
fn x20_a_misspelt_topic_that_is_read_to_its_end_is_an_error_and_not_created() {
    let place = Place::new();
    let log = place.log();
    let unkeyed = Job::new("unkeyed");
    unkeyed
        .source(topic::<str>("wodrs").until_end())
        .sink(topic("out"));
    let keyed = Job::new("keyed");
    keyed
        .keyed_source(keyed_topic::<str, u64>("wodrs").until_end())
        .sink(topic("out"));
    let spread = Job::new("spread");
    spread
        .source(topic::<str>("wodrs").until_end())
        .sink(topic("out"));
    let alone = [unkeyed, keyed].map(|job| job.exactly_once(Commit::every(OFTEN)));
    let spread = spread
        .exactly_once(Commit::every(OFTEN))
        .scale_out(ScaleOut::instance("a"));
    for launch in alone.into_iter().chain([spread]) {
        let error = wait(launch.start(&log).unwrap().finished()).unwrap_err();
        assert!(error.to_string().contains("wodrs"), "{error}");
        assert!(error.to_string().contains("no such topic"), "{error}");
    }
    let misspelt = TopicName::new("wodrs").unwrap();
    assert_eq!(wait(log.transport().topic(&misspelt)).unwrap(), None);
}

#[test]
fn s16_a_topic_that_grows_under_a_job_is_read_whole() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder { log: &log, fed: 0 };
    feeder.feed();
    let running = copy().start(&log).unwrap();
    feeder.assert_copied_once();
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().create_partitions(&topic, 4)).unwrap();
    let values: Vec<String> = (feeder.fed..feeder.fed + 40)
        .map(|n| n.to_string())
        .collect();
    fill_topic(&log, "in", 4, &values);
    feeder.fed += values.len();
    feeder.assert_copied_once();
    wait(running.stop()).unwrap();
}
