//! Records over HTTP, and in a browser: a page of a topic, and what came of a record.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use onceflow::client::producer::{Producer, ProducerConfig};
use onceflow::client::{CommittedOffset, GroupMember, wait};
use onceflow::prelude::*;
use onceflow::runtime::HttpConfig;
use onceflow::types::{GroupId, Offset, TopicName, TopicPartition, TransactionalId};
use serde_json::{Value, json};

use super::browser::look;
use super::child::{Feeder, start};
use crate::jobs::support::{Place, until};

/// The status and the answer.
fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn assert_refusals(get: &dyn Fn(&str) -> (u16, Value)) {
    for (path, status, said) in [
        ("/records/none", 404, "there is no topic none"),
        (
            "/records/orders?partition=2",
            404,
            "its partitions are 0 to 1",
        ),
        ("/records/orders?from=soon", 400, "is not an offset"),
        ("/records/orders?limit=501", 400, "from 1 to 500"),
        ("/records/orders?key=x", 400, "there is no parameter"),
        (
            "/records/orders/follow?partition=0",
            400,
            "say which record",
        ),
        (
            "/records/orders/follow?offset=99999999",
            404,
            "is not written yet",
        ),
        (
            "/records/orders/follow?offset=3&job=nobody",
            404,
            "has committed no position",
        ),
        ("/records/orders/else", 404, "there is nothing at"),
    ] {
        let (is, told) = get(path);
        assert_eq!(is, status, "{path}: {told}");
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(said), "{path}: {error}");
    }
}

#[test]
fn programs_get_pages_and_what_came_of_a_record_or_the_reason_why_not() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let feeder = Feeder::begin(&log, 1);
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap())
        .unwrap();
    let get = |path: &str| get(server.address(), path);
    let (status, topics) = get("/topics");
    let topics = topics["topics"].as_array().unwrap().clone();
    let orders = json!({ "topic": "orders", "partitions": 2, "is_internal": false });
    assert!(status == 200 && topics.contains(&orders), "{topics:?}");
    let follow = "/records/orders/follow?partition=0&offset=3";
    until("the first orders are consumed", || get(follow).0 == 200);
    drop(feeder);
    let (_, told) = get(follow);
    assert_eq!((&told["job"], &told["offset"]), (&json!("shop"), &json!(3)));
    let roles: Vec<&Value> = told["wrote"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| &part["role"])
        .collect();
    assert!(roles.contains(&&json!("state")), "{told}");
    let (status, page) = get("/records/orders?partition=0&from=2&limit=3");
    let offsets: Vec<&Value> = page["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["offset"])
        .collect();
    assert_eq!(
        (status, offsets),
        (200, vec![&json!(2), &json!(3), &json!(4)]),
        "{page}"
    );
    assert_eq!(page["records"][1], told["record"]);
    assert_refusals(&get);
    let producer = hold_position(&log);
    let (status, told) = get("/records/orders/follow?offset=3&job=movers");
    assert_eq!(status, 409, "{told}");
    let error = told["error"].as_str().unwrap();
    assert!(
        error.contains("a transaction that is still open"),
        "{error}"
    );
    let _ = wait(producer.abort_transaction());
    wait(running.stop()).unwrap();
}

/// A group that has consumed the first orders in a transaction, which is open.
fn hold_position(log: &Log) -> Producer<str, str> {
    let id = TransactionalId::new("mover").unwrap();
    let config = ProducerConfig::default().transactional_id(id);
    let producer = Producer::<str, str>::new(log.transport(), config).unwrap();
    let position = CommittedOffset {
        offset: Offset(4),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let place = TopicPartition::new(TopicName::new("orders").unwrap(), 0);
    let group = GroupId::new("movers").unwrap();
    wait(async {
        producer.init_transactions().await?;
        producer.begin_transaction()?;
        let member = GroupMember::default();
        producer
            .send_offsets(group, member, vec![(place, position)])
            .await
    })
    .unwrap();
    producer
}

#[test]
fn a_topic_is_browsed_and_a_record_followed_in_a_browser() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let feeder = Feeder::begin(&log, 2);
    let page = running.dashboard("127.0.0.1:0").unwrap();
    until("it has committed often", || running.progress().commits > 30);
    look(
        "records",
        &format!("http://{}/", page.address()),
        &[],
        &mut |step| panic!("the browser asks for {step}"),
    );
    drop(feeder);
    wait(running.stop()).unwrap();
}
