//! Several processes of one job on Apache Kafka, and on our own broker over TCP: who holds what, who takes over, who is fenced.

use std::path::Path;
use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::protocol::ErrorKind;
use onceflow::runtime::{Launch, Running};
use onceflow::types::TopicName;

use super::proxy::until;
use super::stage::stage;

const PARTITIONS: i32 = 2;
/// As short as Kafka allows.
const SESSION: Duration = Duration::from_secs(6);

/// Word count under a name of its own, so that tests can share a cluster.
struct Shared<'a> {
    brokers: String,
    folder: &'a Path,
    name: &'a str,
}

impl Shared<'_> {
    /// The log as another process sees it: with its own connections and its own folder of state.
    fn log(&self, place: &str) -> Log {
        let state = self.folder.join(place);
        let settings = KafkaSettings::new(&self.brokers)
            .and_then(|settings| settings.with("state.dir", &state.display().to_string()));
        Log::kafka_with(settings.unwrap()).unwrap()
    }

    fn topic(&self) -> TopicName {
        TopicName::new(&format!("{}-lines", self.name)).unwrap()
    }

    fn launch(&self, scale_out: ScaleOut) -> Launch {
        let job = Job::new(self.name);
        job.source(topic::<str>(self.topic().as_str()))
            .key_by(|line: &str| line)
            .count("counts")
            .changes()
            .sink(topic(&format!("{}-counts", self.name)));
        job.exactly_once(Commit::every(Duration::from_millis(20)))
            .workers(1)
            .state_partitions(4)
            .transaction_timeout(Duration::from_secs(5))
            .scale_out(scale_out.session_timeout(SESSION))
    }

    fn start(&self, place: &str, instance: &str) -> Running {
        let launch = self.launch(ScaleOut::instance(instance));
        launch.start(&self.log(place)).unwrap()
    }

    /// Writes lines, one after the other, of `keys` kinds.
    fn feed(&self, log: &Log, lines: u64, keys: u64) {
        let producer: Producer<str, str> =
            Producer::new(log.transport(), ProducerConfig::default()).unwrap();
        let topic = self.topic();
        wait(async {
            for line in 0..lines {
                let partition = i32::try_from(line).unwrap() % PARTITIONS;
                let value = format!("line {}", line % keys);
                let record = ProducerRecord::new(&topic)
                    .partition(partition)
                    .value(&*value);
                drop(producer.send(record).await.unwrap());
            }
            producer.close().await.unwrap();
        });
    }
}

/// Runs a test on a real Kafka, if it is wanted.
fn on_kafka(name: &str, test: impl Fn(&Shared<'_>)) {
    let Some(stage) = stage() else { return };
    let folder = tempfile::tempdir().unwrap();
    test(&Shared {
        brokers: stage.cluster.bootstrap(),
        folder: folder.path(),
        name,
    });
}

/// Runs a test on our own broker, over TCP.
#[cfg(feature = "server")]
fn over_tcp(name: &str, test: impl Fn(&Shared<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::embedded(folder.path().join("data")).unwrap();
    let server = log.listen("127.0.0.1:0").unwrap();
    test(&Shared {
        brokers: server.address().to_string(),
        folder: folder.path(),
        name,
    });
}

fn a_second_process_of_an_instance_fences_the_first(shared: &Shared<'_>) {
    let log = shared.log("feeder");
    wait(log.admin().create_topic(&shared.topic(), PARTITIONS)).unwrap();
    let first = shared.start("here", "one");
    until("the first one commits", || {
        shared.feed(&log, 4, 4);
        first.commits() > 0
    });
    let second = shared.start("there", "one");
    until("the second one commits", || {
        shared.feed(&log, 4, 4);
        second.commits() > 0
    });
    let error = wait(first.finished()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let commits = second.commits();
    until("the second one goes on", || {
        shared.feed(&log, 4, 4);
        second.commits() > commits
    });
    wait(second.stop()).unwrap();
}

#[test]
fn c11_on_kafka_a_second_process_of_an_instance_fences_the_first() {
    on_kafka("twice", a_second_process_of_an_instance_fences_the_first);
}

#[cfg(feature = "server")]
#[test]
fn c11_over_tcp_a_second_process_of_an_instance_fences_the_first() {
    over_tcp("twice", a_second_process_of_an_instance_fences_the_first);
}
