//! `onceflow savepoint`: asks a running job for one, and lists, checks and restores those that are there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, Table};
use super::session::DataOption;
use super::time;
use crate::env::Env;
use crate::runtime::{Savepoint, ask_for_savepoint};

const EXAMPLES: &str = "\
Examples:
  onceflow savepoint create backup/monday --job word-count --data ./data
  onceflow savepoint create backup/monday --job word-count --stopped --log kafka://localhost:9092
  onceflow savepoint list backup
  onceflow savepoint verify backup/monday
  onceflow savepoint restore backup/monday --data ./data

A savepoint is asked for while the job runs; one of a job that is scaled out is taken from the log while all of its instances are stopped
(--stopped). It is restored while the job does not run. After a restore the job reads its input again from where
it was; what it wrote since then stays, and comes once more.";

/// Take, list, check and restore savepoints of jobs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SavepointArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ask a job that runs for a savepoint, and wait for it; or take one of a job that is stopped
    Create {
        /// The directory that is to be made
        path: PathBuf,
        /// The job's name
        #[arg(long, value_name = "NAME")]
        job: String,
        /// Take it from the log: the job does not run. The way for a job that is scaled out
        #[arg(long, conflicts_with_all = ["state_dir", "wait"])]
        stopped: bool,
        /// The folder of the states of jobs, for a job on Kafka; else it is in the data directory
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Longest wait for the job's answer, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
    /// List the savepoints in a directory
    List {
        /// The directory
        path: PathBuf,
    },
    /// Read all files of a savepoint, and compare them with their checksums
    Verify {
        /// The savepoint's directory
        path: PathBuf,
    },
    /// Show what a savepoint is of, and its positions
    Inspect {
        /// The savepoint's directory
        path: PathBuf,
    },
    /// Put the job's state and positions back to a savepoint; the job must not run
    Restore {
        /// The savepoint's directory
        path: PathBuf,
    },
}

/// Runs `onceflow savepoint`.
pub(super) fn run(env: &Env, arguments: SavepointArguments) -> anyhow::Result<()> {
    let mut out = output::stdout();
    match arguments.action {
        Action::Create {
            path,
            job,
            stopped: true,
            ..
        } => {
            let log = arguments.data.open_log(env)?;
            let taken = Savepoint::of_stopped(&log, &job, &path);
            let closed = log.close();
            let taken = taken?;
            closed.context("cannot close the data directory cleanly")?;
            tell_path(&mut out, taken.path())?;
        }
        Action::Create {
            path,
            job,
            state_dir,
            wait,
            ..
        } => {
            let states = match state_dir {
                Some(folder) => folder,
                None => arguments.data.directory()?.join("state"),
            };
            let path = std::path::absolute(&path).context("the path cannot be made absolute")?;
            ask_for_savepoint(env, &states.join(&job), &path, Duration::from_secs(wait))?;
            tell_path(&mut out, &path)?;
        }
        Action::List { path } => list(&path, &mut out)?,
        Action::Verify { path } => {
            let savepoint = Savepoint::open(&path)?;
            savepoint.verify()?;
            let size = savepoint.size_bytes();
            let sentence = format!("{} is whole: {}", path.display(), output::bytes(size));
            let object = json!({ "savepoint": path, "is_whole": true, "bytes": size });
            output::tell(&mut out, &sentence, &object)?;
        }
        Action::Inspect { path } => inspect(&Savepoint::open(&path)?, &mut out)?,
        Action::Restore { path } => {
            let savepoint = Savepoint::open(&path)?;
            let log = arguments.data.open_log(env)?;
            let restored = savepoint.restore(&log);
            let closed = log.close();
            let restored = restored?;
            closed.context("cannot close the data directory cleanly")?;
            let (job, rows, positions) = (savepoint.job(), restored.rows, restored.positions);
            let sentence = format!(
                "the job {job} is where it was: {rows} rows of state written, {positions} positions set"
            );
            let object = json!({ "job": job, "rows": rows, "positions": positions });
            output::tell(&mut out, &sentence, &object)?;
        }
    }
    Ok(out.flush()?)
}

fn tell_path(out: &mut impl Write, path: &Path) -> std::io::Result<()> {
    let sentence = path.display().to_string();
    output::tell(out, &sentence, &json!({ "savepoint": path }))
}

/// Tells line by line, `name: value`; as JSON the same names, those that come again as arrays.
fn inspect(savepoint: &Savepoint, out: &mut impl Write) -> std::io::Result<()> {
    let sentence = savepoint.to_string();
    let lines = sentence.lines().filter_map(|line| line.split_once(": "));
    let of = |wanted: &str| {
        let values = lines.clone().filter(|(name, _)| *name == wanted);
        values.map(|(_, value)| value).collect::<Vec<_>>()
    };
    let object = json!({
        "job": savepoint.job(),
        "taken": time::format(savepoint.taken_at()),
        "state_partitions": savepoint.state_partitions(),
        "graph": of("graph").concat(),
        "positions": of("position"),
        "under_way": of("under way"),
        "bytes": savepoint.size_bytes(),
    });
    output::tell(out, &sentence, &object)
}

fn list(path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = Table::new(&["savepoint", "job", "taken", "state partitions", "bytes"])
        .with_numbers(&["state partitions", "bytes"]);
    let mut damaged = Vec::new();
    for (path, opened) in Savepoint::list(path)? {
        match opened {
            Ok(savepoint) => table.row([
                path.display().to_string(),
                savepoint.job().to_owned(),
                time::format(savepoint.taken_at()),
                savepoint.state_partitions().to_string(),
                savepoint.size_bytes().to_string(),
            ]),
            Err(e) => damaged.push(e.to_string()),
        }
    }
    table.print(out)?;
    out.flush()?;
    match damaged.first() {
        Some(first) => bail!("{} of them cannot be opened: {first}", damaged.len()),
        None => Ok(()),
    }
}
