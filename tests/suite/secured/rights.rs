//! A job that lacks one right is told which, on what (issue 3, A.4).

use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::{Admin, wait};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::TopicName;

use super::brokers::{Door, GROUP, Prefixed, Secured, TOPIC, TRANSACTIONAL_ID, kafka, ours};
use super::logins::connect;
use super::until;

/// Kafka's numbers of operations.
const READ: i8 = 3;
const WRITE: i8 = 4;
const CREATE: i8 = 5;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;

/// A rule that the job needs: what about, its name behind that of the job, and the operation.
type Rule = (i8, &'static str, i8);

/// Reads a job's rights from `docs/kafka.md`.
fn needed() -> Vec<Rule> {
    let mut rules = vec![
        (TOPIC, "-lines", READ),
        (TOPIC, "-lines", DESCRIBE),
        // Whether the job was spread over several processes before.
        (TOPIC, "-counts-repartition", DESCRIBE),
        (GROUP, "", READ),
        (GROUP, "", DESCRIBE),
    ];
    for topic in ["-counts-changelog", "-positions", "-out"] {
        for operation in [READ, WRITE, CREATE, DESCRIBE, DESCRIBE_CONFIGS] {
            rules.push((TOPIC, topic, operation));
        }
    }
    for id in ["-0", "-1"] {
        rules.push((TRANSACTIONAL_ID, id, WRITE));
        rules.push((TRANSACTIONAL_ID, id, DESCRIBE));
    }
    rules
}

/// Word count from `<name>-lines` to `<name>-out`.
fn launch(name: &str) -> Launch {
    let job = Job::new(name);
    job.source(topic::<str>(&format!("{name}-lines")))
        .key_by_ref(|line: &str| line)
        .count("counts")
        .changes()
        .sink(topic(&format!("{name}-out")));
    let commit = Commit::every(Duration::from_millis(20));
    job.exactly_once(commit).workers(1).state_partitions(1)
}

/// Lets the job do everything but `lacking`, and runs it as that user.
fn run_without(broker: &Secured, name: &str, lacking: &[Rule]) -> Result<(), String> {
    let plain = connect(broker.settings(Door::Plain, &[]));
    let lines = TopicName::new(&format!("{name}-lines")).unwrap();
    wait(Admin::new(plain.clone()).create_topic(&lines, 1)).unwrap();
    let producer: Producer<str, str> = Producer::new(plain, ProducerConfig::default()).unwrap();
    let record = ProducerRecord::new(&lines).partition(0).value("word");
    wait(async { producer.send(record).await.unwrap().await.unwrap() });
    // Rules are the user's; each job has names of its own, so that they do not meet.
    for (resource, suffix, operation) in needed() {
        let is_lacking = lacking.iter().any(|(r, s, o)| {
            *r == resource && suffix == *s && (*o == operation || implies_describe(*o, operation))
        });
        if !is_lacking {
            let name = format!("{name}{suffix}");
            broker.allow("rights", resource, &name, Prefixed::No, &[operation]);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let settings = broker.settings(
        Door::Login,
        &[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "rights"),
            ("sasl.password", "rights-secret"),
            ("state.dir", &state),
        ],
    );
    let log = Log::kafka_with(settings).unwrap();
    let running = launch(name).start(&log).map_err(|e| e.to_string())?;
    until("the job commits or ends", || {
        running.is_finished() || running.positions().values().any(|at| at.0 >= 1)
    });
    match running.is_finished() {
        true => wait(running.finished())
            .map(drop)
            .map_err(|e| e.to_string()),
        false => wait(running.stop()).map(drop).map_err(|e| e.to_string()),
    }
}

/// Whoever is to lack a right must not have it by another one that implies it.
fn implies_describe(lacking: i8, operation: i8) -> bool {
    lacking == DESCRIBE && [READ, WRITE].contains(&operation)
}

fn each_right_is_missed_by_name(broker: &Secured) {
    run_without(broker, "r-all", &[]).unwrap();
    let listed = launch("r-all").topics().unwrap();
    for topic in ["r-all-counts-changelog", "r-all-positions", "r-all-out"] {
        let line = listed.iter().find(|known| known.name.as_str() == topic);
        assert!(line.is_some(), "{topic} of {listed:?}");
    }
    for (number, rule, part, right) in [
        (
            0,
            (TOPIC, "-counts-changelog", CREATE),
            "r0-counts-changelog",
            "Create",
        ),
        (1, (TOPIC, "-out", WRITE), "r1-out", "Write"),
        (2, (TOPIC, "-lines", READ), "r2-lines", "Read"),
        (3, (GROUP, "", READ), "group r3", "Read"),
        (
            4,
            (TRANSACTIONAL_ID, "-0", WRITE),
            "transactional id r4-0",
            "Write",
        ),
        (
            5,
            (TOPIC, "-out", DESCRIBE_CONFIGS),
            "r5-out",
            "DescribeConfigs",
        ),
        (6, (TOPIC, "-lines", DESCRIBE), "r6-lines", "Describe"),
        (7, (GROUP, "", DESCRIBE), "r7", "Describe"),
    ] {
        let name = format!("r{number}");
        let told = run_without(broker, &name, &[rule]).unwrap_err();
        assert!(
            told.contains(part) && told.contains(&format!("--operation {right} ")),
            "{name} lacks {right} on {part}: {told}"
        );
    }
}

#[test]
fn a_job_that_lacks_a_right_on_our_server_hears_which_on_what() {
    each_right_is_missed_by_name(&ours());
}

#[test]
fn a_job_that_lacks_a_right_on_kafka_hears_which_on_what() {
    if let Some(kafka) = kafka() {
        each_right_is_missed_by_name(&kafka);
    }
}
