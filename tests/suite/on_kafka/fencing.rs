//! Two instances of one job: the second one takes over, and the first one stops for good (I4).

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::protocol::ErrorKind;
use onceflow::runtime::Running;
use onceflow::types::TopicName;

use super::proxy::until;
use super::stage::stage;

/// The folder of the state is made, with those above it.
fn log(brokers: &str, folder: &std::path::Path) -> Log {
    let state = folder.join("absent").join("too");
    let settings = KafkaSettings::new(brokers)
        .and_then(|settings| settings.with("state.dir", &state.display().to_string()))
        .unwrap();
    Log::kafka_with(settings).unwrap()
}

fn start(log: &Log) -> Running {
    let job = Job::new("fenced-job");
    job.source(topic::<str>("fenced-lines"))
        .key_by(|line: &str| line)
        .count("counts")
        .changes()
        .sink(topic("fenced-counts"));
    let commit = Commit::every(std::time::Duration::from_millis(20));
    job.exactly_once(commit).workers(1).start(log).unwrap()
}

#[test]
fn c11_a_second_instance_of_a_job_stops_the_first_and_goes_on() {
    let Some(stage) = stage() else { return };
    let brokers = stage.cluster.bootstrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let logs = folders
        .each_ref()
        .map(|folder| log(&brokers, folder.path()));
    let lines = TopicName::new("fenced-lines").unwrap();
    wait(logs[0].admin().create_topic(&lines, 1)).unwrap();
    let producer: Producer<str, str> =
        Producer::new(logs[0].transport(), ProducerConfig::default()).unwrap();
    let feed = || {
        let record = ProducerRecord::new(&lines).partition(0).value("line");
        wait(async { producer.send(record).await.unwrap().await.unwrap() });
    };
    let first = start(&logs[0]);
    until("the first one commits", || {
        feed();
        first.commits() > 0
    });
    let second = start(&logs[1]);
    until("the second one commits", || {
        feed();
        second.commits() > 0
    });
    let ended = wait(first.finished()).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Fenced, "{ended}");
    let commits = second.commits();
    until("the second one goes on", || {
        feed();
        second.commits() > commits
    });
    wait(second.stop()).unwrap();
}
