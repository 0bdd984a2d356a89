//! The changes of a table as a source (O13–O16): each once, in the order of the commits, whatever is killed on either side.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::codec::Json;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::runtime::postgres::{PostgresChanges, RowChange, RowChangeKind, postgres_changes};
use onceflow::types::TopicName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::server::Server;
use crate::jobs::support::{Place, committed, run, until};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::ms;

const VARIABLE: &str = "ONCEFLOW_POSTGRES_CHANGES_CHILD";
const LIVES: usize = 14;
const LOGICAL: &[&str] = &["wal_level=logical"];

/// A row that counts its changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    id: i64,
    owner: String,
    version: i64,
}

type Change = RowChange<i64, Account>;

fn start() -> Option<Server> {
    Server::start_with(5432, LOGICAL, |_| {})
}

fn source<K: DeserializeOwned, V: DeserializeOwned>(
    server: &str,
    table: &str,
) -> PostgresChanges<K, V> {
    postgres_changes(server, table)
        .look_every(ms(2))
        .heartbeat(ms(20))
}

/// Copies changes to the topic `changes`.
fn copies<K, V>(changes: PostgresChanges<K, V>) -> Launch
where
    K: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let job = Job::new("copies");
    job.source(changes)
        .map(|change: &RowChange<K, V>| change.clone())
        .sink(topic("changes").partitions(1).codec(Json));
    job.exactly_once(Commit::every(ms(5)))
}

/// The child's entry.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn copies_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (data, server) = plan.split_once('|').unwrap();
    let log = open(Path::new(data));
    let launch = copies::<i64, Account>(source(server, "accounts"));
    wait(launch.start(&log).unwrap().finished()).unwrap();
}

/// One transaction of a random user, by its number.
fn transaction(number: i64) -> String {
    let (a, b) = (number * 7 % 60, number * 13 % 60);
    match number % 5 {
        0 => format!(
            "INSERT INTO accounts VALUES ({a}, 'new', 1) ON CONFLICT (id) DO UPDATE SET version = accounts.version + 1"
        ),
        1 => format!("DELETE FROM accounts WHERE id = {a}"),
        // A row gets another key, if that is free.
        2 => format!(
            "UPDATE accounts SET id = {b} + 60, version = 1 WHERE id = {a} \
             AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = {b} + 60)"
        ),
        3 => format!(
            "BEGIN; UPDATE accounts SET version = version + 1 WHERE id < 20; \
             INSERT INTO accounts VALUES (-1 - {number}, 'passing', 1); UPDATE accounts SET version = version + 1 WHERE id = {b}; COMMIT"
        ),
        _ => "BEGIN; UPDATE accounts SET version = version + 1; ROLLBACK; INSERT INTO beside VALUES (1)".to_owned(),
    }
}

/// Follows changes: each must go on from what the row was, so none is lost and none is there twice.
fn follow(changes: &[Change]) -> BTreeMap<i64, i64> {
    let mut rows = BTreeMap::<i64, i64>::new();
    for change in changes {
        let before = rows.get(&change.key).copied();
        let now = change.row.as_ref().map(|row| {
            assert_eq!(row.id, change.key, "{change:?}");
            row.version
        });
        let is_right = match (change.kind, before, now) {
            (RowChangeKind::Copy, None, Some(_)) => true,
            (RowChangeKind::Insert, None, Some(version)) => version == 1,
            (RowChangeKind::Update, Some(before), Some(version)) => version == before + 1,
            (RowChangeKind::Delete, Some(_), None) => true,
            _ => false,
        };
        assert!(is_right, "{before:?} became {change:?}");
        match now {
            Some(version) => rows.insert(change.key, version),
            None => rows.remove(&change.key),
        };
    }
    rows
}

fn changes_of<K: DeserializeOwned, V: DeserializeOwned>(log: &Log) -> Vec<RowChange<K, V>> {
    let seen = committed(log, "changes").into_iter();
    seen.map(|seen| serde_json::from_slice(&seen.value.unwrap()).unwrap())
        .collect()
}

fn changes_in(log: &Log) -> Vec<Change> {
    changes_of(log)
}

fn rows_of(server: &Server) -> BTreeMap<i64, i64> {
    let rows = server.ask("SELECT id, version FROM accounts ORDER BY id");
    let rows = rows.iter().map(|row| row.split_once('|').unwrap());
    rows.map(|(id, version)| (id.parse().unwrap(), version.parse().unwrap()))
        .collect()
}

const ACCOUNTS: &str = "CREATE TABLE accounts (id bigint PRIMARY KEY, owner text NOT NULL, version bigint NOT NULL); \
     CREATE TABLE beside (number bigint)";

/// Both sides are killed while the table changes, from the first copied row on.
#[test]
fn o13_o14_each_change_comes_once_though_the_job_and_the_server_are_killed() {
    let Some(mut server) = start() else {
        return;
    };
    server.ask(ACCOUNTS);
    server.ask("INSERT INTO accounts SELECT i * 100000, 'old', 5 FROM generate_series(1, 20000) i");
    server.ask("INSERT INTO accounts SELECT i, 'old', 5 FROM generate_series(1, 50) i");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let points = [
        "cycle.drained",
        "commit.before_decision",
        "commit.after_decision",
        "cycle.committed",
    ];
    let mut number = 0;
    for life in 0..LIVES {
        let failpoint = match life % 3 {
            0 => String::new(),
            _ => format!("{}=kill@{}", points[life % points.len()], 1 + life % 3),
        };
        let plan = format!("{}|{}", data.display(), server.url());
        let test = "postgres::changes::copies_until_it_is_killed";
        let mut process: Process = start_child(test, (VARIABLE, &plan), &failpoint);
        for _ in 0..6 {
            let some: Vec<String> = (number..number + 5).map(transaction).collect();
            server.ask(&some.join("; "));
            number += 5;
            if process.is_killed_within(ms(20 + 15 * (life as u64 % 5))) {
                break;
            }
        }
        if life % 4 == 3 {
            server.kill();
            server.start_again();
            process.is_killed_within(ms(300));
        }
    }
    let log = open(&data);
    let running = copies::<i64, Account>(source(&server.url(), "accounts"))
        .start(&log)
        .unwrap();
    let expected = rows_of(&server);
    until("all changes are there", || {
        assert!(!running.is_finished());
        changes_in(&log).len() >= expected.len() && follow(&changes_in(&log)) == expected
    });
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
fn o13_rows_that_change_while_they_are_copied_are_neither_lost_nor_doubled() {
    let Some(server) = start() else {
        return;
    };
    server.ask(ACCOUNTS);
    server.ask("INSERT INTO accounts SELECT i, 'old', 5 FROM generate_series(0, 30000) i");
    let place = Place::new();
    let log = place.log();
    let mut number = 0;
    for _ in 0..12 {
        let before = changes_in(&log).len();
        let running = copies::<i64, Account>(source(&server.url(), "accounts"))
            .start(&log)
            .unwrap();
        while changes_in(&log).len() == before {
            let some: Vec<String> = (number..number + 5).map(transaction).collect();
            server.ask(&some.join("; "));
            number += 5;
        }
        wait(running.stop()).unwrap();
        follow(&changes_in(&log));
    }
    let running = copies::<i64, Account>(source(&server.url(), "accounts"))
        .start(&log)
        .unwrap();
    let expected = rows_of(&server);
    until("all changes are there", || {
        follow(&changes_in(&log)) == expected
    });
    wait(running.stop()).unwrap();
    let changes = changes_in(&log);
    let copied = changes
        .iter()
        .filter(|it| it.kind == RowChangeKind::Copy)
        .count();
    assert!(copied > 20_000, "{copied}");
    log.close().unwrap();
}

fn refusal<V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static>(
    source: PostgresChanges<i64, V>,
    log: &Log,
) -> String {
    run(copies(source), log).unwrap_err().to_string()
}

#[test]
fn o14_a_slot_that_has_lost_changes_is_refused() {
    let Some(server) = start() else {
        return;
    };
    server.ask(ACCOUNTS);
    server.ask("INSERT INTO accounts VALUES (1, 'ann', 1)");
    let place = Place::new();
    let log = place.log();
    let changes = || source::<i64, Account>(&server.url(), "accounts");
    let run_until = |count: usize| {
        let running = copies(changes()).start(&log).unwrap();
        until("they are there", || changes_in(&log).len() == count);
        wait(running.stop()).unwrap();
    };
    run_until(1);
    server.ask("UPDATE accounts SET version = 2");
    run_until(2);
    let slot = server.ask("SELECT slot_name FROM pg_replication_slots")[0].clone();
    server.ask("UPDATE accounts SET version = 3");
    server.ask(&format!(
        "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"
    ));
    let skipped = refusal(changes(), &log);
    for part in ["stands behind the job's place", "are lost", "`named`"] {
        assert!(skipped.contains(part), "{part}: {skipped}");
    }
    server.ask(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    let gone = refusal(changes(), &log);
    assert!(gone.contains("is gone"), "{gone}");
    server.ask(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    server.ask("UPDATE onceflow_changes SET slot = slot + 1");
    let other = refusal(changes(), &log);
    assert!(other.contains("is another one"), "{other}");
    // A job of the same name on another log would take the slot away from this one.
    let elsewhere = Place::new();
    let thief = refusal(changes(), &elsewhere.log());
    assert!(thief.contains("another log"), "{thief}");
    // The way out that they name.
    let anew = copies(changes().named("accounts again"))
        .start(&log)
        .unwrap();
    until("the table was copied again", || changes_in(&log).len() == 3);
    wait(anew.stop()).unwrap();
    assert_eq!(changes_in(&log)[2].row.as_ref().unwrap().version, 3);
    log.close().unwrap();
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    id: i64,
    title: Option<String>,
    text: Option<String>,
}

#[test]
fn o15_a_large_value_that_did_not_change_is_never_taken_for_null() {
    let Some(server) = start() else {
        return;
    };
    server.ask("CREATE TABLE pages (id bigint PRIMARY KEY, title text, text text); ALTER TABLE pages ALTER text SET STORAGE EXTERNAL");
    let large = "x".repeat(20_000);
    server.ask(&format!(
        "INSERT INTO pages VALUES (1, 'a', '{large}'), (2, NULL, NULL)"
    ));
    let place = Place::new();
    let log = place.log();
    let pages = || source::<i64, Page>(&server.url(), "pages");
    let launch = |source| {
        copies(source).on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
    };
    let running = launch(pages()).start(&log).unwrap();
    let count = || committed(&log, "changes").len();
    until("it is copied", || count() == 2);
    server.ask("UPDATE pages SET title = 'b' WHERE id = 1");
    until("it is a letter", || committed(&log, "dead").len() == 1);
    let why = committed(&log, "dead")[0].clone();
    assert!(
        why.header("onceflow.error")
            .contains("REPLICA IDENTITY FULL"),
        "{why:?}"
    );
    server.ask("ALTER TABLE pages REPLICA IDENTITY FULL");
    server.ask("UPDATE pages SET title = 'c' WHERE id = 1; UPDATE pages SET title = 'd' WHERE id = 2; DELETE FROM pages WHERE id = 1");
    until("all are there", || count() == 5);
    wait(running.stop()).unwrap();
    let changes = changes_of::<i64, Page>(&log);
    let page = |id, title: Option<&str>, text: Option<&String>| Page {
        id,
        title: title.map(str::to_owned),
        text: text.cloned(),
    };
    let (first, second) = (page(1, Some("c"), Some(&large)), page(2, Some("d"), None));
    assert_eq!(changes[0].row, Some(page(1, Some("a"), Some(&large))));
    assert_eq!(changes[1].row, Some(page(2, None, None)));
    assert_eq!(changes[2].row, Some(first.clone()));
    assert_eq!(changes[2].before, Some(page(1, Some("b"), Some(&large))));
    assert_eq!(changes[3].row, Some(second));
    assert_eq!(
        (changes[4].row.clone(), changes[4].before.clone()),
        (None, Some(first))
    );
    log.close().unwrap();
}

#[test]
fn o16_the_slot_of_a_quiet_table_moves_on_and_nothing_is_lost_by_it() {
    let Some(server) = start() else {
        return;
    };
    server.ask(ACCOUNTS);
    let place = Place::new();
    let log = place.log();
    let start = || {
        copies::<i64, Account>(source(&server.url(), "accounts"))
            .start(&log)
            .unwrap()
    };
    let behind = || {
        server.number("SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots")
    };
    let others_write = || {
        server.ask("INSERT INTO beside SELECT generate_series(1, 5000)");
    };
    // A table without a row, of which nothing was committed; then one with a row.
    for round in 0..2 {
        let running = start();
        until("there is a slot", || {
            server.number("SELECT count(*) FROM pg_replication_slots") == 1
        });
        others_write();
        until("it has moved", || behind() < 100_000);
        wait(running.stop()).unwrap();
        let version = round + 1;
        server.ask(&format!(
            "INSERT INTO accounts VALUES (1, 'ann', {version}) ON CONFLICT (id) DO UPDATE SET version = {version}"
        ));
        let running = start();
        until("the row is there", || {
            changes_in(&log).len() == usize::try_from(round).unwrap() + 1
        });
        wait(running.stop()).unwrap();
    }
    follow(&changes_in(&log));
    log.close().unwrap();
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let Some(server) = start() else {
        return;
    };
    server.ask(
        "CREATE TABLE keyless (id bigint); CREATE TABLE odd (id numeric PRIMARY KEY); CREATE VIEW seen AS SELECT 1 AS id; \
         CREATE TABLE silent (id bigint PRIMARY KEY); ALTER TABLE silent REPLICA IDENTITY NOTHING",
    );
    let place = Place::new();
    let log = place.log();
    for (table, parts) in [
        ("nowhere", ["nowhere", "there is none"]),
        ("keyless", ["primary key", "add one"]),
        ("odd", ["no whole number, text or UUID", "`without_copy`"]),
        ("seen", ["seen", "no ordinary table"]),
        ("silent", ["silent", "REPLICA IDENTITY DEFAULT"]),
    ] {
        let refused = refusal(source::<i64, Account>(&server.url(), table), &log);
        for part in parts {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
    assert_eq!(
        server.number("SELECT count(*) FROM pg_replication_slots"),
        0
    );
    let Some(plain) = Server::start() else {
        return;
    };
    plain.ask(ACCOUNTS);
    let level = refusal(source::<i64, Account>(&plain.url(), "accounts"), &log);
    assert!(level.contains("set wal_level = logical"), "{level}");
    let absent = source::<i64, Account>("host=/tmp/onceflow-nowhere user=x dbname=y", "accounts");
    let absent = refusal(absent.patience(Duration::from_millis(300)), &log);
    assert!(absent.contains("postgres accounts"), "{absent}");
}

#[test]
fn a_table_that_is_truncated_is_said_and_not_passed_over() {
    let Some(server) = start() else {
        return;
    };
    server.ask(ACCOUNTS);
    server.ask("INSERT INTO accounts VALUES (1, 'ann', 1)");
    let place = Place::new();
    let log = place.log();
    let running = copies::<i64, Account>(source(&server.url(), "accounts"))
        .start(&log)
        .unwrap();
    until("it is copied", || changes_in(&log).len() == 1);
    server.ask("TRUNCATE accounts");
    let refused = wait(running.finished()).unwrap_err().to_string();
    assert!(
        refused.contains("was truncated") && refused.contains("`named`"),
        "{refused}"
    );
    log.close().unwrap();
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    region: String,
    number: i32,
    price: String,
    weight: f64,
    is_open: bool,
    document: serde_json::Value,
    at: String,
    code: String,
    bytes: Option<String>,
}

#[test]
fn values_of_all_types_are_the_same_in_the_copy_and_in_the_stream() {
    let Some(server) = start() else {
        return;
    };
    // Keys of two columns, whose text is sorted otherwise by people than by bytes.
    server.ask(
        "CREATE TABLE everything (region text, number integer, price numeric(12, 2), weight double precision, is_open boolean, \
         document jsonb, at timestamptz, code char(5), bytes bytea, PRIMARY KEY (region, number))",
    );
    let row = |region: &str, number: i32| {
        format!(
            "('{region}', {number}, 12.30, 0.1, true, '{{\"a\": [1, null]}}', '2026-11-28 12:00:00+02', 'ab', '\\x00ff')"
        )
    };
    let keys = [("B", 2), ("a", 1), ("ä", 3), ("a", -1), ("", 0)];
    let rows = keys.map(|(region, number)| row(region, number)).join(", ");
    server.ask(&format!("INSERT INTO everything VALUES {rows}"));
    let place = Place::new();
    let log = place.log();
    let running = copies::<(String, i32), Everything>(source(&server.url(), "everything"))
        .start(&log)
        .unwrap();
    until("they are copied", || {
        committed(&log, "changes").len() == keys.len()
    });
    server.ask(
        "UPDATE everything SET number = number + 100; DELETE FROM everything WHERE region = 'B'",
    );
    until("they are there", || {
        committed(&log, "changes").len() == 3 * keys.len() + 1
    });
    wait(running.stop()).unwrap();
    let changes = changes_of::<(String, i32), Everything>(&log);
    let mut copied: Vec<_> = changes
        .iter()
        .filter_map(|it| Some((it.kind, it.row.clone()?)))
        .collect();
    copied
        .sort_by_key(|(kind, row)| (*kind != RowChangeKind::Copy, row.region.clone(), row.number));
    assert_eq!(copied.len(), 2 * keys.len());
    let (first, later) = copied.split_at(keys.len());
    for ((_, first), (kind, later)) in first.iter().zip(later) {
        assert_eq!(*kind, RowChangeKind::Insert);
        let number = first.number + 100;
        assert_eq!(
            *later,
            Everything {
                number,
                ..first.clone()
            }
        );
    }
    let one = &first[0].1;
    assert_eq!(
        (one.price.as_str(), one.weight, one.is_open),
        ("12.30", 0.1, true)
    );
    assert_eq!(
        (one.at.as_str(), one.code.as_str()),
        ("2026-11-28 10:00:00+00", "ab   ")
    );
    assert_eq!(one.document, serde_json::json!({"a": [1, null]}));
    assert_eq!(one.bytes.as_deref(), Some("\\x00ff"));
    let last = changes.last().unwrap();
    assert_eq!(
        (last.kind, last.key.clone()),
        (RowChangeKind::Delete, ("B".to_owned(), 102))
    );
    log.close().unwrap();
}
