//! Word count equals a plain count, whatever the workers, stops and restarts.

use onceflow::client::wait;
use onceflow::prelude::*;

use super::support::{
    AT_THE_END, OFTEN, Place, append, assert_counted, plain_count, run, text, until, word_count,
};

#[test]
fn word_count_equals_a_plain_count_with_one_two_and_four_workers() {
    for workers in [1, 2, 4] {
        let place = Place::new();
        let texts = [text(1, 1500), text(2, 700), String::new(), text(3, 30)];
        let paths = texts
            .iter()
            .zip(["a", "b", "c", "d"])
            .map(|(text, name)| place.file(name, text));
        let log = place.log();
        let job = word_count(lines(paths.collect::<Vec<_>>()));
        run(
            job.exactly_once(Commit::every(OFTEN)).workers(workers),
            &log,
        )
        .unwrap();
        assert_counted(&log, &plain_count(texts.iter().map(String::as_str)));
        log.close().unwrap();
    }
}

#[test]
fn a_restart_with_other_workers_goes_on_where_the_last_commit_was() {
    let place = Place::new();
    let mut all = String::new();
    for (round, workers) in [2, 1, 4, 3].into_iter().enumerate() {
        all.push_str(&text(round as u64, 400));
        let path = place.file("book", &all);
        let log = place.log();
        let job = word_count(lines([&path])).exactly_once(Commit::every(OFTEN));
        run(job.workers(workers), &log).unwrap();
        assert_counted(&log, &plain_count([all.as_str()]));
        log.close().unwrap();
    }
}

#[test]
fn a_job_stopped_at_any_moment_loses_and_doubles_nothing() {
    let place = Place::new();
    let mut all = String::new();
    for round in 0..6 {
        all.push_str(&text(round, 12_000));
        let path = place.file("book", &all);
        let log = place.log();
        let commit = Commit::every(OFTEN).or_records(5_000);
        let job = word_count(lines([&path]).follow()).exactly_once(commit);
        let running = job.workers(2).start(&log).unwrap();
        until("it committed", || running.commits() > 0);
        wait(running.stop()).unwrap();
        log.close().unwrap();
    }
    let path = place.path("book");
    let log = place.log();
    run(
        word_count(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    assert_counted(&log, &plain_count([all.as_str()]));
}

#[test]
fn a_job_that_finds_nothing_new_changes_nothing() {
    let place = Place::new();
    let all = text(5, 100);
    let path = place.file("book", &all);
    let log = place.log();
    for _ in 0..3 {
        run(
            word_count(lines([&path])).exactly_once(Commit::every(AT_THE_END)),
            &log,
        )
        .unwrap();
        assert_counted(&log, &plain_count([all.as_str()]));
    }
}

#[test]
fn a_followed_file_is_counted_as_it_grows() {
    let place = Place::new();
    let path = place.file("book", "a b\n");
    let log = place.log();
    let job = word_count(lines([&path]).follow()).exactly_once(Commit::every(OFTEN));
    let running = job.start(&log).unwrap();
    let mut all = "a b\n".to_owned();
    for line in ["b c\n", "half of a ", "line\nand more\n"] {
        until("what was there is committed", || {
            let whole = &all[..all.rfind('\n').unwrap() + 1];
            let records = super::support::committed(&log, "word-counts").len();
            records == whole.split_whitespace().count()
        });
        all.push_str(line);
        // Written anew, it would be empty for a moment, which is an error (X5).
        append(&path, line);
    }
    until("the last line is committed", || {
        super::support::committed(&log, "word-counts").len() == all.split_whitespace().count()
    });
    wait(running.stop()).unwrap();
    assert_counted(&log, &plain_count([all.as_str()]));
}
