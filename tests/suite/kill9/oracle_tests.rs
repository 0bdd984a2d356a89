//! The oracle's own tests: a good history passes, and each kind of bad one is noticed.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::oracle::Oracle;
use super::plan::line;

const SEED: u64 = 7;
const LINES: i64 = 20;

/// Words of two lives when all is well: both find every line counted; between them two readers saw the second half.
struct History {
    first: Vec<String>,
    second: Vec<String>,
}

/// Everything that `lines` lines of partition 0 lead to, as a snapshot says it.
fn snapshot(lines: i64, skip: &Counts) -> (Vec<String>, Counts) {
    let mut counts = Counts::default();
    let mut said = Vec::new();
    for offset in 0..lines {
        for word in line(SEED, 0, offset).split(' ') {
            counts.add("updates", "wc-counts-changelog", word, &mut said);
            counts.add(
                "letters",
                "wc-letter-counts-changelog",
                &word[..1],
                &mut said,
            );
        }
    }
    let is_new = |line: &String| {
        let parts: Vec<&str> = line.split(' ').collect();
        skip.next
            .get(parts[2])
            .is_none_or(|end| parts[4].parse::<i64>().unwrap() >= *end)
    };
    said.retain(is_new);
    said.push(format!("position wc lines 0 {lines}"));
    said.push(format!("end lines 0 {lines}"));
    for (topic, end) in &counts.next {
        said.push(format!("end {topic} 0 {end}"));
    }
    said.push("checked".to_owned());
    (said, counts)
}

#[derive(Default)]
struct Counts {
    values: HashMap<(String, String), u64>,
    next: HashMap<String, i64>,
}

impl Counts {
    fn add(&mut self, topic: &str, changelog: &str, key: &str, said: &mut Vec<String>) {
        let value = self
            .values
            .entry((topic.to_owned(), key.to_owned()))
            .or_default();
        *value += 1;
        for topic in [topic, changelog] {
            let next = self.next.entry(topic.to_owned()).or_default();
            said.push(format!("r s {topic} 0 {next} {key} {value}"));
            *next += 1;
        }
    }
}

fn history() -> History {
    let (mut first, counts) = snapshot(LINES / 2, &Counts::default());
    let (second, all) = snapshot(LINES, &counts);
    for who in ["0", "1"] {
        for line in &second {
            if let Some(rest) = line.strip_prefix("r s ")
                && !rest.contains("changelog")
            {
                first.push(format!("r {who} {rest}"));
            }
        }
        for topic in ["updates", "letters"] {
            first.push(format!("at {who} {topic} 0 {}", all.next[topic]));
        }
    }
    first.push(format!("acked {LINES}"));
    History { first, second }
}

fn passes(history: &History) -> bool {
    let mut oracle = Oracle::new(SEED);
    let judged = catch_unwind(AssertUnwindSafe(|| {
        oracle.judge(&history.first);
        oracle.judge(&history.second);
    }));
    judged.is_ok() && oracle.checks_count == 2
}

/// The last line of `lines` that begins so.
fn last(lines: &[String], start: &str) -> usize {
    lines
        .iter()
        .rposition(|line| line.starts_with(start))
        .unwrap()
}

#[test]
fn the_oracle_passes_a_good_history() {
    assert!(passes(&history()));
}

#[test]
fn the_oracle_notices_a_lost_a_doubled_and_a_changed_record_in_every_topic() {
    for topic in [
        "updates",
        "letters",
        "wc-counts-changelog",
        "wc-letter-counts-changelog",
    ] {
        let start = format!("r s {topic} ");
        let lost = {
            let mut bad = history();
            bad.second.remove(last(&bad.second, &start));
            bad
        };
        assert!(!passes(&lost), "lost in {topic}");
        let changed = {
            let mut bad = history();
            let at = last(&bad.second, &start);
            bad.second[at].push('0');
            bad
        };
        assert!(!passes(&changed), "changed in {topic}");
    }
    for topic in ["updates", "letters"] {
        let mut bad = history();
        let at = last(&bad.second, &format!("r s {topic} "));
        let again = bad.second[at].replacen(" 0 ", " 0 9", 1);
        bad.second.insert(at + 1, again);
        assert!(!passes(&bad), "doubled in {topic}");
    }
}

#[test]
fn the_oracle_notices_what_went_back_or_stayed_open() {
    type Change = fn(&mut History);
    let changes: [(&str, Change); 6] = [
        ("a position", |bad| {
            bad.second
                .push(format!("position wc lines 0 {}", LINES / 2 - 1))
        }),
        ("a position alone", |bad| {
            bad.second
                .push(format!("position wc lines 0 {}", LINES - 1))
        }),
        ("an end", |bad| {
            bad.second.push("end updates 0 1".to_owned())
        }),
        ("an acknowledged line", |bad| {
            bad.first.push(format!("acked {}", LINES + 1))
        }),
        ("an open transaction", |bad| {
            bad.second.push("undecided wc-0 Ongoing".to_owned())
        }),
        ("a failed child", |bad| {
            bad.second.push("failed because".to_owned())
        }),
    ];
    for (what, change) in changes {
        let mut bad = history();
        change(&mut bad);
        assert!(!passes(&bad), "{what}");
    }
}

#[test]
fn the_oracle_notices_a_reader_that_disagrees_skips_or_sees_twice() {
    for who in ["0", "1"] {
        let start = format!("r {who} updates ");
        let changes: [fn(&mut Vec<String>, usize); 4] = [
            |lines, at| drop(lines.remove(at)),
            |lines, at| lines[at].push('7'),
            |lines, at| lines.push(lines[at].clone()),
            |lines, at| lines.push(lines[at].replacen(" updates 0 ", " updates 0 9", 1)),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut bad = history();
            let at = last(&bad.first, &start);
            change(&mut bad.first, at);
            assert!(!passes(&bad), "change {number} of reader {who}");
        }
    }
}
