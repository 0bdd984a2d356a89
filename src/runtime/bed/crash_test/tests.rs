//! Crash tests on a log that fences nobody: they find it out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::steps::{Coming, Step, Trouble};
use super::{CrashTest, crash_test, trial};
use crate::prelude::*;
use crate::runtime::Launch;
use crate::runtime::bed::link::Fencing;

const INTERVAL: Duration = Duration::from_millis(100);
const SESSION: Duration = Duration::from_secs(6);

fn word_count() -> Launch {
    let job = Job::new("word-count");
    job.source(topic::<str>("words"))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    job.exactly_once(Commit::every(INTERVAL))
}

/// One word, as often as it comes.
fn test() -> CrashTest<()> {
    crash_test(word_count)
        .inputs(
            |chance| chance.list(1..20, |_| ()),
            |bed, ()| bed.send_value("words", "tea"),
        )
        .expect::<str, u64>("word-counts", |words| {
            (1..)
                .zip(words)
                .map(|(n, ())| ("tea".to_owned(), n))
                .collect()
        })
}

/// A zombie with a record in its transaction, of which the process after it commits the same.
fn zombie(suspended: Duration) -> [Step<()>; 4] {
    [
        Step::Send(()),
        // It reads the record, and does not commit it.
        Step::Work(30),
        Step::Trouble(Trouble::TakeOver(suspended)),
        Step::Check,
    ]
}

#[test]
fn i4_what_a_zombie_commits_is_found_where_nobody_is_fenced() {
    for suspended in [Duration::ZERO, INTERVAL, INTERVAL * 7] {
        let steps = zombie(suspended);
        trial::run(&test(), 3, &steps).unwrap();
        let unfenced = CrashTest {
            fencing: Fencing::NoTransactionalIds,
            ..test()
        };
        let failure = trial::run(&unfenced, 3, &steps).unwrap_err();
        let why = "came     [Some(1), Some(1)]";
        assert!(failure.why.contains(why), "{suspended:?}: {}", failure.why);
    }
}

#[test]
fn i4_a_crash_test_finds_a_log_that_fences_nobody() {
    let unfenced = CrashTest {
        fencing: Fencing::NoTransactionalIds,
        ..test()
    };
    let ran = catch_unwind(AssertUnwindSafe(|| unfenced.run()));
    let told = *ran.unwrap_err().downcast::<String>().unwrap();
    assert!(told.contains("which becomes a zombie"), "{told}");
    test().run();
}

/// A word count of three instances. A session is as long as a log allows it to be short.
fn scaled_out() -> CrashTest<()> {
    crash_test(|| word_count().scale_out(ScaleOut::instance("host").session_timeout(SESSION)))
        .inputs(
            |chance| chance.list(1..20, |_| ()),
            |bed, ()| bed.send_value("words", "tea"),
        )
        .expect::<str, u64>("word-counts", |words| {
            (1..)
                .zip(words)
                .map(|(n, ())| ("tea".to_owned(), n))
                .collect()
        })
        .instances(3)
}

/// An instance stands still, with what it has in its transaction, until its session is over and the others have committed the same; then
/// it goes on, a member of a generation that is gone.
fn stands_still(which: usize) -> Vec<Step<()>> {
    let still = Coming::StandStill(SESSION * 2);
    vec![
        Step::Send(()),
        Step::Send(()),
        Step::Work(4),
        Step::Trouble(Trouble::Instance(still, which)),
        Step::Check,
        Step::Wait(SESSION * 3),
        Step::Check,
    ]
}

fn without_generations() -> CrashTest<()> {
    CrashTest {
        fencing: Fencing::NoGenerations,
        ..scaled_out()
    }
}

#[test]
fn i4_a_crash_test_of_instances_finds_a_group_that_refuses_nobody() {
    let unfenced = without_generations();
    let found =
        (0..1_000).find(|seed| trial::run(&unfenced, *seed, &unfenced.steps(*seed)).is_err());
    let seed = found.expect("one of a thousand random runs shows it");
    // It is this fault that it found, and no other one.
    trial::run(&scaled_out(), seed, &unfenced.steps(seed)).unwrap();
    println!("seed {seed}");
}

#[test]
fn i4_what_a_member_of_a_generation_that_is_gone_commits_is_found_where_no_group_refuses_it() {
    let unfenced = without_generations();
    let runs = (0..40).flat_map(|seed| (0..3).map(move |which| (seed, stands_still(which))));
    let mut found = runs.filter_map(|(seed, steps)| {
        let failure = trial::run(&unfenced, seed, &steps).err()?;
        Some((seed, steps, failure))
    });
    let Some((seed, steps, failure)) = found.next() else {
        panic!("no seed shows that nobody refuses such a commit");
    };
    trial::run(&scaled_out(), seed, &steps).unwrap();
    // It is shrunk and told.
    let told = unfenced.told(seed, steps, failure);
    assert!(told.contains("steps are enough"), "{told}");
    assert!(told.contains("stands still"), "{told}");
    let again = format!("repeat it: ONCEFLOW_CRASH_SEED={seed} cargo test");
    assert!(told.contains(&again), "{told}");
}
