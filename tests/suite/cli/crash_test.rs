//! `onceflow crash-test`: a right job holds through its kills, a wrong one is told apart.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceflow::prelude::*;

use super::{Cli, Done};

/// Where the job's process finds its data directory, and which job it runs.
const DATA: &str = "CRASH_TEST_DATA";
const JOB: &str = "CRASH_TEST_JOB";
/// Each record takes so long, so that kills find the job at work.
const SLOWLY: Duration = Duration::from_millis(5);
const RECORDS: usize = 900;

/// Starts this binary as the job's process.
const SCRIPT: &str = r#"CRASH_TEST_DATA="$0" CRASH_TEST_JOB="$1" exec "$2" --exact cli::crash_test::the_job --ignored"#;

fn counts(log: &Log) -> anyhow::Result<()> {
    let job = Job::new("counts");
    job.source(topic::<str>("words").codec(Text))
        .inspect(|_: &str| std::thread::sleep(SLOWLY))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    run(job, log)
}

/// Drops words that were seen before, and forgets which ones when its process dies.
fn firsts(log: &Log) -> anyhow::Result<()> {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let job = Job::new("firsts");
    job.source(topic::<str>("words").codec(Text))
        .inspect(|_: &str| std::thread::sleep(SLOWLY))
        .filter(move |word: &str| seen.lock().unwrap().insert(word.to_owned()))
        .key_by_ref(|word: &str| word)
        .count("firsts")
        .changes()
        .sink(topic("word-counts"));
    run(job, log)
}

fn run(job: Job, log: &Log) -> anyhow::Result<()> {
    let launch = job.exactly_once(Commit::every(Duration::from_millis(20)));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(launch.run(log))?;
    Ok(())
}

#[test]
#[ignore = "the process of the job, which is killed"]
fn the_job() {
    let log = Log::embedded(std::env::var_os(DATA).unwrap()).unwrap();
    match std::env::var(JOB).unwrap().as_str() {
        "counts" => counts(&log).unwrap(),
        "firsts" => firsts(&log).unwrap(),
        _ => panic!("the job fails at once"),
    }
    log.close().unwrap();
}

/// A data directory with words to count.
fn cli_with_words() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create words --partitions 2");
    let words = (0..RECORDS).map(|n| format!("w{}\n", n % 7));
    cli.ok_with_input("produce words", words.collect::<String>().as_bytes());
    cli
}

fn crash_test(cli: &Cli, job: &str, options: &[&str]) -> Done {
    let suite = std::env::current_exe().unwrap().display().to_string();
    let program = ["--", "-c", SCRIPT, "{data}", job, &suite];
    let arguments = ["crash-test", "--bin", "sh"];
    let all: Vec<&str> = arguments
        .iter()
        .chain(options)
        .chain(&program)
        .copied()
        .collect();
    cli.run(&all)
}

#[test]
fn a_right_job_holds_through_its_kills() {
    let cli = cli_with_words();
    let done = crash_test(
        &cli,
        "counts",
        &[
            "--longest",
            "1200",
            "--kills",
            "12",
            "--seed",
            "5",
            "--compare",
            "word-counts",
        ],
    );
    assert_eq!(done.code, 0, "{done:?}");
    for found in [
        "kills         12",
        "positions     2 of topics",
        "compared      word-counts: 900 records, 7 keys",
        "all of it holds (--seed 5)",
    ] {
        assert!(done.out.contains(found), "{found:?}: {done:?}");
    }
    assert!(done.err.contains("killed 10 of 12 times"), "{done:?}");
    // The reference is gone, and the directory is whole.
    assert_eq!(std::fs::read_dir(cli.directory.path()).unwrap().count(), 1);
    cli.ok("topic list");
}

#[test]
fn a_job_that_keeps_state_outside_of_its_stores_is_told_by_a_comparison() {
    let cli = cli_with_words();
    let done = crash_test(
        &cli,
        "firsts",
        &[
            "--longest",
            "1200",
            "--kills",
            "8",
            "--compare",
            "word-counts",
            "--json",
        ],
    );
    assert_eq!(done.code, 1, "{done:?}");
    let told: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert!(
        told["compared"][0]["differing_keys"].as_u64() > Some(0),
        "{told}"
    );
    let problem = told["problems"][0].as_str().unwrap();
    assert!(
        problem.contains("word-counts differs from a run without kills"),
        "{told}"
    );
    assert!(problem.contains("records instead of 1"), "{told}");
}

#[test]
fn a_program_that_does_not_do_its_work_is_told_from_one_that_was_killed() {
    let cli = cli_with_words();
    let done = crash_test(&cli, "none", &["--kills", "3", "--longest", "60000"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("sh failed by itself"), "{done:?}");
    let idle = "crash-test --bin sh --kills 1 --longest 10 --patience 0 -- -c";
    let mut idle: Vec<&str> = idle.split(' ').collect();
    idle.extend(["exec sleep 60", "{data}"]);
    let done = cli.run(&idle);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out.contains("no job has committed a position"),
        "{done:?}"
    );
    let done = cli.run(&["crash-test", "--bin", "/nonexistent/job", "--kills", "1"]);
    assert!(done.err.contains("/nonexistent/job"), "{done:?}");
}

#[test]
fn kills_that_find_no_job_at_work_prove_nothing() {
    let cli = cli_with_words();
    let done = crash_test(&cli, "counts", &["--kills", "2", "--longest", "1"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out.contains("committed nothing by the last kill"),
        "{done:?}"
    );
}
