//! Numbers of an earlier life say nothing: jobs that begin anew or go back, and databases that did.

use onceflow::client::wait;
use onceflow::prelude::*;

use super::server::Server;
use super::support::{TABLES, appended, clicks, numbers, writes};
use crate::jobs::support::{Place, run, until};
use crate::time::support::{Click, feed, topic_of_clicks};

fn log_with(place: &Place, all: &[Click]) -> Log {
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, all);
    log
}

#[test]
fn o2_rows_of_a_job_on_a_new_log_appear_in_a_table_with_later_epochs() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let place = Place::new();
    let log = log_with(&place, &clicks(0, 50));
    let running = writes(appended(&server.url()), true)
        .workers(2)
        .start(&log)
        .unwrap();
    for round in 1..=4 {
        feed(&log, "in", 0, &clicks(50 * round, 50));
        let count = usize::try_from(50 * (round + 1)).unwrap();
        until("they are written", || numbers(&server).len() == count);
    }
    wait(running.stop()).unwrap();
    let other = Place::new();
    let log = log_with(&other, &clicks(0, 50));
    run(writes(appended(&server.url()), false).workers(2), &log).unwrap();
    let expected = (0..50).flat_map(|number| [number; 2]).chain(50..250);
    assert!(numbers(&server).into_iter().eq(expected));
}

#[test]
fn o3_a_job_that_went_back_writes_its_rows_again_and_nothing_is_taken_for_written() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let place = Place::new();
    let log = log_with(&place, &clicks(0, 50));
    let launch = || writes(appended(&server.url()), true).workers(2);
    let running = launch().start(&log).unwrap();
    until("then is written", || numbers(&server).len() == 50);
    let savepoint = wait(running.savepoint(place.path("savepoint"))).unwrap();
    feed(&log, "in", 0, &clicks(50, 50));
    until("since is written", || numbers(&server).len() == 100);
    wait(running.stop()).unwrap();
    let other = Place::new();
    let log = log_with(&other, &clicks(0, 50));
    feed(&log, "in", 0, &clicks(50, 50));
    let until_end = || writes(appended(&server.url()), false);
    until_end().restore(&log, &savepoint).unwrap();
    run(until_end().workers(2), &log).unwrap();
    let expected = (0..50).chain((50..100).flat_map(|number| [number; 2]));
    assert!(numbers(&server).into_iter().eq(expected));
}

#[test]
fn o5_a_database_that_was_restored_from_an_older_copy_is_refused_with_what_is_missing() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let place = Place::new();
    let log = log_with(&place, &clicks(0, 50));
    run(writes(appended(&server.url()), false).workers(1), &log).unwrap();
    server.ask("CREATE TABLE copy AS SELECT * FROM onceflow_frontiers");
    feed(&log, "in", 0, &clicks(50, 50));
    run(writes(appended(&server.url()), false).workers(1), &log).unwrap();
    server.ask(
        "DELETE FROM clicks WHERE number >= 50; DELETE FROM onceflow_lineages; DELETE FROM onceflow_frontiers; \
         INSERT INTO onceflow_frontiers SELECT * FROM copy",
    );
    feed(&log, "in", 0, &clicks(100, 50));
    let refused = run(writes(appended(&server.url()), false).workers(1), &log).unwrap_err();
    assert!(
        refused.to_string().contains("restored from an older copy"),
        "{refused}"
    );
    assert_eq!(
        numbers(&server).len(),
        50,
        "nothing was written over the hole"
    );
}

#[test]
fn o4_two_jobs_of_one_name_do_not_write_past_each_other() {
    let Some(server) = Server::start() else {
        return;
    };
    server.ask(TABLES);
    let (place, other) = (Place::new(), Place::new());
    let log = log_with(&place, &clicks(0, 50));
    let first = writes(appended(&server.url()), true)
        .workers(1)
        .start(&log)
        .unwrap();
    until("the first is at work", || numbers(&server).len() == 50);
    let other_log = log_with(&other, &clicks(1_000, 50));
    let second = writes(appended(&server.url()), true)
        .workers(1)
        .start(&other_log)
        .unwrap();
    until("the second is at work", || numbers(&server).len() == 100);
    feed(&log, "in", 0, &clicks(50, 50));
    let error = wait(first.finished()).unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Fenced, "{error}");
    assert!(
        error.to_string().contains("give one of them another name"),
        "{error}"
    );
    assert_eq!(numbers(&server).len(), 100);
    wait(second.stop()).unwrap();
}
