//! `onceflow savepoint` with a job that runs, and `onceflow state` with one that is stopped.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::{Cli, snapshot};
use crate::jobs::support::{run, until};

fn counts(is_endless: bool) -> Launch {
    let job = Job::new("word-count");
    let lines = topic::<str>("lines");
    let lines = if is_endless { lines } else { lines.until_end() };
    job.source(lines)
        .flat_map(crate::jobs::support::words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("counts"));
    job.exactly_once(Commit::every(std::time::Duration::from_millis(5)))
        .state_partitions(4)
}

fn with_lines(lines: &[u8]) -> Cli {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", lines);
    cli
}

/// The lines of an output, sorted, without the state partition in front.
fn entries(scanned: &str) -> Vec<String> {
    let entry = |line: &str| line.split_once('\t').unwrap().1.to_owned();
    let mut entries: Vec<String> = scanned.lines().map(entry).collect();
    entries.sort();
    entries
}

#[test]
fn a_running_job_is_asked_for_a_savepoint_and_goes_back_to_it() {
    let cli = with_lines(b"tea cup tea\n");
    let place = |name: &str| cli.directory.path().join(name).display().to_string();
    let log = Log::embedded(cli.data()).unwrap();
    let running = counts(true).start(&log).unwrap();
    until("the line is read", || running.progress().records == 1);
    let first = place("first");
    let create = format!("savepoint create {first} --job word-count");
    assert_eq!(cli.ok(&create).trim(), first);
    let again = cli.fails(&create);
    assert!(again.contains("the path exists"), "{again}");
    let other = cli.fails(&format!("savepoint create {} --job tally", place("other")));
    assert!(other.contains("no state of a job"), "{other}");
    wait(running.stop()).unwrap();
    log.close().unwrap();
    let stopped = cli.fails(&format!(
        "savepoint create {} --job word-count --wait 0",
        place("second")
    ));
    assert!(stopped.contains("does not run"), "{stopped}");

    let verified = cli.ok(&format!("savepoint verify {first}"));
    assert!(verified.contains("is whole"), "{verified}");
    let shown = cli.ok(&format!("savepoint inspect {first}"));
    assert!(shown.contains("lines-0 at 1"), "{shown}");
    let listed = cli.ok(&format!("savepoint list {}", place("")));
    assert!(listed.contains("word-count"), "{listed}");

    cli.ok_with_input("produce lines", b"tea\n");
    let log = Log::embedded(cli.data()).unwrap();
    run(counts(false), &log).unwrap();
    log.close().unwrap();
    let state = cli.data().join("state/word-count").display().to_string();
    let scan = format!("state scan {state} counts");
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t3"]);
    let restored = cli.ok(&format!("savepoint restore {first}"));
    assert!(
        restored.contains("1 rows of state written, 1 positions set"),
        "{restored}"
    );
    let log = Log::embedded(cli.data()).unwrap();
    let again = run(counts(false), &log).unwrap();
    assert_eq!(again.records, 1, "it reads the second line again");
    log.close().unwrap();
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t3"]);
    let scan = format!("state scan {first} counts");
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t2"]);
}

#[test]
fn u10_a_savepoint_of_a_stopped_job_is_taken_from_its_log_and_a_job_begins_anew() {
    let cli = with_lines(b"tea cup tea\n");
    let first = cli.directory.path().join("first").display().to_string();
    let create = format!("savepoint create {first} --stopped --job word-count");
    let unknown = cli.fails(&create);
    assert!(unknown.contains("knows no job"), "{unknown}");
    let count = || {
        let log = Log::embedded(cli.data()).unwrap();
        let summary = run(counts(false), &log).unwrap();
        log.close().unwrap();
        summary.records
    };
    assert_eq!(count(), 1);
    assert_eq!(cli.ok(&create).trim(), first);
    let shown = cli.ok(&format!("savepoint inspect {first}"));
    assert!(shown.contains("lines-0 at 1"), "{shown}");
    let again = cli.fails(&create);
    assert!(again.contains("the path exists"), "{again}");
    cli.ok_with_input("produce lines", b"tea\n");
    assert_eq!(count(), 1);

    let asked = cli.run(&["job", "begin-anew", "word-count"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.err.contains("--yes"), "{asked:?}");
    let other = cli.fails("job begin-anew tally --yes");
    assert!(other.contains("does not know it"), "{other}");
    let given_up = cli.ok("job begin-anew word-count --yes");
    assert!(
        given_up.contains("2 rows of state given up, 1 positions set"),
        "{given_up}"
    );
    assert_eq!(count(), 2, "all is read again");
    let state = cli.data().join("state/word-count").display().to_string();
    let scan = format!("state scan {state} counts");
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t3"]);
    cli.ok(&format!("savepoint restore {first}"));
    assert_eq!(count(), 1, "it reads the second line again");
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t3"]);
    let scan = format!("state scan {first} counts");
    assert_eq!(entries(&cli.ok(&scan)), ["cup\t1", "tea\t2"]);
}

#[test]
fn a_damaged_savepoint_is_named() {
    let cli = with_lines(b"tea\n");
    let path = cli.directory.path().join("savepoint");
    let log = Log::embedded(cli.data()).unwrap();
    let running = counts(true).start(&log).unwrap();
    until("the line is read", || running.progress().records == 1);
    wait(running.savepoint(&path)).unwrap();
    wait(running.stop()).unwrap();
    log.close().unwrap();
    std::fs::write(path.join("meta.json"), "{}").unwrap();
    let at = path.display();
    let damaged = cli.fails(&format!("savepoint verify {at}"));
    assert!(damaged.contains("meta.json"), "{damaged}");
    std::fs::write(path.join("savepoint.json"), "{}").unwrap();
    let listed = cli.fails(&format!(
        "savepoint list {}",
        cli.directory.path().display()
    ));
    assert!(listed.contains("1 of them cannot be opened"), "{listed}");
}

#[test]
fn the_state_of_a_stopped_job_is_shown_and_not_changed() {
    let cli = with_lines(b"tea cup tea\n");
    let log = Log::embedded(cli.data()).unwrap();
    run(counts(false), &log).unwrap();
    log.close().unwrap();
    let before = snapshot(&cli.data());
    let state = cli.data().join("state/word-count").display().to_string();
    let listed = cli.ok(&format!("state list {state}"));
    for part in ["counts", "text", "u64", "4"] {
        assert!(listed.contains(part), "{listed}");
    }
    assert_eq!(cli.ok(&format!("state get {state} counts tea")), "2\n");
    assert_eq!(cli.ok(&format!("state get {state} counts 0x637570")), "1\n");
    let scanned = cli.ok(&format!("state scan {state} counts"));
    assert_eq!(entries(&scanned), ["cup\t1", "tea\t2"]);
    let one = cli.ok(&format!("state scan {state} counts --max 1"));
    assert_eq!(one.lines().count(), 1);
    let counted = cli.ok(&format!("state stats {state}"));
    assert_eq!(counted.lines().count(), 1 + 4, "{counted}");
    let absent = cli.fails(&format!("state get {state} counts milk"));
    assert!(absent.contains("no such key"), "{absent}");
    let unknown = cli.fails(&format!("state scan {state} tally"));
    assert!(unknown.contains("there are counts"), "{unknown}");
    let nowhere = cli.fails(&format!("state list {}", cli.data().display()));
    assert!(nowhere.contains("holds no state of a job"), "{nowhere}");
    let none = cli.fails(&format!("state scan {state} counts --partition 4"));
    assert!(none.contains("4 is none"), "{none}");
    assert_eq!(snapshot(&cli.data()), before);
}

#[test]
fn rows_with_a_time_are_shown_with_it() {
    let cli = with_lines(b"tea\ncup\ntea\n");
    let log = Log::embedded(cli.data()).unwrap();
    let job = Job::new("cups");
    let hour = std::time::Duration::from_secs(3_600);
    job.source(topic::<str>("lines"))
        .event_time(|_| 60_000, Watermarks::default())
        .key_by_ref(|word: &str| word)
        .window(FixedWindows::tumbling(hour))
        .count("per-hour")
        .sink(topic("per-hour"));
    let running = job.exactly_once(Commit::default()).start(&log).unwrap();
    until("the lines are read", || running.progress().records == 3);
    wait(running.stop()).unwrap();
    log.close().unwrap();
    let state = cli.data().join("state/cups").display().to_string();
    let scanned = cli.ok(&format!("state scan {state} per-hour"));
    let entries = entries(&scanned);
    for row in ["cup at 3600000\t1", "tea at 3600000\t2"] {
        assert!(
            entries.iter().any(|entry| entry == row),
            "{row:?} of {entries:?}"
        );
    }
}

/// Sums words by their length; the later build keeps text.
fn sums(is_later: bool) -> Launch {
    let job = Job::new("sums");
    let words = job
        .source(topic::<str>("lines").until_end())
        .flat_map(crate::jobs::support::words)
        .key_by(|word: &str| word.len() as u64);
    match is_later {
        false => words.count("sums").materialize(),
        true => words
            .aggregate("sums", String::default, |sum, _| {
                *sum = (sum.parse::<u64>().unwrap_or(0) + 1).to_string();
            })
            .migrate_from(1, |sum: u64| sum.to_string())
            .materialize(),
    }
    job.exactly_once(Commit::every(std::time::Duration::from_millis(5)))
        .state_partitions(2)
}

#[test]
fn u9_the_state_of_a_stopped_job_is_shown_with_the_version_of_each_value() {
    let cli = with_lines(b"tea cup milk\n");
    let log = Log::embedded(cli.data()).unwrap();
    run(sums(false), &log).unwrap();
    log.close().unwrap();
    cli.ok_with_input("produce lines", b"wine\n");
    let log = Log::embedded(cli.data()).unwrap();
    run(sums(true), &log).unwrap();
    log.close().unwrap();
    let state = cli.data().join("state/sums").display().to_string();
    let get = |key: &str| cli.ok(&format!("state get {state} sums {key}"));
    assert_eq!(get("3").trim(), "version 1: 2");
    assert_eq!(get("4").trim(), "version 2: 2");
    let listed = cli.ok(&format!("state list {state}"));
    assert!(listed.contains("2 (1)"), "{listed}");
}
