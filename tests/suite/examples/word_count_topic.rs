//! Every word is counted once, whatever happens to the job.

use std::collections::BTreeMap;

use onceflow::testing::crash_test;

use super::jobs::word_count_topic::job;

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

#[test]
fn every_word_is_counted_once() {
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
        .run();
}
