//! Errors at the start, or before anything is committed, for what cannot work; what passes is waited for.

use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::postgres::{Postgres, postgres};

use super::server::Server;
use super::support::{
    TABLES, appended, clicks, latest, latest_in, numbers, replaced, writes, writes_every,
};
use crate::jobs::support::{Place, run, until};
use crate::time::support::{Click, feed, topic_of_clicks};

fn log_of(place: &Place, all: &[Click]) -> Log {
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, all);
    log
}

fn refusal(sink: Postgres<String, Click>, all: &[Click]) -> JobError {
    let place = Place::new();
    let log = log_of(&place, all);
    run(writes(sink, false).workers(1), &log).unwrap_err()
}

#[test]
fn o10_what_cannot_work_is_refused_at_the_start_with_what_to_do() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    server.ask("CREATE TABLE loose (user_name text, number integer)");
    let url = server.url();
    let number =
        |table| postgres(&url, table).column("number", |it: &Record<'_, _, Click>| it.value.1);
    let cases = [
        (number("nowhere"), "relation \"nowhere\" does not exist"),
        (
            number("clicks").column("colour", |_| 1i64),
            "column \"colour\" does not exist",
        ),
        (
            number("loose"),
            "the column number has the type int4, to which values of Rust's i64 do not go",
        ),
        (
            postgres(&url, "loose")
                .text("user_name", |it: &Click| &it.0)
                .upsert_by(["user_name"]),
            "primary key or a unique index",
        ),
        (
            number("clicks").upsert_by(["id"]),
            "`upsert_by` names \"id\"",
        ),
        (
            number("clicks").delete_when(|_| true),
            "`delete_when` needs `upsert_by`",
        ),
        (postgres(&url, "clicks"), "it has no columns"),
        (
            postgres("host", "clicks").key("user_name"),
            "the connection string cannot be read",
        ),
        (
            postgres(&url.replace("dbname=postgres", "dbname=gone"), "clicks").key("user_name"),
            "database \"gone\" does not exist",
        ),
    ];
    for (sink, expected) in cases {
        let error = refusal(sink, &clicks(0, 1));
        assert_eq!(error.kind(), JobErrorKind::Setup, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn o10_a_row_that_the_database_refuses_stops_the_job_before_its_commit() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    server.ask("ALTER TABLE clicks ADD CHECK (number <> 3)");
    let place = Place::new();
    let log = log_of(&place, &clicks(0, 10));
    let launch = || writes(appended(&server.url()), false).workers(1);
    let error = run(launch(), &log).unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Setup);
    assert!(
        error.to_string().contains("violates check constraint"),
        "{error}"
    );
    assert!(numbers(&server).len() < 10);
    server.ask("ALTER TABLE clicks DROP CONSTRAINT clicks_number_check");
    run(launch(), &log).unwrap();
    assert!(numbers(&server).into_iter().eq(0..10));
    assert_eq!(server.number("SELECT count(*) FROM onceflow_pending"), 0);
}

#[test]
fn o10_a_null_where_none_may_be_is_a_poison_record() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask("CREATE TABLE clicks (number bigint NOT NULL)");
    let sink = postgres(&server.url(), "clicks").column("number", |it: &Record<'_, _, Click>| {
        (it.value.1 != 3).then_some(it.value.1)
    });
    let error = refusal(sink, &clicks(0, 10));
    assert_eq!(error.kind(), JobErrorKind::Poison, "{error}");
    assert!(
        error
            .to_string()
            .contains("the column number may not be null"),
        "{error}"
    );
}

#[test]
fn o6_a_server_that_goes_away_is_waited_for_and_nothing_is_lost_or_doubled() {
    let Some(mut server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let place = Place::new();
    let log = log_of(&place, &clicks(0, 50));
    let running = writes(appended(&server.url()), true)
        .workers(2)
        .start(&log)
        .unwrap();
    let mut count = 50;
    for _ in 0..5 {
        until("they are written", || {
            numbers(&server).len() == usize::try_from(count).unwrap()
        });
        server.kill();
        feed(&log, "in", 0, &clicks(count, 50));
        count += 50;
        server.start_again();
    }
    until("all are written", || {
        numbers(&server).into_iter().eq(0..count)
    });
    wait(running.stop()).unwrap();
}

#[test]
fn a_server_that_stays_away_ends_the_job_with_an_error_that_says_so() {
    let Some(mut server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    server.kill();
    let error = refusal(
        appended(&server.url()).patience(Duration::from_millis(100)),
        &clicks(0, 1),
    );
    assert_eq!(error.kind(), JobErrorKind::Retriable, "{error}");
    assert!(
        error
            .to_string()
            .contains("cannot be written at the moment"),
        "{error}"
    );
    server.start_again();
}

#[test]
fn rows_of_one_key_from_several_workers_in_one_commit_do_not_stop_the_job() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask("CREATE TABLE one (id integer PRIMARY KEY, number bigint)");
    let place = Place::new();
    let log = log_of(&place, &clicks(0, 500));
    let sink = postgres(&server.url(), "one")
        .column("id", |_| 1i32)
        .column("number", |it: &Record<'_, _, Click>| it.value.1)
        .upsert_by(["id"]);
    run(writes(sink, false).workers(3), &log).unwrap();
    assert_eq!(server.number("SELECT count(*) FROM one"), 1);
}

#[test]
fn a_cycle_larger_than_a_chunk_is_written_whole() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let all = clicks(0, 70_000);
    for sink in [appended(&server.url()), replaced(&server.url())] {
        let place = Place::new();
        let log = log_of(&place, &all[..1]);
        all[1..]
            .chunks(5_000)
            .for_each(|chunk| feed(&log, "in", 0, chunk));
        let launch = writes_every(sink, false, Duration::from_secs(15)).workers(1);
        run(launch, &log).unwrap();
    }
    let epochs = server.number("SELECT sum(epoch) FROM onceflow_frontiers");
    assert!(epochs < 10, "cycles were large: {epochs} for two tables");
    assert!(numbers(&server).into_iter().eq(0..70_000));
    assert_eq!(latest_in(&server), latest(&all));
}
