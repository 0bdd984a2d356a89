//! A job of tables on a disk that loses power: all that is made of them is right, whatever is left of the state.

use std::time::Duration;

use onceflow::internals::env::simulated::PowerLoss;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::support::{Entry, Kind, changes, check, feed, job, make_topic, parse, try_feed};
use crate::jobs::support::{committed, run};
use crate::time::power_loss::{Cut, Machine};

const LIVES: usize = 14;
const SEED: u64 = 23;
const CALLS_OF_AN_OPENING: u64 = 1_000;
const CALLS_OF_A_LIFE: u64 = 6_000;

fn launch(is_endless: bool) -> Launch {
    let job = job(Kind::Outer, is_endless);
    let often = Commit::every(Duration::from_millis(10));
    job.exactly_once(often).state_partitions(4)
}

/// The content of the topic of a table: acknowledged changes, and those whose acknowledgement the power loss took.
fn fed(log: &Log, topic: &str) -> Vec<Entry> {
    let lines = committed(log, topic);
    let lines = lines.iter().map(|seen| seen.value::<str>());
    lines.map(|line| parse(&line).unwrap()).collect()
}

#[test]
fn j7_j15_tables_are_right_after_power_losses_whatever_is_left_of_the_state() {
    let mut machine = Machine::new(SEED);
    let mut state = SEED;
    let log = machine.open().unwrap();
    for topic in ["left", "right"] {
        make_topic(&log, topic);
        feed(&log, topic, &changes(&mut state, 100));
    }
    log.close().unwrap();
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for life in 0..LIVES {
        let has_state = machine.state().exists();
        match life % 3 {
            1 if has_state => std::fs::remove_dir_all(machine.state()).unwrap(),
            2 if has_state && machine.has_copies() => machine.restore(0),
            _ => machine.keep_a_copy(),
        }
        let cut = match random(5) {
            0 => Cut::WhileOpening(random(CALLS_OF_AN_OPENING)),
            _ => Cut::WhileRunning(random(CALLS_OF_A_LIFE)),
        };
        let nth = usize::try_from(random(32)).unwrap();
        let loss = PowerLoss::every_mode(SEED ^ life as u64).nth(nth).unwrap();
        println!("life {life}: {cut:?}, {loss:?}");
        let mut seed = random(1 << 30);
        machine.live_with(cut, loss, launch(true).workers(1 + life % 3), |log| {
            for topic in ["left", "right"] {
                try_feed(log, topic, &changes(&mut seed, 4));
            }
        });
    }
    let log = machine.open().unwrap();
    run(launch(false).workers(2), &log).unwrap();
    let (left, right) = (fed(&log, "left"), fed(&log, "right"));
    println!(
        "{} changes on the left, {} on the right",
        left.len(),
        right.len()
    );
    assert!(left.len() > 200, "only {}", left.len());
    check(&log, Kind::Outer, &left, &right);
    log.close().unwrap();
}
