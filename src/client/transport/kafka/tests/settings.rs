//! The settings' names, their other names, and the page that lists them.

use std::fmt::Debug;

use super::super::settings::KafkaSettings;
use crate::client::consumer::{ConsumerConfig, OffsetReset};
use crate::client::producer::ProducerConfig;
use crate::client::settings::Settings;
use crate::net::Pem;
use crate::protocol::batch::Compression;

const PAGE: &str = include_str!("../../../../../docs/kafka.md");

/// The rows of the tables whose head begins so: name and default.
fn rows(head: &str) -> Vec<(&'static str, &'static str)> {
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(head));
    let lines = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let name = cells.next().unwrap_or_default().trim_matches('`');
        (name, cells.next().unwrap_or_default())
    });
    cells.collect()
}

/// Every setting has its row, every row its setting, and the default in it is the default.
fn is_listed<S: Settings + Debug>(head: &str, elsewhere: &[&str]) {
    let rows = rows(head);
    for name in S::NAMES.iter().filter(|name| !elsewhere.contains(*name)) {
        let is_there = rows.iter().any(|(row, _)| row == name);
        assert!(is_there, "docs/kafka.md does not list {name}");
    }
    for (name, default) in rows {
        assert!(S::NAMES.contains(&name), "there is no setting {name}");
        if default != "–" {
            let mut settings = S::default();
            settings.set(name, default).unwrap().unwrap();
            let (given, ours) = (format!("{settings:?}"), format!("{:?}", S::default()));
            assert_eq!(given, ours, "{default} is not the default of {name}");
        }
    }
}

#[test]
fn the_page_lists_every_setting_with_its_default() {
    is_listed::<KafkaSettings>("| setting |", &[]);
    is_listed::<ProducerConfig>("| producers' setting |", KafkaSettings::NAMES);
    is_listed::<ConsumerConfig>("| consumers' setting |", KafkaSettings::NAMES);
}

#[test]
fn settings_of_producers_and_consumers_come_from_the_same_places() {
    let file =
        "[linger]\nms = 20\n[auto.offset]\nreset = \"earliest\"\n[request.timeout]\nms = 9000\n";
    let settings = KafkaSettings::parse_toml(file).unwrap();
    let variable = (
        "ONCEFLOW_KAFKA_COMPRESSION_TYPE".to_owned(),
        "lz4".to_owned(),
    );
    let settings = settings.with_environment([variable]).unwrap();
    let producer = settings.producer().unwrap();
    assert_eq!(producer.linger.as_millis(), 20);
    assert_eq!(producer.compression, Compression::Lz4);
    // One that both have reaches both.
    assert_eq!(producer.request_timeout.as_millis(), 9_000);
    assert_eq!(settings.request_timeout.as_millis(), 9_000);
    let consumer = settings.consumer().unwrap();
    assert_eq!(consumer.auto_offset_reset, OffsetReset::Earliest);
    let wrong = KafkaSettings::default().with("linger.ms", "soon");
    assert!(wrong.unwrap_err().to_string().contains("milliseconds"));
    let near = KafkaSettings::default()
        .with("linger.msec", "5")
        .unwrap_err();
    assert!(
        near.to_string().contains("did you mean linger.ms?"),
        "{near}"
    );
}

#[test]
fn other_names_of_a_setting_mean_the_same() {
    let with = |name, value| KafkaSettings::default().with(name, value).unwrap();
    let file = Some(Pem::File("a.pem".into()));
    for name in [
        "ssl.truststore.location",
        "ssl.truststore.certificates",
        "ssl.ca.location",
    ] {
        assert_eq!(with(name, "a.pem").ssl_ca, file, "{name}");
    }
    let whole = with("ssl.keystore.location", "a.pem");
    assert_eq!((&whole.ssl_certificate, &whole.ssl_key), (&file, &file));
    let jaas = with(
        "sasl.jaas.config",
        r#"org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="a \"b\" \\c";"#,
    );
    assert_eq!(jaas.sasl_username.as_deref(), Some("me"));
    let password = jaas.sasl_password.as_ref();
    assert_eq!(password, Some(&r#"a "b" \c"#.into()));
}

#[test]
fn settings_that_only_kafkas_clients_have_are_refused_with_the_reason() {
    for (name, value, part) in [
        ("ssl.key.password", "hunter2", "decrypt the key"),
        ("ssl.keystore.type", "JKS", "PEM is needed"),
        (
            "sasl.jaas.config",
            "Krb5LoginModule required hunter2;",
            "ScramLoginModule",
        ),
        (
            "sasl.oauthbearer.token.endpoint.url",
            "x",
            "the mechanisms are",
        ),
        ("key.serializer", "x", "types of the program"),
        ("check.crcs", "false", "always verified"),
    ] {
        let refused = KafkaSettings::default().with(name, value).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(part), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
