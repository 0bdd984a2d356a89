//! `onceflow crash-test`: a right job holds through its kills, a wrong one is told apart, on a data directory and on a real Kafka.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::prelude::*;
use onceflow::types::{TopicName, TopicPartition, TransactionalId};

use super::{Cli, Done, finish, onceflow};
use crate::on_kafka::stage::{Stage, stage};
use crate::support::records::now;

/// Where the job's process finds its log, which job it runs, and what its names end in.
const LOG: &str = "CRASH_TEST_LOG";
const JOB: &str = "CRASH_TEST_JOB";
const RUN: &str = "CRASH_TEST_RUN";
/// Each record takes so long, so that kills find the job at work.
const SLOWLY: Duration = Duration::from_millis(5);
const RECORDS: usize = 900;

/// Starts this binary as the job's process.
const SCRIPT: &str = r#"CRASH_TEST_LOG="$0" CRASH_TEST_JOB="$1" CRASH_TEST_RUN="$3" exec "$2" --exact cli::crash_test::the_job --ignored"#;

fn counts(log: &Log, run: &str) -> anyhow::Result<()> {
    let job = Job::new(&format!("counts{run}"));
    job.source(topic::<str>(&format!("words{run}")).codec(Text))
        .inspect(|_: &str| std::thread::sleep(SLOWLY))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic(&format!("word-counts{run}")));
    launch(job, log)
}

/// Drops words that were seen before, and forgets which ones when its process dies.
fn firsts(log: &Log, run: &str) -> anyhow::Result<()> {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let job = Job::new(&format!("firsts{run}"));
    job.source(topic::<str>(&format!("words{run}")).codec(Text))
        .inspect(|_: &str| std::thread::sleep(SLOWLY))
        .filter(move |word: &str| seen.lock().unwrap().insert(word.to_owned()))
        .key_by_ref(|word: &str| word)
        .count("firsts")
        .changes()
        .sink(topic(&format!("word-counts{run}")));
    launch(job, log)
}

fn launch(job: Job, log: &Log) -> anyhow::Result<()> {
    let launch = job.exactly_once(Commit::every(Duration::from_millis(20)));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(launch.run(log))?;
    Ok(())
}

#[test]
#[ignore = "the process of the job, which is killed"]
fn the_job() {
    let log = Log::open(&std::env::var(LOG).unwrap()).unwrap();
    let run = std::env::var(RUN).unwrap();
    match std::env::var(JOB).unwrap().as_str() {
        "counts" => counts(&log, &run).unwrap(),
        "firsts" => firsts(&log, &run).unwrap(),
        _ => panic!("the job fails at once"),
    }
    log.close().unwrap();
}

fn words() -> String {
    (0..RECORDS).map(|n| format!("w{}\n", n % 7)).collect()
}

/// A data directory with words to count.
fn cli_with_words() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create words --partitions 2");
    cli.ok_with_input("produce words", words().as_bytes());
    cli
}

fn crash_test(cli: &Cli, job: &str, options: &[&str]) -> Done {
    crash_test_of(cli, job, "", options)
}

/// Tests the job whose names end in `run`.
fn crash_test_of(cli: &Cli, job: &str, run: &str, options: &[&str]) -> Done {
    let suite = std::env::current_exe().unwrap().display().to_string();
    let program = ["--", "-c", SCRIPT, "{data}", job, &suite, run];
    let arguments = ["crash-test", "--bin", "sh"];
    let all: Vec<&str> = arguments
        .iter()
        .chain(options)
        .chain(&program)
        .copied()
        .collect();
    let mut command = onceflow(&all);
    // On Kafka the job's state is in a folder where it is started.
    command
        .env("ONCEFLOW_DATA", cli.data())
        .current_dir(cli.directory.path());
    finish(command, b"")
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

/// A cluster, and words to count on it, in topics that end in `run`.
struct Cluster {
    cli: Cli,
    url: String,
    run: &'static str,
}

impl Cluster {
    fn with_words(stage: &Stage, run: &'static str) -> Self {
        let url = format!("kafka://{}", stage.cluster.bootstrap());
        let cli = Cli::new();
        cli.ok(&format!(
            "topic create words{run} --partitions 2 --log {url}"
        ));
        let produce = format!("produce words{run} --log {url}");
        cli.ok_with_input(&produce, words().as_bytes());
        Self { cli, url, run }
    }

    fn crash_test(&self, job: &str, options: &[&str]) -> Done {
        let name = format!("{job}{}", self.run);
        let place = ["--log", &self.url, "--job", &name];
        let options: Vec<&str> = place.iter().chain(options).copied().collect();
        crash_test_of(&self.cli, job, self.run, &options)
    }
}

#[test]
fn on_kafka_a_right_job_holds_through_its_kills() {
    let Some(stage) = stage() else { return };
    let cluster = Cluster::with_words(&stage, "-ct-right");
    let compared = ["--compare", "word-counts-ct-right"];
    let kills = ["--longest", "4000", "--kills", "8", "--seed", "5"];
    let options: Vec<&str> = kills.iter().chain(&compared).copied().collect();
    let done = cluster.crash_test("counts", &options);
    assert_eq!(done.code, 0, "{done:?}");
    for found in [
        "kills         8",
        "positions     2 of topics",
        "transactions  2 ids",
        "compared      word-counts-ct-right: 900 records, 7 keys",
        "all of it holds (--seed 5)",
    ] {
        assert!(done.out.contains(found), "{found:?}: {done:?}");
    }
    // The state of a job that has read something is not given up without a word.
    let done = cluster.crash_test("counts", &options);
    assert_eq!(done.code, 1, "{done:?}");
    let advice = "onceflow job begin-anew counts-ct-right";
    assert!(done.err.contains(advice), "{done:?}");
    // Nor is it that of any job of the cluster.
    let nobody = crash_test_of(&cluster.cli, "counts", "", &["--log", &cluster.url]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
    assert!(nobody.err.contains("--job NAME"), "{nobody:?}");
}

#[test]
fn on_kafka_a_job_that_keeps_state_outside_of_its_stores_is_told() {
    let Some(stage) = stage() else { return };
    let cluster = Cluster::with_words(&stage, "-ct-wrong");
    let compared = ["--compare", "word-counts-ct-wrong", "--json"];
    let kills = ["--longest", "4000", "--kills", "6"];
    let options: Vec<&str> = kills.iter().chain(&compared).copied().collect();
    let done = cluster.crash_test("firsts", &options);
    assert_eq!(done.code, 1, "{done:?}");
    let told: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{told}");
    let problem = problems[0].as_str().unwrap();
    assert!(problem.contains("records instead of 1"), "{told}");
}

/// An instance of the job left a transaction open: readers wait before it, and those who see less than was written are not wrong.
#[test]
fn on_kafka_a_transaction_that_is_left_open_is_told() {
    let Some(stage) = stage() else { return };
    let cluster = Cluster::with_words(&stage, "-ct-open");
    let log = Log::open(&cluster.url).unwrap();
    let id = TransactionalId::new("counts-ct-open@gone-0").unwrap();
    let timeout = Duration::from_secs(600);
    let writer = wait(TransactionalWriter::init(log.transport(), id, timeout)).unwrap();
    let words = TopicName::new("words-ct-open").unwrap();
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(now(), None, Some(b"late"));
    let mut partition = writer.partition(&TopicPartition::new(words, 0));
    partition.append(&mut batch).unwrap();
    let done = cluster.crash_test("counts", &["--kills", "0"]);
    assert_eq!(done.code, 1, "{done:?}");
    let open = "WRONG: the transaction of counts-ct-open@gone-0 has not ended";
    assert!(done.out.contains(open), "{done:?}");
    assert!(done.out.contains("transactions  3 ids"), "{done:?}");
    assert_eq!(done.out.matches("WRONG").count(), 1, "{done:?}");
}
