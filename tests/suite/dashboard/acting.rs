//! Letters over HTTP, and what changes something there: who may, and what becomes of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::prelude::*;
use onceflow::runtime::{HttpConfig, HttpServer, Running};
use onceflow::types::{TopicName, TopicPartition, TransactionalId};
use serde_json::{Value, json};

use super::browser::look;
use crate::jobs::support::{OFTEN, Place, fill_topic, until};

const TOKEN: &str = "a token of a test, long enough";

/// The status and the answer.
fn ask(address: SocketAddr, request: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let token = token.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let length = body.len();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Length: {length}");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn get(page: &HttpServer, path: &str) -> (u16, Value) {
    ask(
        page.address(),
        &format!("GET {path}"),
        Some(TOKEN),
        &Value::Null,
    )
}

fn post(page: &HttpServer, path: &str, body: &Value) -> (u16, Value) {
    ask(page.address(), &format!("POST {path}"), Some(TOKEN), body)
}

/// A job that reads numbers, and goes on; what is none becomes a letter.
fn start(log: &Log) -> Running {
    fill_topic(log, "numbers", 1, &["1", "x17", "<img src=x>", "2"]);
    let job = Job::new("strict");
    let read = |text: &str| {
        text.parse::<u64>()
            .map_err(|why| format!("{text:?}: {why}"))
    };
    job.source(topic::<str>("numbers"))
        .try_map(read)
        .sink(topic("read"));
    let running = job
        .exactly_once(Commit::every(OFTEN))
        .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
        .start(log)
        .unwrap();
    wait(running.caught_up()).unwrap();
    running
}

fn guarded() -> HttpConfig {
    HttpConfig::on("127.0.0.1:0").unwrap().token(TOKEN)
}

fn changeable(running: &Running) -> HttpServer {
    let config = guarded().allow_changes().dashboard();
    running.query().serve(config).unwrap()
}

/// A transaction of somebody else, which keeps readers of the first partition waiting.
fn hold(log: &Log, topic: &str, id: &str) -> TransactionalWriter {
    let id = TransactionalId::new(id).unwrap();
    let writer = TransactionalWriter::init(log.transport(), id, Duration::from_secs(600));
    let writer = wait(writer).unwrap();
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(log.env().clock.wall(), None, Some(b"3"));
    let place = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
    writer.partition(&place).append(&mut batch).unwrap();
    writer
}

fn is_held(running: &Running) -> bool {
    let status = wait(running.status());
    status.transactions.iter().any(|open| !open.is_own)
}

#[test]
fn letters_come_newest_first_decoded_and_raw_and_go_back_once() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let page = changeable(&running);
    assert_eq!(get(&page, "/letters"), (200, json!({ "topics": ["dead"] })));
    let (status, newest) = get(&page, "/letters/dead?limit=1");
    assert_eq!(status, 200, "{newest}");
    let [letter] = &newest["letters"].as_array().unwrap()[..] else {
        panic!("{newest}");
    };
    assert_eq!(letter["source"], "numbers-0");
    assert_eq!(
        (&letter["source_offset"], &letter["attempts"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&letter["kind"], &letter["state"]),
        (&json!("dead"), &json!("waiting"))
    );
    let hex = letter["value"]["hex"].as_str().unwrap();
    assert_eq!(hex, "0x3c696d67207372633d783e");
    assert_eq!(letter["value"]["text"], "<img src=x>");
    assert_eq!(letter["value"]["bytes"], 11);
    let (_, all) = get(&page, "/letters/dead");
    assert_eq!(all["letters"].as_array().unwrap().len(), 2);

    let replay = "/letters/dead/replay";
    let choice = json!({ "partition": 0, "offset": letter["offset"] });
    let asked = json!({ "asked": 1, "asked_before": 0, "of_others": 0 });
    assert_eq!(post(&page, replay, &choice), (200, asked));
    let (_, all) = get(&page, "/letters/dead?limit=200");
    let of_one = all["letters"].as_array().unwrap().iter();
    let mut of_one = of_one.filter(|it| it["offset"] == letter["offset"]);
    assert_ne!(of_one.next().unwrap()["state"], "waiting", "{all}");
    let (status, refused) = post(&page, replay, &choice);
    assert_eq!(status, 409, "{refused}");
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("replayed before")
    );
    wait(running.stop()).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let page = changeable(&running);
    let replay = "/letters/dead/replay";
    for (path, body, status, said) in [
        (replay, json!({}), 400, "no letters are chosen"),
        (replay, json!({ "al": true }), 400, "unknown field"),
        (
            replay,
            json!({ "all": true, "time": "soon" }),
            400,
            "is no time",
        ),
        (
            "/letters/nowhere/replay",
            json!({ "all": true }),
            409,
            "there is no topic",
        ),
        ("/transactions/abort", json!({}), 400, "not what is wanted"),
        (
            "/transactions/abort",
            json!({ "transactional_id": "nobody" }),
            409,
            "no such transactional id",
        ),
        (
            "/transactions/abort",
            json!({ "topic": "numbers", "partition": 0, "producer_id": 1 }),
            409,
            "hangs in numbers-0",
        ),
        (
            "/letters/dead",
            json!({ "all": true }),
            404,
            "there is nothing at",
        ),
    ] {
        let (is, told) = post(&page, path, &body);
        assert_eq!(is, status, "{path} {body}: {told}");
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(said), "{path} {body}: {error}");
    }
    let (status, told) = get(&page, "/letters/dead?limit=0");
    assert_eq!(status, 400, "{told}");
    wait(running.stop()).unwrap();
}

#[test]
fn nothing_is_changed_without_the_token_or_where_changes_are_not_allowed() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let writer = hold(&log, "numbers", "somebody");
    let (page, looked_at) = (
        changeable(&running),
        running.query().serve(guarded().dashboard()).unwrap(),
    );
    let open = running.dashboard("127.0.0.1:0").unwrap();
    let all = json!({ "all": true });
    let abort = json!({ "transactional_id": "somebody" });
    for (path, body) in [
        ("/letters/dead/replay", &all),
        ("/transactions/abort", &abort),
    ] {
        let request = format!("POST {path}");
        assert_eq!(ask(page.address(), &request, None, body).0, 401);
        assert_eq!(
            ask(page.address(), &request, Some("a wrong one"), body).0,
            401
        );
        for (server, token) in [(&looked_at, Some(TOKEN)), (&open, None)] {
            let (status, told) = ask(server.address(), &request, token, body);
            assert_eq!(status, 403, "{told}");
            let error = told["error"].as_str().unwrap();
            assert!(error.contains("HttpConfig::allow_changes"), "{error}");
        }
    }
    assert!(is_held(&running));
    let (_, letters) = get(&looked_at, "/letters/dead");
    assert!(
        letters["letters"]
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["state"] == "waiting")
    );
    assert_eq!(get(&looked_at, "/").1["may_change"], false);
    assert_eq!(get(&page, "/").1["may_change"], true);
    let unguarded = HttpConfig::on("127.0.0.1:0").unwrap().allow_changes();
    let refused = running.query().serve(unguarded).unwrap_err().to_string();
    assert!(refused.contains("without a token"), "{refused}");

    let aborted = post(&page, "/transactions/abort", &abort);
    assert_eq!(aborted, (200, json!({ "aborted": "somebody" })));
    until("readers go on", || !is_held(&running));
    drop(writer);
    wait(running.stop()).unwrap();
}

#[test]
fn letters_are_seen_and_replayed_in_a_browser_once_it_is_confirmed() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let page = changeable(&running);
    let url = format!("http://{}/", page.address());
    look("letters", &url, &[TOKEN], &mut |step| {
        panic!("the browser asks for {step}")
    });
    wait(running.stop()).unwrap();
}

#[test]
fn a_transaction_is_aborted_in_a_browser_once_it_is_confirmed() {
    const NAME: &str = "<img src=x onerror=hurt=true>";
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let writer = hold(&log, "numbers", NAME);
    let page = changeable(&running);
    let url = format!("http://{}/", page.address());
    look("abort", &url, &[TOKEN, NAME], &mut |step| match step {
        "held" => assert!(is_held(&running), "nothing was confirmed"),
        _ => until("readers go on", || !is_held(&running)),
    });
    drop(writer);
    wait(running.stop()).unwrap();
}
