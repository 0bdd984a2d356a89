//! Restores in trouble: of jobs that are scaled out under kills, on a disk that loses power, and in parts on a real Kafka.

use std::collections::BTreeSet;
use std::path::Path;

use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::internals::env::simulated::PowerLoss;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Savepoint};
use onceflow::types::Durability;

use super::power_loss::Machine;
use super::savepoint_troubles::{self, TIMEOUT, is_killed, open_slowly};
use super::savepoints::{counts_of, last_counts_of};
use super::scaled::state_of;
use super::scaled_kafka::{self, until_led};
use super::scaled_savepoints::{self as scaled, JOB, ONE, THREE, TOPICS, stop};
use super::support::{Click, click, feed, ms, topic_of_clicks};
use crate::jobs::support::{Place, committed, run, until, wait_for_markers};
use crate::support::peers;

const RESTORES: &str =
    "time::restore_troubles::restores_a_job_that_is_scaled_out_until_it_is_killed";
const SEED_VARIABLE: &str = "ONCEFLOW_POWER_SEED";
/// Power losses in each test.
const LOSSES: u64 = 32;

#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn restores_a_job_that_is_scaled_out_until_it_is_killed() {
    let Ok(plan) = std::env::var(savepoint_troubles::VARIABLE) else {
        return;
    };
    let (data, path) = plan.split_once(' ').unwrap();
    let log = open_slowly(Path::new(data), TIMEOUT / 4, Durability::Fsync);
    let savepoint = Savepoint::open(path).unwrap();
    let launch = scaled::counts("any").transaction_timeout(TIMEOUT);
    launch.restore(&log, &savepoint).unwrap();
    log.close().unwrap();
}

/// Starts an instance; whether it was refused because a restore was interrupted.
fn is_refused(log: &Log) -> bool {
    let running = scaled::counts("first").start(log).unwrap();
    until("it has its share, or was refused", || {
        running.is_finished() || state_of(&running).len() == 4
    });
    if !running.is_finished() {
        stop(log, JOB, vec![running]);
        return false;
    }
    let why = wait(running.finished()).unwrap_err().to_string();
    assert!(why.contains("restore was interrupted"), "{why}");
    true
}

#[test]
fn u2_u3_a_restore_of_a_job_that_is_scaled_out_is_whole_or_repeated_after_a_kill_at_every_failpoint()
 {
    let place = Place::new();
    let (data, path) = (place.path("data"), place.path("savepoint"));
    let mut fed = scaled::Fed::default();
    let log = place.log();
    topic_of_clicks(&log, TOPICS[0], 2);
    fed.work(&log, THREE);
    let savepoint = scaled::counts("any").savepoint(&log, &path).unwrap();
    fed.work(&log, ONE);
    log.close().unwrap();
    let (mut missed, mut refused) = (BTreeSet::new(), 0);
    let is_met = |name: &&&str| name.starts_with("restore.") || name.starts_with("txn.");
    for name in failpoint::NAMES.iter().filter(is_met) {
        if !is_killed(RESTORES, &data, &path, name) {
            missed.insert(*name);
        }
        let log = place.log();
        if is_refused(&log) {
            scaled::counts("any").restore(&log, &savepoint).unwrap();
            refused += 1;
        }
        fed.assert_counted(&log, &["second"], name);
        log.close().unwrap();
    }
    assert_eq!(missed, BTreeSet::new(), "these were not met");
    assert!(refused >= 3, "{refused}");
}

fn seed() -> u64 {
    let seed = std::env::var(SEED_VARIABLE).map_or(11, |seed| seed.parse().unwrap());
    println!("{SEED_VARIABLE}={seed}");
    seed
}

/// Restores a savepoint on a disk that loses power after so many calls; then it has power again.
fn restore_without_power(
    machine: &mut Machine,
    launch: &Launch,
    savepoint: &Savepoint,
    (calls, loss): (u64, PowerLoss),
) -> bool {
    let log = machine.open().unwrap();
    machine.world.power_off_after(calls);
    let restored = launch.restore(&log, savepoint);
    let is_cut = machine.world.is_off();
    machine.world.power_off();
    drop(log);
    machine.world = machine.world.after_power_loss(loss);
    assert!(restored.is_ok() || is_cut, "{restored:?}");
    is_cut
}

/// The calls and the loss of each attempt; what a whole restore takes is found on the way.
fn losses(seed: u64) -> impl Iterator<Item = (u64, PowerLoss)> {
    (0..LOSSES).map(move |number| {
        let mixed = (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let nth = usize::try_from(mixed % 32).unwrap();
        let loss = PowerLoss::every_mode(seed ^ number).nth(nth).unwrap();
        (1 + mixed % 40 * (1 + number % 8), loss)
    })
}

#[test]
fn u2_u3_a_restore_of_a_job_that_is_scaled_out_is_whole_or_repeated_after_power_losses() {
    let seed = seed();
    let mut machine = Machine::new(seed);
    let (path, mut fed) = (machine.state().join("monday"), scaled::Fed::default());
    let log = machine.open().unwrap();
    topic_of_clicks(&log, TOPICS[0], 2);
    fed.work(&log, ONE);
    let savepoint = scaled::counts("any").savepoint(&log, &path).unwrap();
    fed.work(&log, ONE);
    log.close().unwrap();
    drop(log);
    let (mut cut, mut again) = (0, 0);
    for (number, loss) in losses(seed).enumerate() {
        println!("{number}: {loss:?}");
        let launch = scaled::counts("any");
        cut += u64::from(restore_without_power(
            &mut machine,
            &launch,
            &savepoint,
            loss,
        ));
        let log = machine.open().unwrap();
        if is_refused(&log) {
            scaled::counts("any").restore(&log, &savepoint).unwrap();
            again += 1;
        }
        fed.assert_counted(&log, ONE, &format!("loss {number}"));
        log.close().unwrap();
    }
    println!("{cut} times cut, {again} times restored again");
    assert!((LOSSES / 3..LOSSES).contains(&cut), "{cut}");
    assert!(again > 0, "it was never cut between its commits");
}

#[test]
fn u2_u3_a_restore_is_whole_or_repeated_after_power_losses() {
    let seed = seed();
    let mut machine = Machine::new(seed);
    let (path, mut fed) = (machine.state().join("monday"), 0);
    let launch = |is_endless| counts_of("counts", "counts", ["in", "out"], is_endless);
    // What is acknowledged may not be on the disk yet, and a job that ends with its input ends with what is.
    let feed_some = |log: &Log, fed: &mut u64| {
        let clicks: Vec<Click> = (0..50)
            .map(|it| click(&format!("user-{}", it % 13), 1))
            .collect();
        feed(log, "in", 0, &clicks);
        *fed += 50;
        until("what was fed is on the disk", || {
            committed(log, "in").len() as u64 == *fed
        });
    };
    let assert_counted = |log: &Log, fed: u64, what: &str| {
        run(launch(false), log).unwrap();
        wait_for_markers(log, "out");
        let counts = last_counts_of(log, "out");
        assert_eq!(counts.len(), 13, "{what}");
        assert_eq!(counts.values().sum::<u64>(), fed, "{what}");
    };
    let log = machine.open().unwrap();
    topic_of_clicks(&log, "in", 1);
    feed_some(&log, &mut fed);
    let running = launch(true).start(&log).unwrap();
    wait(running.caught_up()).unwrap();
    let savepoint = wait(running.savepoint(&path)).unwrap();
    wait(running.stop()).unwrap();
    log.close().unwrap();
    drop(log);
    let (mut cut, mut again) = (0, 0);
    for (number, loss) in losses(seed).enumerate() {
        println!("{number}: {loss:?}");
        let restores = launch(false);
        cut += u64::from(restore_without_power(
            &mut machine,
            &restores,
            &savepoint,
            loss,
        ));
        let log = machine.open().unwrap();
        feed_some(&log, &mut fed);
        if let Err(e) = run(launch(false), &log) {
            let why = e.to_string();
            assert!(why.contains("restore was interrupted"), "{number}: {why}");
            launch(false).restore(&log, &savepoint).unwrap();
            again += 1;
        }
        assert_counted(&log, fed, &format!("loss {number}"));
        log.close().unwrap();
    }
    println!("{cut} times cut, {again} times restored again");
    assert!((LOSSES / 3..LOSSES).contains(&cut), "{cut}");
}

#[test]
fn u3_on_kafka_a_restore_takes_longer_than_a_transaction_may_be_open_and_is_exact() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    const USERS: usize = 120_000;
    let cluster = scaled_kafka::cluster();
    let folder = tempfile::tempdir().unwrap();
    let log = scaled_kafka::open(&cluster.bootstrap(), &folder.path().join("state"));
    let topics = ["parts-in", "parts-out"];
    topic_of_clicks(&log, topics[0], 1);
    until_led(&log, topics[0], 1);
    let clicks: Vec<Click> = (0..USERS)
        .map(|it| click(&format!("user-{it}"), 1))
        .collect();
    let feed_all = || {
        clicks
            .chunks(2_000)
            .for_each(|some| feed(&log, topics[0], 0, some))
    };
    let launch = |is_endless| counts_of("parts", "counts", topics, is_endless);
    feed_all();
    run(launch(false), &log).unwrap();
    let path = folder.path().join("savepoint");
    let savepoint = launch(false).savepoint(&log, &path).unwrap();
    feed_all();
    run(launch(false), &log).unwrap();
    let brief = launch(false).transaction_timeout(ms(300));
    let restored = brief.restore(&log, &savepoint).unwrap();
    assert!(restored.rows >= USERS as u64, "{restored:?}");
    let noted = committed(&log, "parts-positions").into_iter();
    let noted = noted.filter(|it| it.key.as_deref() == Some(&b"\0\0\0\0restoring"[..]));
    let parts = noted.filter(|it| it.value.is_some()).count();
    println!("{parts} parts, and the last");
    assert!(parts >= 1, "it was one transaction");
    let summary = run(launch(false), &log).unwrap();
    assert_eq!(summary.records, USERS as u64);
    wait_for_markers(&log, topics[1]);
    let counts = last_counts_of(&log, topics[1]);
    assert_eq!(counts.len(), USERS);
    assert!(counts.values().all(|count| *count == 2));
}
