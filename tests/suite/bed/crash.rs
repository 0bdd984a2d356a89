//! Crash tests: right jobs hold through all seeds, wrong ones are found, and what is told of them is short and repeats.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::{Launch, Windowed};
use onceflow::testing::{Chance, crash_test};
use onceflow::types::{Timestamp, TopicName};

use super::{clicks_per_minute, message_of, minute, word_count};

fn often() -> Commit {
    Commit::every(Duration::from_millis(100))
}

fn words(chance: &mut Chance) -> Vec<&'static str> {
    chance.list(1..40, |chance| {
        *chance.pick(&["tea", "milk", "jam", "bread"])
    })
}

/// The count of each word at each of its occurrences.
fn counted(words: &[&'static str]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    let counted = words.iter().map(|word| {
        let count = counts.entry(*word).or_insert(0);
        *count += 1;
        ((*word).to_owned(), *count)
    });
    counted.collect()
}

#[test]
fn a_right_job_holds_through_all_seeds() {
    crash_test(word_count)
        .inputs(words, |bed, word| bed.send_value("words", *word))
        .partitions("words", 3)
        .expect::<str, u64>("word-counts", counted)
        .expect_state::<str, u64>("counts", |words| {
            counted(words)
                .into_iter()
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect()
        })
        .seeds(200)
        .run();
}

#[test]
fn windows_close_once_whatever_happens() {
    type Click = (&'static str, i64);
    let draw = |chance: &mut Chance| {
        let mut at = 0;
        let mut clicks: Vec<Click> = chance.list(1..30, |chance| {
            at += i64::try_from(chance.below(2)).unwrap();
            (*chance.pick(&["ada", "bob"]), at)
        });
        clicks.push(("end", at + 5));
        clicks
    };
    let model = |clicks: &[Click]| {
        let last = clicks.iter().map(|click| click.1).max().unwrap_or(0);
        let mut counts = BTreeMap::<(i64, &str), u64>::new();
        for (user, at) in clicks {
            *counts.entry((*at, user)).or_default() += 1;
        }
        // A window of a minute, with a minute's grace.
        let closed = counts.into_iter().filter(|((at, _), _)| at + 2 <= last);
        closed
            .map(|((at, user), count)| ((at, user.to_owned()), count))
            .collect::<BTreeMap<_, _>>()
    };
    crash_test(clicks_per_minute)
        .inputs(draw, |bed, (user, at)| {
            bed.send_at("clicks", *user, &1u64, minute(*at))
        })
        .partitions("clicks", 1)
        .check(move |bed, clicks| {
            let rows = bed
                .rows::<Windowed<str>, u64>("clicks-per-minute")
                .into_iter();
            let rows: Vec<_> = rows
                .map(|row| {
                    let key = row.key.unwrap();
                    let Timestamp(start) = key.window.start;
                    (
                        ((start - minute(0).0) / 60_000, key.key),
                        row.value.unwrap(),
                    )
                })
                .collect();
            let distinct: BTreeMap<_, _> = rows.iter().cloned().collect();
            assert_eq!(
                rows.len(),
                distinct.len(),
                "a window was written twice: {rows:?}"
            );
            assert_eq!(distinct, model(clicks));
        })
        .seeds(100)
        .run();
}

/// Both sides of each transfer, in output that follows from the order of partitions: so the judge is a predicate.
#[test]
fn sums_stay_whole_whatever_happens() {
    let transfers = || {
        let job = Job::new("transfers");
        job.keyed_source(keyed_topic::<str, i64>("transfers"))
            .entries(|from, amount| [(from.to_owned(), -*amount), ("bank".to_owned(), *amount)])
            .flat_map_into(|sides: &[(String, i64); 2]| sides.clone())
            .key_by(|side: &(String, i64)| side.0.clone())
            .aggregate("accounts", || 0i64, |sum: &mut i64, side| *sum += side.1)
            .changes()
            .sink(topic("balances"));
        job.exactly_once(often())
    };
    crash_test(transfers)
        .inputs(
            |chance| {
                let one = |chance: &mut Chance| {
                    let amount = i64::try_from(chance.below(100)).unwrap();
                    (*chance.pick(&["ada", "bob", "eve"]), amount)
                };
                chance.list(1..20, one)
            },
            |bed, (from, amount)| bed.send("transfers", *from, amount),
        )
        .check(|bed, transfers| {
            let rows = bed.rows::<str, i64>("balances");
            assert_eq!(rows.len(), 2 * transfers.len());
            let last: BTreeMap<_, _> = rows
                .into_iter()
                .map(|row| (row.key, row.value.unwrap()))
                .collect();
            assert_eq!(last.values().sum::<i64>(), 0);
        })
        .seeds(100)
        .run();
}

#[test]
fn dead_letters_are_written_once_whatever_happens() {
    let parse = || {
        let job = Job::new("parse");
        job.source(topic::<str>("texts"))
            .try_map(|text: &str| text.parse::<u64>())
            .key_by(|number: &u64| *number)
            .count("seen")
            .changes()
            .sink(topic("numbers"));
        job.exactly_once(often())
            .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
    };
    crash_test(parse)
        .inputs(
            |chance| chance.list(1..20, |chance| *chance.pick(&["1", "2", "seven", "8"])),
            |bed, text| bed.send_value("texts", *text),
        )
        .check(|bed, texts| {
            let dead = texts
                .iter()
                .filter(|text| text.parse::<u64>().is_err())
                .count();
            assert_eq!(bed.rows::<[u8], str>("dead").len(), dead);
            assert_eq!(bed.rows::<u64, u64>("numbers").len(), texts.len() - dead);
        })
        .seeds(100)
        .run();
}

/// Drops words that were seen before, and forgets which ones when its process dies.
fn forgetful() -> Launch {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let job = Job::new("first-words");
    job.source(topic::<str>("words"))
        .filter(move |word: &str| seen.lock().unwrap().insert(word.to_owned()))
        .key_by_ref(|word: &str| word)
        .count("firsts")
        .changes()
        .sink(topic("first-words"));
    job.exactly_once(often())
}

fn test_the_forgetful() {
    crash_test(forgetful)
        .inputs(words, |bed, word| bed.send_value("words", *word))
        .expect::<str, u64>("first-words", |words| {
            let distinct: BTreeSet<_> = words.iter().map(|word| (*word).to_owned()).collect();
            distinct.into_iter().map(|word| (word, 1)).collect()
        })
        .run();
}

fn failure_of(test: impl FnOnce()) -> String {
    message_of(catch_unwind(AssertUnwindSafe(test)).expect_err("it is found"))
}

#[test]
fn a_job_that_keeps_state_outside_of_its_stores_is_found_and_shrunk() {
    let told = failure_of(test_the_forgetful);
    let steps: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("  ") && line.contains(". "))
        .collect();
    let sent: Vec<_> = steps.iter().filter(|step| step.contains("send ")).collect();
    assert!((1..=2).contains(&sent.len()), "{told}");
    assert!(steps.len() <= 5, "{told}");
    for part in [
        "the job \"first-words\" is not exact (seed ",
        "first-words is not what the model says",
        " steps are enough:",
        "repeat it: ONCEFLOW_CRASH_SEED=",
        "cargo test bed::crash::a_job_that_keeps_state_outside_of_its_stores",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

#[test]
#[ignore = "the process that repeats a failure"]
fn the_forgetful() {
    test_the_forgetful();
}

#[test]
fn the_printed_line_repeats_the_failure() {
    let told = failure_of(test_the_forgetful);
    let seed = told.split("ONCEFLOW_CRASH_SEED=").nth(1).unwrap();
    let seed = seed.split(' ').next().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "bed::crash::the_forgetful",
            "--ignored",
            "--nocapture",
        ])
        .env("ONCEFLOW_CRASH_SEED", seed)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let same = told.split("\nrepeat it:").next().unwrap();
    assert!(printed.contains(same), "{same}\nis not in:\n{printed}");
}

#[test]
fn a_job_that_counts_in_a_static_is_found() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let numbered = || {
        let job = Job::new("numbered");
        job.source(topic::<str>("words"))
            .map(|_: &str| COUNT.fetch_add(1, Ordering::Relaxed))
            .sink(topic("numbers"));
        job.exactly_once(often())
    };
    let told = failure_of(|| {
        crash_test(numbered)
            .inputs(
                |chance| {
                    COUNT.store(0, Ordering::Relaxed);
                    words(chance)
                },
                |bed, word| bed.send_value("words", *word),
            )
            .check(|bed, words| {
                let rows = bed.rows::<[u8], u64>("numbers").into_iter();
                let mut numbers: Vec<_> = rows.map(|row| row.value.unwrap()).collect();
                numbers.sort_unstable();
                let expected: Vec<_> = (0..words.len() as u64).collect();
                assert_eq!(numbers, expected, "numbers without gaps");
            })
            .run();
    });
    assert!(told.contains("numbers without gaps"), "{told}");
    assert!(
        told.contains("crash.rs:"),
        "the place of the assertion:\n{told}"
    );
}

#[test]
fn a_wrong_model_needs_no_trouble_to_be_found() {
    let told = failure_of(|| {
        crash_test(word_count)
            .inputs(words, |bed, word| bed.send_value("words", *word))
            .expect::<str, u64>("word-counts", |words| {
                words.iter().map(|word| ((*word).to_owned(), 1)).collect()
            })
            .run();
    });
    assert!(told.contains("2 of ") && !told.contains("kill"), "{told}");
}
