//! Records as large as the source takes: they find room in every topic of the job (what strangers found, row 11).

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::support::{OFTEN, Place, committed, committed_values, fill_topic, run};

const LARGE: &str = "8388608";

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

/// A topic that takes 8 MiB, with these values.
fn large_topic(log: &Log, values: &[&str]) {
    let configs = [("max.message.bytes".to_owned(), LARGE.to_owned())];
    wait(
        log.admin()
            .create_topic_with(&name("in"), 1, configs.into()),
    )
    .unwrap();
    fill_topic(log, "in", 1, values);
}

fn config(log: &Log, topic: &str, setting: &str) -> String {
    let configs = wait(log.admin().describe_configs(&name(topic))).unwrap();
    configs
        .into_iter()
        .find(|entry| entry.name == setting)
        .unwrap()
        .value
}

#[test]
fn x11_a_record_of_five_megabytes_becomes_a_dead_letter() {
    let place = Place::new();
    let log = place.log();
    let large = "x".repeat(5 << 20);
    large_topic(&log, &["1", &large, "2"]);
    let launch = || {
        let job = Job::new("numbers");
        job.source(topic::<str>("in").until_end())
            .try_map(|text: &str| text.parse::<u64>())
            .sink(topic("out"));
        job.exactly_once(Commit::every(OFTEN))
    };
    let dead = || PoisonPolicy::DeadLetter(name("dead"));
    // A topic that somebody made too small is named, and a dead-letter topic is not what is advised.
    wait(log.admin().create_topic(&name("dead"), 1)).unwrap();
    let refused = run(launch().on_poison(dead()), &log)
        .unwrap_err()
        .to_string();
    for part in [
        "dead",
        "record 1 of in-0",
        "max.message.bytes",
        "invalid digit",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(
        !refused.contains("send such records to a dead-letter topic"),
        "{refused}"
    );
    wait(log.admin().delete_topic(&name("dead"))).unwrap();

    let settings = launch()
        .on_poison(dead())
        .topic_config("dead", "retention.ms", "1000000000000");
    run(settings, &log).unwrap();
    assert_eq!(
        committed(&log, "dead")[0].value.as_deref(),
        Some(large.as_bytes())
    );
    assert_eq!(committed_values::<u64>(&log, "out"), [1, 2]);
    assert_eq!(config(&log, "dead", "retention.ms"), "1000000000000");
}

#[test]
fn x11_a_value_of_five_megabytes_is_kept_and_passes_between_instances() {
    let place = Place::new();
    let log = place.log();
    let large = "x".repeat(5 << 20);
    large_topic(&log, &[&large]);
    let job = Job::new("keeping");
    job.source(topic::<str>("in"))
        .key_by(|text: &str| text.len() as u64)
        .aggregate("last", String::new, |last, text: &str| {
            text.clone_into(last)
        })
        .changes()
        .sink(topic("out").config("max.message.bytes", LARGE));
    let running = job
        .exactly_once(Commit::every(OFTEN))
        .state_partitions(1)
        .scale_out(ScaleOut::instance("a"))
        .start(&log)
        .unwrap();
    super::support::until("the record came out", || !committed(&log, "out").is_empty());
    wait(running.stop()).unwrap();
    assert_eq!(config(&log, "out", "max.message.bytes"), LARGE);
}

#[test]
fn x11_settings_for_a_topic_that_the_job_does_not_write_are_refused() {
    let job = Job::new("copy");
    job.source(topic::<str>("in").until_end())
        .sink(topic("out").config("cleanup.policy", "compact"));
    let launch = job.exactly_once(Commit::every(OFTEN));
    let topics = launch.topics().unwrap();
    let out = topics
        .iter()
        .find(|topic| topic.name.as_str() == "out")
        .unwrap();
    let any_time = (
        "message.timestamp.after.max.ms".to_owned(),
        i64::MAX.to_string(),
    );
    let compact = ("cleanup.policy".to_owned(), "compact".to_owned());
    assert_eq!(out.configs, BTreeMap::from([compact, any_time]));
    let error = launch
        .topic_config("uot", "retention.ms", "1")
        .topics()
        .unwrap_err();
    assert!(error.to_string().contains("\"uot\""), "{error}");
}
