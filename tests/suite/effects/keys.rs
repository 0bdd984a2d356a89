//! Idempotency keys: the same over restarts, other numbers of workers and hand-overs; others on a new log and behind a savepoint.

use std::collections::BTreeSet;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Running;
use proptest::prelude::*;

use super::support::{Target, assert_told, clicks, tells_of};
use crate::jobs::support::{Place, run, until};
use crate::time::scaled::state_of;
use crate::time::support::{
    Click, any_clicks, any_cut, any_runs, feed, left_in_store, ms, run_cut, topic_of_clicks,
};

fn policy() -> EffectPolicy {
    EffectPolicy::parallel(16).pause(ms(1), ms(10))
}

#[test]
fn o6_o8_an_effect_keeps_its_key_over_restarts_with_other_numbers_of_workers() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let target = Target::closed();
    let mut all = Vec::new();
    for restart in 0..4 {
        let some = clicks(restart * 50, 50, 11);
        feed(&log, "in", 0, &some);
        all.extend(some);
        let workers = [1, 3, 2, 4][usize::try_from(restart).unwrap()];
        let running = tells_of(&target, policy(), true)
            .workers(workers)
            .start(&log)
            .unwrap();
        let before = target.count();
        until("the first of each user are told, and all wait", || {
            target.count() >= before + workers.max(4)
                && running.progress().undelivered_effects == all.len()
        });
        // Nothing is taken out before its fate is known.
        wait(running.stop()).unwrap();
    }
    target.open();
    run(tells_of(&target, policy(), false).workers(2), &log).unwrap();
    assert_told(&target.told(), &all);
    assert!(target.count() > all.len(), "some are told again");
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
}

#[test]
fn o2_a_job_on_a_new_log_gives_no_key_that_an_earlier_one_gave() {
    let all = clicks(0, 40, 5);
    let mut keys = BTreeSet::new();
    for _ in 0..2 {
        let (place, target) = (Place::new(), Target::opened());
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        feed(&log, "in", 0, &all);
        run(tells_of(&target, policy(), false).workers(1), &log).unwrap();
        let of_log = assert_told(&target.told(), &all);
        keys.extend(of_log.into_values());
    }
    assert_eq!(keys.len(), 2 * all.len());
}

#[test]
fn o3_a_job_that_went_back_to_a_savepoint_keeps_the_keys_of_then_and_gives_new_ones() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let (then, since) = (clicks(0, 30, 30), clicks(30, 20, 30));
    feed(&log, "in", 0, &then);
    let target = Target::closed();
    let running = tells_of(&target, policy(), true).start(&log).unwrap();
    until("all of then wait", || {
        running.progress().undelivered_effects == then.len()
    });
    let savepoint = wait(running.savepoint(place.path("savepoint"))).unwrap();
    target.open();
    feed(&log, "in", 0, &since);
    until("all are told", || {
        target.count() >= then.len() + since.len() && running.progress().undelivered_effects == 0
    });
    wait(running.stop()).unwrap();
    let all: Vec<Click> = then.iter().chain(&since).cloned().collect();
    let before = assert_told(&target.told(), &all);
    target.told.lock().unwrap().clear();

    tells_of(&target, policy(), false)
        .restore(&log, &savepoint)
        .unwrap();
    run(tells_of(&target, policy(), false), &log).unwrap();
    let after = assert_told(&target.told(), &all);
    for click in &then {
        assert_eq!(before[click], after[click], "its row was in the savepoint");
    }
    for click in &since {
        assert_ne!(before[click], after[click], "it is another transaction's");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the input: each click is told under one key, those of a user in the order of their partition.
    #[test]
    fn o6_o8_o11_effects_are_those_of_the_input_whatever_runs_the_job(
        partitions in any_clicks(),
        runs in any_runs(),
        cut in any_cut(),
        limit in 1usize..40,
    ) {
        let place = Place::new();
        let log = place.log();
        let target = Target::opened();
        // Users of a partition are its own, so that they have an order; and numbers are.
        let mut number = 0;
        let mut distinct = Vec::new();
        for (partition, clicks) in partitions.iter().enumerate() {
            let clicks = clicks.iter().map(|(user, _)| {
                number += 1;
                (format!("{user}-{partition}"), number)
            });
            distinct.push(clicks.collect::<Vec<Click>>());
        }
        let policy = EffectPolicy::parallel(limit).undelivered_max(20);
        run_cut(|| tells_of(&target, policy, false), &distinct, &runs, cut, &log);
        assert_told(&target.told(), &distinct.concat());
        if number > 0 {
            prop_assert_eq!(left_in_store(&log, "tells", "tell"), 0);
        }
    }
}

/// Undelivered effects go with their keys, and those that are under way are told again by who has them then.
#[test]
fn o6_o8_effects_move_between_instances_with_their_keys() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    let target = Target::closed();
    let start = |name: &str| -> Running {
        let launch = tells_of(&target, policy(), true).workers(2);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    let mut all = Vec::new();
    let mut feed_some = |count: i64| {
        let first = i64::try_from(all.len()).unwrap();
        for partition in 0..2 {
            let numbers = first + i64::from(partition) * count..;
            let some: Vec<Click> = numbers
                .take(usize::try_from(count).unwrap())
                .map(|n| (format!("u{}", 2 * (n % 9) + i64::from(partition)), n))
                .collect();
            feed(&log, "in", partition, &some);
            all.extend(some);
        }
        all.clone()
    };
    feed_some(50);
    let first = start("first");
    until("some are told", || target.count() >= 10);
    let second = start("second");
    until("the second has a share", || {
        feed_some(1);
        std::thread::sleep(ms(20));
        !state_of(&second).is_empty()
    });
    until("the second tells, too", || target.count() >= 20);
    wait(first.stop()).unwrap();
    let all = feed_some(20);
    target.open();
    until("all are told", || {
        let told: BTreeSet<i64> = target.told().iter().map(|(_, n, _)| *n).collect();
        told.len() == all.len() && second.progress().undelivered_effects == 0
    });
    wait(second.stop()).unwrap();
    assert_told(&target.told(), &all);
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
}
