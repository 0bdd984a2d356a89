//! Several processes of one job on Apache Kafka, and on our own broker over TCP: who holds what, who takes over, who is fenced.

use std::path::Path;
use std::time::Duration;

use onceflow::client::OffsetSpec;
use onceflow::client::consumer::PartitionReader;
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{JobErrorKind, Launch, Running};
use onceflow::types::{Isolation, Offset, TopicName, TopicPartition};

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
            .key_by_ref(|line: &str| line)
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
    assert_eq!(error.kind(), JobErrorKind::Fenced, "{error}");
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

/// Checks that the members' words of each other stay: a restart within the session is no rebalance.
fn a_restarted_process_keeps_its_tasks_without_a_rebalance(shared: &Shared<'_>) {
    let log = shared.log("feeder");
    wait(log.admin().create_topic(&shared.topic(), PARTITIONS)).unwrap();
    let launch = |instance| shared.launch(ScaleOut::instance(instance).remain_in_group());
    let first = launch("one").start(&shared.log("one")).unwrap();
    let second = launch("two").start(&shared.log("two")).unwrap();
    until("each has its half", || {
        shared.feed(&log, 4, 4);
        [&first, &second].map(|it| it.share().partitions.len()) == [3, 3]
    });
    let before = [&first, &second].map(Running::share);
    wait(second.stop()).unwrap();
    let again = launch("two").start(&shared.log("two")).unwrap();
    until("it has its tasks again", || {
        shared.feed(&log, 4, 4);
        again.share().partitions.len() == 3
    });
    let commits = (first.commits(), again.commits());
    until("both go on", || {
        shared.feed(&log, 8, 8);
        first.commits() > commits.0 && again.commits() > commits.1
    });
    for (after, before) in [first.share(), again.share()].iter().zip(&before) {
        assert_eq!(after.partitions, before.partitions);
        assert_eq!(after.generation, before.generation);
    }
    wait(first.stop()).unwrap();
    wait(again.stop()).unwrap();
}

#[test]
fn on_kafka_a_restarted_process_keeps_its_tasks_without_a_rebalance() {
    on_kafka(
        "back",
        a_restarted_process_keeps_its_tasks_without_a_rebalance,
    );
}

#[cfg(feature = "server")]
#[test]
fn over_tcp_a_restarted_process_keeps_its_tasks_without_a_rebalance() {
    over_tcp(
        "back",
        a_restarted_process_keeps_its_tasks_without_a_rebalance,
    );
}

/// The topics between the processes are as they must be, and what was read for good is deleted.
#[test]
fn on_kafka_repartition_topics_are_purged_behind_the_committed_position() {
    on_kafka("purged", |shared| {
        let log = shared.log("feeder");
        wait(log.admin().create_topic(&shared.topic(), PARTITIONS)).unwrap();
        let often = ScaleOut::instance("one").purge_interval(Duration::from_millis(100));
        let running = shared.launch(often).start(&shared.log("one")).unwrap();
        until("the first records are read", || {
            shared.feed(&log, 20, 20);
            running.commits() > 3
        });
        let between = TopicName::new("purged-counts-repartition").unwrap();
        let configs = wait(log.transport().describe_configs(&between)).unwrap();
        let value = |name: &str| {
            let found = configs.iter().find(|entry| entry.name == name);
            found.map(|entry| entry.value.clone()).unwrap()
        };
        assert_eq!(value("cleanup.policy"), "delete");
        assert_eq!(value("retention.ms"), "-1");
        let is_purged = |partition| {
            let place = TopicPartition::new(between.clone(), partition);
            let list = |spec| {
                let isolation = Isolation::ReadUncommitted;
                let found = wait(log.transport().list_offset(&place, spec, isolation));
                found.unwrap().unwrap().offset
            };
            list(OffsetSpec::Earliest).0 > 0
        };
        until("each partition begins later", || {
            shared.feed(&log, 20, 20);
            (0..4).all(is_purged)
        });
        wait(running.stop()).unwrap();
    });
}

/// Tells the child what to do.
const CHILD_VARIABLE: &str = "ONCEFLOW_STANDBY_CHILD";

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn stands_by_until_it_is_killed() {
    let Ok(place) = std::env::var(CHILD_VARIABLE) else {
        return;
    };
    // Its input ends with its parent.
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(4);
    });
    let (brokers, folder) = place.split_once(' ').unwrap();
    let shared = Shared {
        brokers: brokers.to_owned(),
        folder: Path::new(folder),
        name: "standby",
    };
    let launch = shared.launch(ScaleOut::instance("one").standbys(1));
    let running = launch.start(&shared.log("one")).unwrap();
    panic!("{:?}", wait(running.finished()));
}

/// The process, killed with SIGKILL when it is dropped.
struct Life(std::process::Child);

impl Life {
    fn begin(shared: &Shared<'_>) -> Self {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "on_kafka::scale_out::stands_by_until_it_is_killed",
            ])
            .args(["--ignored", "--nocapture"])
            .env(
                CHILD_VARIABLE,
                format!("{} {}", shared.brokers, shared.folder.display()),
            )
            .stdin(std::process::Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

fn end(log: &Log, place: &TopicPartition) -> Offset {
    let isolation = Isolation::ReadCommitted;
    let found = wait(
        log.transport()
            .list_offset(place, OffsetSpec::Latest, isolation),
    );
    found.unwrap().map_or(Offset::ZERO, |found| found.offset)
}

/// Counts a topic's records for a reader.
fn records_seen(log: &Log, topic: &str) -> usize {
    let topic = TopicName::new(topic).unwrap();
    let count = wait(log.transport().topic(&topic)).unwrap();
    let partitions = 0..count.map_or(0, |it| it.partitions_count);
    let seen = partitions.map(|partition| {
        let place = TopicPartition::new(topic.clone(), partition);
        let (end, isolation) = (end(log, &place), Isolation::ReadCommitted);
        let mut reader = PartitionReader::new(log.transport(), place, Offset::ZERO, isolation);
        let mut seen = 0;
        while reader.position() < end {
            let batches = wait(reader.fetch(Duration::from_millis(100))).unwrap();
            seen += batches
                .map(|batch| batch.unwrap().iter().count())
                .sum::<usize>();
        }
        seen
    });
    seen.sum()
}

/// Changelog records of the state partitions among `partitions`.
fn changelog_records(log: &Log, partitions: &[TopicPartition]) -> u64 {
    let changelog = TopicName::new("standby-counts-changelog").unwrap();
    let of_state = partitions
        .iter()
        .filter(|it| it.topic.as_str().ends_with("-repartition"));
    let ends = of_state.map(|it| end(log, &TopicPartition::new(changelog.clone(), it.partition)));
    ends.map(|end| u64::try_from(end.0).unwrap()).sum()
}

#[test]
fn k9_a_standby_takes_over_from_a_killed_process_without_a_restore() {
    on_kafka("standby", |shared| {
        let log = shared.log("feeder");
        wait(log.admin().create_topic(&shared.topic(), PARTITIONS)).unwrap();
        let life = Life::begin(shared);
        let launch = shared.launch(ScaleOut::instance("two").standbys(1));
        let survivor = launch.start(&shared.log("two")).unwrap();
        let is_fed = |lines| records_seen(&log, "standby-counts") == lines;
        until("the work is shared", || {
            survivor.share().standby_lags.len() == 2
        });
        shared.feed(&log, 3_000, 1_000);
        until("all is counted", || is_fed(3_000));
        until("the standbys have caught up", || {
            survivor.share().standby_lags.values().all(|&lag| lag == 0)
        });
        let half = survivor.share();
        drop(life);
        shared.feed(&log, 500, 500);
        until("the survivor has counted the rest, once", || is_fed(3_500));
        let all = survivor.share();
        let mut taken_over = all.partitions.clone();
        taken_over.retain(|partition| !half.partitions.contains(partition));
        let restored = all.restored_records - half.restored_records;
        let records = changelog_records(&log, &taken_over);
        println!("{restored} records were restored of {records}");
        assert!(
            records > 500 && restored * 20 < records,
            "{restored} of {records}"
        );
        wait(survivor.stop()).unwrap();
    });
}
