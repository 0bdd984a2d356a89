//! `SIGKILL` at every named failpoint of the broker, in a process of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::faults::{Told, check};
use super::support::{Producer, create, partition, topic_name};
use crate::broker::{Broker, BrokerConfig};
use crate::env::Env;
use crate::env::failpoint::{NAMES, VARIABLE};
use crate::protocol::messages::TransactionResult;

/// Where the child works.
const DIRECTORY: &str = "ONCEFLOW_TEST_DIRECTORY";
const SIGKILL: i32 = 9;

fn open(dir: &Path) -> Broker {
    Broker::open(Env::real(), &dir.join("data"), BrokerConfig::default()).unwrap()
}

/// Lines that the child was told: they outlive it.
struct Diary(PathBuf);

impl Diary {
    fn write(&self, line: &str) {
        let opened = OpenOptions::new().create(true).append(true).open(&self.0);
        writeln!(opened.unwrap(), "{line}").unwrap();
    }

    fn read(&self) -> Told {
        let mut told = Told::default();
        for line in fs::read_to_string(&self.0).unwrap_or_default().lines() {
            match line.split_once(' ') {
                Some(("ask", value)) => told.in_doubt = Some(value.to_owned()),
                Some(("committed", value)) => {
                    told.in_doubt = None;
                    told.committed.push(value.to_owned());
                }
                _ => panic!("the diary holds {line:?}"),
            }
        }
        told
    }
}

fn run_transactions(broker: &Broker, diary: &Diary) {
    let mut producer = Producer::new(broker, "p");
    for count in 1..=5 {
        let value = count.to_string();
        producer.send(&partition("a", 0), &[&value, &value]);
        producer.send(&partition("b", 0), &[&value]);
        producer.send_offset("g", &partition("source", 0), count);
        match count {
            3 => producer.try_end(TransactionResult::Abort).unwrap(),
            // Left open, for the next opening to roll back.
            5 => return,
            _ => {
                diary.write(&format!("ask {value}"));
                producer.commit();
                diary.write(&format!("committed {value}"));
            }
        }
    }
}

#[test]
#[ignore = "the child process of the test below"]
fn child() {
    let dir = PathBuf::from(std::env::var(DIRECTORY).expect("run by the test below only"));
    let broker = open(&dir);
    create(&broker, "a", 1);
    create(&broker, "b", 1);
    run_transactions(&broker, &Diary(dir.join("diary")));
    drop(broker);
    let broker = open(&dir);
    create(&broker, "doomed", 2);
    broker.delete_topic(&topic_name("doomed")).unwrap();
    broker.housekeep();
    broker.close().unwrap();
}

fn run_child(dir: &Path, failpoint: &str) -> ExitStatus {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args(["--ignored", "--exact", "broker::tests::failpoints::child"]);
    command.env(DIRECTORY, dir).env(VARIABLE, failpoint);
    command.output().unwrap().status
}

fn after_kill(failpoint: &str, must_die: bool) {
    let dir = tempfile::tempdir().unwrap();
    let status = run_child(dir.path(), failpoint);
    match status.signal() {
        Some(SIGKILL) => {}
        None if !must_die && status.success() => {}
        _ => panic!("{failpoint}: the child ended with {status}"),
    }
    let told = Diary(dir.path().join("diary")).read();
    let broker = open(dir.path());
    for name in ["a", "b"] {
        if broker.topic(&topic_name(name)).unwrap().is_none() {
            create(&broker, name, 1);
        }
    }
    check(&broker, &told, &failpoint);
    broker.close().unwrap();
}

#[test]
fn c1_to_c9_a_kill_at_every_failpoint_tears_nothing() {
    // Those of jobs are the business of `kill9` and `time::failpoints` of the suite, which fail unless each of them killed.
    let of_jobs = [
        "state.",
        "start.",
        "cycle.",
        "sink.",
        "time.",
        "tasks.",
        "letters.",
        "calls.",
        "savepoint.",
        "restore.",
    ];
    let is_of_broker = |name: &&&str| !of_jobs.iter().any(|prefix| name.starts_with(prefix));
    for name in NAMES.iter().filter(is_of_broker) {
        after_kill(&format!("{name}=kill"), true);
    }
}

#[test]
fn c5_c6_c7_a_kill_at_later_hits_of_a_failpoint_tears_nothing() {
    let is_repeated = |name: &&&str| name.starts_with("commit.") || name.starts_with("open.");
    for name in NAMES.iter().filter(is_repeated) {
        for hit in [2, 4] {
            after_kill(&format!("{name}=kill@{hit}"), false);
        }
    }
}
