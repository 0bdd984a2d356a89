//! Refusals of a job, with the reason, before it touches anything.

use std::io;
use std::sync::Arc;

use onceflow::client::wait;
use onceflow::internals::env::{Env, JoinHandle, Spawn};
use onceflow::prelude::*;

use super::support::{
    AT_THE_END, OFTEN, Place, assert_counted, committed, plain_count, run, text, until, word_count,
};

#[test]
fn f17_a_second_instance_of_a_job_is_refused() {
    let place = Place::new();
    let path = place.file("book", "a b c\n");
    let log = place.log();
    let launch = || word_count(lines([&path]).follow()).exactly_once(Commit::every(OFTEN));
    let running = launch().start(&log).unwrap();
    let error = launch().start(&log).map(drop).unwrap_err();
    assert!(
        matches!(&error, JobError::Fenced { job, .. } if job == "word-count"),
        "{error}"
    );
    until("the first goes on", || running.commits() > 0);
    wait(running.stop()).unwrap();
    // The name is free again.
    run(
        word_count(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    assert_counted(&log, &plain_count(["a b c"]));
}

#[test]
fn f17_a_second_log_on_the_directory_is_refused_with_the_owner() {
    let place = Place::new();
    let log = place.log();
    let error = Log::embedded(place.path("data")).map(drop).unwrap_err();
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    log.close().unwrap();
    Log::embedded(place.path("data")).unwrap();
}

fn counted(store: &str, path: &std::path::Path) -> Job {
    let job = Job::new("word-count");
    job.source(lines([path]))
        .flat_map(super::support::words)
        .key_by_ref(|word: &str| word)
        .count(store)
        .changes()
        .sink(topic("word-counts"));
    job
}

#[test]
fn a_job_that_would_lose_its_state_is_refused_and_keeps_it() {
    let place = Place::new();
    let all = text(3, 200);
    let path = place.file("book", &all);
    let log = place.log();
    let often = Commit::every(OFTEN);
    let first = counted("counts", &path)
        .exactly_once(often)
        .state_partitions(8);
    run(first, &log).unwrap();
    let more = format!("{all}more words\n");
    place.file("book", &more);

    let renamed = run(
        counted("tally", &path)
            .exactly_once(often)
            .state_partitions(8),
        &log,
    )
    .unwrap_err();
    assert!(renamed.to_string().contains("counts"), "{renamed}");
    let repartitioned = run(
        counted("counts", &path)
            .exactly_once(often)
            .state_partitions(4),
        &log,
    )
    .unwrap_err();
    assert!(
        repartitioned.to_string().contains("8 state partitions"),
        "{repartitioned}"
    );
    let job = Job::new("word-count");
    job.source(lines([&path]))
        .flat_map(super::support::words)
        .key_by_ref(|word: &str| word)
        .aggregate("counts", String::new, |all, word: &str| all.push_str(word))
        .changes()
        .sink(topic("word-counts"));
    let retyped = run(job.exactly_once(often), &log).unwrap_err();
    assert!(
        retyped.to_string().contains("values of the type u64"),
        "{retyped}"
    );

    assert_counted(&log, &plain_count([all.as_str()]));
    run(counted("counts", &path).exactly_once(often), &log).unwrap();
    assert_counted(&log, &plain_count([more.as_str()]));
}

#[test]
fn a_store_is_given_up_only_when_that_is_said() {
    let place = Place::new();
    let path = place.file("book", "a b a\n");
    let log = place.log();
    let launch = |store| counted(store, &path).exactly_once(Commit::every(OFTEN));
    run(launch("counts"), &log).unwrap();
    place.file("book", "a b a\na\n");
    run(launch("tally"), &log).unwrap_err();
    run(launch("tally").forget("counts"), &log).unwrap();
    let counts = super::support::committed_by_key::<str, u64>(&log, "word-counts");
    assert_eq!(counts["a"], [1, 2, 1], "the new store began anew");
    run(launch("tally"), &log).unwrap();
}

#[test]
fn names_that_could_be_paths_are_refused_in_sinks_sources_stores_and_jobs() {
    let place = Place::new();
    let log = place.log();
    let long = "n".repeat(250);
    for name in ["../escape", "a/b", "nul\0", "", "..", long.as_str()] {
        let job = Job::new("sinks");
        job.source(values("n", 0..3u64)).sink(topic(name));
        let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        assert!(
            matches!(error, JobError::Topology { .. }),
            "sink {name:?}: {error}"
        );

        let job = Job::new("sources");
        job.source(topic::<str>(name).until_end())
            .sink(topic("out"));
        let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        let is_name = matches!(error, JobError::Topology { .. } | JobError::Name(_));
        assert!(is_name, "source {name:?}: {error}");

        let job = Job::new("stores");
        job.source(values("n", 0..3u64))
            .key_by(|n| *n)
            .count(name)
            .changes()
            .sink(topic("out"));
        let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        assert!(
            matches!(error, JobError::Topology { .. }),
            "store {name:?}: {error}"
        );

        let job = Job::new(name);
        job.source(values("n", 0..3u64)).sink(topic("out"));
        run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    }
    assert_eq!(committed(&log, "out"), []);
    assert!(!place.path("escape").exists() && !place.path("data/escape").exists());
}

#[test]
fn a_job_without_a_source_or_with_two_of_one_name_is_refused() {
    let place = Place::new();
    let log = place.log();
    let error = run(
        Job::new("empty").exactly_once(Commit::every(AT_THE_END)),
        &log,
    )
    .unwrap_err();
    assert!(error.to_string().contains("no source"), "{error}");

    let job = Job::new("twins");
    job.source(values("n", 0..3u64)).sink(topic("out"));
    job.source(values("n", 0..3u64)).sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(AT_THE_END)), &log).unwrap_err();
    assert!(error.to_string().contains("two sources"), "{error}");

    let job = Job::new("twins");
    let path = place.file("a", "a\n");
    job.source(lines([&path, &path])).sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(AT_THE_END)), &log).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

/// A machine that has no thread of this name left.
struct Without {
    name: &'static str,
    spawn: Arc<dyn Spawn>,
}

impl Spawn for Without {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn JoinHandle>> {
        match name == self.name {
            true => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            false => self.spawn.spawn(name, body),
        }
    }

    fn parallelism(&self) -> usize {
        self.spawn.parallelism()
    }
}

#[test]
fn a_thread_that_cannot_be_started_is_named() {
    for name in ["of-driver", "of-flush", "of-worker-1"] {
        let place = Place::new();
        let path = place.file("book", "a b c\n");
        let real = Env::real();
        let spawn: Arc<dyn Spawn> = Arc::new(Without {
            name,
            spawn: Arc::clone(&real.spawn),
        });
        let log = place.log_in(Env { spawn, ..real });
        let launch = word_count(lines([&path])).exactly_once(Commit::every(OFTEN));
        match run(launch.workers(2), &log).unwrap_err() {
            JobError::Thread { thread, why } => {
                assert_eq!(thread, name);
                assert!(why.contains("could not be started"), "{why}");
            }
            other => panic!("{other}"),
        }
    }
}
