//! Groups as an operator sees them: who is in them, and where their positions are and go.

use std::time::{Duration, Instant};

use onceflow::broker::BrokerConfig;
use onceflow::client::consumer::{Consumer, ConsumerConfig};
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::testing::Env;
use onceflow::types::{Durability, GroupId, TopicName};

use super::Cli;

/// Longest time for a condition to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The columns of the row that begins with this topic and partition.
fn row(table: &str, place: &str) -> Vec<String> {
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned));
    let mut rows = lines.map(Iterator::collect::<Vec<_>>);
    let row = rows.find(|row| row.len() > 1 && format!("{}:{}", row[0], row[1]) == place);
    row.unwrap_or_else(|| panic!("no {place} in\n{table}"))
}

/// A topic `lines` of two partitions, with five records in the first of them.
fn filled() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create lines --partitions 2");
    cli.ok_with_input("produce lines --partition 0", b"a\nb\nc\nd\ne\n");
    cli
}

fn position(cli: &Cli, place: &str) -> String {
    row(&cli.ok("group describe readers"), place)[2].clone()
}

#[test]
fn x19_positions_of_a_group_are_moved() {
    let cli = filled();
    let moved = cli.ok("group reset readers --topic lines --to end");
    assert_eq!(row(&moved, "lines:0"), ["lines", "0", "-", "5"]);
    assert_eq!(row(&moved, "lines:1"), ["lines", "1", "-", "0"]);
    assert_eq!(position(&cli, "lines:0"), "5");

    let planned = cli.ok("group reset readers --to earliest --dry-run");
    assert_eq!(row(&planned, "lines:0"), ["lines", "0", "5", "0"]);
    assert_eq!(position(&cli, "lines:0"), "5", "nothing was changed");

    cli.ok("group reset readers --by -2");
    assert_eq!(position(&cli, "lines:0"), "3");
    cli.ok("group reset readers --topic lines:0 --to 1");
    assert_eq!(position(&cli, "lines:0"), "1");
    cli.ok("group reset readers --to latest");
    assert_eq!(position(&cli, "lines:0"), "5");
    cli.ok("group reset readers --to 2000-01-01");
    assert_eq!(position(&cli, "lines:0"), "0");
    cli.ok("group reset readers --to 9000-01-01");
    assert_eq!(position(&cli, "lines:0"), "5");
}

#[test]
fn x19_a_position_outside_of_the_partition_is_said_and_taken_to_its_edge() {
    let cli = filled();
    let arguments = ["group", "reset", "readers", "-t", "lines:0", "--to", "99"];
    let done = cli.run(&arguments);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("no offset 99"), "{done:?}");
    assert_eq!(position(&cli, "lines:0"), "5");
    for by in ["-9223372036854775808", "9223372036854775807"] {
        let done = cli.run(&["group", "reset", "readers", "--by", by]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(position(&cli, "lines:0"), "5");
}

#[test]
fn x19_a_move_that_cannot_be_is_refused_with_what_to_do() {
    let cli = filled();
    for (line, said) in [
        ("group reset readers --to end", "--topic"),
        (
            "group reset readers --topic none --to end",
            "topic create none",
        ),
        (
            "group reset readers --topic lines:2 --to end",
            "partition 2",
        ),
        ("group reset readers --topic lines --by 1", "--to"),
    ] {
        let message = cli.fails(line);
        assert!(message.contains(said), "{line}: {message}");
    }
    for line in [
        "group reset readers --topic lines",
        "group reset readers --topic lines --to -3",
        "group reset readers --topic lines --to tea",
        "group reset readers --topic lines: --to end",
        "group reset readers --topic lines --to end --by 1",
        "group reset readers --topic lines --by tea",
    ] {
        let done = cli.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{line}: {done:?}");
    }
}

/// The log of the command's directory, in this process.
fn open(cli: &Cli) -> Log {
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    Log::in_env(Env::real(), &cli.data(), config).unwrap()
}

#[test]
fn x19_a_group_with_members_keeps_its_positions() {
    let cli = filled();
    let log = open(&cli);
    let server = log.listen("127.0.0.1:0").unwrap();
    let url = format!("kafka://{}", server.address());
    let config = ConsumerConfig::default()
        .group_id(GroupId::new("readers").unwrap())
        .heartbeat_interval(Duration::from_millis(100));
    let mut consumer: Consumer<str, str> = Consumer::new(log.transport(), config);
    consumer
        .subscribe([TopicName::new("lines").unwrap()])
        .unwrap();
    until("the member has its partitions", || {
        drop(wait(consumer.poll(Duration::from_millis(10))).unwrap());
        consumer.assignment().count() == 2
    });
    let described = cli.ok(&format!("group describe readers --log {url}"));
    assert!(described.contains("members: 1"), "{described}");
    let message = cli.fails(&format!(
        "group reset readers --topic lines --to beginning --log {url}"
    ));
    assert!(message.contains("members (1)"), "{message}");
    wait(consumer.close()).unwrap();
    cli.ok(&format!(
        "group reset readers --topic lines --to beginning --log {url}"
    ));
    wait(server.stop());
    log.close().unwrap();
}

#[test]
fn x19_a_running_job_is_called_a_job_and_not_empty() {
    let cli = filled();
    let log = open(&cli);
    let server = log.listen("127.0.0.1:0").unwrap();
    let url = format!("kafka://{}", server.address());
    let job = Job::new("copy");
    job.source(topic::<str>("lines").codec(Text))
        .sink(topic("copies"));
    let running = job
        .exactly_once(Commit::every(Duration::from_millis(5)))
        .start(&log)
        .unwrap();
    until("the job has committed", || running.commits() > 0);
    let described = cli.ok(&format!("group describe copy --log {url}"));
    let first = described.lines().next().unwrap();
    assert!(first.starts_with("copy: a job that runs alone"), "{first}");
    assert!(described.contains("copy-0: "), "{described}");
    assert_eq!(row(&described, "lines:0")[2], "5", "{described}");
    wait(running.stop()).unwrap();
    wait(server.stop());
    log.close().unwrap();
}
