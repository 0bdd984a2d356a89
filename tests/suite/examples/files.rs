//! The examples that read files: each line counts once, also where the files grow between two runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::jobs::{clicks_per_minute, word_count};
use crate::jobs::support::{committed_by_key, committed_values};

/// Runs a job until its files end, in a process's place.
fn run(data: &Path, launch: Launch) {
    let log = Log::embedded(data).unwrap();
    wait(launch.start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

#[test]
fn each_word_is_counted_once_while_its_file_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("book.txt"));
    let mut text = String::new();
    let mut counts = BTreeMap::<String, Vec<u64>>::new();
    for part in 0..3 {
        for line in 0..50 {
            let words = ["to be  or", "not to be", "\tthat is", ""][(part + line) % 4];
            writeln!(text, "{words}").unwrap();
            for word in words.split_whitespace() {
                let counts = counts.entry(word.to_owned()).or_default();
                counts.push(1 + u64::try_from(counts.len()).unwrap());
            }
        }
        std::fs::write(&file, &text).unwrap();
        run(&data, word_count::job(lines([&file])));
    }
    let log = Log::embedded(&data).unwrap();
    assert_eq!(committed_by_key::<str, u64>(&log, "word-counts"), counts);
}

#[test]
fn each_click_is_in_its_minute_or_late() {
    const MINUTE: i64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("clicks.txt"));
    let (mut text, mut watermark) = (String::new(), i64::MIN);
    let mut minutes = BTreeMap::<(i64, &str), u64>::new();
    let mut late = Vec::new();
    for number in 0..300i64 {
        // Now and then a click is a little behind, and a few are far behind.
        let behind = [0, 4_000, 0, 0, 90_000][usize::try_from(number % 5).unwrap()];
        let (user, time) = (
            ["ann", "bob", "eve"][usize::try_from(number % 3).unwrap()],
            number * 2_500 - behind,
        );
        writeln!(text, "{user} {time}").unwrap();
        let start = time.div_euclid(MINUTE) * MINUTE;
        match start + MINUTE <= watermark {
            true => late.push(format!("{user} {time}")),
            false => *minutes.entry((start, user)).or_default() += 1,
        }
        watermark = watermark.max(time - 5_000);
    }
    assert!(late.len() > 20 && minutes.len() > 20);
    std::fs::write(&file, &text).unwrap();
    // The second run finds nothing new.
    for _ in 0..2 {
        run(&data, clicks_per_minute::job(lines([&file])));
    }
    let log = Log::embedded(&data).unwrap();
    let sorted = |topic: &str| {
        let mut values = committed_values::<str>(&log, topic);
        values.sort();
        values
    };
    let told = minutes
        .into_iter()
        .map(|((start, user), clicks)| format!("{start} {user} {clicks}"));
    let mut told: Vec<String> = told.collect();
    told.sort();
    late.sort();
    assert_eq!(sorted("clicks-per-minute"), told);
    assert_eq!(sorted("late-clicks"), late);
}
