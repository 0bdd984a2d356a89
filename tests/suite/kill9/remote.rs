//! Producers that outlive the broker, over TCP: kills and SIGTERMs of `onceflow broker` at any moment are invisible to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceflow::client::consumer::PartitionReader;
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::{KafkaSettings, KafkaTransport};
use onceflow::client::{Admin, CommitOutcome, TransactionalWriter, Transport, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::internals::protocol::messages::{CommittedOffset, GroupMember, TransactionState};
use onceflow::testing::Env;
use onceflow::types::{
    GroupId, Isolation, Offset, Timestamp, TopicName, TopicPartition, TransactionalId,
};

use super::harness::kills_wanted;
use super::plan::Random;
use crate::support::broker::Server;

const PARTITIONS: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), index)
}

fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

fn connect(server: &Server) -> Arc<dyn Transport> {
    let settings = KafkaSettings::new(&server.address()).unwrap();
    Arc::new(KafkaTransport::connect(Env::real(), settings).unwrap())
}

/// One producer's transactions as it was told of them: the values of those that were committed, by partition.
type Told = BTreeMap<i32, Vec<String>>;

/// A producer that sends into every partition, moves a position, and commits; on and on, and none of it may fail.
fn produce(transport: &Arc<dyn Transport>, name: &str, is_over: &AtomicBool) -> Told {
    let config = ProducerConfig::default()
        .linger(Duration::ZERO)
        .transactional_id(TransactionalId::new(name).unwrap());
    let producer: Producer<str, str> = Producer::new(Arc::clone(transport), config).unwrap();
    wait(producer.init_transactions()).unwrap();
    let mut told = Told::new();
    for number in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        producer.begin_transaction().unwrap();
        for step in 0..3 {
            for index in 0..PARTITIONS {
                let value = format!("{name} {number} {step}");
                let record = ProducerRecord::new(&partition(index).topic)
                    .partition(index)
                    .value(value.as_str());
                let sent = wait(async { producer.send(record).await?.await });
                sent.unwrap_or_else(|error| panic!("{value}: {error}"));
                told.entry(index).or_default().push(value);
            }
        }
        let offsets = vec![(partition(0), position(number))];
        wait(producer.send_offsets(group(), GroupMember::default(), offsets)).unwrap();
        let outcome = wait(producer.commit_transaction());
        assert_eq!(outcome.unwrap(), CommitOutcome::Committed, "{number}");
    }
    told
}

/// The same, by batches.
fn write(transport: &Arc<dyn Transport>, name: &str, is_over: &AtomicBool) -> Told {
    let id = TransactionalId::new(name).unwrap();
    let writer = wait(TransactionalWriter::init(
        Arc::clone(transport),
        id,
        PATIENCE,
    ))
    .unwrap();
    let mut told = Told::new();
    for number in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        for index in 0..PARTITIONS {
            let mut partition = writer.partition(&partition(index));
            for step in 0..3 {
                let value = format!("{name} {number} {step}");
                let mut batch = BatchBuilder::new(Compression::None, None);
                batch.push(Timestamp(1), None, Some(value.as_bytes()));
                partition.append(&mut batch).unwrap();
                told.entry(index).or_default().push(value);
            }
        }
        let outcome = wait(writer.commit());
        assert_eq!(outcome.unwrap(), CommitOutcome::Committed, "{number}");
    }
    told
}

/// A producer that does nothing while the broker dies, and commits one record after each restart.
struct Idle {
    producer: Producer<str, str>,
    told: Vec<String>,
}

impl Idle {
    fn new(transport: &Arc<dyn Transport>) -> Self {
        let id = TransactionalId::new("idle").unwrap();
        let config = ProducerConfig::default()
            .linger(Duration::ZERO)
            .transactional_id(id);
        let producer = Producer::new(Arc::clone(transport), config).unwrap();
        wait(producer.init_transactions()).unwrap();
        let told = Vec::new();
        Self { producer, told }
    }

    fn commit_one(&mut self) {
        let value = format!("idle {}", self.told.len());
        self.producer.begin_transaction().unwrap();
        // A transaction of positions alone, now and then, and first of all.
        if self.told.len().is_multiple_of(3) {
            let offsets = vec![(partition(1), position(self.told.len()))];
            let sent = self
                .producer
                .send_offsets(group(), GroupMember::default(), offsets);
            wait(sent).unwrap();
            assert_eq!(
                wait(self.producer.commit_transaction()).unwrap(),
                CommitOutcome::Committed
            );
            self.producer.begin_transaction().unwrap();
        }
        let record = ProducerRecord::new(&partition(0).topic)
            .partition(0)
            .value(value.as_str());
        wait(async { self.producer.send(record).await?.await }).unwrap();
        assert_eq!(
            wait(self.producer.commit_transaction()).unwrap(),
            CommitOutcome::Committed
        );
        self.told.push(value);
    }
}

fn position(number: usize) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(i64::try_from(number).unwrap()),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

/// All that a reader of committed records sees in a partition.
fn committed(transport: &Arc<dyn Transport>, index: i32) -> Vec<String> {
    let mut reader = PartitionReader::new(
        Arc::clone(transport),
        partition(index),
        Offset::ZERO,
        Isolation::ReadCommitted,
    );
    let admin = Admin::new(Arc::clone(transport));
    let latest = onceflow::client::OffsetSpec::Latest;
    let end = wait(admin.list_offset(&partition(index), latest, Isolation::ReadCommitted));
    let end = end.unwrap().unwrap().offset;
    let mut values = Vec::new();
    while reader.position() < end {
        for batch in wait(reader.fetch(Duration::ZERO)).unwrap() {
            for record in batch.unwrap().iter() {
                let value = record.unwrap().value.unwrap_or_default().to_vec();
                values.push(String::from_utf8(value).unwrap());
            }
        }
    }
    values
}

fn of(name: &str, values: &[String]) -> Vec<String> {
    let is_of = |value: &&String| value.split(' ').next() == Some(name);
    values.iter().filter(is_of).cloned().collect()
}

#[test]
fn x15_producers_that_outlive_the_broker_go_on_through_kills_at_any_moment() {
    let mut server = Server::start();
    let mut random = Random::new(u64::from(std::process::id()));
    let transport = connect(&server);
    wait(Admin::new(Arc::clone(&transport)).create_topic(&partition(0).topic, PARTITIONS)).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let live = |name: &'static str, body: fn(&Arc<dyn Transport>, &str, &AtomicBool) -> Told| {
        let (transport, is_over) = (connect(&server), Arc::clone(&is_over));
        (
            name,
            std::thread::spawn(move || body(&transport, name, &is_over)),
        )
    };
    let living = [live("p", produce), live("w", write)];
    let mut idle = Idle::new(&transport);
    for kill in 0..kills_wanted(20) {
        std::thread::sleep(Duration::from_millis(random.log_uniform(500)));
        match kill % 4 {
            3 => server.terminate(),
            _ => server.kill(),
        }
        server.restart();
        if kill % 3 != 1 {
            idle.commit_one();
        }
        let failed = living.iter().find(|(_, thread)| thread.is_finished());
        assert!(failed.is_none(), "{:?} ended", failed.map(|(name, _)| name));
    }
    is_over.store(true, Ordering::Release);
    let told = living.map(|(name, thread)| (name, thread.join().unwrap()));
    // Markers follow their decisions.
    let admin = Admin::new(Arc::clone(&transport));
    let is_settled = || {
        let all = wait(admin.list_transactions()).unwrap();
        all.iter()
            .all(|it| it.state == TransactionState::CompleteCommit)
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_settled() {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            wait(admin.list_transactions())
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    for index in 0..PARTITIONS {
        let values = committed(&transport, index);
        for (name, told) in &told {
            assert_eq!(of(name, &values), told[&index], "{name}, partition {index}");
        }
        let of_idle = if index == 0 { &idle.told[..] } else { &[] };
        assert_eq!(of("idle", &values), of_idle);
    }
    let counts = told
        .iter()
        .map(|(name, told)| (name, told[&0].len()))
        .collect::<Vec<_>>();
    println!(
        "records of partition 0: {counts:?}, and {} of the idle one",
        idle.told.len()
    );
}
