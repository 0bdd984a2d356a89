//! Topics of a job that are deleted and created anew on a real Kafka.

use std::time::Duration;

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{JobErrorKind, Running};
use onceflow::types::{GroupId, TopicName, TopicPartition};

use super::proxy::until;
use super::stage::{Stage, stage};

const INPUT: &str = "anew-lines";
const OUTPUT: &str = "anew-counts";
const CHANGELOG: &str = "anew-counts-changelog";

/// A job with state in a folder of its own.
struct Site {
    log: Log,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new(stage: &Stage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = KafkaSettings::new(&stage.cluster.bootstrap())
            .and_then(|it| it.with("state.dir", &folder.path().display().to_string()));
        Self {
            log: Log::kafka_with(settings.unwrap()).unwrap(),
            _folder: folder,
        }
    }

    fn create(&self, topic: &str) {
        let name = TopicName::new(topic).unwrap();
        // The old one may still be on its way out.
        until("the topic is created", || {
            wait(self.log.admin().create_topic(&name, 1)).is_ok()
        });
    }

    fn delete(&self, topic: &str) {
        let name = TopicName::new(topic).unwrap();
        wait(self.log.admin().delete_topic(&name)).unwrap();
    }

    fn write(&self, count: usize) {
        let producer: Producer<str, str> =
            Producer::new(self.log.transport(), ProducerConfig::default()).unwrap();
        let name = TopicName::new(INPUT).unwrap();
        for _ in 0..count {
            let record = ProducerRecord::new(&name).partition(0).value("tea");
            wait(async { producer.send(record).await.unwrap().await.unwrap() });
        }
    }

    fn start(&self) -> Running {
        let job = Job::new("anew");
        job.source(topic::<str>(INPUT))
            .key_by_ref(|line: &str| line)
            .count("counts")
            .changes()
            .sink(topic(OUTPUT));
        let commit = Commit::every(Duration::from_millis(20));
        job.exactly_once(commit)
            .workers(1)
            .state_partitions(1)
            .start(&self.log)
            .unwrap()
    }

    /// The counts as everybody sees them.
    fn until_counted(&self, expected: &[u64]) {
        let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
        let mut consumer: Consumer<str, u64> = Consumer::new(self.log.transport(), config);
        consumer.assign([TopicPartition::new(TopicName::new(OUTPUT).unwrap(), 0)]);
        let mut seen = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while seen.len() < expected.len() {
            assert!(std::time::Instant::now() < deadline, "{seen:?}");
            let records = wait(consumer.poll(Duration::from_millis(50))).unwrap();
            seen.extend(
                records
                    .iter()
                    .map(|it| it.value().unwrap().unwrap().into_owned()),
            );
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn s6_s16_topics_that_are_created_anew_under_a_job_stop_it_and_leave_nothing_behind() {
    let Some(stage) = stage() else { return };
    let site = Site::new(&stage);
    site.create(INPUT);
    site.create(OUTPUT);
    let running = site.start();
    site.write(3);
    site.until_counted(&[1, 2, 3]);
    // More records than the job has read of the old one: its position is one of the new one's as well.
    site.delete(INPUT);
    site.create(INPUT);
    site.write(5);
    until("the job has stopped", || running.is_finished());
    let ended = wait(running.finished()).unwrap_err();
    assert_eq!(ended.kind(), JobErrorKind::Setup, "{ended}");
    assert!(ended.to_string().contains("created anew"), "{ended}");
    site.until_counted(&[1, 2, 3]);
    // S6: everything of the job is deleted but the folder of its state, which belongs to nobody now.
    for topic in [INPUT, OUTPUT, CHANGELOG] {
        site.delete(topic);
    }
    let group = GroupId::new("anew").unwrap();
    let admin = site.log.admin();
    until("the group has no positions", || {
        let committed = wait(admin.committed(&group)).unwrap_or_default();
        committed.iter().all(|(_, position)| position.is_none())
    });
    site.create(INPUT);
    site.create(OUTPUT);
    site.write(2);
    let running = site.start();
    site.until_counted(&[1, 2]);
    wait(running.stop()).unwrap();
}
