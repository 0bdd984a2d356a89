//! Downtime of a job after `kill -9`: from the kill to the first new commit, with much state and with little.
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
use crate::client::wait;
use crate::codec::Text;
use crate::env::{Env, OpenMode};
use crate::runtime::{Commit, Job, Launch, Log, Running, topic, values};

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
/// Kills in a row.
const KILLS_COUNT: u64 = 20;
/// The kernel's words about a process.
const STATUS_BYTES_MAX: usize = 64 << 10;
/// Work between two kills.
const WORK: Duration = Duration::from_secs(2);
/// Interval of the child's looks for a commit.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Orders to the job's process.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartJobArguments {
    /// The data directory, or kafka://HOST:PORT
    #[arg(long)]
    data: String,
    /// A topic of numbers as text; else the job makes its own
    #[arg(long)]
    numbers: Option<String>,
    /// Number of keys
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
    let kills = much.lives.iter().zip(&little.lives).enumerate();
    let mut figures = Vec::new();
    for (i, (much, little)) in kills {
        figures.push(figure(format!("kill-{}", i + 1), much.took, little.took));
        let phases = much.phases().into_iter().zip(little.phases());
        figures.extend(phases.map(|((name, much), (_, little))| {
            figure(format!("kill-{}.{name}", i + 1), much, little)
        }));
        let replayed = count(much.up.replayed_records);
        let name = format!("restart.kill-{}.replayed", i + 1);
        let little = count(little.up.replayed_records);
        figures.push(Figure::new(name, replayed, "records").against(little));
    }
    let (much_times, little_times) = (sorted(&much.lives), sorted(&little.lives));
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

#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn count(number: u64) -> f64 {
    number as f64
}

fn sorted(lives: &[Life]) -> Vec<Duration> {
    let mut times: Vec<_> = lives.iter().map(|life| life.took).collect();
    times.sort_unstable();
    times
}

#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Cost of some restarts.
struct Restarts {
    /// In the order of the kills.
    lives: Vec<Life>,
    /// The most memory that one of the processes ever had resident.
    peak_bytes: u64,
}

/// Report of the job's process on its start, once it has committed.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Up {
    /// The log was opened and recovered.
    log_micros: u64,
    fence_micros: u64,
    open_micros: u64,
    positions_micros: u64,
    replayed_records: u64,
    replay_micros: u64,
}

/// A start behind a kill.
struct Life {
    /// From the kill to the first new commit.
    took: Duration,
    up: Up,
}

impl Life {
    /// Lists the phases, in order. The rest is the operating system's, which ends the one process and starts the other, and
    /// the first cycle.
    fn phases(&self) -> [(&'static str, Duration); 6] {
        let up = &self.up;
        let phases = [
            ("log", up.log_micros),
            ("fence", up.fence_micros),
            ("open", up.open_micros),
            ("positions", up.positions_micros),
            ("replay", up.replay_micros),
        ];
        let [log, fence, open, positions, replay] =
            phases.map(|(name, micros)| (name, Duration::from_micros(micros)));
        let known = [log, fence, open, positions, replay].map(|phase| phase.1);
        let rest = self.took.saturating_sub(known.iter().sum());
        [log, fence, open, positions, replay, ("rest", rest)]
    }
}

/// Has the job make its state, and kills it again and again.
fn restarts(bench: &Bench<'_>, data: &Path, keys: u64) -> anyhow::Result<Restarts> {
    let clock = &bench.env.clock;
    let mut process = Process::start(data, keys)?;
    while process.next_position()? < keys {}
    let mut lives = Vec::new();
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
        let took = clock.now().since(killed);
        let up = process
            .up
            .context("the job's process does not say how it started")?;
        lives.push(Life { took, up });
    }
    peak_bytes = process.peak_bytes(bench.env)?.max(peak_bytes);
    process.kill()?;
    Ok(Restarts { lives, peak_bytes })
}

struct Process {
    child: Child,
    up: Option<Up>,
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
        Ok(Self {
            child,
            up: None,
            said,
        })
    }

    /// The next position that the job says it has committed.
    fn next_position(&mut self) -> anyhow::Result<u64> {
        let mut line = String::new();
        if self.said.read_line(&mut line)? == 0 {
            bail!("the job's process ended by itself: {}", self.child.wait()?);
        }
        let (position, up) = line.split_once(' ').unwrap_or((line.trim(), ""));
        if !up.is_empty() {
            self.up = Some(serde_json::from_str(up)?);
        }
        position
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

/// Runs the job for ever, and says each position committed; with the first one, how the process started.
pub(in crate::cli) fn run_job(env: &Env, arguments: &RestartJobArguments) -> anyhow::Result<()> {
    let begin = env.clock.now();
    let log = match arguments.data.starts_with("kafka://") {
        true => Log::open(&arguments.data)?,
        false => Log::in_env(
            env.clone(),
            Path::new(&arguments.data),
            BrokerConfig::default(),
        )?,
    };
    let log_took = env.clock.now().since(begin);
    let (keys, memory_bytes) = (arguments.keys.max(1), arguments.memory_mib << 20);
    let launch = match &arguments.numbers {
        Some(numbers) => launch_on(numbers, keys, memory_bytes),
        None => launch(keys, memory_bytes),
    };
    let running = launch.start(&log)?;
    let mut said = None;
    loop {
        env.clock.sleep(LOOK_EVERY);
        if running.is_finished() {
            wait(running.finished())?;
            bail!("the job ended, though its source does not");
        }
        let position = running.positions().values().next().copied();
        if position > said {
            let up = match said {
                None => format!(" {}", started(&running, log_took)?),
                Some(_) => String::new(),
            };
            said = position;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}{up}", position.unwrap_or_default())?;
            out.flush()?;
        }
    }
}

/// Reports the start as JSON.
fn started(running: &Running, log_took: Duration) -> anyhow::Result<String> {
    let life = wait(running.status())
        .lives
        .pop()
        .context("the job has begun")?;
    let recovery = life.recovery;
    Ok(serde_json::to_string(&Up {
        log_micros: u64::try_from(log_took.as_micros())?,
        fence_micros: recovery.fence_micros,
        open_micros: recovery.open_micros,
        positions_micros: recovery.positions_micros,
        replayed_records: recovery.replayed_records,
        replay_micros: recovery.replay_micros,
    })?)
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

/// The same with numbers from a topic, for benches/peers/restart.
fn launch_on(numbers: &str, keys: u64, memory_bytes: usize) -> Launch {
    let job = Job::new("restart");
    job.source(topic::<str>(numbers).codec(Text))
        .try_map(|text: &str| text.parse::<u64>())
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
