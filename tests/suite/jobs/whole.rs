//! A source record is processed whole, or it is a dead letter (X9): nothing that it did before it failed stays.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::lines_of;
use onceflow::types::{Timestamp, TopicName};

use super::support::{
    AT_THE_END, OFTEN, Place, Seen, committed, committed_by_key, committed_values, fill_topic,
    plain_count, run, text, until, words,
};

fn dead() -> PoisonPolicy {
    PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap())
}

fn letters(log: &Log) -> Vec<String> {
    let value = |seen: &Seen| String::from_utf8(seen.value.clone().unwrap()).unwrap();
    committed(log, "dead").iter().map(value).collect()
}

fn parts(line: &str) -> impl Iterator<Item = &str> {
    line.split(',')
}

/// Parses the numbers of each record; `x` is refused, or is 3 once that is mended.
fn numbers(name: &str, source: &str, is_mended: bool) -> Job {
    let job = Job::new(name);
    job.source(topic::<str>(source).until_end())
        .flat_map(parts)
        .try_map(move |number: &str| match number {
            "x" if is_mended => Ok(3),
            _ => number.parse::<i64>(),
        })
        .sink(topic("out").partitions(1));
    job
}

#[test]
fn x9_no_part_of_a_record_that_fails_is_committed_and_its_replay_gives_what_was_missing() {
    for workers in [1, 2] {
        let place = Place::new();
        let log = place.log();
        fill_topic(&log, "in", 2, &["7", "1,2,x,4", "5,6", "x", "8"]);
        let launch = numbers("numbers", "in", false).exactly_once(Commit::every(OFTEN));
        let launch = launch.on_poison(dead()).workers(workers);
        let summary = run(launch, &log).unwrap();
        let out = || {
            let mut out = committed_values::<i64>(&log, "out");
            out.sort_unstable();
            out
        };
        assert_eq!(out(), [5, 6, 7, 8], "{summary:?}");
        let mut seen = letters(&log);
        seen.sort_unstable();
        assert_eq!(seen, ["1,2,x,4", "x"]);
        let letter = &committed(&log, "dead")[0];
        assert!(letter.header("onceflow.error").contains("invalid digit"));
        assert_eq!(letter.header("onceflow.job"), "numbers");
        let replay = numbers("replay", "dead", true).exactly_once(Commit::every(OFTEN));
        run(replay, &log).unwrap();
        // As the run without the fault: 7; 1, 2, 3, 4; 5, 6; 3; 8.
        assert_eq!(out(), [1, 2, 3, 3, 4, 5, 6, 7, 8]);
    }
}

/// A running sum, which may not fall below zero, until that is mended.
fn running_sum(is_mended: bool) -> Job {
    let job = Job::new("sums");
    job.source(topic::<str>("in").until_end())
        .try_map(|value: &str| value.parse::<i64>())
        .key_by(|_| 0u64)
        .aggregate("sum", || 0i64, |sum, n: &i64| *sum += n)
        .changes()
        .try_map(move |sum: &i64| match *sum < 0 && !is_mended {
            true => Err("below zero"),
            false => Ok(*sum),
        })
        .sink(topic("out"));
    job
}

#[test]
fn x9_a_record_that_fails_behind_state_leaves_the_state_as_it_was() {
    for commit in [OFTEN, AT_THE_END] {
        let place = Place::new();
        let log = place.log();
        fill_topic(&log, "in", 1, &["5", "-9", "3", "9"]);
        let launch = |is_mended| {
            let launch = running_sum(is_mended).exactly_once(Commit::every(commit));
            launch.on_poison(dead()).workers(2)
        };
        run(launch(false), &log).unwrap();
        assert_eq!(committed_values::<i64>(&log, "out"), [5, 8, 17]);
        assert_eq!(letters(&log), ["-9"], "the source's record, and no other");
        fill_topic(&log, "in", 1, &letters(&log));
        run(launch(true), &log).unwrap();
        // As 5 - 9 + 3 + 9.
        assert_eq!(committed_values::<i64>(&log, "out").last(), Some(&8));
    }
}

/// Counts words; the word `bad` fails behind the shuffle, where it and other words of its line were counted already.
fn fragile_count(path: &Path) -> Job {
    let job = Job::new("fragile");
    job.source(lines([path]))
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .aggregate(
            "counts",
            || (0u64, String::new()),
            |seen, word: &str| *seen = (seen.0 + 1, word.to_owned()),
        )
        .changes()
        .try_map(|(count, word): &(u64, String)| match word.as_str() {
            "bad" => Err("a bad word"),
            _ => Ok(*count),
        })
        .sink(topic("word-counts"));
    job
}

#[test]
fn x9_behind_a_shuffle_the_lines_that_fail_leave_nothing_and_no_other_is_blamed() {
    let place = Place::new();
    let mut good = String::new();
    let mut all = String::new();
    let mut bad = Vec::new();
    for (n, line) in text(9, 300).lines().enumerate() {
        if n % 60 == 30 {
            let line = format!("{line}w1 w2 bad w3");
            all.push_str(&format!("{line}\n"));
            bad.push(line);
        } else {
            all.push_str(&format!("{line}\n"));
            good.push_str(&format!("{line}\n"));
        }
    }
    let path = place.file("book", &all);
    let log = place.log();
    let launch = fragile_count(&path).exactly_once(Commit::every(OFTEN));
    let begin = Instant::now();
    let summary = run(launch.on_poison(dead()).workers(2), &log).unwrap();
    println!(
        "{} lines set apart in {:?}: {summary:?}",
        bad.len(),
        begin.elapsed()
    );
    assert_eq!(letters(&log), bad);
    let counts = committed_by_key::<str, u64>(&log, "word-counts");
    let expected = plain_count([good.as_str()]);
    let expected = expected
        .into_iter()
        .map(|(word, n)| (word, (1..=n).collect()));
    assert_eq!(counts, expected.collect::<BTreeMap<_, Vec<u64>>>());
}

#[test]
fn x9_a_storm_of_records_that_fail_after_a_part_costs_one_attempt_a_cycle() {
    let place = Place::new();
    let log = place.log();
    let storm: Vec<String> = (0..5_000).map(|n| format!("{n},x")).collect();
    fill_topic(&log, "in", 1, &storm);
    let launch = numbers("numbers", "in", false).exactly_once(Commit::every(AT_THE_END));
    let summary = run(launch.on_poison(dead()).workers(1), &log).unwrap();
    assert_eq!((summary.records, summary.discarded_records), (5_000, 5_000));
    assert_eq!(letters(&log), storm);
    assert_eq!(committed(&log, "out"), []);
}

#[test]
fn x9_records_that_fail_before_they_leave_a_trace_cost_no_attempt() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &vec!["no number"; 2_000]);
    let launch = running_sum(false).exactly_once(Commit::every(OFTEN));
    let summary = run(launch.on_poison(dead()), &log).unwrap();
    assert_eq!((summary.records, summary.discarded_records), (2_000, 0));
    assert_eq!(letters(&log).len(), 2_000);
}

#[test]
fn x9_a_storm_behind_state_makes_progress_record_by_record() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &vec!["-1"; 20]);
    let begin = Instant::now();
    let launch = running_sum(false).exactly_once(Commit::every(OFTEN));
    let summary = run(launch.on_poison(dead()).workers(1), &log).unwrap();
    println!(
        "20 records behind state in {:?}: {summary:?}",
        begin.elapsed()
    );
    assert_eq!(letters(&log).len(), 20);
    assert_eq!(committed(&log, "out"), []);
}

#[test]
fn x9_a_source_that_cannot_be_read_again_stops_rather_than_commit_a_part() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("once");
    job.source(lines_of("input", Cursor::new("1,2\n3,x\n")))
        .flat_map(parts)
        .try_map(|number: &str| number.parse::<i64>())
        .sink(topic("out"));
    let launch = job.exactly_once(Commit::every(Duration::from_secs(3600)));
    let error = run(launch.on_poison(dead()), &log).unwrap_err();
    let JobError::Poison { offset, why, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(offset.0, 4);
    assert!(why.contains("only if it is read again"), "{why}");
    assert_eq!(
        (committed(&log, "out"), committed(&log, "dead")),
        (vec![], vec![])
    );
}

#[test]
fn x9_in_a_spread_job_the_unit_is_the_record_of_the_repartition_topic() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["5", "-9", "3", "9"]);
    let launch = running_sum(false).exactly_once(Commit::every(OFTEN));
    let launch = launch
        .on_poison(dead())
        .scale_out(ScaleOut::instance("one"));
    let running = launch.start(&log).unwrap();
    until("all is processed", || {
        committed(&log, "out").len() >= 3 && !committed(&log, "dead").is_empty()
    });
    wait(running.stop()).unwrap();
    assert_eq!(committed_values::<i64>(&log, "out"), [5, 8, 17]);
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value::<i64>(), -9);
    let source = letters[0].header("onceflow.source");
    assert!(source.starts_with("sums-sum-repartition-"), "{source}");
}

#[test]
fn x9_a_letter_holds_the_key_value_headers_and_time_of_the_source() {
    let place = Place::new();
    let log = place.log();
    let source = TopicName::new("in").unwrap();
    wait(log.admin().create_topic(&source, 1)).unwrap();
    let producer = Producer::<str, str>::new(log.transport(), ProducerConfig::default()).unwrap();
    wait(async {
        for value in ["3", "-9"] {
            let record = ProducerRecord::new(&source).key("a key").value(value);
            let record = record.header("trace", b"one").header("trace", b"two");
            let sent = producer.send(record.timestamp(Timestamp(77))).await;
            drop(sent.unwrap());
        }
        producer.flush().await;
    });
    let launch = running_sum(false).exactly_once(Commit::every(OFTEN));
    run(launch.on_poison(dead()).workers(2), &log).unwrap();
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"a key"[..]));
    assert_eq!(letter.value.as_deref(), Some(&b"-9"[..]));
    let traces = letter.headers.iter().filter(|(name, _)| name == "trace");
    assert!(traces.map(|(_, value)| &**value).eq([&b"one"[..], b"two"]));
    assert_eq!(letter.header("onceflow.timestamp"), "77");
    assert_eq!(letter.header("onceflow.offset"), "1");
}
