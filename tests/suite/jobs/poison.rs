//! Records that cannot be processed, and functions that panic: never half a cycle, never a silent skip (D11).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::support::{
    AT_THE_END, OFTEN, Place, Seen, assert_counted, committed, committed_by_key, committed_values,
    fill_topic, plain_count, run, text, words,
};

fn numbers(source: &str) -> Job {
    let job = Job::new("numbers");
    job.source(topic::<str>(source).until_end())
        .try_map(|value: &str| value.parse::<u64>())
        .key_by(|n| n % 3)
        .count("counts")
        .changes()
        .sink(topic("counts"));
    job
}

#[test]
fn s10_a_poison_record_is_named_and_its_cycle_leaves_nothing() {
    let place = Place::new();
    let log = place.log();
    fill_topic(
        &log,
        "in",
        2,
        &["1", "10", "2", "20", "3", "thirty", "4", "40"],
    );
    let error = run(numbers("in").exactly_once(Commit::every(AT_THE_END)), &log).unwrap_err();
    let JobError::Poison { split, offset, why } = &error else {
        panic!("{error}")
    };
    assert_eq!((split.as_str(), offset.0), ("in-1", 2), "{why}");
    assert!(why.contains("invalid digit"), "{why}");
    assert_eq!(committed(&log, "counts"), []);
}

#[test]
fn s10_a_poison_record_goes_to_the_dead_letters_with_what_is_known_of_it() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["1", "two", "3"]);
    let dead = || PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    let launch = || {
        numbers("in")
            .exactly_once(Commit::every(OFTEN))
            .on_poison(dead())
    };
    run(launch(), &log).unwrap();
    run(launch(), &log).unwrap();
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1, "once, also after another run");
    assert_eq!(letters[0].value.as_deref(), Some(&b"two"[..]));
    assert_eq!(letters[0].key, None);
    assert_eq!(letters[0].header("onceflow.source"), "in-0");
    assert_eq!(letters[0].header("onceflow.offset"), "1");
    assert_eq!(letters[0].header("onceflow.job"), "numbers");
    assert!(
        letters[0]
            .header("onceflow.error")
            .contains("invalid digit")
    );
    let counts = committed_by_key::<u64, u64>(&log, "counts");
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [(0, vec![1]), (1, vec![1])]
    );
}

#[test]
fn s10_dead_letters_of_a_cycle_that_fails_are_not_seen() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["1", "two", "3"]);
    let job = Job::new("numbers");
    job.source(topic::<str>("in").until_end())
        .try_map(|value: &str| value.parse::<u64>())
        .inspect(|n| assert!(*n < 3, "too much"))
        .sink(topic("out"));
    let launch = job.exactly_once(Commit::every(AT_THE_END));
    let dead = TopicName::new("dead").unwrap();
    let error = run(launch.on_poison(PoisonPolicy::DeadLetter(dead)), &log).unwrap_err();
    assert!(matches!(error, JobError::Panicked { .. }), "{error}");
    assert_eq!(
        (committed(&log, "dead"), committed(&log, "out")),
        (vec![], vec![])
    );
}

#[test]
fn s10_bytes_that_do_not_decode_are_poison() {
    let place = Place::new();
    let log = place.log();
    // Far too few bytes for a bincode pair of texts.
    fill_topic(&log, "in", 1, &["\u{5}ab"]);
    let job = Job::new("pairs");
    job.source(topic::<(String, String)>("in").until_end())
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    let JobError::Poison { split, offset, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((split.as_str(), offset.0), ("in-0", 0));
}

#[test]
fn s10_poison_behind_a_shuffle_names_the_source_record_too() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 2, &["a", "b", "c", "d", "e", "f"]);
    let job = Job::new("shuffled");
    job.source(topic::<str>("in").until_end())
        .key_by_ref(|value: &str| value)
        .partitioned("checked")
        .try_map(|value: &str| match value {
            "d" => Err("no d please"),
            other => Ok(other.to_owned()),
        })
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(OFTEN)).workers(2), &log).unwrap_err();
    let JobError::Poison { split, offset, why } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (split.as_str(), offset.0, why.as_str()),
        ("in-1", 1, "no d please")
    );
}

/// Panics once, for the record that says so.
fn explodes_once(armed: &Arc<AtomicBool>, word: &str) {
    if word == "boom" && armed.swap(false, Ordering::Relaxed) {
        panic!("a bug in a user's function");
    }
}

fn fragile(path: &std::path::Path, step: &str, armed: &Arc<AtomicBool>) -> Job {
    let (early, late) = (Arc::clone(armed), Arc::clone(armed));
    let (is_map, is_aggregate) = (step == "map", step == "aggregate");
    let job = Job::new("fragile");
    job.source(lines([path]))
        .flat_map(words)
        .inspect(move |word| {
            if is_map {
                explodes_once(&early, word);
            }
        })
        .key_by_ref(|word: &str| word)
        .aggregate(
            "counts",
            || 0u64,
            move |count, word: &str| {
                *count += 1;
                if is_aggregate {
                    explodes_once(&late, word);
                }
            },
        )
        .changes()
        .sink(topic("word-counts"));
    job
}

#[test]
fn c18_a_panic_in_a_user_function_commits_nothing_of_its_cycle() {
    for step in ["map", "aggregate"] {
        let place = Place::new();
        let all = format!("{}boom\n{}", text(1, 300), text(2, 300));
        let path = place.file("book", &all);
        let log = place.log();
        let armed = Arc::new(AtomicBool::new(true));
        let launch = || {
            let job = fragile(&path, step, &armed);
            job.exactly_once(Commit::every(OFTEN)).workers(2)
        };
        let error = run(launch(), &log).unwrap_err();
        let JobError::Panicked {
            split,
            offset,
            message,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(split, path.to_str().unwrap());
        assert_eq!(
            usize::try_from(offset.0).unwrap(),
            all.find("boom").unwrap()
        );
        assert_eq!(message, "a bug in a user's function");
        run(launch(), &log).unwrap();
        assert_counted(&log, &plain_count([all.as_str()]));
    }
}

/// A value whose drop panics.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "dropped while lit");
    }
}

#[test]
fn c18_a_panic_in_the_drop_of_a_value_commits_nothing_of_its_cycle() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["1", "2", "3"]);
    let job = Job::new("bombs");
    job.source(topic::<str>("in").until_end())
        .map(|value: &str| Bomb(value == "3"))
        .map(|_: &Bomb| 1u64)
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(AT_THE_END)), &log).unwrap_err();
    let JobError::Panicked {
        split,
        offset,
        message,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (split.as_str(), offset.0, message.as_str()),
        ("in-0", 2, "dropped while lit")
    );
    assert_eq!(committed(&log, "out"), []);
}

/// A function's belongings, whose drop panics on the worker that used it.
#[derive(Clone)]
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        let is_worker = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("of-worker"));
        assert!(!is_worker, "a function that will not go");
    }
}

#[test]
fn c18_a_panic_while_a_worker_is_put_away_is_reported() {
    let place = Place::new();
    let log = place.log();
    let mine = Mine;
    let job = Job::new("clinging");
    job.source(values("n", 0..3u64))
        .inspect(move |_| {
            let _ = &mine;
        })
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(AT_THE_END)).workers(1), &log).unwrap_err();
    assert!(
        error.to_string().contains("a function that will not go"),
        "{error}"
    );
    assert_eq!(
        committed_values::<u64>(&log, "out"),
        [0, 1, 2],
        "the cycle was committed before"
    );
}

#[test]
fn c18_a_panic_while_an_operator_is_made_is_reported() {
    struct Never;
    impl Operator<Unkeyed, u64> for Never {
        type OutKey = Unkeyed;
        type Out = u64;
        fn process(
            &mut self,
            record: Record<'_, Unkeyed, u64>,
            out: &mut impl Output<Unkeyed, u64>,
        ) -> Flow {
            out.push(record)
        }
    }
    let place = Place::new();
    let log = place.log();
    let job = Job::new("unmade");
    job.source(values("n", 0..3u64))
        .operator(|_| -> Result<Never, JobError> { panic!("cannot be made") })
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(error.to_string().contains("cannot be made"), "{error}");
}

#[test]
fn s15_a_record_over_the_limit_is_refused_before_the_transaction() {
    let place = Place::new();
    let log = place.log();
    let limits = [("max.message.bytes".to_owned(), "1000".to_owned())];
    let out = TopicName::new("out").unwrap();
    onceflow::client::wait(log.admin().create_topic_with(&out, 1, limits.into())).unwrap();
    let sizes = [10, 900, 400, 400, 400, 5000, 300_000, 20];
    let launch = |policy| {
        let job = Job::new("large");
        job.source(values("sizes", sizes.map(|size| size as u64)))
            .map(|size: &u64| "x".repeat(usize::try_from(*size).unwrap()))
            .sink(topic("out").codec(Text));
        job.exactly_once(Commit::every(AT_THE_END))
            .on_poison(policy)
    };
    let error = run(launch(PoisonPolicy::Fail), &log).unwrap_err();
    let JobError::Poison { offset, why, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(offset.0, 5, "{why}");
    assert!(why.contains("max.message.bytes"), "{why}");
    assert_eq!(committed(&log, "out"), []);

    // The same transaction stays usable: the others are committed with the dead letters.
    run(
        launch(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap())),
        &log,
    )
    .unwrap();
    let lengths = |seen: Vec<Seen>| {
        seen.iter()
            .map(|seen| seen.value.as_ref().unwrap().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lengths(committed(&log, "out")),
        [10, 900, 400, 400, 400, 20]
    );
    let letters = committed(&log, "dead");
    let offsets: Vec<_> = letters
        .iter()
        .map(|letter| letter.header("onceflow.offset"))
        .collect();
    assert_eq!(offsets, ["5", "6"]);
}
