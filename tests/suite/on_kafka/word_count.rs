//! Word count on a real Kafka, its process killed with SIGKILL again and again: what a `read_committed` reader sees is
//! each word counted up from 1 without a gap or a repeat, and the sum of the input at the end (I1, I2).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::TopicName;

use crate::support::kafka::KafkaCluster;
use crate::support::peers;

/// Tells the child where the brokers and its state are, and that it is one.
const CHILD_VARIABLE: &str = "ONCEFLOW_WORD_COUNT_CHILD";
const LINES: u64 = 40_000;
const WORDS: u64 = 97;
const PARTITIONS: i32 = 3;
/// How often the job is killed.
const ROUNDS: u64 = 6;
/// How long everything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The words of a line.
fn words_of(line: u64) -> [u64; 3] {
    [line % WORDS, (line * 7 + 3) % WORDS, line % 11]
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// The job, in a process of its own: runs until it is killed.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn counts_until_it_is_killed() {
    let Ok(place) = std::env::var(CHILD_VARIABLE) else {
        return;
    };
    let mut words_of_place = place.split(' ');
    let mut next = || words_of_place.next();
    let (brokers, state, instance) = (next().unwrap(), next().unwrap(), next());
    let settings = KafkaSettings::new(brokers)
        .and_then(|settings| settings.with("state.dir", state))
        .expect("the settings are good");
    let log = Log::kafka_with(settings).expect("Kafka answers");
    let job = Job::new("killed-words");
    job.source(topic::<str>("killed-lines"))
        .flat_map(words)
        .key_by(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("killed-counts"));
    let mut job = job
        .exactly_once(Commit::every(Duration::from_millis(50)))
        .workers(2);
    if let Some(instance) = instance {
        // As short as Kafka allows, so that the others take over soon; its transactions end soon, too.
        let spread = ScaleOut::instance(instance).session_timeout(Duration::from_secs(6));
        job = job
            .scale_out(spread)
            .transaction_timeout(Duration::from_secs(10));
    }
    println!("@up");
    let running = job.start(&log).expect("the job is sound");
    println!("@ended {:?}", wait(running.finished()));
    std::process::exit(3);
}

/// A child, killed when it is dropped.
struct Life(Child);

impl Life {
    fn begin(brokers: &str, state: &Path) -> Self {
        Self::at(format!("{brokers} {}", state.display()))
    }

    /// One of several processes that share the job.
    fn instance(brokers: &str, state: &Path, name: &str) -> Self {
        Self::at(format!("{brokers} {} {name}", state.display()))
    }

    fn at(place: String) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "on_kafka::word_count::counts_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(CHILD_VARIABLE, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.ends_with("@up")),
            "the child did not start"
        );
        std::thread::spawn(move || {
            for line in lines.filter(|line| line.starts_with('@')) {
                eprintln!("child: {line}");
            }
        });
        Self(child)
    }
}

impl Drop for Life {
    /// SIGKILL, as from outside.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Reads the output as anybody would, and checks it record by record.
struct Reader {
    consumer: Consumer<str, u64>,
    counts: BTreeMap<String, u64>,
    seen: u64,
}

impl Reader {
    fn new(log: &Log) -> Self {
        let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
        let mut consumer = Consumer::new(log.transport(), config);
        let output = TopicName::new("killed-counts").unwrap();
        let partition = |number| onceflow::types::TopicPartition::new(output.clone(), number);
        consumer.assign((0..PARTITIONS).map(partition));
        Self {
            consumer,
            counts: BTreeMap::new(),
            seen: 0,
        }
    }

    fn read(&mut self) {
        let records = match wait(self.consumer.poll(Duration::from_millis(100))) {
            Ok(records) => records,
            // A broker that is being restarted.
            Err(e) if e.kind() == onceflow::protocol::ErrorKind::Retriable => return,
            Err(e) => panic!("{e}"),
        };
        for record in records.iter() {
            let word = record.key().unwrap().unwrap().into_owned();
            let count = record.value().unwrap().unwrap().into_owned();
            let known = self.counts.entry(word.clone()).or_default();
            assert_eq!(count, *known + 1, "{word}: a gap or a repeat");
            *known = count;
            self.seen += 1;
        }
    }

    /// Reads on until `seen` records were seen; whether they were, within `patience`.
    fn read_until(&mut self, seen: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.seen < seen && Instant::now() < deadline {
            self.read();
        }
        self.seen >= seen
    }
}

fn write_lines(log: &Log, lines: std::ops::Range<u64>) {
    let producer: Producer<str, str> =
        Producer::new(log.transport(), ProducerConfig::default()).unwrap();
    let topic = TopicName::new("killed-lines").unwrap();
    wait(async {
        for number in lines {
            let line = words_of(number).map(|word| format!("w{word}")).join(" ");
            let partition = i32::try_from(number % 3).unwrap();
            let record = ProducerRecord::new(&topic)
                .partition(partition)
                .value(&*line);
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await.unwrap();
    });
}

fn expected() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in 0..LINES {
        for word in words_of(line) {
            *counts.entry(format!("w{word}")).or_default() += 1;
        }
    }
    counts
}

#[test]
fn word_count_on_kafka_is_exact_through_kills_of_the_job_and_of_the_broker() {
    exact_through(1, |cluster, round| {
        if round == 2 {
            cluster.kill(1);
            cluster.restart(1);
        }
    });
}

#[test]
fn k6_word_count_is_exact_through_a_rolling_restart_of_three_brokers() {
    exact_through(3, |cluster, round| match round {
        // One goes in order, one is killed, one is gone until the end.
        1 => {
            cluster.stop(1);
            cluster.restart(1);
        }
        2 => {
            cluster.kill(2);
            cluster.restart(2);
        }
        4 => cluster.kill(3),
        _ => {}
    });
}

/// Runs the job on so many brokers, kills it in each round, and does to the cluster what `each` says while it runs.
fn exact_through(brokers_count: usize, each: impl Fn(&mut KafkaCluster, u64)) {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let mut cluster = KafkaCluster::start(brokers_count);
    let brokers = cluster.bootstrap();
    let folder = tempfile::tempdir().unwrap();
    let log = Log::kafka_with(KafkaSettings::new(&brokers).unwrap()).unwrap();
    for topic in ["killed-lines", "killed-counts"] {
        let topic = TopicName::new(topic).unwrap();
        wait(log.admin().create_topic(&topic, PARTITIONS)).unwrap();
    }
    let mut reader = Reader::new(&log);
    let total = LINES * 3;
    for round in 0..ROUNDS {
        let life = Life::begin(&brokers, folder.path());
        let part = LINES / ROUNDS;
        let end = if round + 1 == ROUNDS {
            LINES
        } else {
            (round + 1) * part
        };
        // Written while the job reads, so that the kill finds it at work.
        let writing = std::thread::spawn({
            let log = log.clone();
            move || write_lines(&log, round * part..end)
        });
        let goal = reader.seen + part * 3 / 2;
        assert!(
            reader.read_until(goal.min(total), PATIENCE),
            "no progress in round {round}"
        );
        each(&mut cluster, round);
        writing.join().unwrap();
        drop(life);
    }
    let _life = Life::begin(&brokers, folder.path());
    assert!(
        reader.read_until(total, PATIENCE),
        "{} of {total}",
        reader.seen
    );
    // Nothing more comes.
    assert!(!reader.read_until(total + 1, Duration::from_secs(1)));
    assert_eq!(reader.counts, expected());
}

/// Which of three processes are there in a round: they come, are killed, come again, and stay away.
fn members_of(round: u64) -> &'static [&'static str] {
    match round {
        0 => &["one"],
        1 => &["one", "two"],
        2 => &["one", "two", "three"],
        3 => &["two", "three"],
        4 => &["one", "three"],
        _ => &["three"],
    }
}

/// Also C29: what a killed process had open is rolled back, and its share goes on elsewhere.
#[test]
fn c29_k9_processes_that_share_word_count_are_exact_through_their_kills() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = KafkaCluster::start(1);
    let brokers = cluster.bootstrap();
    let folder = tempfile::tempdir().unwrap();
    let log = Log::kafka_with(KafkaSettings::new(&brokers).unwrap()).unwrap();
    for topic in ["killed-lines", "killed-counts"] {
        let topic = TopicName::new(topic).unwrap();
        wait(log.admin().create_topic(&topic, PARTITIONS)).unwrap();
    }
    let mut reader = Reader::new(&log);
    let (total, part) = (LINES * 3, LINES / ROUNDS);
    let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
    for round in 0..ROUNDS {
        let members = members_of(round);
        // SIGKILL to those that go, while the others work.
        lives.retain(|name, _| members.contains(name));
        for name in members {
            let begin = || Life::instance(&brokers, folder.path(), name);
            lives.entry(name).or_insert_with(begin);
        }
        let end = match round + 1 == ROUNDS {
            true => LINES,
            false => (round + 1) * part,
        };
        write_lines(&log, round * part..end);
        let goal = reader.seen + part * 3 / 2;
        assert!(
            reader.read_until(goal.min(total), PATIENCE),
            "no progress in round {round}"
        );
    }
    assert!(
        reader.read_until(total, PATIENCE),
        "{} of {total}",
        reader.seen
    );
    assert!(!reader.read_until(total + 1, Duration::from_secs(1)));
    assert_eq!(reader.counts, expected());
}
