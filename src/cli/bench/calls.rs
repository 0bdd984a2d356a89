//! Calls of the world outside, ten thousand under way: how many answers a second, beside the same calls without a job.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use super::report::Figure;
use super::windows::{run_on, scattered};
use super::{Bench, per_second};
use crate::operators::{Call, CallPolicy};
use crate::runtime::{Watermarks, topic, values};

/// Calls in all.
const CALLS: u64 = 500_000;
/// Fewer would be over before that many are under way.
const CALLS_MIN: u64 = 20_000;
/// Calls under way.
const UNDER_WAY: usize = 10_000;
/// Time of a service that is far away.
const FAR: Duration = Duration::from_millis(100);

/// Measures calls that end at once, and calls that take long.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let count = bench.scaled(CALLS).max(CALLS_MIN);
    let mut figures = Vec::new();
    for (name, takes) in [("at-once", Duration::ZERO), ("100-ms", FAR)] {
        let answers = run_on(bench, count, name, 1, |job| {
            let policy = CallPolicy::unordered(UNDER_WAY);
            let (answers, _) = job
                .source(values("numbers", 0..count))
                .event_time(|n: &u64| n.cast_signed(), Watermarks::default())
                .key_by(|n| scattered(*n))
                .map_async("ask", policy, move |call: Call<u64, u64>| {
                    answer(call.value, takes)
                });
            answers.sink(topic("out"));
        })?;
        let bare = without_a_job(bench, count, takes)?;
        let figure = Figure::new(format!("calls.{name}"), answers, "answers/s");
        figures.push(figure.against(bare));
    }
    Ok(figures)
}

async fn answer(n: u64, takes: Duration) -> Result<u64, String> {
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    Ok(n)
}

/// Measures the same calls a second on the same number of threads: without order, state or commits.
fn without_a_job(bench: &Bench<'_>, count: u64, takes: Duration) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let begin = bench.env.clock.now();
    let sum = runtime.block_on(async {
        let (mut under_way, mut sum) = (JoinSet::new(), 0);
        for n in 0..count {
            if under_way.len() >= UNDER_WAY
                && let Some(Ok(Ok(answer))) = under_way.join_next().await
            {
                sum ^= answer;
            }
            under_way.spawn(answer(n, takes));
        }
        while let Some(Ok(Ok(answer))) = under_way.join_next().await {
            sum ^= answer;
        }
        sum
    });
    std::hint::black_box(sum);
    Ok(per_second(count, bench.env.clock.now().since(begin)))
}
