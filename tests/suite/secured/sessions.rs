//! Sessions that the broker limits (KIP-368): nothing is noticed of their end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceflow::client::Acks;
use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::{Admin, wait};
use onceflow::types::{TopicName, TopicPartition};

use super::brokers::{BRIEF_SESSION_MS, Door, kafka};
use super::logins::connect;

/// The ports from which this machine is connected to `port`.
fn connections_to(port: u16) -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let connections = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, to, state) = (columns.next()?, columns.next()?, columns.next()?);
        (to.ends_with(&remote) && state == "01").then(|| local.to_owned())
    });
    connections.collect()
}

#[test]
fn a_client_outlives_its_sessions_without_an_error() {
    let Some(broker) = kafka() else { return };
    let transport = connect(broker.settings(
        Door::Brief,
        &[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "alice"),
            ("sasl.password", "alice-secret"),
        ],
    ));
    let topic = TopicName::new("t-brief").unwrap();
    wait(Admin::new(transport.clone()).create_topic(&topic, 1)).unwrap();
    // Nothing is sent twice, so that a connection that the broker kills under a record is an error.
    let mut config = ProducerConfig::default().acks(Acks::Leader).retries(0_u32);
    config.enable_idempotence = false;
    let producer: Producer<str, str> = Producer::new(transport.clone(), config).unwrap();
    let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
    let mut consumer: Consumer<str, str> = Consumer::new(transport, config);
    consumer.assign([TopicPartition::new(topic.clone(), 0)]);
    let began = Instant::now();
    let (mut sent, mut seen) = (0, 0);
    let mut connections = BTreeSet::new();
    while began.elapsed() < Duration::from_millis(BRIEF_SESSION_MS) * 7 / 2 || seen < sent {
        let record = ProducerRecord::new(&topic).partition(0).value("on and on");
        wait(async { producer.send(record).await.unwrap().await.unwrap() });
        sent += 1;
        let records = wait(consumer.poll(Duration::from_millis(50))).unwrap();
        seen += records.iter().count();
        connections.extend(connections_to(broker.port(Door::Brief)));
        assert!(began.elapsed() < super::PATIENCE, "{seen} of {sent}");
    }
    // At least the connections for records and for fetches, in each of three sessions.
    assert!(connections.len() >= 6, "{connections:?}");
}
