//! Jobs in a test bed: virtual time, one thread, real commits, a simulated machine.

mod calls;
mod crash;
mod instances;
mod lost_answers;
mod zombies;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::{Launch, Windowed};
use onceflow::testing::TestBed;
use onceflow::types::{Timestamp, TopicName};

const MINUTE: Duration = Duration::from_secs(60);

fn word_count() -> Launch {
    let job = Job::new("word-count");
    job.source(topic::<str>("words"))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

fn clicks_per_minute() -> Launch {
    let job = Job::new("clicks");
    job.keyed_source(keyed_topic::<str, u64>("clicks"))
        .window(FixedWindows::tumbling(MINUTE).grace(MINUTE))
        .count("per-minute")
        .sink(topic("clicks-per-minute"));
    job.exactly_once(Commit::every(Duration::from_secs(1)))
}

fn minute(number: i64) -> Timestamp {
    Timestamp(1_767_225_600_000 + number * 60_000)
}

/// A number below `bound`, by a state that it moves on.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % bound
}

fn message_of(panic: Box<dyn std::any::Any + Send>) -> String {
    *panic.downcast::<String>().expect("a message")
}

/// Counts 30 words with whatever `trouble` does after each, and compares each word's counts with a plain program's, a seed at a time.
fn assert_counts_are_exact(seeds: u64, mut trouble: impl FnMut(&mut TestBed, &mut u64)) {
    for seed in 0..seeds {
        let mut chance = seed;
        let mut bed = TestBed::of(word_count())
            .seed(seed)
            .partitions("words", 3)
            .start();
        let mut model = BTreeMap::<String, u64>::new();
        for _ in 0..30 {
            let word = format!("w{}", draw(&mut chance, 5));
            bed.send_value::<str>("words", &word);
            *model.entry(word).or_default() += 1;
            trouble(&mut bed, &mut chance);
        }
        let mut came = BTreeMap::<String, Vec<u64>>::new();
        for row in bed.rows::<str, u64>("word-counts") {
            came.entry(row.key.unwrap())
                .or_default()
                .push(row.value.unwrap());
        }
        let expected = model
            .into_iter()
            .map(|(word, count)| (word, (1..=count).collect()));
        assert_eq!(came, expected.collect(), "seed {seed}");
    }
}

#[test]
fn counts_are_exact_whatever_is_killed_or_loses_power() {
    assert_counts_are_exact(40, |bed, chance| {
        // Several in a row, or none.
        while draw(chance, 12) < 6 {
            match draw(chance, 6) {
                0 => bed.crash(),
                1 => bed.lose_power(),
                2 => bed.restart_with(1 + usize::try_from(draw(chance, 4)).unwrap()),
                3 | 4 => bed.advance(Duration::from_millis(draw(chance, 150))),
                _ => bed.settle(),
            }
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut bed = TestBed::of(word_count()).seed(seed).start();
        for word in ["tea", "milk", "tea", "jam", "tea"] {
            bed.send_value("words", word);
            bed.advance(Duration::from_millis(70));
        }
        bed.commit();
        bed.world().trace_hash()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8), "another seed, another order of turns");
}

#[test]
fn windows_close_when_the_time_of_the_input_says_so() {
    let mut bed = TestBed::of(clicks_per_minute())
        .partitions("clicks", 1)
        .start();
    bed.send_at("clicks", "ada", &1u64, minute(0));
    bed.send_at("clicks", "ada", &1u64, minute(1));
    bed.expect_nothing("clicks-per-minute");
    bed.crash();
    bed.send_at("clicks", "bob", &1u64, minute(5));
    let rows = bed.rows::<Windowed<str>, u64>("clicks-per-minute");
    let mut counts: Vec<_> = rows
        .into_iter()
        .map(|row| (row.key.unwrap().window.start, row.value.unwrap()))
        .collect();
    counts.sort();
    assert_eq!(counts, [(minute(0), 1), (minute(1), 1)]);
    // Behind the closed windows.
    bed.send_at("clicks", "ada", &1u64, minute(0));
    bed.commit();
    assert_eq!(bed.progress().late_records, 1);
}

#[test]
fn a_failed_expectation_says_what_came_and_where_the_job_stands() {
    let mut bed = TestBed::of(word_count()).seed(3).start();
    bed.send_value("words", "tea");
    let failed = catch_unwind(AssertUnwindSafe(|| {
        bed.expect::<str, u64>("word-counts", [("tea", 2), ("jam", 1)]);
    }));
    let told = message_of(failed.unwrap_err());
    for part in [
        "word-counts is not what was expected",
        "\"jam\":\n    expected [Some(1)]\n    came     nothing",
        "\"tea\":\n    expected [Some(2)]\n    came     [Some(1)]",
        "with 1 records (seed 3,",
        "source words-",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}

/// Sets a timer a minute behind each record.
struct Remind {
    timers: onceflow::runtime::TimedStore<u64>,
}

impl Operator<str, u64> for Remind {
    type OutKey = str;
    type Out = u64;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(&mut self, record: Record<'_, str, u64>, _out: &mut impl Output<str, u64>) -> Flow {
        let due = Timestamp(record.meta.timestamp.0 + 60_000);
        self.timers.set_timer(record.key, due)
    }
}

#[test]
fn a_failed_expectation_says_what_is_open_and_who_holds_time_back() {
    let mut bed = TestBed::of(clicks_per_minute())
        .partitions("clicks", 2)
        .start();
    // Keys of both partitions.
    bed.send_at("clicks", "ada", &1u64, minute(9));
    for key in ["bob", "cy", "dan", "eve", "fay", "gus"] {
        bed.send_at("clicks", key, &1u64, minute(3));
    }
    let failed = catch_unwind(AssertUnwindSafe(|| {
        bed.expect::<Windowed<str>, u64>("clicks-per-minute", []);
        bed.expect::<str, u64>("clicks-per-minute", [("never", 1)]);
    }));
    let told = message_of(failed.unwrap_err());
    println!("{told}");
    for part in ["open in per-minute: ", " more", "time waits for it"] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }

    let job = Job::new("reminders");
    job.keyed_source(keyed_topic::<str, u64>("clicks"))
        .with_timed_store::<u64>("reminders")
        .process("remind", |context| {
            Ok(Remind {
                timers: context.timed_store("reminders")?,
            })
        })
        .sink(topic("reminded"));
    let mut bed = TestBed::new(job.exactly_once(Commit::every(Duration::from_secs(1))));
    bed.send_at("clicks", "ada", &1u64, minute(0));
    let failed = catch_unwind(AssertUnwindSafe(|| {
        bed.expect::<str, u64>("reminded", [("ada", 1)]);
    }));
    let told = message_of(failed.unwrap_err());
    let expected = format!("open in reminders: timer of \"ada\" at {}", minute(1).0);
    assert!(told.contains(&expected), "{expected:?} is not in:\n{told}");
}

#[test]
fn what_came_is_expected_once() {
    let mut bed = TestBed::new(word_count());
    bed.send_value("words", "tea");
    bed.expect::<str, u64>("word-counts", [("tea", 1)]);
    bed.expect_nothing("word-counts");
    bed.lose_power();
    bed.expect_nothing("word-counts");
    bed.send_value("words", "tea");
    bed.expect::<str, u64>("word-counts", [("tea", 2)]);
}

#[test]
fn commits_come_at_their_time() {
    let mut bed = TestBed::new(word_count());
    bed.send_value("words", "tea");
    bed.settle();
    assert_eq!(bed.progress().commits, 0);
    bed.advance(Duration::from_millis(99));
    assert_eq!(bed.progress().commits, 0);
    bed.advance(Duration::from_millis(2));
    assert_eq!(bed.progress().commits, 1);
}

#[test]
fn a_job_that_fails_says_why() {
    let build = |policy| {
        let job = Job::new("parse");
        job.source(topic::<str>("texts"))
            .try_map(|text: &str| text.parse::<u64>())
            .sink(topic("numbers"));
        job.exactly_once(Commit::every(Duration::from_millis(100)))
            .on_poison(policy)
    };
    let mut bed = TestBed::new(build(PoisonPolicy::Fail));
    bed.send_value("texts", "seven");
    let error = bed.expect_failure().to_string();
    assert!(error.contains("invalid digit"), "{error}");

    let letters = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    let mut bed = TestBed::new(build(letters));
    bed.send_value("texts", "seven");
    bed.send_value("texts", "8");
    let rows = bed.take::<[u8], u64>("numbers");
    assert_eq!(
        rows.iter().map(|row| row.value).collect::<Vec<_>>(),
        [Some(8)]
    );
    let dead = bed.take::<[u8], str>("dead");
    assert_eq!(dead[0].value.as_deref(), Some("seven"));
}

#[test]
fn a_stopped_job_has_committed_what_it_had() {
    let mut bed = TestBed::new(word_count());
    bed.send_value("words", "tea");
    bed.stop();
    assert!(matches!(bed.ended(), Some(Ok(()))));
    assert_eq!(bed.rows::<str, u64>("word-counts").len(), 1);
}
