//! Memory of a job that runs at full load for long: its process's, once a second.
//!
//! The job counts numbers in random order, with state that is larger than the bound of its memory; its results are kept for a while
//! only, so that the disk does not fill. What is given is the whole process: log, job, RocksDB, code.

use std::time::Duration;

use super::nexmark::kernel_says;
use super::report::Figure;
use super::restart::{COMMIT_INTERVAL, MEMORY_BYTES, mebibytes};
use super::{Bench, per_second, percentile};
use crate::broker::BrokerConfig;
use crate::client::wait;
use crate::runtime::{Commit, Job, Launch, Log, topic, values};

/// With their counts and RocksDB's share more than the bound.
const KEYS_COUNT: u64 = 40_000_000;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Results that are kept.
const RETENTION_BYTES: &str = "268435456";
const SEGMENT_BYTES: &str = "67108864";

/// Runs the job for so many minutes, and looks at its memory.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let (whole, every) = match bench.is_quick {
        true => (Duration::from_secs(2), SAMPLE_EVERY / 20),
        false => (Duration::from_secs(60 * bench.minutes), SAMPLE_EVERY),
    };
    let config = BrokerConfig {
        housekeeping_interval: Duration::from_secs(5),
        ..BrokerConfig::default()
    };
    let data = bench.directory.join("memory");
    let log = Log::in_env(bench.env.clone(), &data, config)?;
    let running = launch(bench.scaled(KEYS_COUNT)).start(&log)?;
    let clock = &bench.env.clock;
    let begin = clock.now();
    let mut samples = Vec::new();
    while clock.now().since(begin) < whole {
        clock.sleep(every);
        let kibibytes = kernel_says(bench.env, "/proc/self/status", "VmRSS:");
        let bytes = kibibytes.unwrap_or_default() << 10;
        samples.push((clock.now().since(begin), bytes));
        anyhow::ensure!(
            !running.is_finished(),
            "the job ended, though its source does not"
        );
    }
    let records = running.progress().records;
    let elapsed = clock.now().since(begin);
    wait(running.stop())?;
    log.close()?;
    Ok(figures(&samples, per_second(records, elapsed)))
}

/// The job: a count for each of so many keys.
fn launch(keys: u64) -> Launch {
    let job = Job::new("memory");
    job.source(values("numbers", 0..u64::MAX))
        .key_by(move |number: &u64| scattered(*number) % keys)
        .count("counts")
        .changes()
        .sink(topic("counts"));
    job.exactly_once(Commit::every(COMMIT_INTERVAL))
        .memory_bytes(MEMORY_BYTES)
        .topic_config("counts", "retention.bytes", RETENTION_BYTES)
        .topic_config("counts", "segment.bytes", SEGMENT_BYTES)
}

/// Numbers in a row, all over the place (splitmix64).
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The most, and the median and the slope of the second half, by which time the state is larger than the memory.
fn figures(samples: &[(Duration, u64)], rate: f64) -> Vec<Figure> {
    let bound = mebibytes(MEMORY_BYTES as u64);
    let most = samples.iter().map(|sample| sample.1).max();
    let half = samples.get(samples.len() / 2..).unwrap_or_default();
    let mut sorted: Vec<u64> = half.iter().map(|sample| sample.1).collect();
    sorted.sort_unstable();
    let figure = |name: &str, bytes| {
        Figure::new(format!("memory.{name}"), mebibytes(bytes), "MiB").against(bound)
    };
    vec![
        figure("peak", most.unwrap_or_default()),
        figure("median", percentile(&sorted, 50.0)),
        Figure::new("memory.slope", slope(half), "MiB/h"),
        Figure::new("memory.records", rate, "1/s"),
    ]
}

/// By how much memory grows in an hour: the straight line with the least squares of what it misses.
#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn slope(samples: &[(Duration, u64)]) -> f64 {
    let points = || {
        samples
            .iter()
            .map(|(at, bytes)| (at.as_secs_f64() / 3600.0, mebibytes(*bytes)))
    };
    let count = samples.len().max(1) as f64;
    let (hours, sizes) = points().fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
    let (hours, sizes) = (hours / count, sizes / count);
    let (both, squares) = points().fold((0.0, 0.0), |sum, (hour, size)| {
        let off = hour - hours;
        (sum.0 + off * (size - sizes), sum.1 + off * off)
    });
    match squares > 0.0 {
        true => both / squares,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_straight_line_through_the_samples() {
        let samples: Vec<_> = (0..100u64)
            .map(|second| {
                (
                    Duration::from_secs(36 * second),
                    (300 << 20) + (second << 20),
                )
            })
            .collect();
        assert!((slope(&samples) - 100.0).abs() < 1e-6, "a MiB each 36 s");
        assert_eq!(slope(&samples[..1]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }

    #[test]
    fn numbers_are_scattered_over_all_keys() {
        let mut seen = [false; 64];
        (0..1000).for_each(|number| seen[(scattered(number) % 64) as usize] = true);
        assert!(seen.iter().all(|seen| *seen));
    }
}
