//! Tombstones on a real Kafka: read and written by tables, and seen by Kafka's own consumer.

use std::cell::RefCell;
use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::proxy::until;
use super::stage::stage;

/// Runs a table over the topic `in`, in a job alone or in one that is spread, and gives what Kafka's consumer prints of its changes.
fn run_table(name: &str, is_spread: bool) -> Option<String> {
    let stage = stage()?;
    let folder = tempfile::tempdir().unwrap();
    let settings = KafkaSettings::new(&stage.cluster.bootstrap())
        .and_then(|it| it.with("state.dir", &folder.path().display().to_string()));
    let log = Log::kafka_with(settings.unwrap()).unwrap();
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let topics = [&input, &output].map(|topic| TopicName::new(topic).unwrap());
    for topic in &topics {
        wait(log.admin().create_topic(topic, 1)).unwrap();
    }
    let producer: Producer<str, str> =
        Producer::new(log.transport(), ProducerConfig::default()).unwrap();
    let changes = [
        ("a", Some("1")),
        ("b", Some("2")),
        ("a", None),
        ("never", None),
        ("b", Some("3")),
    ];
    for (key, value) in changes {
        let mut record = ProducerRecord::new(&topics[0])
            .key(key)
            .header("by", key.as_bytes());
        if let Some(value) = value {
            record = record.value(value);
        }
        wait(async { producer.send(record).await.unwrap().await.unwrap() });
    }
    let job = Job::new(name);
    job.keyed_source(keyed_topic::<str, str>(&input).as_option())
        .to_table("latest")
        .changes()
        .sink(topic::<str>(&output).as_option().keep_headers());
    let launch = job.exactly_once(Commit::every(Duration::from_millis(20)));
    let launch = launch.workers(1).state_partitions(1);
    let running = match is_spread {
        true => launch.scale_out(ScaleOut::instance("one")).start(&log),
        false => launch.start(&log),
    };
    let running = running.unwrap();
    let shown = RefCell::new(String::new());
    until("the changes are there", || {
        let printed = stage.cluster.tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            &[
                "--topic",
                &output,
                "--from-beginning",
                "--isolation-level",
                "read_committed",
                "--timeout-ms",
                "4000",
                "--property",
                "print.key=true",
                "--property",
                "print.headers=true",
                "--property",
                "null.literal=<null>",
            ],
        );
        shown.replace(printed);
        let lines = shown.borrow();
        lines.lines().filter(|line| line.contains("by:")).count() >= 4
    });
    wait(running.stop()).unwrap();
    Some(shown.into_inner())
}

fn assert_shown(shown: &str) {
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("by:")).collect();
    assert_eq!(
        lines,
        ["by:a\ta\t1", "by:b\tb\t2", "by:a\ta\t<null>", "by:b\tb\t3"],
        "{shown}"
    );
}

#[test]
fn x6_on_kafka_a_table_reads_and_writes_tombstones() {
    if let Some(shown) = run_table("deletes", false) {
        assert_shown(&shown);
    }
}

#[test]
fn x6_on_kafka_a_table_of_a_spread_job_reads_and_writes_tombstones() {
    if let Some(shown) = run_table("spread-deletes", true) {
        assert_shown(&shown);
    }
}
