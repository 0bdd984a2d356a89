//! Every word is counted once, whatever happens to the job.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::testing::{CrashTest, crash_test};

use super::jobs::word_count_topic::job;

/// The session of an instance, as short as a log allows.
const SESSION: Duration = Duration::from_secs(6);

fn counts(lines: &[&'static str]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let counted = words.map(|word| {
        let count = counts.entry(word).or_insert(0);
        *count += 1;
        (word.to_owned(), *count)
    });
    counted.collect()
}

fn test(job: fn() -> Launch) -> CrashTest<&'static str> {
    crash_test(job)
        .inputs(
            |chance| {
                chance.list(1..30, |chance| {
                    *chance.pick(&["to be or", "not to be", "that is"])
                })
            },
            |bed, line| bed.send_value("lines", *line),
        )
        .expect::<str, u64>("word-counts", counts)
}

#[test]
fn every_word_is_counted_once() {
    test(job).run();
}

#[test]
fn c29_every_word_is_counted_once_by_instances_that_come_and_go() {
    let test = test(|| job().scale_out(ScaleOut::instance("host").session_timeout(SESSION)));
    test.instances(3).seeds(20).run();
}
