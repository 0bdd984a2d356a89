//! `World`: a log, and names in it that no other test uses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onceflow::broker::{Broker, BrokerConfig};
use onceflow::client::OffsetSpec;
use onceflow::client::consumer::{Consumer, ConsumerConfig};
use onceflow::client::producer::{Producer, ProducerConfig};
use onceflow::client::transport::{KafkaSettings, KafkaTransport};
use onceflow::client::{Admin, InProcess, Transport, wait};
use onceflow::testing::Env;
use onceflow::types::{Durability, GroupId, Isolation, TopicName, TopicPartition, TransactionalId};

use super::{PATIENCE, earliest, offsets_and_values, quick};
use crate::support::kafka::{KafkaCluster, KafkaOptions};
use crate::support::peers;

/// Names a running cluster to use instead of one of our own, for a quick look.
const KAFKA_VARIABLE: &str = "ONCEFLOW_TEST_KAFKA";

/// Which way to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// Function calls into a broker of this process.
    Embedded,
    /// TCP to a broker of this process.
    #[cfg(feature = "server")]
    Served,
    /// TCP to Apache Kafka.
    Kafka,
}

/// Whether tests on Kafka are to run.
pub(super) fn has_kafka() -> bool {
    std::env::var_os(KAFKA_VARIABLE).is_some() || peers::are_wanted(&["kafka"])
}

/// The brokers of the one cluster that these tests share. It ends with this process.
pub(super) fn kafka() -> String {
    static CLUSTER: OnceLock<KafkaCluster> = OnceLock::new();
    match std::env::var(KAFKA_VARIABLE) {
        Ok(brokers) => brokers,
        Err(_) => CLUSTER
            .get_or_init(|| {
                // Transactions that time out are looked for every ten seconds otherwise.
                let interval = "transaction.abort.timed.out.transaction.cleanup.interval.ms";
                KafkaCluster::start_with(&KafkaOptions {
                    brokers: 1,
                    settings: vec![(interval.to_owned(), "50".to_owned())],
                    ..KafkaOptions::default()
                })
            })
            .bootstrap(),
    }
}

thread_local! {
    /// Suffix of the names in this thread's own world.
    static SUFFIX: RefCell<String> = const { RefCell::new(String::new()) };
}

fn named(what: &str) -> String {
    SUFFIX.with_borrow(|suffix| format!("{what}{suffix}"))
}

/// The world's topic, of three partitions.
pub(super) fn topic() -> TopicName {
    TopicName::new(&named("t")).unwrap()
}

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(topic(), number)
}

pub(super) fn group() -> GroupId {
    GroupId::new(&named("g")).unwrap()
}

/// A transactional id of the world.
pub(super) fn id(name: &str) -> TransactionalId {
    TransactionalId::new(&named(name)).unwrap()
}

/// A log of our own, and its server if it has one.
struct Opened {
    #[cfg(feature = "server")]
    server: Option<onceflow::server::Server>,
    broker: Broker,
}

impl Opened {
    fn close(self) {
        #[cfg(feature = "server")]
        if let Some(server) = self.server {
            wait(server.stop());
        }
        self.broker.close().unwrap();
    }
}

/// A log with a topic.
pub(super) struct World {
    directory: Option<tempfile::TempDir>,
    backend: Backend,
    durability: Durability,
    log: Option<Opened>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) admin: Admin,
}

impl World {
    pub(super) fn new(backend: Backend) -> Self {
        Self::with_topic(backend, &[])
    }

    /// A world whose log must sync what it acknowledges.
    pub(super) fn synced(backend: Backend) -> Self {
        Self::with_settings(backend, Durability::Fsync, &[])
    }

    pub(super) fn with_topic(backend: Backend, configs: &[(&str, &str)]) -> Self {
        // Most of these tests are about the end of processes, not of machines.
        Self::with_settings(backend, Durability::Process, configs)
    }

    fn with_settings(backend: Backend, durability: Durability, configs: &[(&str, &str)]) -> Self {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let suffix = match backend {
            Backend::Kafka => format!("-{}-{number}", std::process::id()),
            _ => String::new(),
        };
        SUFFIX.set(suffix);
        let directory = (backend != Backend::Kafka).then(|| tempfile::tempdir().unwrap());
        let (log, transport) = open(backend, durability, directory.as_ref());
        let world = Self {
            admin: Admin::new(transport.clone()),
            directory,
            backend,
            durability,
            log,
            transport,
        };
        let configs = configs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let configs: BTreeMap<_, _> = configs.collect();
        wait(world.admin.create_topic_with(&topic(), 3, configs)).unwrap();
        world.until("the partitions are served", || {
            (0..3).all(|n| world.is_served(n))
        });
        world
    }

    /// Whether a partition answers: Kafka names a leader before that one knows that it leads.
    fn is_served(&self, number: i32) -> bool {
        let place = partition(number);
        let (first, isolation) = (OffsetSpec::Earliest, Isolation::ReadUncommitted);
        wait(self.transport.list_offset(&place, first, isolation)).is_ok()
    }

    /// Closes the log and opens it again; on Kafka, all connections.
    pub(super) fn reopen(&mut self) {
        if let Some(log) = self.log.take() {
            log.close();
        }
        (self.log, self.transport) = open(self.backend, self.durability, self.directory.as_ref());
        self.admin = Admin::new(self.transport.clone());
    }

    pub(super) fn producer(&self, config: ProducerConfig) -> Producer<str, str> {
        Producer::new(self.transport.clone(), config).unwrap()
    }

    pub(super) fn transactional(&self, name: &str) -> Producer<str, str> {
        let producer = self.producer(quick().transactional_id(id(name)));
        wait(producer.init_transactions()).unwrap();
        producer
    }

    pub(super) fn consumer(&self, config: ConsumerConfig) -> Consumer<str, str> {
        let mut consumer = Consumer::new(self.transport.clone(), config);
        consumer.assign([partition(0)]);
        consumer
    }

    /// Everything that a reader may see in partition 0, with offsets; what becomes visible meanwhile may be among it.
    pub(super) fn read(&self, isolation: Isolation) -> Vec<(i64, String)> {
        let mut consumer = self.consumer(earliest().isolation(isolation));
        let end = wait(consumer.end_offset(&partition(0))).unwrap();
        let mut seen = Vec::new();
        let deadline = self.transport.env().clock.now().plus(PATIENCE);
        while consumer.position(&partition(0)).unwrap() < Some(end) {
            assert!(
                self.transport.env().clock.now() < deadline,
                "the end was not reached"
            );
            let records = wait(consumer.poll(Duration::ZERO)).unwrap();
            seen.extend(offsets_and_values(&records));
        }
        seen
    }

    /// Waits until `condition` holds.
    pub(super) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let clock = &self.transport.env().clock;
        let deadline = clock.now().plus(PATIENCE);
        while !condition() {
            assert!(clock.now() < deadline, "timed out: {what}");
            clock.sleep(Duration::from_millis(1));
        }
    }

    /// Markers are written soon after the commit is acknowledged.
    pub(super) fn until_committed(&self, expected: &[&str]) {
        self.until("the records are visible", || {
            self.committed_values() == expected
        });
    }

    pub(super) fn committed_values(&self) -> Vec<String> {
        let seen = self.read(Isolation::ReadCommitted).into_iter();
        seen.map(|(_, value)| value).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(log) = self.log.take()
            && !std::thread::panicking()
        {
            log.close();
        }
    }
}

fn open(
    backend: Backend,
    durability: Durability,
    directory: Option<&tempfile::TempDir>,
) -> (Option<Opened>, Arc<dyn Transport>) {
    let env = Env::real();
    let Some(directory) = directory else {
        return (None, connect(&kafka()));
    };
    let config = BrokerConfig {
        durability,
        ..BrokerConfig::default()
    };
    let data = directory.path().join("data");
    let broker = Broker::open(env.clone(), &data, config).unwrap();
    #[cfg(feature = "server")]
    if backend == Backend::Served {
        return serve(&env, broker, &data);
    }
    assert_eq!(backend, Backend::Embedded);
    let transport = Arc::new(InProcess::new(env, broker.clone()));
    let log = Opened {
        #[cfg(feature = "server")]
        server: None,
        broker,
    };
    (Some(log), transport)
}

fn connect(brokers: &str) -> Arc<dyn Transport> {
    let settings = KafkaSettings::new(brokers).unwrap();
    Arc::new(KafkaTransport::connect(Env::real(), settings).unwrap())
}

/// Our own broker, over TCP.
#[cfg(feature = "server")]
fn serve(
    env: &Env,
    broker: Broker,
    data: &std::path::Path,
) -> (Option<Opened>, Arc<dyn Transport>) {
    use onceflow::server::{Server, ServerConfig};

    let config = ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..ServerConfig::default()
    };
    let server = Server::start(env, &broker, data, config).unwrap();
    let transport = connect(&server.address().to_string());
    let log = Opened {
        server: Some(server),
        broker,
    };
    (Some(log), transport)
}
