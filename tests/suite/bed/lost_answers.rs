//! Jobs whose requests to the log, or their answers, get lost, repeated and late.

use std::time::Duration;

use onceflow::runtime::Windowed;
use onceflow::testing::TestBed;

use super::{assert_counts_are_exact, clicks_per_minute, draw, minute};

#[test]
fn c16_k1_counts_are_exact_whatever_the_network_loses() {
    let mut met = 0;
    assert_counts_are_exact(60, |bed, chance| match draw(chance, 8) {
        0..=2 => met += bed.lose_answers(Duration::from_millis(1 + draw(chance, 400))),
        3 => bed.settle(),
        4 if draw(chance, 3) == 0 => bed.take_over(),
        5 if draw(chance, 4) == 0 => bed.crash(),
        _ => {}
    });
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
