//! Every minute has one mean, whatever happens to the job.

use std::collections::BTreeSet;

use onceflow::testing::{Chance, crash_test};

/// Readings with times that jump back and forth; the last one closes all minutes.
fn readings(chance: &mut Chance) -> Vec<(i64, u64)> {
    let mut time = 0;
    let mut readings = chance.list(1..30, |chance| {
        time += *chance.pick(&[1_000, 30_000, 120_000]);
        let behind = *chance.pick(&[0, 5_000, 300_000]);
        ((time - behind).max(0), chance.below(30))
    });
    readings.push((time + 1_000_000, 0));
    readings
}

#[test]
fn every_minute_has_one_mean_and_every_reading_one_place() {
    crash_test(super::jobs::sensors::job)
        .inputs(readings, |bed, (time, degrees)| {
            bed.send_value("readings", format!("attic {time} {degrees}").as_str());
        })
        .partitions("readings", 1)
        .check(|bed, readings| {
            let means = bed.rows::<[u8], str>("means");
            let minutes: BTreeSet<_> = means.iter().map(|row| &row.value).collect();
            assert_eq!(
                means.len(),
                minutes.len(),
                "a minute has two means: {means:?}"
            );
            let late = bed.rows::<[u8], str>("late-readings");
            assert!(late.len() + means.len() <= readings.len());
        })
        .run();
}
