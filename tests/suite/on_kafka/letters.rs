//! Letters on a real Kafka: given back by the command line to a job that runs, whose process is killed meanwhile.

use std::path::Path;
use std::process::Command;

use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{LetterState, Letters};

use super::proxy::until;
use crate::jobs::letters::{Kind, assert_counted, counting, failing_behind_a_topic, states, texts};
use crate::jobs::support::{committed, fill_topic, run, wait_for_markers};
use crate::support::peers;
use crate::time::killed::start_child;
use crate::time::scaled_kafka::{cluster, until_led};
use crate::time::support::{ms, topic_of_clicks};

const VARIABLE: &str = "ONCEFLOW_KAFKA_LETTERS_CHILD";
const COUNT: u64 = 300;

fn open(brokers: &str, folder: &Path) -> Log {
    let settings = KafkaSettings::new(brokers)
        .and_then(|it| it.with("state.dir", &folder.display().to_string()));
    Log::kafka_with(settings.unwrap()).unwrap()
}

/// The child's entry: runs the job, mended, for a while.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn takes_letters_back_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (brokers, folder) = plan.split_once(' ').unwrap();
    let log = open(brokers, Path::new(folder));
    let running = counting(Kind::Endless, Path::new(""), true)
        .start(&log)
        .unwrap();
    std::thread::sleep(ms(5_000));
    wait(running.stop()).unwrap();
}

fn replay(brokers: &str, offsets: &str) {
    let place = format!("kafka://{brokers}");
    let asked = Command::new(env!("CARGO_BIN_EXE_onceflow"))
        .args([
            "letters", "replay", "dead", "--job", "parse", "--log", &place,
        ])
        .args(["--offsets", offsets])
        .env_remove("ONCEFLOW_DATA")
        .output()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");
}

#[test]
fn letters_on_kafka_are_replayed_once_by_processes_that_are_killed() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    // A cluster of its own: its topics have names that others use, too.
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, folder.path());
    topic_of_clicks(&log, "in", 2);
    until_led(&log, "in", 2);
    fill_topic(&log, "in", 2, &texts(COUNT));
    run(counting(Kind::Topic, folder.path(), false), &log).unwrap();
    wait_for_markers(&log, "dead");
    let steps = ["cycle.drained", "cycle.offsets_sent", "cycle.committed"];
    for (life, name) in steps.iter().enumerate() {
        let plan = format!("{brokers} {}", folder.path().display());
        let test = "on_kafka::letters::takes_letters_back_until_it_is_killed";
        replay(&brokers, &format!("{}-{}", 20 * life, 20 * life + 9));
        let mut child = start_child(test, (VARIABLE, &plan), &format!("{name}=kill@1"));
        replay(&brokers, &format!("{}-{}", 20 * life + 10, 20 * life + 19));
        assert!(child.is_killed_within(ms(60_000)), "{name}");
    }
    let running = counting(Kind::Endless, folder.path(), true)
        .start(&log)
        .unwrap();
    replay(&brokers, "60-99");
    let letters = Letters::of(&log, "parse").unwrap();
    until("all are replayed", || {
        states(&letters, "dead") == [LetterState::Replayed; 100]
    });
    wait(running.stop()).unwrap();
    wait_for_markers(&log, "counts");
    assert_counted(&log, COUNT);
}

/// The child's entry: shares the job, mended, for a while.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_job_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (brokers, folder) = plan.split_once(' ').unwrap();
    let log = open(brokers, Path::new(folder));
    let running = failing_behind_a_topic("one", true).start(&log).unwrap();
    std::thread::sleep(ms(5_000));
    wait(running.stop()).unwrap();
}

#[test]
fn u13_on_kafka_letters_behind_a_topic_go_back_once_between_processes_that_are_killed() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("other"));
    topic_of_clicks(&log, "in", 2);
    until_led(&log, "in", 2);
    let numbers: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    fill_topic(&log, "in", 2, &numbers);
    let broken = failing_behind_a_topic("one", false).start(&log).unwrap();
    let count = usize::try_from(COUNT / 3).unwrap();
    until("all failed", || committed(&log, "dead").len() == count);
    wait(broken.stop()).unwrap();
    wait_for_markers(&log, "dead");
    let steps = ["cycle.drained", "cycle.offsets_sent", "cycle.committed"];
    for (life, name) in steps.iter().enumerate() {
        let plan = format!("{brokers} {}", folder.path().join("one").display());
        let test = "on_kafka::letters::shares_the_job_until_it_is_killed";
        let mut child = start_child(test, (VARIABLE, &plan), &format!("{name}=kill@1"));
        replay(&brokers, &format!("{}-{}", 5 * life, 5 * life + 4));
        assert!(child.is_killed_within(ms(60_000)), "{name}");
    }
    // Another instance has the share of the one that was killed, once its session is over, or with it.
    let running = ["one", "two"].map(|it| failing_behind_a_topic(it, true).start(&log).unwrap());
    replay(&brokers, "0-1000000");
    let letters = Letters::of(&log, "parse").unwrap();
    until("all are replayed", || {
        states(&letters, "dead") == vec![LetterState::Replayed; count]
    });
    // A letter is back when it is in the topic between the processes: it is counted behind that.
    let all = usize::try_from(COUNT).unwrap();
    until("all are counted", || committed(&log, "counts").len() >= all);
    for running in running {
        wait(running.stop()).unwrap();
    }
    wait_for_markers(&log, "counts");
    assert_counted(&log, COUNT);
}
