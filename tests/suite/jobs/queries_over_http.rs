//! Questions over HTTP: each kind of store, who may ask, and what is told where there is no answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{HttpConfig, HttpError, Running};
use serde_json::{Value, json};

use super::support::{OFTEN, Place, fill_topic, until};

/// Sends one request as it is, and reads the whole answer.
fn send(address: SocketAddr, head: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    send(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}"),
        "",
    )
}

/// An answer without its epoch.
pub(super) fn value_of(address: SocketAddr, path: &str) -> Value {
    let (status, mut answer) = get(address, path);
    assert_eq!(status, 200, "{path}: {answer}");
    assert!(answer.as_object_mut().unwrap().remove("epoch").is_some());
    answer
}

fn error_of(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, answer) = get(address, path);
    (status, answer["error"].as_str().unwrap().to_owned())
}

/// Keeps each word, with its number, in three kinds of stores.
struct Keep {
    by_length: OrderedStore<u64, String>,
    at_times: TimedStore<u64>,
}

impl Operator<str, String> for Keep {
    type OutKey = str;
    type Out = String;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, str, String>,
        out: &mut impl Output<str, String>,
    ) -> Flow {
        let length = record.value.len() as u64;
        self.by_length
            .put(record.key, &length, record.value.clone())?;
        let time = onceflow::types::Timestamp(1_000 * record.value.len() as i64);
        self.at_times
            .update_at(record.key, time, |value| *value = Some(length))?;
        out.push(record)
    }
}

/// Counts words, keeps them under their first letter, and counts them in windows; all three of "tea", "tart", "cake", "tea".
fn start(log: &Log) -> Running {
    let job = Job::new("words");
    let (words, rest) = job.source(topic::<str>("words")).tee();
    let (windowed, kept) = rest.tee();
    words
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("out"));
    kept.map(|word: &str| word.to_owned())
        .key_by_ref(|word: &String| &word[..1])
        .with_ordered_store::<u64, String>("by-length")
        .with_timed_store::<u64>("at-times")
        .process("keep", |context| {
            Ok(Keep {
                by_length: context.ordered_store("by-length")?,
                at_times: context.timed_store("at-times")?,
            })
        })
        .sink(topic("kept"));
    windowed
        .map(|word: &str| word.to_owned())
        .event_time(
            |word| word.len() as i64 * 10,
            Watermarks::out_of_order(Duration::from_secs(1)),
        )
        .key_by_ref(|word: &String| &word[..1])
        .window(FixedWindows::hopping(
            Duration::from_millis(20),
            Duration::from_millis(10),
        ))
        .count("per-window")
        .sink(topic("windows"));
    job.exactly_once(Commit::every(OFTEN)).start(log).unwrap()
}

#[test]
fn u12_every_kind_of_store_is_read_over_http() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea", "tart", "cake", "tea"]);
    let running = start(&log);
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap());
    let server = server.unwrap();
    let at = server.address();

    // What was written is read once it is processed.
    let (status, processed) = get(at, "/processed?topic=words&partition=0&offset=3");
    assert_eq!(status, 200, "{processed}");
    let epoch = processed["epoch"].as_u64().unwrap();
    let (_, answer) = get(at, &format!("/stores/counts?key=tea&at_least={epoch}"));
    assert_eq!(answer["value"], 2);
    assert!(answer["epoch"].as_u64().unwrap() >= epoch);

    let several = value_of(at, "/stores/counts?key=cake&key=pie");
    assert_eq!(several, json!({"values": [1, null]}));
    let first = value_of(at, "/stores/counts?limit=2");
    let rows = first["rows"].as_array().unwrap();
    let last = rows[1]["key"].as_str().unwrap();
    let rest = value_of(at, &format!("/stores/counts?after={last}"));
    assert_eq!((rows.len(), rest["rows"].as_array().unwrap().len()), (2, 1));

    assert_eq!(
        value_of(at, "/stores/by-length?key=t&place=4"),
        json!({"value": "tart"})
    );
    assert_eq!(
        value_of(at, "/stores/by-length?key=t&reverse"),
        json!({"rows": [{"place": 4, "value": "tart"}, {"place": 3, "value": "tea"}]})
    );
    let ranges = ["from=4", "after=3", "from=4&to=5"];
    for range in ranges {
        assert_eq!(
            value_of(at, &format!("/stores/by-length?key=t&{range}")),
            json!({"rows": [{"place": 4, "value": "tart"}]}),
            "{range}"
        );
    }
    assert_eq!(
        value_of(at, "/stores/at-times?key=t&time=3000"),
        json!({"value": 3})
    );
    let rows = value_of(at, "/stores/at-times?from=0&to=4000");
    assert_eq!(
        rows,
        json!({"rows": [{"time": 3000, "key": "t", "value": 3}]})
    );
    assert_eq!(
        value_of(at, "/windows/per-window?key=t&from=0&to=100"),
        json!({"windows": [
            {"start": 20, "end": 40, "value": 2},
            {"start": 30, "end": 50, "value": 3},
            {"start": 40, "end": 60, "value": 1},
        ]})
    );
    let (_, about) = get(at, "/");
    assert_eq!(about["job"], "words");
    assert_eq!(about["stores"].as_array().unwrap().len(), 4);
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
fn u12_several_questions_are_answered_of_one_epoch() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea", "cake", "tea"]);
    let running = start(&log);
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap());
    let server = server.unwrap();
    let at = server.address();
    let (_, processed) = get(at, "/processed?topic=words&partition=0&offset=2");
    let epoch = processed["epoch"].as_u64().unwrap();
    let post = |body: &str| {
        let head = format!("POST /read?at_least={epoch} HTTP/1.1\r\nHost: {at}");
        send(at, &head, body)
    };
    let (status, answer) = post(
        r#"[{"store": "counts", "key": "tea"}, {"store": "by-length", "key": "t", "limit": 5},
            {"store": "per-window", "windows": true, "key": "c", "from": 0, "to": 50}]"#,
    );
    assert_eq!(status, 200, "{answer}");
    assert!(answer["epoch"].as_u64().unwrap() >= epoch);
    assert_eq!(
        answer["answers"],
        json!([
            {"value": 2},
            {"rows": [{"place": 3, "value": "tea"}]},
            {"windows": [{"start": 30, "end": 50, "value": 1}, {"start": 40, "end": 60, "value": 1}]},
        ])
    );
    for (body, said) in [
        ("", "the body is not a list of questions"),
        ("[]", "ask 1 to 1000"),
        (
            r#"[{"store": "counts", "kee": "tea"}]"#,
            "unknown field `kee`",
        ),
        (r#"[{"store": "counts", "key": 5}]"#, "5 is not text"),
    ] {
        let (status, answer) = post(body);
        assert_eq!(status, 400, "{body}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(said), "{body}: {error}");
    }
    wait(running.stop()).unwrap();
}

/// Questions that nobody can answer, and what is told.
const REFUSED: &[(&str, u16, &str)] = &[
    (
        "/stores/cuonts?key=tea",
        404,
        "it has at-times, by-length, counts, per-window",
    ),
    ("/stores", 404, "GET /stores/NAME"),
    (
        "/stores/counts?kee=tea",
        400,
        "there is no parameter \"kee\"",
    ),
    ("/stores/counts?limit=0", 400, "1 to 10000 rows"),
    (
        "/stores/counts?limit=many",
        400,
        "limit=many is not a number of rows",
    ),
    ("/stores/by-length?place=3", 400, "one `key`"),
    ("/stores/by-length?key=t&place=three", 400, "is not"),
    ("/stores/at-times?from=0", 400, "`from` and `to`"),
    (
        "/stores/at-times?from=now&to=1",
        400,
        "milliseconds since 1970",
    ),
    (
        "/windows/counts?key=tea&from=0&to=1",
        404,
        "does not say which windows",
    ),
    ("/windows/per-window?from=0&to=1", 400, "one `key`"),
    (
        "/windows/per-window?key=t&from=0&to=9000000",
        400,
        "ask for a smaller one",
    ),
    (
        "/processed?topic=words",
        400,
        "topic=NAME&partition=NUMBER&offset=NUMBER",
    ),
    (
        "/processed?topic=words&partition=7&offset=0",
        404,
        "does not read words-7",
    ),
    ("/stores/counts?key=tea&wait=forever", 400, "0 to 300"),
    ("/stores/counts?key=tea&at_least=x", 400, "is not an epoch"),
    (
        "/stores/counts?key=tea&at_least=99999999999&wait=0.05",
        504,
        "longer `wait`",
    ),
];

#[test]
fn u12_a_question_that_has_no_answer_is_told_why_and_what_to_do() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let running = start(&log);
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap());
    let server = server.unwrap();
    let at = server.address();
    for &(path, status, said) in REFUSED {
        let (told, error) = error_of(at, path);
        assert!(
            told == status && error.contains(said),
            "{path}: {told} {error}"
        );
    }
    let (status, _) = send(
        at,
        &format!("DELETE /stores/counts HTTP/1.1\r\nHost: {at}"),
        "",
    );
    assert_eq!(status, 405);
    // A page of elsewhere whose name leads here.
    let (status, _) = send(at, "GET / HTTP/1.1\r\nHost: evil.example", "");
    assert_eq!(status, 403);
    wait(running.stop()).unwrap();
    let (status, error) = error_of(at, "/stores/counts?key=tea");
    assert!(
        status == 503 && error.contains("the job words has ended"),
        "{error}"
    );
}

#[test]
fn u12_who_has_not_the_token_reads_nothing() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let running = start(&log);
    let query = running.query();
    let everywhere = HttpConfig::on("0.0.0.0:0").unwrap();
    let refused = query.serve(everywhere.clone()).unwrap_err();
    assert!(refused.to_string().contains("set a token"), "{refused}");
    let short = query.serve(everywhere.clone().token("1234")).unwrap_err();
    assert!(matches!(short, HttpError::Invalid { .. }), "{short}");
    assert!(HttpConfig::on("here").is_err());

    let server = query.serve(everywhere.token("0123456789abcdef")).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let ask = |header: &str| {
        let head = format!("GET /stores/counts?key=tea HTTP/1.1\r\nHost: a.example{header}");
        send(at, &head, "").0
    };
    assert_eq!(ask(""), 401);
    assert_eq!(ask("\r\nAuthorization: Bearer 0123456789abcdeF"), 401);
    assert_eq!(ask("\r\nAuthorization: Basic 0123456789abcdef"), 401);
    assert_eq!(ask("\r\nAuthorization: Bearer 0123456789abcdef"), 200);
    wait(running.stop()).unwrap();
}

#[test]
fn j13_u12_the_version_that_was_valid_at_a_time_is_read_over_http() {
    let place = Place::new();
    let log = place.log();
    let lines = ["tea 10 1000", "tea 20 2000", "tea - 3000"];
    fill_topic(&log, "prices", 1, &lines);
    let job = Job::new("priced");
    job.source(topic::<str>("prices"))
        .map(|line: &str| {
            let parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let time = parts[2].parse::<i64>().unwrap_or(0);
            (parts[0].clone(), parts[1].parse::<u64>().ok(), time)
        })
        .event_time(
            |(_, _, time)| *time,
            Watermarks::out_of_order(Duration::ZERO),
        )
        .key_by_ref(|(key, _, _): &(String, Option<u64>, i64)| key)
        .map(|(_, value, _)| *value)
        .versioned("versions", Duration::from_millis(1_200))
        .sink(topic::<u64>("out").as_option());
    let launch = job.exactly_once(Commit::every(OFTEN));
    let running = launch.start(&log).unwrap();
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap());
    let server = server.unwrap();
    let at = server.address();
    let (status, _) = get(at, "/processed?topic=prices&partition=0&offset=2");
    assert_eq!(status, 200);
    for (time, value) in [(1_500, json!(10)), (2_500, json!(20)), (3_500, json!(null))] {
        let found = value_of(at, &format!("/stores/versions?key=tea&as_of={time}"));
        assert_eq!(found, json!({"value": value}), "{time}");
    }
    let both = value_of(at, "/stores/versions?key=tea&key=milk&as_of=2000");
    assert_eq!(both, json!({"values": [20, null]}));
    until("the history begins", || {
        let (status, told) = get(at, "/stores/versions?key=tea&as_of=500");
        status == 400 && told.to_string().contains("history")
    });
    let (status, why) = error_of(at, "/stores/versions-times?key=tea&as_of=500");
    assert!(status == 400 && why.contains("`versioned`"), "{why}");
    wait(running.stop()).unwrap();
    log.close().unwrap();
}
