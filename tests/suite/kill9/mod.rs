//! `kill -9`, real processes and a real RocksDB: after every kill, committed output = f(input below the committed position).
//!
//! The suite runs itself as the child (`child.rs`), whose data directory lives on from kill to kill (`harness.rs`).
//! The words of the child on opening it, and what two live readers saw before, are judged by `oracle.rs`.
//! `ONCEFLOW_KILLS=n` asks for more, `ONCEFLOW_KILL_SEED=n` for those of a failure.
#![allow(
    clippy::cast_possible_truncation,
    reason = "small random numbers are drawn as u64"
)]

mod child;
mod harness;
mod ledger;
mod life;
mod oracle;
mod oracle_tests;
mod parts;
mod plan;
mod questions;
#[cfg(feature = "cli")]
mod remote;
mod zombie;

use std::time::Duration;

use onceflow::internals::env::failpoint::NAMES;
use onceflow::prelude::Log;

use self::harness::{Harness, kills_wanted};
use self::life::Fate;

#[test]
fn c1_c3_c10_f1_s1_s2_s3_s8_output_is_exact_after_kills_at_any_moment() {
    let mut harness = Harness::new("kills at any moment");
    let kills = kills_wanted(120);
    while harness.kills < kills {
        let mut plan = harness.draw();
        let fate = harness.any_moment();
        // What a process wrote survives it without any fsync.
        plan.is_fsync = harness.random.percent(75);
        if harness.random.percent(5) {
            // C18: a panic between the kills.
            plan.panic_at = Some(harness.random.between(0, 50));
        }
        let life = harness.live(plan, &fate);
        // A directory that was closed cleanly and not opened since has nobody who could have torn a write.
        if life.was_killed() && life.said("opened") && harness.random.percent(15) {
            harness.tear_a_tail();
        }
        if harness.random.percent(5) {
            harness.lose_the_state();
        }
    }
    harness.finish();
}

#[test]
fn c2_c5_c6_c7_c8_c9_s8_output_is_exact_after_a_kill_at_every_failpoint() {
    let mut harness = Harness::new("kills at failpoints");
    harness.has_files = true;
    let kills = kills_wanted(120);
    let mut round = 0;
    // Those of event time and of jobs that are scaled out are the business of `time::failpoints`, those of calls of `effects::killed`, of
    // letters `jobs::letters`, of savepoints `time::savepoint_kills`.
    let elsewhere = [
        "time.",
        "tasks.",
        "calls.",
        "letters.",
        "savepoint.",
        "restore.",
    ];
    let is_elsewhere = |name: &&str| elsewhere.iter().any(|it| name.starts_with(it));
    let all: Vec<&str> = NAMES
        .iter()
        .copied()
        .filter(|it| !is_elsewhere(it))
        .collect();
    while harness.kills < kills || all.iter().any(|name| !harness.hits.contains_key(name)) {
        let missed = |name: &&&str| !harness.hits.contains_key(**name);
        let left: Vec<&str> = all.iter().filter(missed).copied().collect();
        assert!(round < 8, "these failpoints were never met: {left:?}");
        let names = if round == 0 || left.is_empty() {
            all.clone()
        } else {
            left
        };
        for name in names {
            kill_at(&mut harness, name, round);
        }
        round += 1;
    }
    harness.finish();
}

/// The steps of recovery.
const RECOVERY_STEPS: [&str; 5] = [
    "open.locked",
    "open.journals_read",
    "open.partitions_read",
    "open.before_roll",
    "open.after_roll",
];

/// Kills at a failpoint, and every fifth time up to five times more while that is being recovered from (C9).
fn kill_at(harness: &mut Harness, name: &'static str, round: u64) {
    let mut plan = harness.draw();
    plan.has_scratch_topic = name.starts_with("topic.");
    if name.starts_with("housekeeping.") {
        plan.housekeeping_ms = 20;
    }
    if name.starts_with("state.") || name.starts_with("log.") {
        (plan.changelog_tail_bytes_max, plan.segment_bytes) = (2_000, 4_000);
    }
    if name == "start.partition_restored" {
        // S8: there is all of the changelog to restore.
        harness.lose_the_state();
    }
    let is_once_a_life = [
        "open.",
        "start.",
        "topic.",
        "sink.parts_settled",
        "sink.recovered",
    ]
    .iter()
    .any(|of| name.starts_with(of));
    let hit = if is_once_a_life || round > 1 {
        1
    } else {
        harness.random.between(1, 5) as u32
    };
    let fate = match name.starts_with("close.") {
        true => Fate::Terminate(Duration::from_millis(50), Some(name)),
        false => Fate::Failpoint(name, hit),
    };
    harness.live(plan, &fate);
    if harness.random.percent(20) {
        for _ in 0..harness.random.between(1, 6) {
            let again = harness.draw();
            let step = *harness.random.pick(&RECOVERY_STEPS);
            harness.live(again, &Fate::Failpoint(step, 1));
        }
    }
}

#[test]
fn c3_c5_c9_files_hold_each_committed_line_once_after_kills() {
    let mut harness = Harness::new("kills beside files");
    harness.has_files = true;
    let is_of_a_commit = |name: &&&str| {
        let steps = ["txn.", "commit.", "cycle.", "open.", "sink."];
        steps.iter().any(|of| name.starts_with(of))
    };
    let mut steps = NAMES.iter().filter(is_of_a_commit).copied().cycle();
    let kills = kills_wanted(50);
    while harness.kills < kills {
        let plan = harness.draw();
        let fate = match harness.random.percent(50) {
            true => harness.any_moment(),
            false => {
                let hit = harness.random.between(1, 4) as u32;
                let step = steps.next().expect("there are steps");
                let is_once_a_life = step.starts_with("open.");
                Fate::Failpoint(step, if is_once_a_life { 1 } else { hit })
            }
        };
        harness.live(plan, &fate);
    }
    harness.finish();
}

#[test]
fn s17_a_chain_of_two_jobs_is_exact_after_kills_of_both() {
    let mut harness = Harness::new("kills of two jobs");
    harness.is_chained = true;
    let kills = kills_wanted(25);
    while harness.kills < kills {
        let plan = harness.draw();
        let fate = harness.any_moment();
        harness.live(plan, &fate);
    }
    harness.finish();
}

#[test]
fn c12_c22_a_process_stopped_for_longer_than_its_transaction_goes_on_exactly() {
    let mut harness = Harness::new("SIGSTOP and SIGCONT");
    for _ in 0..3 {
        let mut plan = harness.draw();
        plan.transaction_timeout_ms = 300;
        let after = Duration::from_millis(harness.random.between(10, 200));
        harness.live(plan, &Fate::Pause(after, Duration::from_millis(700)));
    }
    harness.finish();
}

#[test]
fn f26_sigterm_commits_what_is_in_flight_and_ends_within_ten_seconds() {
    let mut harness = Harness::new("SIGTERM");
    for _ in 0..3 {
        let plan = harness.draw();
        let after = Duration::from_millis(harness.random.between(50, 300));
        let life = harness.live(plan, &Fate::Terminate(after, None));
        assert!(life.said("finished") && life.status.success());
    }
    harness.finish();
}

#[test]
fn c18_a_panicking_function_commits_nothing_and_the_job_may_run_again() {
    let mut harness = Harness::new("panics");
    for panic_at in [0, 7, 40] {
        let mut plan = harness.draw();
        plan.panic_at = Some(panic_at);
        let life = harness.live(plan, &Fate::Terminate(Duration::from_millis(200), None));
        assert!(life.said("panicked"));
    }
    harness.finish();
}

#[test]
fn f17_a_second_process_is_refused_with_the_owners_pid_and_a_killed_one_leaves_no_lock() {
    let mut harness = Harness::new("two processes");
    let (data, plan) = (harness.data(), harness.draw());
    let first = Log::embedded(&data).expect("nobody has it");
    let life = life::live(&plan, &Fate::Finish);
    let said = life
        .lines
        .iter()
        .find(|line| line.starts_with("failed "))
        .cloned();
    let pid = std::process::id().to_string();
    assert!(
        said.as_ref().is_some_and(|said| said.contains(&pid)),
        "{pid} is not in {said:?}"
    );
    assert!(
        Log::embedded(&data).is_err(),
        "the same process may not open it twice either"
    );
    first.close().expect("a clean end");
    drop(first);
    let killed = harness.live(plan, &Fate::KillWhileRunning(Duration::from_millis(100)));
    assert!(killed.was_killed());
    drop(Log::embedded(&data).expect("a killed process holds no lock"));
    harness.finish();
}
