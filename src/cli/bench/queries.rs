//! Questions to a word count at full load: how long an answer takes, and what a thousand a second cost the job.

use std::time::Duration;

use super::report::Figure;
use super::{Bench, millis, per_second, percentile};
use crate::broker::BrokerConfig;
use crate::cli::demo::word_count;
use crate::cli::output::MIB;
use crate::cli::text::{Sources, for_each_line, prepare, remove_tree};
use crate::client::wait;
use crate::runtime::{Commit, Log, QueryError, Running};

/// Bytes of text to count.
const TEXT_BYTES: u64 = 256 * MIB;
/// Less ends before anybody can ask.
const TEXT_BYTES_MIN: u64 = 16 * MIB;
const FILES_COUNT: usize = 4;
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// A question each millisecond.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Different words to ask for.
const WORDS_COUNT: usize = 1_000;

/// Measures the job alone, and with questions.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let text_bytes = bench.scaled(TEXT_BYTES).max(TEXT_BYTES_MIN);
    let sources = Sources::find(bench.env, bench.inputs, text_bytes)?;
    let text = bench.directory.join("text");
    bench.env.files.create_dir(&text)?;
    let prepared = prepare(bench.env, &sources, &text, FILES_COUNT, text_bytes)?;
    let (mut count, mut asked_for) = (0, Vec::new());
    for path in &prepared.files {
        for_each_line(bench.env, path, |line| {
            for word in line.split_whitespace() {
                count += 1;
                if asked_for.len() < WORDS_COUNT {
                    asked_for.push(word.to_owned());
                }
            }
        })?;
    }
    let run = |name: &str, asked_for: &[String]| -> anyhow::Result<(f64, Vec<Duration>)> {
        let data = bench.directory.join(name);
        let log = Log::in_env(bench.env.clone(), &data, BrokerConfig::default())?;
        let launch = word_count(&prepared.files).exactly_once(Commit::every(COMMIT_INTERVAL));
        let begin = bench.env.clock.now();
        let running = launch.start(&log)?;
        let took = ask(bench, &running, asked_for)?;
        wait(running.finished())?;
        let elapsed = bench.env.clock.now().since(begin);
        log.close()?;
        remove_tree(bench.env, &data);
        Ok((per_second(count, elapsed), took))
    };
    let (alone, _) = run("alone", &[])?;
    let (with_questions, mut took) = run("asked", &asked_for)?;
    took.sort_unstable();
    // A question that is answered at commits only would take as long as they are apart.
    let interval = millis(COMMIT_INTERVAL);
    let latency = |name: &str, percent| {
        let value = millis(percentile(&took, percent));
        Figure::new(format!("queries.{name}"), value, "ms").against(interval)
    };
    Ok(vec![
        latency("p50", 50.0),
        latency("p99", 99.0),
        Figure::new("queries.job-while-asked", with_questions, "words/s").against(alone),
    ])
}

/// Asks for a word each millisecond until the job ends; returns how long each answer took, from when it was due. The first one
/// makes the job keep what readers need, and is not counted.
fn ask(bench: &Bench<'_>, running: &Running, words: &[String]) -> anyhow::Result<Vec<Duration>> {
    let clock = &bench.env.clock;
    let counts = running.query().store::<str, u64>("counts")?;
    let mut took = Vec::new();
    let mut due = None;
    for word in words.iter().cycle() {
        let asked = due.unwrap_or_else(|| clock.now());
        match wait(counts.get(word)) {
            Ok(_) if due.is_some() => took.push(clock.now().since(asked)),
            Ok(_) => {}
            Err(QueryError::Ended { .. }) => break,
            Err(error) => return Err(error.into()),
        }
        let next = due.unwrap_or_else(|| clock.now()).plus(ASK_EVERY);
        clock.sleep(next.since(clock.now()));
        due = Some(next);
    }
    Ok(took)
}
