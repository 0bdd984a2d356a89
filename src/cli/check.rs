//! `onceflow check`: compares a program's job with its lock file, without running it.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output;
use super::text::TemporaryDirectory;
use crate::env::Env;
use crate::runtime::{LookedAt, look_into};

const EXAMPLES: &str = "\
Examples:
  onceflow check target/release/word-count --data ./data book.txt
  onceflow check --write target/release/word-count --data ./data book.txt

The program is started as it is deployed, with its arguments. Up to where it starts its job it runs as ever; the log that it opens is an
empty one in a temporary directory, and the job is not started: its graph is compared with the lock file. Each difference is said with what it
does: safe, renamed, migrates, gives up state, refused.";

/// The last words of a program that are shown, in bytes.
const WORDS_BYTES: usize = 2000;

/// Compare a program's job with its lock file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArguments {
    /// The lock file
    #[arg(long, value_name = "FILE", default_value = "job.lock")]
    lock: PathBuf,
    /// Write the lock file, unless state would be lost or misread
    #[arg(long)]
    write: bool,
    /// The program, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    program: Vec<OsString>,
}

/// Runs `onceflow check`.
pub(super) fn run(env: &Env, arguments: &CheckArguments) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let program = look_at(env, &arguments.program)?;
    let (job, path) = (program.job().to_owned(), arguments.lock.display());
    if !arguments.write {
        program.check_lock(env, &arguments.lock)?;
        let sentence = format!("the job {job} is as {path} says");
        let object = json!({ "job": job, "lock": arguments.lock, "changes": [] });
        output::tell(&mut out, &sentence, &object)?;
        return Ok(out.flush()?);
    }
    let changes = program.write_lock(env, &arguments.lock)?;
    let mut changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let object = json!({ "job": job, "lock": arguments.lock, "changes": changes });
    changes.push(format!("{path} says what the job {job} is: commit it"));
    output::tell(&mut out, &changes.join("\n"), &object)?;
    Ok(out.flush()?)
}

/// Starts the program in a way that its job shows itself instead of running.
fn look_at(env: &Env, words: &[OsString]) -> anyhow::Result<LookedAt> {
    let (program, arguments) = words.split_first().context("no program is named")?;
    let folder = TemporaryDirectory::create(env, None)?;
    let ended = Command::new(program)
        .args(arguments)
        .env(look_into(), folder.path())
        .stdin(Stdio::null())
        .output();
    let looked_at = LookedAt::read(env, folder.path());
    let ended = ended.with_context(|| format!("cannot start {}", Path::new(program).display()))?;
    looked_at?.with_context(|| {
        let words = String::from_utf8_lossy(&ended.stderr);
        let from = words.ceil_char_boundary(words.len().saturating_sub(WORDS_BYTES));
        format!(
            "{} ended ({}) before it started a job. Its last words: {}",
            Path::new(program).display(),
            ended.status,
            words[from..].trim()
        )
    })
}
