//! Joins: lookups of a stream in a table beside the same count, the join of two streams within an hour, and a join by foreign key whose
//! right side changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::report::Figure;
use super::windows::{run_on, scattered};
use super::{Bench, per_second};
use crate::runtime::{Job, Stream, Unkeyed, Upstream, Watermarks, topic, values};

/// Records that look something up.
const LOOKUPS: u64 = 8_000_000;
/// Keys of the table.
const KEYS: u64 = 1_000_000;
/// Records of two streams together, all of which are held at the end.
const ROWS: u64 = 10_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// Time of the records of both streams: no more than the join holds.
const MILLIS: u64 = 3_500_000;
/// Rows with one foreign key.
const FAN_OUT: u64 = 1_000;
/// Number of foreign keys.
const FOREIGN_KEYS: u64 = 8;
/// Changes of a value of one of them.
const FOREIGN_CHANGES: u64 = 8_000;

/// Measures lookups in a table, and a join of two streams.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let lookups = bench.scaled(LOOKUPS);
    let count = run_on(bench, lookups, "count", 1, |job| {
        job.source(values("records", 0..lookups))
            .key_by(|n| scattered(*n) % KEYS)
            .count("counts")
            .changes()
            .sink(topic("out"));
    })?;
    let looked_up = run_on(bench, lookups, "lookup", 1, |job| {
        let entries = job.source(values("entries", 0..bench.scaled(KEYS)));
        let table = entries.key_by(|n| *n).map(|n| Some(*n)).to_table("table");
        job.source(values("records", 0..lookups))
            .key_by(|n| scattered(*n) % KEYS)
            .left_join_table("lookup", table, |n, found| found.map_or(*n, |it| n ^ it))
            .sink(topic("out"));
    })?;
    let rows = bench.scaled(ROWS);
    let joined = run_on(bench, rows, "interval", 1, |job| {
        let side = |name: &'static str| timed(job, name, rows / 2).key_by(|n| scattered(*n));
        side("left")
            .join("join", side("right"))
            .within(HOUR, HOUR)
            .inner(|left, right| left ^ right)
            .sink(topic("out"));
    })?;
    let figure = |name: &str, value: f64, baseline: f64| {
        Figure::new(format!("joins.{name}"), value, "records/s").against(baseline)
    };
    let (foreign, flat_map) = fan_out(bench)?;
    Ok(vec![
        figure("foreign-key", foreign, flat_map),
        figure("lookup", looked_up, count),
        figure("interval", joined, interval_in_a_map(bench, rows)),
    ])
}

/// Measures the rows of a join by foreign key that change in a second, as each change on the right changes a thousand of them; and the
/// records a second that are made, a thousand of each, brought to their keys and counted.
fn fan_out(bench: &Bench<'_>) -> anyhow::Result<(f64, f64)> {
    let changes = bench.scaled(FOREIGN_CHANGES);
    let (outputs, rows) = (changes * FAN_OUT, FOREIGN_KEYS * FAN_OUT);
    let counted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&counted);
    let planned = run_on(bench, outputs, "foreign-key", 1, |job| {
        let entries = |name: &'static str, count| job.source(values(name, 0..count));
        let left = entries("left", rows).key_by(|n| *n).map(|n| Some(*n));
        let right = entries("right", changes).key_by(|n| n % FOREIGN_KEYS);
        let right = right.map(|n| Some(*n)).to_table("rights");
        left.to_table("lefts")
            .join_on(
                "joined",
                right,
                |n| n % FOREIGN_KEYS,
                |left, right| left ^ right,
            )
            .changes()
            .inspect(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .sink(topic::<u64>("out").as_option());
    })?;
    let flat_map = run_on(bench, outputs, "flat-map", 1, |job| {
        job.source(values("records", 0..changes))
            .flat_map_into(|n: &u64| {
                let first = n % FOREIGN_KEYS;
                (0..FAN_OUT).map(move |row| first + row * FOREIGN_KEYS)
            })
            .key_by(|row| *row)
            .count("counts")
            .changes()
            .sink(topic("out"));
    })?;
    // Those changes that came before the rows changed none of them.
    let share = counted.load(Ordering::Relaxed) as f64 / outputs.max(1) as f64;
    Ok((planned * share, flat_map))
}

/// Numbers, each with its time.
fn timed(job: &Job, name: &'static str, count: u64) -> Stream<u64, impl Upstream<Unkeyed, u64>> {
    let time_of = move |n: &u64| (n * MILLIS / count.max(1)).cast_signed();
    job.source(values(name, 0..count))
        .event_time(time_of, Watermarks::default())
}

/// Measures records a second in joins by a map of the standard library: without bytes, state, order or commits.
fn interval_in_a_map(bench: &Bench<'_>, rows: u64) -> f64 {
    let mut sides = [HashMap::<u64, Vec<u64>>::new(), HashMap::new()];
    let mut sum = 0u64;
    let begin = bench.env.clock.now();
    for row in 0..rows {
        let (key, own) = (scattered(row / 2), usize::from(row.is_multiple_of(2)));
        let matches = sides[1 - own].get(&key).into_iter().flatten();
        sum ^= matches.fold(0, |sum, other| sum ^ other);
        sides[own].entry(key).or_default().push(row);
    }
    std::hint::black_box(sum);
    per_second(rows, bench.env.clock.now().since(begin))
}
