//! A value type that changes between two builds of a job on a real Kafka, where the changelog alone restores the state.

use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::proxy::until;
use super::stage::{Stage, stage};
use crate::support::peers;
use crate::time::scaled_kafka::until_led;
use crate::time::support::topic_of_clicks;

const INPUT: &str = "typed-lines";

/// The log with no local state.
fn log_on_a_new_machine(stage: &Stage, folder: &tempfile::TempDir) -> Log {
    let settings = KafkaSettings::new(&stage.cluster.bootstrap())
        .and_then(|it| it.with("state.dir", &folder.path().display().to_string()));
    Log::kafka_with(settings.unwrap()).unwrap()
}

fn write(log: &Log, value: &str) {
    let producer: Producer<str, str> =
        Producer::new(log.transport(), ProducerConfig::default()).unwrap();
    let name = TopicName::new(INPUT).unwrap();
    let record = ProducerRecord::new(&name).partition(0).value(value);
    wait(async { producer.send(record).await.unwrap().await.unwrap() });
}

fn run<T>(log: &Log) -> Result<(), JobError>
where
    T: Datum + Clone + Default + std::ops::AddAssign + From<u8>,
{
    let job = Job::new("typed");
    job.source(topic::<str>(INPUT).until_end())
        .key_by_ref(|line: &str| line)
        .aggregate("sums", T::default, |sum: &mut T, _| *sum += T::from(1))
        .changes()
        .sink(topic("typed-sums"));
    let commit = Commit::every(Duration::from_millis(20));
    let launch = job.exactly_once(commit).workers(1).state_partitions(1);
    wait(launch.start(log)?.finished()).map(drop)
}

#[test]
fn x3_on_kafka_a_changed_type_is_refused_by_what_the_log_notes() {
    let Some(stage) = stage() else { return };
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let log = log_on_a_new_machine(&stage, &folders[0]);
    let name = TopicName::new(INPUT).unwrap();
    until("the topic is created", || {
        wait(log.admin().create_topic(&name, 1)).is_ok()
    });
    write(&log, "tea");
    run::<i64>(&log).unwrap();
    write(&log, "tea");
    let elsewhere = log_on_a_new_machine(&stage, &folders[1]);
    let error = run::<u64>(&elsewhere).unwrap_err().to_string();
    assert!(error.contains("values of the type i64"), "{error}");
    run::<i64>(&log_on_a_new_machine(&stage, &folders[2])).unwrap();
}

#[test]
fn u9_on_kafka_values_of_earlier_builds_are_read_on_other_machines() {
    let Some(stage) = stage() else { return };
    let folder = tempfile::tempdir().unwrap();
    let machines = std::cell::Cell::new(0);
    crate::jobs::migrations::one_build_after_the_other_on(|| {
        machines.set(machines.get() + 1);
        let state = folder.path().join(format!("machine-{}", machines.get()));
        let settings = KafkaSettings::new(&stage.cluster.bootstrap());
        let settings = settings.and_then(|it| it.with("state.dir", &state.display().to_string()));
        Log::kafka_with(settings.unwrap()).unwrap()
    });
}

#[test]
fn u9_on_kafka_what_waits_in_steps_of_every_kind_is_read_by_a_later_build_on_another_machine() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    // Its topics have names that others have.
    let cluster = crate::time::scaled_kafka::cluster();
    let folder = tempfile::tempdir().unwrap();
    let machines = std::cell::Cell::new(0);
    let log = || {
        machines.set(machines.get() + 1);
        let state = folder.path().join(format!("machine-{}", machines.get()));
        crate::time::scaled_kafka::open(&cluster.bootstrap(), &state)
    };
    let feeder = log();
    topic_of_clicks(&feeder, "in", 1);
    until_led(&feeder, "in", 1);
    crate::jobs::wrapped::two_builds(log, &folder.path().join("notes"), || ());
}
