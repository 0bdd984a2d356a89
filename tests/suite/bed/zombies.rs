//! Processes of a job that another one took over from, and that go on all the same.

use std::time::Duration;

use onceflow::runtime::Windowed;
use onceflow::testing::TestBed;

use super::{assert_counts_are_exact, clicks_per_minute, draw, minute, word_count};

#[test]
fn i4_counts_are_exact_whoever_takes_over_from_whom() {
    let mut zombies_seen = 0;
    assert_counts_are_exact(60, |bed, chance| {
        match draw(chance, 8) {
            0 | 1 => bed.take_over(),
            2 => bed.advance(Duration::from_millis(1 + draw(chance, 150))),
            3 => bed.settle(),
            4 if draw(chance, 4) == 0 => bed.crash(),
            5 if draw(chance, 4) == 0 => bed.lose_power(),
            _ => {}
        }
        zombies_seen = zombies_seen.max(bed.zombies());
    });
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
