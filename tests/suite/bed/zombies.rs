//! Processes of a job that another one took over from, and that go on all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::runtime::Windowed;
use onceflow::testing::TestBed;

use super::{clicks_per_minute, draw, minute, word_count};

#[test]
fn i4_counts_are_exact_whoever_takes_over_from_whom() {
    let mut zombies_seen = 0;
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
                0 | 1 => bed.take_over(),
                2 => bed.advance(Duration::from_millis(1 + draw(&mut chance, 150))),
                3 => bed.settle(),
                4 if draw(&mut chance, 4) == 0 => bed.crash(),
                5 if draw(&mut chance, 4) == 0 => bed.lose_power(),
                _ => {}
            }
            zombies_seen = zombies_seen.max(bed.zombies());
        }
        let mut counts = BTreeMap::<String, Vec<u64>>::new();
        for row in bed.rows::<str, u64>("word-counts") {
            let values = counts.entry(row.key.unwrap()).or_default();
            values.push(row.value.unwrap());
        }
        for (word, count) in model {
            let expected: Vec<u64> = (1..=count).collect();
            assert_eq!(counts.remove(&word), Some(expected), "{word}, seed {seed}");
        }
        assert_eq!(counts, BTreeMap::new(), "seed {seed}");
    }
    assert!(zombies_seen >= 2, "several at once");
}

#[test]
fn i4_a_zombie_learns_at_its_next_commit_that_it_is_fenced_and_ends() {
    let mut bed = TestBed::new(word_count());
    bed.send_value("words", "tea");
    bed.settle();
    bed.take_over();
    assert_eq!(bed.zombies(), 1);
    bed.advance(Duration::from_millis(200));
    assert_eq!(bed.zombies(), 0);
    bed.expect::<str, u64>("word-counts", [("tea", 1)]);
}

#[test]
fn i4_i15_a_window_that_a_zombie_holds_open_closes_once() {
    let mut bed = TestBed::of(clicks_per_minute())
        .partitions("clicks", 1)
        .start();
    bed.send_at("clicks", "ada", &1u64, minute(0));
    bed.commit();
    // Both read the record that closes the window, and each closes it.
    bed.send_at("clicks", "bob", &1u64, minute(5));
    bed.settle();
    bed.take_over();
    bed.advance(Duration::from_secs(5));
    let rows = bed.rows::<Windowed<str>, u64>("clicks-per-minute");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(bed.zombies(), 0);
}
