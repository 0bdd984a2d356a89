//! Effects on the world outside: how many records a second a job takes that tells a target of each, beside the same job that does not.

use super::Bench;
use super::report::Figure;
use super::windows::{run_on, scattered};
use crate::operators::{Delivery, Effect, EffectPolicy};
use crate::runtime::{Job, topic, values};

/// Effects to deliver.
const EFFECTS: u64 = 500_000;
/// Fewer are over before the outbox is full once.
const EFFECTS_MIN: u64 = 20_000;
/// Keys, of which each has its own order.
const SHARED_KEYS: u64 = 1_000;
/// Keys whose effects are delivered at a time.
const PARALLEL: usize = 64;
/// From here on the source stands still.
const UNDELIVERED_MAX: usize = 10_000;

/// Measures effects of keys that have one each, and of keys that have many.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let count = bench.scaled(EFFECTS).max(EFFECTS_MIN);
    let mut figures = Vec::new();
    for (name, keys) in [("own-keys", u64::MAX), ("1000-keys", SHARED_KEYS)] {
        let without = run_on(bench, count, &format!("without-{name}"), 1, |job| {
            records(job, count, keys, false);
        })?;
        let with = run_on(bench, count, name, 1, |job| records(job, count, keys, true))?;
        let figure = Figure::new(format!("effects.{name}"), with, "records/s");
        figures.push(figure.against(without));
    }
    Ok(figures)
}

/// Records that are written to a topic, and told to a target that answers at once.
fn records(job: &Job, count: u64, keys: u64, tells: bool) {
    let records = job
        .source(values("numbers", 0..count))
        .key_by(move |n| scattered(*n) % keys);
    if !tells {
        records.sink(topic("out"));
        return;
    }
    let (told, records) = records.tee();
    records.sink(topic("out"));
    let policy = EffectPolicy::parallel(PARALLEL).undelivered_max(UNDELIVERED_MAX);
    let target = |effect: Effect<u64, u64>| async move {
        std::hint::black_box(effect.value);
        Delivery::Done
    };
    told.effect("tell", policy, target).sink(topic("dead"));
}
