//! Jobs whose requests to the log, or their answers, get lost, repeated and late.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::runtime::Windowed;
use onceflow::testing::TestBed;

use super::{clicks_per_minute, draw, minute, word_count};

/// Each word's counts in the order in which they were written.
fn counts(bed: &mut TestBed) -> BTreeMap<String, Vec<u64>> {
    let mut counts = BTreeMap::<String, Vec<u64>>::new();
    for row in bed.rows::<str, u64>("word-counts") {
        let values = counts.entry(row.key.unwrap()).or_default();
        values.push(row.value.unwrap());
    }
    counts
}

#[test]
fn c16_k1_counts_are_exact_whatever_the_network_loses() {
    let mut met = 0;
    for seed in 0..60u64 {
        let mut chance = seed;
        let mut bed = TestBed::of(word_count())
            .seed(seed)
            .partitions("words", 3)
            .start();
        let mut model = BTreeMap::<String, u64>::new();
        for _ in 0..30 {
            let word = format!("w{}", draw(&mut chance, 4));
            bed.send_value("words", word.as_str());
            *model.entry(word).or_default() += 1;
            match draw(&mut chance, 8) {
                0..=2 => met += bed.lose_answers(Duration::from_millis(1 + draw(&mut chance, 400))),
                3 => bed.settle(),
                4 if draw(&mut chance, 3) == 0 => bed.take_over(),
                5 if draw(&mut chance, 4) == 0 => bed.crash(),
                _ => {}
            }
        }
        bed.commit();
        let model = model
            .into_iter()
            .map(|(word, count)| (word, (1..=count).collect()));
        assert_eq!(counts(&mut bed), model.collect(), "seed {seed}");
    }
    assert!(met > 1_000, "{met} requests met something");
}

#[test]
fn c16_k1_a_transaction_whose_end_is_not_answered_is_there_once() {
    let mut met = 0;
    for seed in 0..40u64 {
        let mut bed = TestBed::of(clicks_per_minute())
            .seed(seed)
            .partitions("clicks", 1)
            .start();
        bed.send_at("clicks", "ada", &1u64, minute(0));
        met += bed.lose_answers(Duration::from_secs(2));
        bed.send_at("clicks", "bob", &1u64, minute(5));
        met += bed.lose_answers(Duration::from_secs(2));
        bed.commit();
        let rows = bed.rows::<Windowed<str>, u64>("clicks-per-minute");
        assert_eq!(rows.len(), 1, "seed {seed}: {rows:?}");
    }
    assert!(met > 100, "{met} requests met something");
}
