//! Jobs and a real registry: what they write is framed as it wants, what others wrote is read, and it may go away.

use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerRecord};
use onceflow::client::wait;
use onceflow::codec::{AvroSchema, JsonSchema, ProtobufSchema, Raw, SchemaFormat};
use onceflow::prelude::*;
use onceflow::runtime::registry::{Registered, Registry};
use onceflow::runtime::{Launch, Pem, Topic};
use onceflow::types::TopicName;
use serde::{Deserialize, Serialize};

use super::server::Server;
use super::support::{FIRST, FirstOrder, NOW, Order, first_orders, lines, write};
use crate::jobs::support::{OFTEN, Place, Seen, committed, run, until};
use crate::secured::certificates::Authority;

fn avro(registry: &Registry, schema: &str) -> Registered<AvroSchema> {
    registry.codec("orders-value", AvroSchema::new(schema).unwrap())
}

/// A job that writes orders of the first schema.
fn writes_first(registry: &Registry, ids: std::ops::Range<i64>) -> Launch {
    let job = Job::new("writes-first");
    job.source(values("orders", first_orders(ids))).sink(
        topic::<FirstOrder>("orders")
            .partitions(1)
            .codec(avro(registry, FIRST)),
    );
    job.exactly_once(Commit::every(OFTEN)).workers(1)
}

/// A job that reads orders as they are now, and says what it reads.
fn reads_now(source: Topic<Order, Registered<AvroSchema>>) -> Launch {
    let job = Job::new("reads-now");
    job.source(source)
        .map(|order: &Order| format!("{} {} {}", order.id, order.cents, order.buyer))
        .sink(topic::<String>("seen").partitions(1).codec(Text));
    job.exactly_once(Commit::every(OFTEN)).workers(1)
}

#[test]
fn u9_values_are_framed_with_their_schemas_id_and_read_by_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let (place, registry) = (Place::new(), server.client());
    let log = place.log();
    run(writes_first(&registry, 0..100), &log).unwrap();
    let id = registry
        .find("orders-value", "AVRO", FIRST)
        .unwrap()
        .unwrap();
    assert_eq!(
        registry.latest("orders-value").unwrap().unwrap().id,
        Some(id)
    );
    for seen in committed(&log, "orders") {
        let [0, frame @ ..] = &seen.value.unwrap()[..5] else {
            panic!("no magic byte")
        };
        assert_eq!(*frame, id.to_be_bytes());
    }

    // The newer schema is registered by who writes it; both are in the topic, and are read as the newer one.
    let job = Job::new("writes-now");
    let order = Order {
        id: 100,
        cents: 77,
        buyer: "Ada".to_owned(),
    };
    job.source(values("orders", vec![order]))
        .sink(topic::<Order>("orders").codec(avro(&registry, NOW)));
    run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let source = topic("orders").codec(avro(&registry, NOW)).until_end();
    run(reads_now(source), &log).unwrap();
    let seen = lines(&log, "seen");
    assert_eq!(seen.len(), 101);
    assert_eq!(
        (seen[7].as_str(), seen[100].as_str()),
        ("7 5 customer 7", "100 77 Ada")
    );
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Line {
    #[prost(string, tag = "1")]
    article: String,
    #[prost(int32, tag = "2")]
    count: i32,
}

#[test]
fn protobuf_and_json_go_there_and_back_by_way_of_the_registry() {
    let Some(server) = Server::start() else {
        return;
    };
    let (place, registry) = (Place::new(), server.client());
    let log = place.log();
    let file = include_str!("../../formats/shop.proto");
    let protobuf = || {
        registry.codec(
            "lines-value",
            ProtobufSchema::new(file, "shop.Order.Line").unwrap(),
        )
    };
    let json = || {
        let schema = r#"{"type": "object", "properties": {"article": {"type": "string"}, "count": {"type": "integer"}}}"#;
        registry.codec("copies-value", JsonSchema::new(schema).unwrap())
    };
    let line = Line {
        article: "tea".to_owned(),
        count: 3,
    };
    let job = Job::new("lines");
    job.source(values("lines", vec![line.clone()]))
        .sink(topic::<Line>("lines").codec(protobuf()));
    run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let job = Job::new("copies");
    job.source(topic::<Line>("lines").codec(protobuf()).until_end())
        .sink(topic("copies").codec(json()));
    run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();

    let protobuf = committed(&log, "lines").remove(0).value.unwrap();
    // The second message of the file, and the first within it.
    assert_eq!(protobuf[5..], *b"\x04\x02\x00\x0a\x03tea\x10\x03");
    let json = committed(&log, "copies").remove(0).value.unwrap();
    let id = registry
        .latest("copies-value")
        .unwrap()
        .unwrap()
        .id
        .unwrap();
    assert_eq!((json[0], &json[1..5]), (0, &id.to_be_bytes()[..]));
    assert_eq!(serde_json::from_slice::<Line>(&json[5..]).unwrap(), line);
    assert_eq!(
        JsonSchema::SCHEMA_TYPE,
        registry.schema(id).unwrap().schema_type
    );
}

#[test]
fn u9_a_schema_that_does_not_go_together_with_the_subjects_is_refused_at_the_start() {
    let Some(server) = Server::start() else {
        return;
    };
    let (place, registry) = (Place::new(), server.client());
    let log = place.log();
    run(writes_first(&registry, 0..1), &log).unwrap();
    server.set_compatibility("orders-value", "BACKWARD");
    let other = FIRST.replace("\"long\"", "\"string\"");
    assert!(
        !registry
            .reasons_against("orders-value", "AVRO", &other)
            .unwrap()
            .is_empty()
    );

    #[derive(Clone, Serialize, Deserialize)]
    #[serde(rename = "Order")]
    struct Other {
        id: String,
        customer: String,
    }
    let written = Job::new("writes-other");
    let nothing: Vec<Other> = Vec::new();
    written
        .source(values("orders", nothing))
        .sink(topic::<Other>("orders").codec(avro(&registry, &other)));
    let read = Job::new("reads-other");
    read.source(
        topic::<Other>("orders")
            .codec(avro(&registry, &other))
            .until_end(),
    )
    .sink(topic::<Other>("elsewhere"));
    for (job, why) in [
        (
            written,
            "does not go together with the versions that orders-value has",
        ),
        (read, "Order.id: the writer has long, the reader string"),
    ] {
        let refused = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        assert_eq!(refused.kind(), JobErrorKind::Setup);
        assert!(refused.to_string().contains(why), "{refused}");
    }

    let job = Job::new("must-exist");
    let codec = registry
        .codec("never-seen", AvroSchema::new(FIRST).unwrap())
        .must_exist();
    job.source(values("orders", first_orders(0..1)))
        .sink(topic("orders").codec(codec));
    let refused = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(
        refused.to_string().contains("register it first"),
        "{refused}"
    );
    assert_eq!(registry.latest("never-seen").unwrap(), None);
}

#[test]
fn a_registry_that_is_down_keeps_a_job_from_starting_and_never_disturbs_a_running_one() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = Place::new();
    let log = place.log();
    let registry = server.client().start_patience(Duration::from_millis(300));
    server.shut();
    let refused = run(writes_first(&registry, 0..1), &log).unwrap_err();
    assert!(
        matches!(refused, JobError::RegistryUnavailable { .. }),
        "{refused}"
    );
    assert_eq!(refused.kind(), JobErrorKind::Retriable);
    let said = refused.to_string();
    assert!(
        said.contains(&server.url()) && said.contains("start it"),
        "{said}"
    );

    server.open();
    run(writes_first(&registry, 0..10), &log).unwrap();
    let running = reads_now(topic("orders").codec(avro(&registry, NOW)))
        .start(&log)
        .unwrap();
    until("the first orders are read", || {
        lines(&log, "seen").len() == 10
    });

    // Down: what is known goes on. A record with an id that was never seen waits, and so does what is behind it.
    let id = registry.register("orders-value", "AVRO", NOW).unwrap();
    server.shut();
    let known = committed(&log, "orders").remove(3).value.unwrap();
    write(&log, "feeds-known", "orders", vec![known.clone()]);
    until("a known schema is read while the registry is down", || {
        lines(&log, "seen").len() == 11
    });
    let unseen = [&[0][..], &id.to_be_bytes(), &[84, 2, 4, b'M', b'e']].concat();
    write(&log, "feeds-unseen", "orders", vec![unseen, known]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(lines(&log, "seen").len(), 11);
    server.open();
    until("the record that waited is read", || {
        lines(&log, "seen").len() == 13
    });
    assert_eq!(lines(&log, "seen")[11..], ["42 1 Me", "3 5 customer 3"]);
    wait(running.stop()).unwrap();
}

#[test]
fn a_record_whose_schema_nobody_has_or_that_is_broken_takes_the_way_of_poison() {
    let Some(server) = Server::start() else {
        return;
    };
    let (place, registry) = (Place::new(), server.client());
    let log = place.log();
    run(writes_first(&registry, 0..2), &log).unwrap();
    let good = committed(&log, "orders").remove(1).value.unwrap();
    let torn = good[..good.len() - 1].to_vec();
    let foreign = b"{\"id\": 1}".to_vec();
    let unknown = [&[0][..], &9_999_999u32.to_be_bytes(), &[2, 2, b'x']].concat();
    write(&log, "feeds", "orders", vec![unknown, torn, foreign, good]);

    let source = || topic("orders").codec(avro(&registry, NOW)).until_end();
    let refused = run(reads_now(source()), &log).unwrap_err();
    let JobError::Poison { offset, why, .. } = &refused else {
        panic!("{refused}")
    };
    // Behind the two orders and the marker of their transaction.
    assert!(offset.0 >= 3, "{offset}");
    assert!(why.contains("its schema 9999999 is not known"), "{why}");

    let dead = TopicName::new("dead").unwrap();
    run(
        reads_now(source()).on_poison(PoisonPolicy::DeadLetter(dead)),
        &log,
    )
    .unwrap();
    let letters = committed(&log, "dead");
    let whys: Vec<&str> = letters
        .iter()
        .map(|it| it.header("onceflow.error"))
        .collect();
    assert_eq!(whys.len(), 3);
    for (why, part) in whys.iter().zip(["9999999", "announced", "0x7b"]) {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(lines(&log, "seen").len(), 3);
}

#[test]
fn u9_keys_with_schemas_at_the_registry_are_read_also_those_of_an_older_one() {
    let Some(server) = Server::start() else {
        return;
    };
    let (place, registry) = (Place::new(), server.client());
    let log = place.log();
    let older = registry.register("visits-key", "AVRO", "\"int\"").unwrap();
    let newest = registry.register("visits-key", "AVRO", "\"long\"").unwrap();
    assert_ne!(older, newest);
    let topic_name = TopicName::new("visits").unwrap();
    wait(log.admin().create_topic(&topic_name, 1)).unwrap();
    let builder = Producer::<[u8], str>::builder(log.transport(), log.producer_config().unwrap());
    let producer = builder.key_codec(Raw).value_codec(Text).build().unwrap();
    // A magic byte, the schema's id, and 5, as Avro has it in both schemas.
    for id in [newest, older, newest] {
        let key = [&[0][..], &id.to_be_bytes(), &[10]].concat();
        let record = ProducerRecord::new(&topic_name).key(&key[..]).value("seen");
        wait(async { producer.send(record).await.unwrap().await.unwrap() });
    }

    let key_codec = || registry.codec("visits-key", AvroSchema::new("\"long\"").unwrap());
    let counts = |registry_key: Registered<AvroSchema>| {
        let job = Job::new("visits");
        let source = keyed_topic::<i64, str>("visits")
            .key_codec(registry_key)
            .codec(Text);
        job.keyed_source(source.until_end())
            .count("visits")
            .changes()
            .sink(topic("counts"));
        job.exactly_once(Commit::every(OFTEN)).workers(1)
    };
    server.shut();
    let hasty = server.client().start_patience(Duration::from_millis(300));
    let away = hasty.codec("visits-key", AvroSchema::new("\"long\"").unwrap());
    let refused = run(counts(away), &log).unwrap_err();
    assert!(
        matches!(refused, JobError::RegistryUnavailable { .. }),
        "{refused}"
    );
    server.open();
    run(counts(key_codec()), &log).unwrap();
    let counted = committed(&log, "counts");
    let keys: Vec<i64> = counted.iter().map(Seen::key::<i64>).collect();
    assert!(keys.iter().all(|key| *key == 5), "one key: {keys:?}");
    assert_eq!(counted.last().unwrap().value::<u64>(), 3);
}

#[test]
fn a_registry_behind_tls_needs_a_certificate_that_is_trusted_and_names_its_host() {
    let authority = Authority::new("registries");
    let signed = authority.sign("127.0.0.1", "registry");
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] =
        [("tls.crt", &signed.certificate), ("tls.key", &signed.key)].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
    let Some(server) = Server::start_secured(&certificate, &key) else {
        return;
    };
    let client = |url: &str, authority: &Authority| {
        let trusted = Pem::Text(authority.pem.clone());
        let registry = Registry::new(url).unwrap().trust(trusted);
        registry.start_patience(Duration::from_millis(300))
    };
    let (place, url) = (Place::new(), server.secured_url());
    let log = place.log();
    run(writes_first(&client(&url, &authority), 0..10), &log).unwrap();
    let source = topic("orders").codec(avro(&client(&url, &authority), NOW));
    run(reads_now(source.until_end()), &log).unwrap();
    assert_eq!(lines(&log, "seen").len(), 10);

    let elsewhere = url.replace("127.0.0.1", "localhost");
    let stranger = client(&url, &Authority::new("strangers"));
    for (registry, part) in [
        (stranger, "UnknownIssuer"),
        (client(&elsewhere, &authority), "not valid for name"),
    ] {
        let refused = registry.latest("orders-value").unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
}
