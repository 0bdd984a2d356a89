//! `onceflow job`: what is done to a job as a whole, while it does not run.

use std::io::Write;

use clap::{Args, Subcommand};

use super::UsageError;
use super::output;
use super::session::DataOption;
use crate::env::Env;
use crate::runtime::begin_anew;

const EXAMPLES: &str = "\
Examples:
  onceflow job begin-anew word-count --yes --data ./data
  onceflow job begin-anew word-count --yes --log kafka://localhost:9092

A job that begins anew has no state, and reads all of its input again with its next start; it happens once. What it wrote to sinks
stays there. Take a savepoint first (`onceflow savepoint create --stopped`): there is no other way back.";

/// Have a job begin anew.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct JobArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give up a job's state, timers and positions; it must not run
    BeginAnew {
        /// The job's name
        job: String,
        /// Do it: nothing asks again
        #[arg(long)]
        yes: bool,
    },
}

/// Runs `onceflow job`.
pub(super) fn run(env: &Env, arguments: JobArguments) -> anyhow::Result<()> {
    let Action::BeginAnew { job, yes } = arguments.action;
    if !yes {
        return Err(UsageError(format!(
            "the job {job} would lose its state, and read its input again from the beginning: say --yes if that is meant. Nothing was changed"
        ))
        .into());
    }
    let log = arguments.data.open_log(env)?;
    let given_up = begin_anew(&log, &job);
    let closed = log.close();
    let given_up = given_up?;
    closed?;
    let mut out = output::stdout();
    let (rows, positions) = (given_up.rows, given_up.positions);
    let sentence = format!(
        "the job {job} begins anew: {rows} rows of state given up, {positions} positions set"
    );
    let object = serde_json::json!({ "job": job, "rows": rows, "positions": positions });
    output::tell(&mut out, &sentence, &object)?;
    Ok(out.flush()?)
}
