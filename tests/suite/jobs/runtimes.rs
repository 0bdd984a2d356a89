//! X20: no call panics or stands still, whatever runtime it is called from, and the reason reaches the caller.

use std::net::TcpListener;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::support::{AT_THE_END, Place, committed_values};

/// Runs `check` without a runtime, and inside each kind of them.
fn everywhere(check: impl Fn()) {
    check();
    let timers_only = tokio::runtime::Builder::new_current_thread().build();
    timers_only.unwrap().block_on(async { check() });
    let one_thread = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    one_thread.unwrap().block_on(async { check() });
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    threads.unwrap().block_on(async { check() });
}

#[test]
fn x20_listening_on_a_busy_port_is_an_error_in_every_runtime() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    everywhere(|| {
        let place = Place::new();
        let log = place.log();
        let error = log.listen(&address).unwrap_err().to_string();
        assert!(error.contains(&address), "{error}");
        drop(log.listen("127.0.0.1:0").unwrap());
        log.close().unwrap();
    });
}

#[test]
fn x20_a_job_runs_in_every_runtime_and_in_none() {
    everywhere(|| {
        let place = Place::new();
        let log = place.log();
        let job = Job::new("copy");
        job.source(values("numbers", 0..3u64))
            .sink(topic("out").partitions(1));
        wait(job.exactly_once(Commit::every(AT_THE_END)).run(&log)).unwrap();
        assert_eq!(committed_values::<u64>(&log, "out"), [0, 1, 2]);
        log.close().unwrap();
    });
}

#[test]
fn x20_a_data_directory_without_a_parent_is_told_as_that() {
    everywhere(|| {
        let folder = tempfile::tempdir().unwrap();
        let error = Log::embedded(folder.path().join("a/b")).err().unwrap();
        assert!(error.to_string().contains("does not exist"), "{error}");
        let told = format!("{error:?}");
        assert!(!told.contains("Policy"), "{told}");
    });
}
