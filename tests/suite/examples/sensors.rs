//! Every minute has its mean once, and every reading its place, whatever happens to the job.

use std::collections::BTreeMap;

use onceflow::testing::{Chance, crash_test};

const MINUTE_MS: i64 = 60_000;
const GRACE_MS: i64 = 30_000;
const DISORDER_MS: i64 = 10_000;

/// A sensor, a time, and degrees.
type Reading = (&'static str, i64, u64);

/// Readings with times that jump back and forth; the last one closes all minutes.
fn readings(chance: &mut Chance) -> Vec<Reading> {
    let mut time = 0;
    let mut readings = chance.list(1..30, |chance| {
        time += *chance.pick(&[1_000, 30_000, 120_000]);
        let behind = *chance.pick(&[0, 5_000, 50_000, 300_000]);
        let sensor = *chance.pick(&["attic", "cellar"]);
        (sensor, (time - behind).max(0), chance.below(30))
    });
    readings.push(("attic", time + 1_000_000, 0));
    readings
}

/// The means of the minutes that are closed, and the readings that came too late for theirs.
fn means_and_late(readings: &[Reading]) -> (Vec<String>, Vec<String>) {
    let mut watermark = i64::MIN;
    let mut minutes: BTreeMap<(i64, &str), Vec<u64>> = BTreeMap::new();
    let mut late = Vec::new();
    let closes = |start: i64| start + MINUTE_MS + GRACE_MS;
    for (sensor, time, degrees) in readings {
        let start = time.div_euclid(MINUTE_MS) * MINUTE_MS;
        match closes(start) <= watermark {
            true => late.push(format!("{sensor} {time} {degrees}")),
            false => minutes.entry((start, sensor)).or_default().push(*degrees),
        }
        watermark = watermark.max(time - DISORDER_MS);
    }
    let closed = minutes
        .iter()
        .filter(|((start, _), _)| closes(*start) <= watermark);
    let mut means: Vec<String> = closed
        .map(|((start, sensor), degrees)| {
            let (sum, count) = degrees.iter().fold((0.0, 0.0), |(sum, count), it| {
                (sum + f64::from(u32::try_from(*it).unwrap()), count + 1.0)
            });
            format!("{sensor} {start} {:.1}", sum / count)
        })
        .collect();
    means.sort();
    late.sort();
    (means, late)
}

#[test]
fn every_minute_has_its_mean_and_every_reading_its_place() {
    crash_test(super::jobs::sensors::job)
        .inputs(readings, |bed, (sensor, time, degrees)| {
            bed.send_value("readings", format!("{sensor} {time} {degrees}").as_str());
        })
        .partitions("readings", 1)
        .check(|bed, readings| {
            let mut lines = |topic: &str| {
                let rows = bed.rows::<[u8], str>(topic).into_iter();
                let mut lines: Vec<String> = rows.filter_map(|row| row.value).collect();
                lines.sort();
                lines
            };
            let came = (lines("means"), lines("late-readings"));
            assert_eq!(came, means_and_late(readings));
        })
        .run();
}
