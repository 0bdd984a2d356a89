//! A job with effects on a disk that loses power: no effect was told whose transaction is lost, and each is told under one key.

use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::internals::env::simulated::PowerLoss;
use onceflow::prelude::*;

use super::support::{Target, assert_told, clicks, tells_of};
use crate::jobs::support::run;
use crate::time::power_loss::Machine;
use crate::time::support::{feed, left_in_store, ms, topic_of_clicks};

const SEED: u64 = 11;
const LIVES: usize = 24;
/// Longest life of a job before the power is lost.
const LIFE_MAX: Duration = Duration::from_millis(250);

#[test]
fn o1_o6_o8_no_effect_is_told_whose_transaction_a_power_loss_takes() {
    let mut machine = Machine::new(SEED);
    let mut all = Vec::new();
    let log = machine.open().unwrap();
    topic_of_clicks(&log, "in", 1);
    log.close().unwrap();
    let target = Target::opened();
    let policy = EffectPolicy::parallel(8).undelivered_max(200);
    for life in 0..LIVES {
        let log = machine.open().unwrap();
        let some = clicks(i64::try_from(all.len()).unwrap(), 60, 9);
        feed(&log, "in", 0, &some);
        all.extend(some);
        log.close().unwrap();
        drop(log);
        if life % 3 == 1 && machine.state().exists() {
            std::fs::remove_dir_all(machine.state()).unwrap();
        }
        let calls = 200 + (life as u64 * 7_919) % 3_000;
        if life % 4 == 0 {
            machine.world.power_off_after(calls);
        }
        if let Ok(log) = machine.open() {
            machine.world.power_off_after(calls);
            let launch = tells_of(&target, policy, true).workers(1 + life % 3);
            let running = launch.start(&log).unwrap();
            let begin = Instant::now();
            while !machine.world.is_off() && begin.elapsed() < LIFE_MAX {
                std::thread::sleep(ms(3));
            }
            machine.world.power_off();
            drop(wait(running.stop()));
        }
        let mut losses = PowerLoss::every_mode(SEED ^ life as u64);
        let loss = losses.nth(life * 5 % 32).unwrap();
        machine.world = machine.world.after_power_loss(loss);
    }
    assert!(
        target.count() > 100,
        "{} were told in all lives",
        target.count()
    );
    let log = machine.open().unwrap();
    run(tells_of(&target, policy, false).workers(2), &log).unwrap();
    assert_told(&target.told(), &all);
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
    log.close().unwrap();
}
