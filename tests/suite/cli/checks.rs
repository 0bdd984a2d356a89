//! `onceflow check` with a program that is this very test binary: its job is compared with a lock file, and nothing of it is run.

use std::path::Path;
use std::process::Command;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::{Done, finish, onceflow};

/// Names the folder of the program's data, when this test is the program.
const DATA: &str = "ONCEFLOW_TEST_PROGRAM_DATA";
/// And the name of its store.
const STORE: &str = "ONCEFLOW_TEST_PROGRAM_STORE";

/// The program: it does something only where `check` starts it.
#[test]
fn a_program_with_a_job() {
    let (Ok(data), Ok(store)) = (std::env::var(DATA), std::env::var(STORE)) else {
        return;
    };
    let log = Log::open(&data).unwrap();
    let job = Job::new("sums");
    job.source(values("numbers", 0..10u64))
        .key_by(|n| n % 2)
        .count(&store)
        .changes()
        .sink(topic("counts"));
    let launch = job.exactly_once(Commit::every(std::time::Duration::from_millis(5)));
    let ended = wait(async { launch.start(&log)?.finished().await });
    eprintln!("ended with {ended:?}");
    log.close().unwrap();
}

/// Checks the program with this store.
fn check(folder: &Path, store: &str, data: &str, flags: &[&str]) -> Done {
    let lock = folder.join("job.lock").display().to_string();
    let program = std::env::current_exe().unwrap().display().to_string();
    let arguments = ["check", "--lock", &lock];
    let test = [
        "--exact",
        "cli::checks::a_program_with_a_job",
        "--nocapture",
    ];
    let words = [&arguments, flags, &[program.as_str()], &test].concat();
    let mut command: Command = onceflow(&words);
    command.env(DATA, data).env(STORE, store);
    finish(command, b"")
}

#[test]
fn u7_a_program_is_compared_with_its_lock_file_and_touches_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let (place, data) = (folder.path(), data.as_str());
    let absent = check(place, "counts", data, &[]);
    assert!(
        absent.code == 1 && absent.err.contains("--write"),
        "{absent:?}"
    );
    let written = check(place, "counts", data, &["--write"]);
    assert!(
        written.code == 0 && written.out.contains("commit it"),
        "{written:?}"
    );
    // Neither a directory nor a cluster is touched.
    for log in [data, "kafka://127.0.0.1:1"] {
        let same = check(place, "counts", log, &[]);
        assert!(
            same.code == 0 && same.out.contains("the job sums is as"),
            "{same:?}"
        );
    }
    assert!(!Path::new(data).exists());
    let gone = check(place, "totals", data, &[]);
    assert_eq!(gone.code, 1, "{gone:?}");
    for part in [
        "refused: the store \"counts\" is gone",
        "`.was(\"counts\")`",
        "safe: ",
    ] {
        assert!(gone.err.contains(part), "{part}: {gone:?}");
    }
    let unwritten = check(place, "totals", data, &["--write"]);
    assert!(unwritten.code == 1, "{unwritten:?}");
    let again = check(place, "counts", data, &[]);
    assert_eq!(again.code, 0, "{again:?}");
}

#[test]
fn a_program_that_starts_no_job_is_told_with_its_last_words() {
    let none = onceflow(&["check", "sh", "-c", "echo no such book >&2; exit 3"]);
    let none = finish(none, b"");
    assert!(
        none.code == 1 && none.err.contains("before it started a job"),
        "{none:?}"
    );
    assert!(none.err.contains("no such book"), "{none:?}");
    let absent = finish(onceflow(&["check", "./no-such-program"]), b"");
    assert!(
        absent.code == 1 && absent.err.contains("cannot start"),
        "{absent:?}"
    );
}
