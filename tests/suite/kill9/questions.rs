//! Questions to a job that is killed again and again: each answer is one committed epoch, and epochs go up over all lives.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::wait;
use onceflow::internals::env::Env;
use onceflow::prelude::*;
use onceflow::runtime::Epoch;
use onceflow::types::Durability;

use crate::jobs::queries::{account_names, bank, transfer};
use crate::jobs::support::fill_topic;

/// The environment variable that carries the data directory to the child.
const VARIABLE: &str = "ONCEFLOW_QUESTIONS_CHILD";
const LIVES: u64 = 12;
/// Transfers that are fed at once.
const PART: usize = 20;

#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn asks_until_it_is_killed() {
    let Ok(data) = std::env::var(VARIABLE) else {
        return;
    };
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    let log = Log::in_env(Env::real(), Path::new(&data), config).unwrap();
    let running = bank().start(&log).unwrap();
    let balances = running.query().store::<str, i64>("balances").unwrap();
    let names = account_names();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).step_by(PART) {
                let lines: Vec<String> = (number..number + PART).map(transfer).collect();
                fill_topic(&log, "transfers", 3, &lines);
                wait(running.caught_up()).unwrap();
            }
        });
        let mut last = None;
        loop {
            let answer = wait(balances.get_many(&names)).unwrap();
            if last.replace(answer.epoch) != Some(answer.epoch) {
                let mut out = std::io::stdout().lock();
                writeln!(out, "\n@{} {:?}", answer.epoch, answer.value).unwrap();
                out.flush().unwrap();
            }
        }
    });
}

/// The answers of one life: epochs, with the balances as text.
fn live(data: &Path, answers: usize) -> Vec<(Epoch, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("kill9::questions::asks_until_it_is_killed")
        .env(VARIABLE, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut found = Vec::new();
    for line in out.lines() {
        let line = line.unwrap();
        let Some((epoch, balances)) = line.strip_prefix('@').and_then(|it| it.split_once(' '))
        else {
            continue;
        };
        found.push((epoch.parse().unwrap(), balances.to_owned()));
        if found.len() == answers {
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(137 * answers as u64));
    child.kill().unwrap();
    child.wait().unwrap();
    found
}

#[test]
fn u12_no_answer_has_half_a_transfer_and_epochs_go_up_through_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut last: Option<(Epoch, String)> = None;
    for life in 1..=LIVES {
        // The first answers of a life are those of restored state, and of its first commits.
        let answers = usize::try_from(life * life % 23 + 1).unwrap();
        let found = live(&folder.path().join("data"), answers);
        assert!(!found.is_empty(), "life {life} gave no answer");
        for (epoch, balances) in found {
            let numbers = balances.split(|c: char| !c.is_ascii_digit() && c != '-');
            let sum: i64 = numbers.filter_map(|it| it.parse::<i64>().ok()).sum();
            assert_eq!(sum, 0, "life {life}, epoch {epoch}: {balances}");
            if let Some((last_epoch, last_balances)) = &last {
                assert!(
                    epoch >= *last_epoch,
                    "life {life}: {epoch} after {last_epoch}"
                );
                assert!(
                    epoch > *last_epoch || balances == *last_balances,
                    "life {life}: epoch {epoch} is two states"
                );
            }
            last = Some((epoch, balances));
        }
    }
}
