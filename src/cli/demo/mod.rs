//! `onceflow demo`: word count on real text, its process killed three times, its output judged word by word.
//!
//! The job runs in a child process (`job.rs`), because a `kill -9` must kill a process. This process prepares the text,
//! counts it plainly, starts, kills and restarts the child (`process.rs`), then reads the output topic as any
//! `read_committed` reader would and compares (`ledger.rs`).

mod display;
mod job;
mod ledger;
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Args;

use self::display::{Display, Summary};
pub(super) use self::job::{JobArguments, run as run_job, word_count, words};
use self::ledger::Ledger;
pub(super) use self::ledger::{Counts, add_one};
use self::process::supervise;
use super::output::MIB;
use super::text::{Prepared, Sources, TemporaryDirectory, for_each_line, prepare};
use super::{UsageError, output};
use crate::env::Env;
use crate::net::Address;

const EXAMPLES: &str = "\
Examples:
  onceflow demo
  onceflow demo moby-dick.txt ulysses.txt
  onceflow demo --kills 10 --size 512
  onceflow demo --dashboard --size 2048        and see it in a browser: the page outlives the kills

The exit status is 0 only if the output is exactly what a plain count of the same input says.";

/// Files of the text; the job reads them side by side.
const FILES_COUNT: usize = 4;
/// More text than that is a mistake, or fills the disk: 1 TiB.
const SIZE_MIB_MAX: u64 = 1 << 20;

/// Count the words of real text exactly once, while the job's process is killed again and again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArguments {
    /// Text files; else text of this repository and the system's documentation
    files: Vec<PathBuf>,
    /// Number of kills of the job's process with SIGKILL, at random moments
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Repeat the text until it has so many MiB; 0 takes it once, as it is
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..=SIZE_MIB_MAX))]
    size: u64,
    /// Where to make the temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show the job to browsers at http://127.0.0.1:8080/, or at another address of this machine, while it runs
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:8080")]
    dashboard: Option<Address>,
}

/// Result of a plain loop.
struct Plain {
    lines: u64,
    words: u64,
    counts: Counts,
}

/// Runs `onceflow demo`.
pub(super) fn run(env: &Env, arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let display = Display::new(env);
    if let Some(address) = &arguments.dashboard {
        check_dashboard(address)?;
    }
    let wanted_bytes = arguments.size * MIB;
    // Taken once, the text is whatever is found.
    let searched_bytes = if wanted_bytes == 0 {
        u64::MAX
    } else {
        wanted_bytes
    };
    let sources = Sources::find(env, &arguments.files, searched_bytes)?;
    let directory = TemporaryDirectory::create(env, arguments.dir.as_deref())?;
    let text = directory.subdirectory("text")?;
    let prepared = prepare(env, &sources, &text, FILES_COUNT, wanted_bytes)?;
    display.prepared(&sources, &prepared);
    let plain = count_plainly(env, &prepared)?;
    let data = directory.path().join("data");
    let begin = env.clock.now();
    let outcome = run_and_kill(env, &display, arguments, &plain, &prepared, &data)?;
    let elapsed = env.clock.now().since(begin);
    let mut ledger = Ledger::default();
    job::read_output(env, &data, &mut |word, count| ledger.update(word, count))?;
    let summary = Summary {
        lines: plain.lines,
        words: plain.words,
        distinct: plain.counts.len() as u64,
        elapsed,
        verdict: ledger.settle(&plain.counts),
        outcome,
        top: ledger::top(&plain.counts, 10),
    };
    summary.print()?;
    Ok(match summary.is_success(arguments.kills) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether each process of the job can show itself there.
fn check_dashboard(address: &Address) -> anyhow::Result<()> {
    let why = match address.is_loopback() {
        true if address.port == 0 => {
            "each process of the demo listens where the one before did: name a port, as --dashboard=127.0.0.1:8080"
        }
        true => return Ok(crate::net::Listener::check(address)?),
        false => "the demo shows its job to this machine only: take an address as 127.0.0.1:8080",
    };
    Err(UsageError(why.to_owned()).into())
}

fn count_plainly(env: &Env, prepared: &Prepared) -> anyhow::Result<Plain> {
    let mut plain = Plain {
        lines: 0,
        words: 0,
        counts: Counts::default(),
    };
    for path in &prepared.files {
        for_each_line(env, path, |line| {
            plain.lines += 1;
            for word in words(line) {
                plain.words += 1;
                add_one(&mut plain.counts, word);
            }
        })?;
    }
    Ok(plain)
}

/// Runs the job in a process of its own, killing it as often as asked.
fn run_and_kill(
    env: &Env,
    display: &Display,
    arguments: &DemoArguments,
    plain: &Plain,
    prepared: &Prepared,
    data: &Path,
) -> anyhow::Result<process::Outcome> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = || {
        let mut command = Command::new(&program);
        command.arg(job::COMMAND).arg("--data").arg(data);
        if let Some(address) = &arguments.dashboard {
            command.arg(format!("--dashboard={address}"));
        }
        command.args(&prepared.files);
        command
    };
    if let Some(address) = &arguments.dashboard {
        output::say(&format!(
            "Dashboard: http://{address}/ while the job runs; a larger --size lets it run longer"
        ));
    }
    let kill_points = process::draw_kill_points(env, arguments.kills, plain.words);
    let mut progress = display.start(plain.words, plain.lines);
    supervise(env, &mut command, &kill_points, &mut |event| {
        progress.tell(event)
    })
}
