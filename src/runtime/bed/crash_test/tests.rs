//! Crash tests on a log that fences nobody: they find it out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::steps::{Step, Trouble};
use super::{CrashTest, crash_test, trial};
use crate::prelude::*;
use crate::runtime::Launch;

const INTERVAL: Duration = Duration::from_millis(100);

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
            is_unfenced: true,
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
        is_unfenced: true,
        ..test()
    };
    let ran = catch_unwind(AssertUnwindSafe(|| unfenced.run()));
    let told = *ran.unwrap_err().downcast::<String>().unwrap();
    assert!(told.contains("which becomes a zombie"), "{told}");
    test().run();
}
