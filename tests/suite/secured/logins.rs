//! Who is let in, and what those hear who are not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceflow::client::ErrorKind;
use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::{KafkaSettings, KafkaTransport};
use onceflow::client::{Admin, CommitOutcome, Transport, wait};
use onceflow::testing::Env;
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

/// A way not to be let in.
struct Refused<'a> {
    what: &'static str,
    door: Door,
    settings: Vec<(&'a str, &'a str)>,
    /// A part of what the client says.
    told: &'static str,
    /// Whether trying again is of no use.
    is_hopeless: bool,
}

impl<'a> Refused<'a> {
    fn for_good(
        what: &'static str,
        door: Door,
        settings: impl Into<Vec<(&'a str, &'a str)>>,
        told: &'static str,
    ) -> Self {
        Self {
            what,
            door,
            settings: settings.into(),
            told,
            is_hopeless: true,
        }
    }

    fn perhaps(
        what: &'static str,
        door: Door,
        settings: impl Into<Vec<(&'a str, &'a str)>>,
        told: &'static str,
    ) -> Self {
        Self {
            is_hopeless: false,
            ..Self::for_good(what, door, settings, told)
        }
    }
}

const TLS: (&str, &str) = ("security.protocol", "SSL");

fn login<'a>(mechanism: &'a str, user: &'a str, password: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ]
}

fn open_login(mechanism: &str) -> [(&str, &str); 4] {
    let mut settings = login(mechanism, "alice", "alice-secret");
    settings[0].1 = "SASL_PLAINTEXT";
    settings
}

fn wrong_logins<'a>() -> Vec<Refused<'a>> {
    let check = "check sasl.username and sasl.password";
    vec![
        Refused::for_good(
            "wrong password",
            Door::Secure,
            login("SCRAM-SHA-512", "alice", "bob-secret"),
            check,
        ),
        Refused::for_good(
            "unknown user",
            Door::Secure,
            login("SCRAM-SHA-256", "mallory", "x"),
            check,
        ),
        Refused::for_good(
            "wrong password in the open",
            Door::Secure,
            login("PLAIN", "alice", "x"),
            check,
        ),
        Refused::for_good(
            "mechanism not offered",
            Door::Login,
            open_login("PLAIN"),
            "it does not take sasl.mechanism PLAIN, it takes SCRAM-SHA-256",
        ),
        Refused::for_good(
            "login where nobody logs in",
            Door::Plain,
            open_login("SCRAM-SHA-256"),
            "nobody logs in at this port",
        ),
        Refused::perhaps(
            "no login where one is due",
            Door::Login,
            [],
            "it may ask for a login there",
        ),
    ]
}

fn wrong_certificates(stranger: &Authority) -> Vec<Refused<'_>> {
    vec![
        Refused::for_good(
            "wrong authority",
            Door::Secure,
            [TLS, ("ssl.truststore.location", &stranger.pem)],
            "name that one (ssl.truststore.location)",
        ),
        Refused::for_good(
            "expired certificate",
            Door::Expired,
            [TLS],
            "renew its certificate",
        ),
        Refused::for_good(
            "another host's certificate",
            Door::Elsewhere,
            [TLS],
            "advertised.listeners",
        ),
        Refused::perhaps(
            "no certificate shown",
            Door::Mutual,
            [TLS],
            "set ssl.keystore.certificate.chain and ssl.keystore.key",
        ),
        Refused::perhaps(
            "plaintext to TLS",
            Door::Secure,
            [],
            "set security.protocol to SSL or SASL_SSL",
        ),
        Refused::perhaps(
            "TLS to plaintext",
            Door::Plain,
            [TLS],
            "speak TLS there: check the port and security.protocol",
        ),
    ]
}

#[test]
fn who_is_not_let_in_hears_why_and_what_to_do_at_once() {
    let stranger = Authority::new("a stranger");
    each_side(|broker, side| {
        for case in wrong_logins()
            .into_iter()
            .chain(wrong_certificates(&stranger))
        {
            let (told, kind) = refusal(broker.settings(case.door, &case.settings));
            let what = case.what;
            assert!(told.contains(case.told), "{side}, {what}: {told}");
            assert!(told.contains("127.0.0.1"), "{side}, {what}: {told}");
            assert!(!told.contains("secret"), "{side}, {what}: {told}");
            assert!(
                !case.is_hopeless || kind == ErrorKind::Fatal,
                "{side}, {what}: {told} is {kind:?}"
            );
        }
    });
}
