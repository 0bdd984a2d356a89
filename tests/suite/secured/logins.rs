//! Who is let in, and what those hear who are not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::{KafkaSettings, KafkaTransport};
use onceflow::client::{Admin, CommitOutcome, Transport, wait};
use onceflow::env::Env;
use onceflow::protocol::ErrorKind;
use onceflow::types::{TopicName, TopicPartition, TransactionalId};

use super::brokers::{Door, Secured, kafka, ours};
use super::certificates::Authority;
use super::until;

/// A refusal is told within this time, on a busy machine too: nothing is tried for ever.
const TOLD_MAX: Duration = Duration::from_secs(25);

pub(super) fn connect(settings: KafkaSettings) -> Arc<dyn Transport> {
    Arc::new(KafkaTransport::connect(Env::real(), settings).unwrap())
}

/// Writes in a transaction and reads back.
fn writes_and_reads(settings: KafkaSettings, name: &str) {
    let transport = connect(settings);
    let topic = TopicName::new(&format!("t-{name}")).unwrap();
    wait(Admin::new(transport.clone()).create_topic(&topic, 1)).unwrap();
    let id = TransactionalId::new(&format!("t-{name}")).unwrap();
    let config = ProducerConfig::default().transactional_id(id);
    let producer: Producer<str, str> = Producer::new(transport.clone(), config).unwrap();
    wait(async {
        producer.init_transactions().await.unwrap();
        producer.begin_transaction().unwrap();
        let record = ProducerRecord::new(&topic).partition(0).value(name);
        producer.send(record).await.unwrap().await.unwrap();
        let outcome = producer.commit_transaction().await.unwrap();
        assert_eq!(outcome, CommitOutcome::Committed);
    });
    let config = ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest);
    let mut consumer: Consumer<str, str> = Consumer::new(transport, config);
    consumer.assign([TopicPartition::new(topic, 0)]);
    let mut seen = Vec::new();
    until("the record is visible", || {
        let records = wait(consumer.poll(Duration::from_millis(100))).unwrap();
        seen.extend(
            records
                .iter()
                .map(|r| r.value().unwrap().unwrap().into_owned()),
        );
        !seen.is_empty()
    });
    assert_eq!(seen, [name]);
}

fn each_side(test: impl Fn(&Secured, &str)) {
    test(&ours(), "ours");
    if let Some(kafka) = kafka() {
        test(&kafka, "kafka");
    }
}

#[test]
fn every_login_writes_in_transactions_and_reads() {
    each_side(|broker, side| {
        for (door, protocol, mechanism, user) in [
            (Door::Secure, "SASL_SSL", "SCRAM-SHA-512", "alice"),
            (Door::Secure, "SASL_SSL", "SCRAM-SHA-256", "bob"),
            (Door::Secure, "SASL_SSL", "PLAIN", "alice"),
            (Door::Login, "SASL_PLAINTEXT", "SCRAM-SHA-256", "bob"),
        ] {
            let jaas = format!(
                "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{user}\" password=\"{user}-secret\";"
            );
            let settings = broker.settings(
                door,
                &[
                    ("security.protocol", protocol),
                    ("sasl.mechanism", mechanism),
                    ("sasl.jaas.config", &jaas),
                ],
            );
            writes_and_reads(settings, &format!("{side}-{protocol}-{mechanism}"));
        }
    });
}

#[test]
fn a_client_is_known_by_its_certificate() {
    each_side(|broker, side| {
        let protocol = ("security.protocol", "SSL");
        let apart = [
            protocol,
            ("ssl.keystore.certificate.chain", &broker.carol.certificate),
            ("ssl.keystore.key", &broker.carol.key),
        ];
        writes_and_reads(
            broker.settings(Door::Mutual, &apart),
            &format!("{side}-carol"),
        );
        // As Kafka has it for PEM: the key and the chain in one file.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("carol.pem");
        std::fs::write(&file, broker.carol.whole()).unwrap();
        let file = file.display().to_string();
        let whole = [
            protocol,
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", &file),
        ];
        writes_and_reads(
            broker.settings(Door::Mutual, &whole),
            &format!("{side}-file"),
        );
    });
}

#[test]
fn a_certificate_for_another_name_is_taken_only_if_told_so() {
    each_side(|broker, _| {
        let settings = [
            ("security.protocol", "SSL"),
            ("ssl.endpoint.identification.algorithm", ""),
        ];
        let transport = connect(broker.settings(Door::Elsewhere, &settings));
        wait(transport.topics()).unwrap();
    });
}

/// Fails to connect, soon; what it is told.
fn refusal(settings: KafkaSettings) -> (String, ErrorKind) {
    let began = Instant::now();
    let error = KafkaTransport::connect(Env::real(), settings).unwrap_err();
    assert!(began.elapsed() < TOLD_MAX, "{error}");
    (error.to_string(), error.kind())
}

#[test]
fn who_is_not_let_in_hears_why_and_what_to_do_at_once() {
    let stranger = Authority::new("a stranger");
    let tls = [("security.protocol", "SSL")];
    let login = |mechanism, user, password| {
        [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ]
    };
    let open_login = |mechanism| {
        [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", "alice"),
            ("sasl.password", "alice-secret"),
        ]
    };
    each_side(|broker, side| {
        let wrong_ca = [tls[0], ("ssl.truststore.location", &stranger.pem)];
        let cases: Vec<(&str, Door, Vec<(&str, &str)>, &str, bool)> = vec![
            // What, where, how, a part of the answer, whether trying again is hopeless.
            (
                "wrong password",
                Door::Secure,
                login("SCRAM-SHA-512", "alice", "bob-secret").into(),
                "check sasl.username and sasl.password",
                true,
            ),
            (
                "unknown user",
                Door::Secure,
                login("SCRAM-SHA-256", "mallory", "x").into(),
                "check sasl.username and sasl.password",
                true,
            ),
            (
                "wrong password in the open",
                Door::Secure,
                login("PLAIN", "alice", "x").into(),
                "check sasl.username and sasl.password",
                true,
            ),
            (
                "mechanism not offered",
                Door::Login,
                open_login("PLAIN").into(),
                "it does not take sasl.mechanism PLAIN, it takes SCRAM-SHA-256",
                true,
            ),
            (
                "wrong authority",
                Door::Secure,
                {
                    let mut all = wrong_ca.to_vec();
                    all[0].1 = "SSL";
                    all
                },
                "name that one (ssl.truststore.location)",
                true,
            ),
            (
                "expired certificate",
                Door::Expired,
                tls.into(),
                "renew its certificate",
                true,
            ),
            (
                "another host's certificate",
                Door::Elsewhere,
                tls.into(),
                "advertised.listeners",
                true,
            ),
            (
                "no certificate shown",
                Door::Mutual,
                tls.into(),
                "set ssl.keystore.certificate.chain and ssl.keystore.key",
                false,
            ),
            (
                "plaintext to TLS",
                Door::Secure,
                vec![],
                "set security.protocol to SSL or SASL_SSL",
                false,
            ),
            (
                "TLS to plaintext",
                Door::Plain,
                tls.into(),
                "speak TLS there: check the port and security.protocol",
                false,
            ),
            (
                "login where nobody logs in",
                Door::Plain,
                open_login("SCRAM-SHA-256").into(),
                "nobody logs in at this port",
                true,
            ),
            (
                "no login where one is due",
                Door::Login,
                vec![],
                "it may ask for a login there",
                false,
            ),
        ];
        for (what, door, settings, part, is_hopeless) in cases {
            let (told, kind) = refusal(broker.settings(door, &settings));
            assert!(told.contains(part), "{side}, {what}: {told}");
            assert!(told.contains("127.0.0.1"), "{side}, {what}: {told}");
            assert!(!told.contains("secret"), "{side}, {what}: {told}");
            assert!(
                !is_hopeless || kind == ErrorKind::Fatal,
                "{side}, {what}: {told} is {kind:?}"
            );
        }
    });
}
