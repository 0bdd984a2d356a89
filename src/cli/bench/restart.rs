//! How long a job is down after `kill -9`: from the kill to the first new commit, with much state and with little.
//!
//! The state is made by the job itself: every key gets 1 KiB of text that does not compress; then the job goes on
//! changing keys in turn while its process (`bench-restart-job`, hidden) is killed and started again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::report::Figure;
use super::{Bench, millis, percentile};
use crate::broker::BrokerConfig;
use crate::env::{Env, OpenMode};
use crate::runtime::{Commit, Job, Launch, Log, topic, values};

/// The hidden command that runs the job.
const COMMAND: &str = "bench-restart-job";
/// Keys: with their values 10 GiB.
const KEYS_COUNT: u64 = 10 << 20;
pub(super) const VALUE_BYTES: usize = 1024;
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// The bound of the job's memory: the default.
pub(super) const MEMORY_BYTES: usize = 512 << 20;
/// The baseline has so many times fewer.
const BASELINE_FRACTION: u64 = 1000;
/// How often the process is killed; the median counts.
const KILLS_COUNT: u64 = 5;
/// The kernel's words about a process.
const STATUS_BYTES_MAX: usize = 64 << 10;
/// How long it works between two kills.
const WORK: Duration = Duration::from_secs(2);
/// How often the child looks whether something was committed.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the job's process is told.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartJobArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// How many keys there are
    #[arg(long)]
    keys: u64,
    /// The bound of the job's memory, in MiB
    #[arg(long, default_value_t = MEMORY_BYTES >> 20)]
    memory_mib: usize,
}

/// Measures restarts.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let keys = bench.scaled(KEYS_COUNT);
    let little = restarts(
        bench,
        &bench.directory.join("little"),
        keys.div_ceil(BASELINE_FRACTION),
    )?;
    let much = restarts(bench, &bench.directory.join("much"), keys)?;
    let figure = |name: String, much, little| {
        Figure::new(format!("restart.{name}"), millis(much), "ms").against(millis(little))
    };
    // The kills in their order: the first comes while the disk may still be busy with what has just been made.
    let kills = much.times.iter().zip(&little.times).enumerate();
    let mut figures: Vec<Figure> = kills
        .map(|(i, (much, little))| figure(format!("kill-{}", i + 1), *much, *little))
        .collect();
    let (much_times, little_times) = (sorted(&much.times), sorted(&little.times));
    for (name, percent) in [("median", 50.0), ("max", 100.0)] {
        let [much, little] = [&much_times, &little_times].map(|times| percentile(times, percent));
        figures.push(figure(name.to_owned(), much, little));
    }
    figures.push(
        Figure::new("restart.peak-memory", mebibytes(much.peak_bytes), "MiB")
            .against(mebibytes(little.peak_bytes + MEMORY_BYTES as u64)),
    );
    Ok(figures)
}

fn sorted(times: &[Duration]) -> Vec<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What some restarts cost.
struct Restarts {
    /// From kill to first new commit, in the order of the kills.
    times: Vec<Duration>,
    /// The most memory that one of the processes ever had resident.
    peak_bytes: u64,
}

/// Has the job make its state, and kills it again and again.
fn restarts(bench: &Bench<'_>, data: &Path, keys: u64) -> anyhow::Result<Restarts> {
    let clock = &bench.env.clock;
    let mut process = Process::start(data, keys)?;
    while process.next_position()? < keys {}
    let mut times = Vec::new();
    let mut peak_bytes = 0;
    let (kills, work) = match bench.is_quick {
        true => (1, WORK / 10),
        false => (KILLS_COUNT, WORK),
    };
    for _ in 0..kills {
        let begin = clock.now();
        while clock.now().since(begin) < work {
            process.next_position()?;
        }
        peak_bytes = process.peak_bytes(bench.env)?.max(peak_bytes);
        process.kill()?;
        let killed = clock.now();
        process = Process::start(data, keys)?;
        process.next_position()?;
        times.push(clock.now().since(killed));
    }
    peak_bytes = process.peak_bytes(bench.env)?.max(peak_bytes);
    process.kill()?;
    Ok(Restarts { times, peak_bytes })
}

struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Process {
    fn start(data: &Path, keys: u64) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program is not known")?;
        let mut command = Command::new(program);
        command
            .arg(COMMAND)
            .arg("--data")
            .arg(data)
            .arg("--keys")
            .arg(keys.to_string());
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the job's process")?;
        let said = BufReader::new(
            child
                .stdout
                .take()
                .context("the job's process has no output")?,
        );
        Ok(Self { child, said })
    }

    /// The next position that the job says it has committed.
    fn next_position(&mut self) -> anyhow::Result<u64> {
        let mut line = String::new();
        if self.said.read_line(&mut line)? == 0 {
            bail!("the job's process ended by itself: {}", self.child.wait()?);
        }
        line.trim()
            .parse()
            .with_context(|| format!("the job's process said {line:?}"))
    }

    /// The most memory that the process ever had resident (`VmHWM`).
    fn peak_bytes(&self, env: &Env) -> anyhow::Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let mut bytes = vec![0; STATUS_BYTES_MAX];
        // Its length is said to be 0.
        let file = env.files.open(&path, OpenMode::Read)?;
        let read_bytes = file.read_full_at(&mut bytes, 0)?;
        let status = std::str::from_utf8(bytes.get(..read_bytes).unwrap_or_default())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kibibytes = kibibytes.context("the kernel does not say the peak of memory")?;
        Ok(kibibytes.trim().parse::<u64>()? << 10)
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// Runs the job for ever, and says each position committed.
pub(in crate::cli) fn run_job(env: &Env, arguments: &RestartJobArguments) -> anyhow::Result<()> {
    let log = Log::in_env(env.clone(), &arguments.data, BrokerConfig::default())?;
    let launch = launch(arguments.keys.max(1), arguments.memory_mib << 20);
    let running = launch.start(&log)?;
    let mut said = None;
    loop {
        env.clock.sleep(LOOK_EVERY);
        if running.is_finished() {
            crate::client::wait(running.finished())?;
            bail!("the job ended, though its source does not");
        }
        let position = running.positions().values().next().copied();
        if position > said {
            said = position;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", position.unwrap_or_default())?;
            out.flush()?;
        }
    }
}

/// The job: a text for each key, and another one each time it comes again.
pub(super) fn launch(keys: u64, memory_bytes: usize) -> Launch {
    let job = Job::new("restart");
    job.source(values("numbers", 0..u64::MAX))
        .key_by(move |number: &u64| number % keys)
        .aggregate("texts", String::new, |text, number| fill(text, *number))
        .changes()
        .filter(|text: &String| text.starts_with('A'))
        .map(|text: &String| text.len() as u64)
        .sink(topic("texts"));
    job.exactly_once(Commit::every(COMMIT_INTERVAL))
        .memory_bytes(memory_bytes)
}

/// Text of [`VALUE_BYTES`] that is another one for each number, and does not compress (splitmix64 in base 64).
fn fill(text: &mut String, number: u64) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.clear();
    let mut state = number;
    while text.len() < VALUE_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (0..8).for_each(|i| text.push(char::from(LETTERS[(z >> (6 * i) & 0x3f) as usize])));
    }
}
