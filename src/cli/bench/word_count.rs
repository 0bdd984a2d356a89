//! Word count: the job beside a bare single-threaded loop over the same text.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::Figure;
use super::{Bench, per_second, percentile};
use crate::broker::BrokerConfig;
use crate::cli::demo::{Counts, add_one, word_count, words};
use crate::cli::output::MIB;
use crate::cli::text::{self, Sources, prepare, remove_tree};
use crate::client::wait;
use crate::env::{Env, File, OpenMode};
use crate::runtime::{Commit, Job, Log, lines, topic};

/// Bytes of text to count; shorter text is repeated.
const TEXT_BYTES: u64 = 256 * MIB;
/// Into how many files the text is cut; workers share them.
const FILES_COUNT: usize = 4;
/// Runs of the loop and of each of the jobs, in turns: the machine's mood changes within minutes.
const ROUNDS: usize = 5;
/// The baseline writes so much at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A job over these files, and with how many workers.
type Case = (&'static str, fn(&[PathBuf]) -> Job, Option<usize>);

const CASES: [Case; 4] = [
    ("every-update", word_count, None),
    ("1-worker", word_count, Some(1)),
    ("2-workers", word_count, Some(2)),
    ("coalesced", coalesced, None),
];

/// Measures word count in turns with the loop: as the README shows it, with one and two workers, and with updates coalesced
/// per commit.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let text_bytes = bench.scaled(TEXT_BYTES);
    let sources = Sources::find(bench.env, bench.inputs, text_bytes)?;
    let text = bench.directory.join("text");
    bench.env.files.create_dir(&text)?;
    let prepared = prepare(bench.env, &sources, &text, FILES_COUNT, text_bytes)?;
    let rounds = match bench.is_quick {
        true => 1,
        false => ROUNDS,
    };
    let mut bare = Vec::new();
    let mut made = CASES.map(|_| Vec::new());
    for _ in 0..rounds {
        let output = bench.directory.join("bare");
        let counted = bare_loop(bench.env, &prepared.files, &output)?;
        bench.env.files.remove_file(&output)?;
        bare.push(per_second(counted.words, counted.elapsed));
        for ((name, job, workers), made) in CASES.iter().zip(&mut made) {
            let elapsed = run_job(bench, name, job(&prepared.files), *workers)?;
            made.push(per_second(counted.words, elapsed));
        }
    }
    let names = CASES.iter().map(|(name, ..)| *name);
    Ok(names
        .zip(&made)
        .flat_map(|(name, made)| figures(name, made, &bare))
        .collect())
}

/// The median of a job's rates beside the median of the loop's, and of the rounds the one in which it came nearest to the loop.
fn figures(name: &str, made: &[f64], bare: &[f64]) -> [Figure; 2] {
    let median = |rates: &[f64]| {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        percentile(&sorted, 50.0)
    };
    let pairs = made.iter().copied().zip(bare.iter().copied());
    let best = pairs.max_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    let (best, best_bare) = best.unwrap_or_default();
    let figure =
        |name: String, value, baseline| Figure::new(name, value, "words/s").against(baseline);
    [
        figure(format!("word-count.{name}"), median(made), median(bare)),
        figure(format!("word-count.{name}.best"), best, best_bare),
    ]
}

/// Word count that writes only the last update of each word in a cycle.
fn coalesced(files: &[PathBuf]) -> Job {
    let job = Job::new("word-count");
    job.source(lines(files))
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes_per_commit()
        .sink(topic("word-counts"));
    job
}

/// Times a job on an empty log, from its start to the end of its last commit.
fn run_job(
    bench: &Bench<'_>,
    name: &str,
    job: Job,
    workers: Option<usize>,
) -> anyhow::Result<Duration> {
    let data = bench.directory.join(name);
    let log = Log::in_env(bench.env.clone(), &data, BrokerConfig::default())?;
    let mut launch = job.exactly_once(Commit::every(Duration::from_millis(100)));
    if let Some(count) = workers {
        launch = launch.workers(count);
    }
    let begin = bench.env.clock.now();
    wait(launch.start(&log)?.finished())?;
    let elapsed = bench.env.clock.now().since(begin);
    log.close()?;
    // The next run needs the space, and the page cache.
    remove_tree(bench.env, &data);
    Ok(elapsed)
}

/// Result of a loop over the text.
pub(super) struct Counted {
    /// Words in the text.
    pub(super) words: u64,
    /// The time it took.
    pub(super) elapsed: Duration,
}

/// The least that counting words and writing every update can cost on one thread: split lines into words, count them
/// in a hash map, append `(word, count)` to a file. No transactions, no checksums, no sync, no second thread.
pub(super) fn bare_loop(env: &Env, files: &[PathBuf], output: &Path) -> anyhow::Result<Counted> {
    let begin = env.clock.now();
    let mut counts = Counts::default();
    let mut words = 0;
    let file = env.files.open(output, OpenMode::CreateNew)?;
    let mut updates = Appender::new(&*file);
    for path in files {
        text::for_each_line(env, path, |line| {
            for word in line.split_whitespace() {
                words += 1;
                updates.append(word, add_one(&mut counts, word));
            }
        })?;
    }
    updates.finish()?;
    Ok(Counted {
        words,
        elapsed: env.clock.now().since(begin),
    })
}

/// Appends updates to a file through a buffer. The first error is kept and told at the end.
struct Appender<'a> {
    file: &'a dyn File,
    buffer: Vec<u8>,
    position: u64,
    result: std::io::Result<()>,
}

impl<'a> Appender<'a> {
    fn new(file: &'a dyn File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES + 4096),
            position: 0,
            result: Ok(()),
        }
    }

    fn append(&mut self, word: &str, count: u64) {
        self.buffer.extend_from_slice(word.as_bytes());
        self.buffer.extend_from_slice(&count.to_le_bytes());
        if self.buffer.len() >= BUFFER_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.result.is_ok() {
            self.result = self.file.write_all_at(&self.buffer, self.position);
        }
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.write();
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_by_its_median_and_by_its_best_pair() {
        let [median, best] = figures("x", &[3.0, 1.0, 2.0], &[9.0, 2.0, 5.0]);
        assert_eq!((median.value, median.baseline), (2.0, Some(5.0)));
        assert_eq!((best.value, best.baseline), (1.0, Some(2.0)));
    }

    #[test]
    fn the_bare_loop_counts_every_word_and_writes_every_update() {
        let env = Env::real();
        let directory = text::TemporaryDirectory::create(&env, None).unwrap();
        let (input, output) = (directory.path().join("in"), directory.path().join("out"));
        let file = env.files.open(&input, OpenMode::CreateNew).unwrap();
        file.write_all_at(b"tea cup\ntea\n", 0).unwrap();
        let counted = bare_loop(&env, &[input], &output).unwrap();
        assert_eq!(counted.words, 3);
        let mut expected = Vec::new();
        for (word, count) in [("tea", 1u64), ("cup", 1), ("tea", 2)] {
            expected.extend_from_slice(word.as_bytes());
            expected.extend_from_slice(&count.to_le_bytes());
        }
        assert_eq!(env.files.read(&output, 1 << 20).unwrap(), expected);
    }
}
