//! State that was lost or damaged while the job stood still is rebuilt from its changelog (S4).

use std::fs;
use std::path::{Path, PathBuf};

use onceflow::prelude::*;

use super::support::{
    OFTEN, Place, assert_counted, committed_values, plain_count, run, text, until, word_count,
};

/// Runs word count over two halves, with `damage` done to the state's folder in between.
fn survives(what: &str, damage: impl Fn(&Path)) {
    let place = Place::new();
    let half = text(11, 500);
    let path = place.file("book", &half);
    let launch = || word_count(lines([&path])).exactly_once(Commit::every(OFTEN));
    let log = place.log();
    run(launch(), &log).unwrap();
    log.close().unwrap();

    damage(&place.state_dir("word-count"));
    let whole = format!("{half}{}", text(12, 500));
    place.file("book", &whole);
    let log = place.log();
    let mut result = run(launch(), &log);
    if let Err(JobError::State(error)) = &result {
        // Damage that shows only when it is read is marked, and mended by the next start.
        assert!(
            error.to_string().contains("start the job again"),
            "{what}: {error}"
        );
        result = run(launch(), &log);
    }
    result.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_counted(&log, &plain_count([whole.as_str()]));
    log.close().unwrap();
}

fn files_of(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_of(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

#[test]
fn s4_a_deleted_state_folder_is_rebuilt() {
    survives("deleted", |folder| fs::remove_dir_all(folder).unwrap());
}

#[test]
fn s4_a_corrupt_table_is_noticed_and_rebuilt() {
    survives("corrupt", |folder| {
        let tables = files_of(folder, "sst");
        assert!(!tables.is_empty(), "a clean end leaves tables");
        for table in tables {
            let mut bytes = fs::read(&table).unwrap();
            let middle = bytes.len() / 2;
            bytes[..middle].fill(0xa5);
            fs::write(&table, bytes).unwrap();
        }
    });
}

#[test]
fn s4_a_half_copied_folder_is_rebuilt() {
    survives("half copied", |folder| {
        let tables = files_of(folder, "sst");
        fs::remove_file(&tables[0]).unwrap();
    });
}

#[test]
fn s4_a_folder_without_its_manifest_is_rebuilt() {
    survives("no manifest", |folder| {
        let found = files_named(folder, "CURRENT");
        assert!(!found.is_empty());
        found
            .into_iter()
            .for_each(|path| fs::remove_file(path).unwrap());
    });
}

fn files_named(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_named(&path, name));
        } else if path.file_name().is_some_and(|n| n == name) {
            found.push(path);
        }
    }
    found
}

/// Large values through little memory: what waits for RocksDB passes the bound while a flush is under way, so that
/// the worker must take the next flush itself before it may go on.
#[test]
fn a_job_whose_state_outgrows_its_memory_goes_on() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("large");
    job.source(values("numbers", 0..40_000u64))
        .key_by(|number: &u64| *number)
        .aggregate("texts", String::new, |text, number| {
            *text = format!("{number:01000}");
        })
        .changes()
        .filter(|text: &String| text.ends_with("99"))
        .map(|text: &String| text.len() as u64)
        .sink(topic("lengths"));
    let commit = Commit::every(OFTEN).or_state_bytes(1 << 20);
    let launch = job.exactly_once(commit).memory_bytes(4 << 20);
    let running = launch.start(&log).unwrap();
    until("the job has ended", || running.is_finished());
    onceflow::client::wait(running.finished()).unwrap();
    assert_eq!(committed_values::<u64>(&log, "lengths"), [1000; 400]);
    log.close().unwrap();
}
