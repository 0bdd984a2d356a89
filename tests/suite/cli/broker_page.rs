//! `onceflow broker --dashboard`: the page of a log without a job, for programs and in a browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::prelude::*;
use onceflow::types::{GroupId, TopicName, TopicPartition, TransactionalId};
use serde_json::{Value, json};

use super::{Cli, onceflow};
use crate::dashboard::look;
use crate::jobs::support::until;

const TOKEN: &str = "a token of a test, long enough";

/// A broker with a page, killed when it is dropped.
struct Served {
    child: Child,
    broker: String,
    page: String,
}

impl Served {
    fn start(cli: &Cli, more: &[&str]) -> Self {
        let mut command = onceflow(&[
            "broker",
            "--listen",
            "127.0.0.1:0",
            "--dashboard",
            "127.0.0.1:0",
        ]);
        command.args(more).arg("--data").arg(cli.data());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut after = |begin: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(begin)
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned()
        };
        let broker = after("listening on ");
        let page = after("dashboard on http://");
        Self {
            child,
            broker,
            page: page.trim_end_matches('/').to_owned(),
        }
    }

    fn log(&self) -> Log {
        Log::kafka(&self.broker).unwrap()
    }

    fn ask(&self, request: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let token = token.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
        let mut stream = TcpStream::connect(&self.page).unwrap();
        let (page, length) = (&self.page, body.len());
        let head = format!("{request} HTTP/1.1\r\nHost: {page}\r\n{token}Content-Length: {length}");
        write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let (status, body) = self.ask(&format!("GET {path}"), token, "");
        (status, serde_json::from_str(&body).unwrap_or_default())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

/// A topic with five records, of which a group has read three, and a transaction that is open.
fn fill(cli: &Cli, served: &Served) -> TransactionalWriter {
    let log = served.log();
    wait(log.admin().create_topic(&name("orders"), 2)).unwrap();
    let place = format!("kafka://{}", served.broker);
    let put = ["produce", "orders", "--partition", "0", "--log", &place];
    let done = super::finish(onceflow(&put), b"a\nb\nc\nd\ne\n");
    assert_eq!(done.code, 0, "{done:?}");
    let reset = [
        "group", "reset", "readers", "--topic", "orders:0", "--to", "3", "--log", &place,
    ];
    assert_eq!(super::finish(onceflow(&reset), b"").code, 0);
    assert!(cli.data().exists());
    let id = TransactionalId::new("slow").unwrap();
    let writer = TransactionalWriter::init(log.transport(), id, Duration::from_secs(600));
    let writer = wait(writer).unwrap();
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(log.env().clock.wall(), None, Some(b"not yet"));
    let place = TopicPartition::new(name("orders"), 1);
    writer.partition(&place).append(&mut batch).unwrap();
    until("it is written", || {
        let (_, status) = served.get("/status", Some(TOKEN));
        status["transactions"]
            .as_array()
            .is_some_and(|open| !open.is_empty())
    });
    writer
}

/// Records are there, state and letters are not.
fn assert_records_and_nothing_of_a_job(served: &Served) {
    let (_, page) = served.get("/records/orders?partition=1", None);
    assert_eq!(page["records"][0]["transaction"], "open");
    let (_, about) = served.get("/", None);
    assert!(
        about["stores"].is_null() && about["may_change"] == false,
        "{about}"
    );
    for path in [
        "/stores/counts?key=a",
        "/letters",
        "/processed?topic=orders&partition=0&offset=0",
    ] {
        let (status, told) = served.get(path, None);
        assert_eq!(status, 404, "{path}: {told}");
        assert!(
            told["error"]
                .as_str()
                .unwrap()
                .contains("the job's own page"),
            "{told}"
        );
    }
}

#[test]
fn the_page_of_a_broker_tells_its_topics_groups_and_transactions() {
    let cli = Cli::new();
    let served = Served::start(&cli, &[]);
    let writer = fill(&cli, &served);
    let (status, told) = served.get("/status", None);
    assert_eq!(
        (status, &told["kind"], &told["log_error"]),
        (200, &json!("log"), &Value::Null),
        "{told}"
    );
    let topics = told["topics"].as_array().unwrap();
    let orders = topics
        .iter()
        .find(|topic| topic["topic"] == "orders")
        .unwrap();
    let marks: Vec<_> = orders["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                &it["log_start_offset"],
                &it["last_stable_offset"],
                &it["high_watermark"],
            )
        })
        .collect();
    let number = |n: i64| json!(n);
    assert_eq!(
        marks,
        [
            (&number(0), &number(5), &number(5)),
            (&number(0), &number(0), &number(1))
        ]
    );
    assert!(orders["size_bytes"].as_u64().unwrap() > 0);
    let [readers] = &told["groups"].as_array().unwrap()[..] else {
        panic!("{told}");
    };
    assert_eq!(
        (&readers["group"], &readers["lag"]),
        (&json!("readers"), &json!(2))
    );
    assert_eq!(readers["positions"][0]["position"], 3);
    let [open] = &told["transactions"].as_array().unwrap()[..] else {
        panic!("{told}");
    };
    assert_eq!(
        (&open["transactional_id"], &open["partitions"]),
        (&json!("slow"), &json!(["orders-1"]))
    );
    assert_records_and_nothing_of_a_job(&served);
    let abort = r#"{"transactional_id": "slow"}"#;
    assert_eq!(served.ask("POST /transactions/abort", None, abort).0, 403);
    drop(writer);
}

#[test]
fn a_transaction_is_aborted_by_who_has_the_token_where_changes_are_allowed() {
    let cli = Cli::new();
    let file = cli.directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let served = Served::start(
        &cli,
        &[
            "--dashboard-token",
            file.to_str().unwrap(),
            "--dashboard-changes",
        ],
    );
    let writer = fill(&cli, &served);
    assert_eq!(served.get("/status", None).0, 401);
    let abort = r#"{"transactional_id": "slow"}"#;
    assert_eq!(served.ask("POST /transactions/abort", None, abort).0, 401);
    let (status, told) = served.ask("POST /transactions/abort", Some(TOKEN), abort);
    assert_eq!((status, told.contains("slow")), (200, true), "{told}");
    until("readers go on", || {
        served.get("/status", Some(TOKEN)).1["transactions"] == json!([])
    });
    drop(writer);
}

#[test]
fn a_page_that_would_go_round_the_rules_of_the_broker_is_refused() {
    let cli = Cli::new();
    let run = |more: &[&str]| {
        cli.run(
            &[
                &[
                    "broker",
                    "--listen",
                    "127.0.0.1:0",
                    "--dashboard",
                    "127.0.0.1:0",
                ],
                more,
            ]
            .concat(),
        )
    };
    let done = run(&["--acls", "--sasl", "SCRAM-SHA-512"]);
    assert!(
        done.code == 2 && done.err.contains("--dashboard-token"),
        "{done:?}"
    );
    let done = run(&["--dashboard-changes"]);
    assert_eq!(done.code, 2, "{done:?}");
    let file = cli.directory.path().join("token");
    let with_file = || run(&["--dashboard-token", file.to_str().unwrap()]);
    assert!(
        with_file().err.contains("cannot read the token"),
        "{:?}",
        with_file()
    );
    std::fs::write(&file, "\n").unwrap();
    assert!(
        with_file().err.contains("holds no token"),
        "{:?}",
        with_file()
    );
    std::fs::write(&file, "short").unwrap();
    assert!(
        with_file().err.contains("less than 16 characters"),
        "{:?}",
        with_file()
    );
    let done = cli.run(&[
        "broker",
        "--listen",
        "127.0.0.1:0",
        "--dashboard",
        "0.0.0.0:0",
    ]);
    assert!(
        done.code == 1 && done.err.contains("set a token"),
        "{done:?}"
    );
}

#[test]
fn the_page_of_a_broker_is_seen_in_a_browser() {
    let cli = Cli::new();
    let file = cli.directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let served = Served::start(
        &cli,
        &[
            "--dashboard-token",
            file.to_str().unwrap(),
            "--dashboard-changes",
        ],
    );
    let writer = fill(&cli, &served);
    let config = ConsumerConfig::default()
        .group_id(GroupId::new("<img src=x onerror=hurt=true>").unwrap())
        .auto_offset_reset(OffsetReset::Earliest);
    let mut reader: Consumer<str, str> = Consumer::new(served.log().transport(), config);
    reader.assign([TopicPartition::new(name("orders"), 0)]);
    assert!(
        !wait(reader.poll(Duration::from_secs(10)))
            .unwrap()
            .is_empty()
    );
    wait(reader.commit()).unwrap();
    look(
        "log",
        &format!("http://{}/", served.page),
        &[TOKEN],
        &mut |step| panic!("the browser asks for {step}"),
    );
    drop(writer);
}
