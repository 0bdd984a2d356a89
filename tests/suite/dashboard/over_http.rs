//! Who gets the page, and what it gets: without a browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{HttpConfig, Running};
use serde_json::Value;

use crate::jobs::support::{OFTEN, Place};

const TOKEN: &str = "a token of a test, long enough";
const FILES: [&str; 14] = [
    "style.css",
    "app.js",
    "dom.js",
    "job.js",
    "graph.js",
    "commits.js",
    "time.js",
    "tables.js",
    "log.js",
    "letters.js",
    "records.js",
    "bytes.js",
    "act.js",
    "icon.svg",
];

fn start(log: &Log) -> Running {
    let job = Job::new("seen");
    job.source(values("n", 0..10u64))
        .key_by(|n| n % 2)
        .count("counts")
        .changes()
        .sink(topic("counts"));
    job.exactly_once(Commit::every(OFTEN)).start(log).unwrap()
}

/// Asks with these header lines; the head of the answer is read, and its body begins.
fn ask(address: SocketAddr, request: &str, headers: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head.to_lowercase(), reader)
}

fn status(address: SocketAddr, request: &str, headers: &str) -> u16 {
    let (head, _) = ask(address, request, &format!("{headers}Connection: close\r\n"));
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

const HTML: &str = "Accept: text/html,*/*\r\n";

#[test]
fn browsers_get_the_page_and_programs_what_they_got_before() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let page = running.dashboard("127.0.0.1:0").unwrap();
    let address = page.address();
    let (head, mut body) = ask(address, "GET /", &format!("{HTML}Connection: close\r\n"));
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"));
    for rule in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(head.contains(rule), "{rule} is not in {head}");
    }
    let mut html = String::new();
    body.read_to_string(&mut html).unwrap();
    for file in FILES {
        let request = format!("GET /dashboard/{file}");
        assert_eq!(status(address, &request, ""), 200, "{file}");
    }
    for named in ["style.css", "app.js", "icon.svg"] {
        assert!(html.contains(&format!("\"dashboard/{named}\"")), "{named}");
    }
    let (head, mut body) = ask(address, "GET /", "Connection: close\r\n");
    assert!(head.contains("content-type: application/json"), "{head}");
    let mut about = String::new();
    body.read_to_string(&mut about).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&about).unwrap()["job"],
        "seen"
    );
    assert_eq!(status(address, "GET /dashboard/no.js", ""), 404);
    assert_eq!(status(address, "POST /dashboard/events", ""), 404);
    // A page of elsewhere whose name leads here gets neither the page nor what it shows.
    for path in ["/", "/dashboard/app.js", "/dashboard/events"] {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: elsewhere.example\r\n{HTML}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = String::new();
        BufReader::new(stream).read_line(&mut first).unwrap();
        assert!(first.contains("403"), "{path}: {first}");
    }
    wait(running.finished()).unwrap();
}

#[test]
fn who_did_not_ask_for_a_page_serves_none() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap());
    let address = server.as_ref().unwrap().address();
    let (head, _) = ask(address, "GET /", &format!("{HTML}Connection: close\r\n"));
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(status(address, "GET /dashboard/app.js", ""), 404);
    assert_eq!(status(address, "GET /dashboard/events", ""), 404);
    wait(running.finished()).unwrap();
}

#[test]
fn views_come_one_after_the_other_as_json() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let page = running.dashboard("127.0.0.1:0").unwrap();
    let (head, body) = ask(page.address(), "GET /dashboard/events", "");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let mut times = Vec::new();
    for line in body.lines().map_while(Result::ok) {
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let view: Value = serde_json::from_str(event).unwrap();
        assert_eq!(view["job"], "seen");
        times.push(view["now"].as_i64().unwrap());
        if times.len() == 3 {
            break;
        }
    }
    assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
    wait(running.finished()).unwrap();
}

#[test]
fn with_a_token_the_page_comes_to_everybody_and_what_it_shows_to_who_has_it() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let guarded = HttpConfig::on("127.0.0.1:0").unwrap().token(TOKEN);
    let page = running.query().serve(guarded.dashboard()).unwrap();
    let address = page.address();
    assert_eq!(status(address, "GET /", HTML), 200);
    assert_eq!(status(address, "GET /dashboard/app.js", ""), 200);
    let has_token = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/", "/status", "/dashboard/events"] {
        let request = format!("GET {path}");
        assert_eq!(status(address, &request, ""), 401, "{path}");
        assert_eq!(status(address, &request, &has_token), 200, "{path}");
    }
    wait(running.finished()).unwrap();
}

#[test]
fn an_address_that_cannot_be_taken_is_refused_with_what_to_do() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let refused = |address: &str| running.dashboard(address).unwrap_err().to_string();
    assert!(refused("nowhere").contains("nowhere"));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let said = refused(&taken);
    assert!(said.contains(&taken) && said.contains("in use"), "{said}");
    let said = refused("0.0.0.0:0");
    assert!(
        said.contains("set a token, or listen on 127.0.0.1"),
        "{said}"
    );
    wait(running.finished()).unwrap();
}
