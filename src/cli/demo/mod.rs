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
use crate::env::Env;

const EXAMPLES: &str = "\
Examples:
  onceflow demo
  onceflow demo moby-dick.txt ulysses.txt
  onceflow demo --kills 10 --size 512

The exit status is 0 only if the output is exactly what a plain count of the same input says.";

/// How many files the text is cut into; the job reads them side by side.
const FILES_COUNT: usize = 4;
/// More text than that is a mistake, or fills the disk: 1 TiB.
const SIZE_MIB_MAX: u64 = 1 << 20;

/// Count the words of real text exactly once, while the job's process is killed again and again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArguments {
    /// Text files; else text of this repository and the system's documentation
    files: Vec<PathBuf>,
    /// How often to kill the job's process with SIGKILL, at random moments
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Repeat the text until it has so many MiB; 0 takes it once, as it is
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..=SIZE_MIB_MAX))]
    size: u64,
    /// Where to make the temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a plain loop counted.
struct Plain {
    lines: u64,
    words: u64,
    counts: Counts,
}

/// Runs `onceflow demo`.
pub(super) fn run(env: &Env, arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let display = Display::new(env);
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
    let outcome = run_and_kill(env, &display, arguments.kills, &plain, &prepared, &data)?;
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
    kills: u64,
    plain: &Plain,
    prepared: &Prepared,
    data: &Path,
) -> anyhow::Result<process::Outcome> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = || {
        let mut command = Command::new(&program);
        command
            .arg(job::COMMAND)
            .arg("--data")
            .arg(data)
            .args(&prepared.files);
        command
    };
    let kill_points = process::draw_kill_points(env, kills, plain.words);
    let mut progress = display.start(plain.words, plain.lines);
    supervise(env, &mut command, &kill_points, &mut |event| {
        progress.tell(event)
    })
}
