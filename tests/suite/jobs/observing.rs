//! A running job as it is shown: its view as JSON, its metrics, and the board and alerts that are made of them.

#[cfg(feature = "metrics")]
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
#[cfg(feature = "metrics")]
use std::path::Path;
use std::time::Duration;

use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::prelude::*;
use onceflow::runtime::{CloseReason, CycleStatus, HttpConfig, JobPhase, Running, SplitState};
use onceflow::types::{TopicName, TopicPartition, TransactionalId};
use serde_json::Value;

use super::support::{OFTEN, Place, fill_topic, until};

const TOKEN: &str = "a token of a test, long enough";

/// The status and the body of what is at a path.
fn ask(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    ask_as(address, method, path, &address.to_string(), token)
}

/// The same, by whoever calls this machine so.
fn ask_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    host: &str,
    token: Option<&str>,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let token = token.map_or(String::new(), |it| {
        format!("Authorization: Bearer {it}\r\n")
    });
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}");
    let request = format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Writes a record within a transaction, which stays open.
fn open_transaction(log: &Log, id: &str) -> TransactionalWriter {
    let id = TransactionalId::new(id).unwrap();
    let writer = TransactionalWriter::init(log.transport(), id, Duration::from_secs(600));
    let writer = wait(writer).unwrap();
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(log.env().clock.wall(), None, Some(b"400 tea"));
    let place = TopicPartition::new(TopicName::new("words").unwrap(), 0);
    writer.partition(&place).append(&mut batch).unwrap();
    writer
}

/// Counts words in windows of 10 ms of their times; "late" words go nowhere. All words are in the first partition.
fn start(log: &Log, partitions: i32) -> Running {
    let words = TopicName::new("words").unwrap();
    wait(log.admin().create_topic(&words, partitions)).unwrap();
    fill_topic(
        log,
        "words",
        1,
        &["100 tea", "200 tea", "300 cake", "5 late"],
    );
    let job = Job::new("observed");
    job.source(topic::<str>("words"))
        .map(|line: &str| line.to_owned())
        .event_time(
            |line: &String| {
                line.split(' ')
                    .next()
                    .and_then(|it| it.parse().ok())
                    .unwrap_or(0)
            },
            Watermarks::out_of_order(Duration::from_millis(1)),
        )
        .key_by(|line: &String| line.len() as u64)
        .window(FixedWindows::tumbling(Duration::from_millis(10)))
        .count("per-window")
        .sink(topic("windows"));
    job.exactly_once(Commit::every(OFTEN)).start(log).unwrap()
}

#[test]
fn a_running_job_is_seen_as_plain_data() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log, 1);
    wait(running.caught_up()).unwrap();
    let status = wait(running.status());
    assert_eq!(status.phase, JobPhase::Running);
    assert_eq!((status.totals.records, status.totals.late_records), (4, 1));
    assert_eq!(status.lag(), Some(0));
    assert!(
        status.sentence.starts_with("caught up: 4 records"),
        "{}",
        status.sentence
    );
    let source = status.chains.iter().filter(|chain| chain.name == "words");
    assert_eq!(source.map(|chain| chain.records).sum::<u64>(), 4);
    let behind_the_shuffle = status
        .chains
        .iter()
        .filter(|chain| chain.name == "per-window");
    assert_eq!(
        behind_the_shuffle.map(|chain| chain.records).sum::<u64>(),
        4
    );
    assert_eq!(
        status.cycles.iter().map(|cycle| cycle.records).sum::<u64>(),
        4
    );
    assert!(
        status
            .cycles
            .iter()
            .any(|cycle| cycle.reason == CloseReason::Interval)
    );
    // The embedded log tells the parts of a transaction's end apart.
    for phase in ["sync", "decide", "markers"] {
        assert!(status.totals.phase_micros[phase] > 0, "{phase}");
    }
    let of_cycles = |read: fn(&CycleStatus) -> u64| status.cycles.iter().map(read).sum::<u64>();
    let decided = of_cycles(|cycle| cycle.decide_micros);
    assert_eq!(decided, status.totals.phase_micros["decide"]);
    let late = &status.totals.late_by_reason;
    assert_eq!((late["closed"], late["out of range"]), (1, 0));
    let store = status.stores.iter().find(|it| it.name == "per-window");
    let store = store.unwrap();
    // All of it is in memory, and a restart would replay it.
    assert!(store.tail_bytes > 0, "{store:?}");
    assert_eq!((store.hits, store.misses), (0, 0));
    assert_eq!(status.watermark().map(|at| at.0), Some(299));
    assert!(status.splits[0].holds_time && status.splits[0].state == SplitState::Active);
    assert_eq!(status.lives.len(), 1);
    let json: Value = serde_json::from_str(&status.json()).unwrap();
    assert_eq!(json["totals"]["records"], 4);
    wait(running.stop()).unwrap();
}

#[test]
fn a_partition_without_records_is_named_as_the_one_that_holds_time() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log, 2);
    wait(running.caught_up()).unwrap();
    let status = wait(running.status());
    let said = "event time is held by words-1, which had no record yet";
    assert!(status.sentence.contains(said), "{}", status.sentence);
    assert_eq!(status.watermark(), None);
    wait(running.stop()).unwrap();
}

#[test]
fn a_transaction_that_holds_readers_up_is_named_until_it_ends() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log, 1);
    wait(running.caught_up()).unwrap();
    assert_eq!(wait(running.status()).transactions, []);
    let held = open_transaction(&log, "foreign");
    let status = wait(running.status());
    let said = "words-0 is held up by the transaction of foreign, open for ";
    assert!(status.sentence.contains(said), "{}", status.sentence);
    let [open] = &*status.transactions else {
        panic!("{:?}", status.transactions);
    };
    assert_eq!(open.transactional_id.as_deref(), Some("foreign"));
    assert_eq!(open.partitions, ["words-0"]);
    assert_eq!((open.is_own, open.is_hanging), (false, false));
    assert_eq!(status.splits[0].held_since, Some(open.since));
    assert_eq!(status.lag(), Some(0), "what readers may not see is no lag");
    wait(
        log.admin()
            .abort_transaction(&TransactionalId::new("foreign").unwrap()),
    )
    .unwrap();
    let status = wait(running.status());
    assert_eq!(status.splits[0].held_by, None);
    assert_eq!(status.transactions, []);
    drop(held);
    wait(running.stop()).unwrap();
}

#[test]
fn a_failed_attempt_is_a_life_of_its_own_with_its_reason() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let job = Job::new("observed");
    job.source(topic::<str>("words"))
        .try_map(|_: &str| -> anyhow::Result<String> { anyhow::bail!("no cup") })
        .sink(topic("copies"));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    until("it has failed", || running.is_finished());
    let status = wait(running.status());
    assert_eq!(status.phase, JobPhase::Ended);
    let why = status.lives.last().unwrap().ended_by.as_deref();
    assert!(why.is_some_and(|why| why.contains("no cup")), "{why:?}");
    wait(running.stop()).unwrap_err();
}

#[test]
fn the_view_is_for_those_alone_who_may_ask() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log, 1);
    let guarded = HttpConfig::on("127.0.0.1:0").unwrap().token(TOKEN);
    let guarded = running.query().serve(guarded).unwrap();
    let open = HttpConfig::on("127.0.0.1:0").unwrap();
    let open = running.query().serve(open).unwrap();
    let paths: &[&str] = match cfg!(feature = "metrics") {
        true => &["/status", "/metrics"],
        false => &["/status"],
    };
    for path in paths {
        let asked = |token| ask(guarded.address(), "GET", path, token).0;
        assert_eq!(asked(None), 401);
        assert_eq!(asked(Some("another token, long enough")), 401);
        assert_eq!(asked(Some(TOKEN)), 200);
        assert_eq!(ask(open.address(), "GET", path, None).0, 200);
        assert_eq!(ask(open.address(), "POST", path, None).0, 404);
        // A page of elsewhere whose name leads here.
        let (status, _) = ask_as(open.address(), "GET", path, "elsewhere.example", None);
        assert_eq!(status, 403);
    }
    let (_, body) = ask(guarded.address(), "GET", "/status", Some(TOKEN));
    let seen: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(seen["job"], "observed");
    wait(running.stop()).unwrap();
}

/// The names of metrics in a text: in a scrape, in a board, in rules.
#[cfg(feature = "metrics")]
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    words
        .filter(|word| word.starts_with("onceflow_"))
        .map(str::to_owned)
        .collect()
}

/// The labels that a board or rules take from samples: in `{{split}}`, `{{ $labels.split }}`, `by (split)`.
#[cfg(feature = "metrics")]
fn labels_in(text: &str) -> BTreeSet<&str> {
    let between = |start: &'static str, end: &'static str| {
        let parts = text.split(start).skip(1);
        parts.filter_map(move |part| Some(part.split_once(end)?.0))
    };
    let shown = between("{{", "}}").map(|it| it.trim().trim_start_matches("$labels."));
    let grouped = between("by (", ")").chain(between("on (", ")"));
    let grouped = grouped.flat_map(|it| it.split(',')).map(str::trim);
    shown
        .chain(grouped)
        .filter(|label| !label.is_empty())
        .collect()
}

#[cfg(feature = "metrics")]
#[test]
fn every_metric_of_the_board_the_alerts_and_the_docs_is_in_the_scrape_of_a_running_job() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log, 1);
    wait(running.caught_up()).unwrap();
    let server = running
        .query()
        .serve(HttpConfig::on("127.0.0.1:0").unwrap())
        .unwrap();
    let (status, scrape) = ask(server.address(), "GET", "/metrics", None);
    assert_eq!(status, 200, "{scrape}");
    assert!(scrape.ends_with("# EOF\n"), "{scrape}");
    for line in [
        "onceflow_records_total{job_name=\"observed\"} 4",
        "onceflow_late_records_total{job_name=\"observed\"} 1",
        "onceflow_split_lag_records{job_name=\"observed\",source=\"words\",split=\"words-0\"} 0",
        "onceflow_split_holds_time{job_name=\"observed\",source=\"words\",split=\"words-0\"} 1",
        "onceflow_split_held_seconds{job_name=\"observed\",source=\"words\",split=\"words-0\"} 0",
        "onceflow_commits_total{job_name=\"observed\",reason=\"stop\"} 0",
        "onceflow_letters_total{job_name=\"observed\",kind=\"late\",reason=\"closed\"} 1",
        "onceflow_store_reads_total{job_name=\"observed\",store=\"per-window\",answer=\"miss\"} 0",
        "onceflow_commit_phase_seconds_total{job_name=\"observed\",phase=\"decide\"}",
        "onceflow_commit_duration_seconds_bucket{le=\"+Inf\",job_name=\"observed\"}",
    ] {
        assert!(scrape.contains(line), "{line} is not in:\n{scrape}");
    }
    let samples: String = scrape
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let exist = names_in(&samples);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for file in [
        "monitoring/grafana.json",
        "monitoring/alerts.yml",
        "operating.md",
    ] {
        let text = std::fs::read_to_string(docs.join(file)).unwrap();
        let named = names_in(&text);
        assert!(named.len() > 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&exist).collect();
        assert!(
            unknown.is_empty(),
            "{file} names what no job has: {unknown:?}"
        );
        for label in labels_in(&text) {
            let label = format!("{label}=\"");
            assert!(samples.contains(&label), "{file}: no sample has {label}");
        }
    }
    let told = names_in(&std::fs::read_to_string(docs.join("operating.md")).unwrap());
    let untold: Vec<_> = exist.difference(&told).collect();
    assert!(
        untold.is_empty(),
        "docs/operating.md does not tell of {untold:?}"
    );
    wait(running.stop()).unwrap();
}

#[test]
fn dead_letters_are_counted_by_their_reason_without_what_is_of_one_record() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "numbers", 1, &["1", "x17", "2", "x3"]);
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
        .start(&log)
        .unwrap();
    wait(running.caught_up()).unwrap();
    let totals = wait(running.status()).totals;
    assert_eq!(totals.dead_letters, 2);
    let reasons: Vec<_> = totals.dead_by_reason.into_iter().collect();
    let [(reason, 2)] = &reasons[..] else {
        panic!("{reasons:?}");
    };
    assert!(reason.contains("\"…\": invalid digit"), "{reason}");
    wait(running.stop()).unwrap();
}

#[test]
fn whoever_waited_for_a_job_finds_what_it_did_in_its_progress() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "lines", 1, &["first"]);
    let job = Job::new("told");
    job.source(topic::<str>("lines")).sink(topic("copies"));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    for count in 1..=200 {
        wait(running.caught_up()).unwrap();
        assert_eq!(running.progress().records, count);
        fill_topic(&log, "lines", 1, &["another"]);
    }
    wait(running.stop()).unwrap();
}
