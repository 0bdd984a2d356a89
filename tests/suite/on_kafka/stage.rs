//! The stage of tests of single requests: a broker, a proxy before it that loses and delays what it is told to, and
//! a transport, a topic and a transactional id of each test's own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::transport::{KafkaSettings, KafkaTransport};
use onceflow::client::{Admin, ClientError, CommitOutcome, TransactionalWriter, Transport, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::internals::protocol::messages::{CommittedOffset, OffsetSpec};
use onceflow::testing::Env;
use onceflow::types::{Isolation, Offset, TopicName, TopicPartition, TransactionalId};

use super::proxy::{Proxy, until};
use crate::support::kafka::{KafkaCluster, KafkaOptions};
use crate::support::peers;
use crate::support::records::now;

/// Where the error code stands in an answer to EndTxn: behind the correlation id, the tags and the throttle time.
pub(super) const END_TXN_CODE: usize = 4 + 1 + 4;

/// A broker behind a proxy.
pub(crate) struct Stage {
    pub(crate) cluster: KafkaCluster,
    pub(super) proxy: Proxy,
}

/// The stage that these tests share, one at a time; `None` if they are left out.
pub(crate) fn stage() -> Option<parking_lot::MutexGuard<'static, Stage>> {
    static STAGE: OnceLock<parking_lot::Mutex<Stage>> = OnceLock::new();
    if !peers::are_wanted(&["kafka"]) {
        return None;
    }
    let stage = STAGE.get_or_init(|| {
        let proxy = Proxy::listen();
        let interval = "transaction.abort.timed.out.transaction.cleanup.interval.ms";
        let cluster = KafkaCluster::start_with(&KafkaOptions {
            brokers: 1,
            settings: vec![(interval.to_owned(), "50".to_owned())],
            proxies: vec![proxy.port()],
            ..KafkaOptions::default()
        });
        proxy.lead_to(cluster.behind_proxy(1));
        parking_lot::Mutex::new(Stage { cluster, proxy })
    });
    Some(stage.lock())
}

/// One test's transport, topic and transactional id.
pub(super) struct World<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) name: &'static str,
}

impl<'a> World<'a> {
    pub(super) fn new(stage: &'a Stage, name: &'static str, protocol: &str) -> Self {
        stage.proxy.forget();
        // Short, so that what is held back counts as lost soon.
        let settings = KafkaSettings::new(&stage.proxy.address())
            .and_then(|settings| settings.with("request.timeout.ms", "1000"))
            .and_then(|settings| settings.with("transaction.protocol", protocol))
            .unwrap();
        let transport: Arc<dyn Transport> =
            Arc::new(KafkaTransport::connect(Env::real(), settings).unwrap());
        let admin = Admin::new(Arc::clone(&transport));
        wait(admin.create_topic(&TopicName::new(name).unwrap(), 1)).unwrap();
        let world = Self {
            proxy: &stage.proxy,
            transport,
            name,
        };
        // The broker may be asked before it leads what the controller made, and requests of a test's own making are
        // not tried again: this one is.
        world.end(Isolation::ReadUncommitted);
        world
    }

    pub(super) fn partition(&self) -> TopicPartition {
        TopicPartition::new(TopicName::new(self.name).unwrap(), 0)
    }

    pub(super) fn writer(&self) -> TransactionalWriter {
        self.writer_with(Duration::from_secs(60))
    }

    pub(super) fn writer_with(&self, timeout: Duration) -> TransactionalWriter {
        let id = TransactionalId::new(self.name).unwrap();
        wait(TransactionalWriter::init(
            Arc::clone(&self.transport),
            id,
            timeout,
        ))
        .unwrap()
    }

    pub(super) fn append(
        &self,
        writer: &TransactionalWriter,
        value: &str,
    ) -> Result<Offset, ClientError> {
        let mut batch = batch(value);
        writer.partition(&self.partition()).append(&mut batch)
    }

    pub(super) fn end(&self, isolation: Isolation) -> Offset {
        let end = self
            .transport
            .list_offset(&self.partition(), OffsetSpec::Latest, isolation);
        wait(end).unwrap().unwrap().offset
    }

    pub(super) fn committed(&self) -> Vec<String> {
        let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
        let mut consumer: Consumer<str, str> = Consumer::new(Arc::clone(&self.transport), config);
        consumer.assign([self.partition()]);
        let end = self.end(Isolation::ReadCommitted);
        let mut values = Vec::new();
        while consumer.position(&self.partition()).unwrap() < Some(end) {
            let records = wait(consumer.poll(Duration::from_millis(100))).unwrap();
            let read = records
                .iter()
                .map(|r| r.value().unwrap().unwrap().into_owned());
            values.extend(read);
        }
        values
    }

    pub(super) fn until_committed(&self, expected: &[&str]) {
        until("the records are visible", || self.committed() == expected);
    }

    /// Nothing hangs: readers of committed records get to the end (K8).
    pub(super) fn until_nothing_is_open(&self) {
        until("no transaction is open", || {
            self.end(Isolation::ReadCommitted) == self.end(Isolation::ReadUncommitted)
        });
    }
}

pub(super) fn batch(value: &str) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(now(), None, Some(value.as_bytes()));
    builder
}

pub(super) fn commit(writer: &TransactionalWriter) {
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
}

/// A position.
pub(super) fn at(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}
