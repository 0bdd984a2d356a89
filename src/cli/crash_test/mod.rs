//! `onceflow crash-test`: kills any program's job again and again, and checks what its log has in the end.
//!
//! Reading order: `mod.rs` (the command), `scene.rs` (the log: a data directory or a Kafka cluster), `program.rs` (runs and kills),
//! `checks.rs` (what must hold), `markers.rs` (what the log itself says), `contents.rs` (two runs compared).

mod checks;
mod contents;
mod markers;
mod program;
mod scene;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use self::checks::{Findings, Look};
use self::contents::{Comparison, Ends, Run};
use self::program::{Kills, Program};
use self::scene::Scene;
use super::output;
use super::session::{DataOption, Place};
use super::text::TemporaryDirectory;
use crate::env::Env;
use crate::runtime::{Chance, begin_anew};
use crate::types::{GroupId, TopicName};

const EXAMPLES: &str = "\
Examples:
  onceflow crash-test --bin target/release/my-job --data ./data --kills 100
  onceflow crash-test --bin target/release/my-job --data ./data --compare totals --compare alerts
  onceflow crash-test --bin target/release/my-job --data ./data -- --config job.toml --data {data}
  onceflow crash-test --bin target/release/my-job --log kafka://localhost:9092 --job sums --compare totals

Put the input into the log first (`onceflow produce`), or let the program read files. The program is started with the arguments
behind `--`, in which {data} stands for the data directory, or for the URL of the Kafka cluster; without {data} they begin with
`--data DIR`, or `--log URL`. It is killed with SIGKILL at random moments, and at last left alone until it has read all of its input.
Then:
  positions      every source topic is read and committed to its end
  transactions   all of them are ended
  visibility     readers of committed records see what was committed, and nothing else
  --compare      the topic has what it has after a run without kills, each key's records in order. On a data directory the program also
                 runs on a copy of it, made before the first kill. On Kafka it runs twice on the cluster, and the job begins anew
                 between the two runs: this is refused for a job that has read something before

On a Kafka cluster, which others may use, too, --job says which job the program runs; only what that job reads and writes is checked.

The exit status is 0 only if all of it holds. Use a copy of a data directory that is dear to you, and a cluster for tests.";

/// Kill a program's job at random moments, start it again, and check what it leaves.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CrashTestArguments {
    #[command(flatten)]
    data: DataOption,
    /// The program that runs the job
    #[arg(long, value_name = "PROGRAM")]
    bin: PathBuf,
    /// The job that the program runs: needed on a Kafka cluster; may be given more than once
    #[arg(long, value_name = "NAME", value_parser = GroupId::new)]
    job: Vec<GroupId>,
    /// Number of kills
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// The longest that it runs before it is killed, in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    longest: u64,
    /// Longest time for the rest of its input after the last kill, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    patience: u64,
    /// Draws the moments of the kills; else a new one, which is told
    #[arg(long)]
    seed: Option<u64>,
    /// A topic that must have what it has after a run without kills; may be given more than once
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::new)]
    compare: Vec<TopicName>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// The program's arguments
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// All that the command found.
struct Outcome {
    seed: u64,
    kills: Kills,
    /// No kill found the job at work: it had committed nothing by the last one.
    is_untouched: bool,
    findings: Findings,
    comparisons: Vec<Comparison>,
}

/// Runs `onceflow crash-test`.
pub(super) fn run(env: &Env, arguments: &CrashTestArguments) -> anyhow::Result<ExitCode> {
    let scene = Scene::new(env, arguments.data.place()?, &arguments.job)?;
    let seed = arguments
        .seed
        .unwrap_or_else(|| env.random.below(1_000_000));
    let program = Program {
        env,
        path: &arguments.bin,
        arguments: &arguments.arguments,
        patience: Duration::from_secs(arguments.patience),
    };
    let reference = match arguments.compare.is_empty() {
        true => None,
        false => Some(Reference::make(&scene, &program, arguments)?),
    };
    output::say(&format!(
        "killing {} {} times (--seed {seed})",
        arguments.bin.display(),
        arguments.kills
    ));
    let longest = Duration::from_millis(arguments.longest);
    let before = look_if_there(&scene)?;
    let kills = program.kill_often(&scene, arguments.kills, longest, &mut Chance::new(seed))?;
    let is_untouched = kills.missed == 0 && !checks::look(&scene)?.has_moved_since(&before);
    let look = program.finish(&scene)?;
    output::say("checking what it left");
    let findings = checks::check(&scene, look, &arguments.compare)?;
    let comparisons = match &reference {
        Some(reference) => reference.compare(&scene, &arguments.compare)?,
        None => Vec::new(),
    };
    let outcome = Outcome {
        seed,
        kills,
        is_untouched,
        findings,
        comparisons,
    };
    outcome.print(arguments.json || output::is_json())?;
    Ok(match outcome.problems().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Looks at the jobs' progress; a data directory that the program is to make is not made here.
fn look_if_there(scene: &Scene<'_>) -> anyhow::Result<Look> {
    match scene.directory() {
        Some(data) if !scene.env.files.exists(data)? => Ok(Look::default()),
        _ => checks::look(scene),
    }
}

/// A run without kills.
enum Reference {
    /// On a copy of the data directory.
    Copy(TemporaryDirectory),
    /// On the same cluster, between these two moments.
    Earlier { from: Ends, to: Ends },
}

impl Reference {
    /// Has the program do its work, undisturbed.
    fn make(
        scene: &Scene<'_>,
        program: &Program<'_>,
        arguments: &CrashTestArguments,
    ) -> anyhow::Result<Self> {
        output::say("running without kills, for comparison");
        match scene.directory() {
            Some(data) => run_on_copy(scene, program, data).map(Self::Copy),
            None => Self::run_first(scene, program, arguments),
        }
    }

    /// Runs the jobs, and has them begin anew.
    fn run_first(
        scene: &Scene<'_>,
        program: &Program<'_>,
        arguments: &CrashTestArguments,
    ) -> anyhow::Result<Self> {
        if let Some(job) = checks::look(scene)?.begun() {
            bail!(
                "the job {job} has read something already, and --compare would give up its state: take a job without a past, or give it up yourself \
                 with `onceflow job begin-anew {job}`"
            );
        }
        let topics = &arguments.compare;
        let from = scene.with_session(|session| contents::ends(session, topics))?;
        refuse_unfinished(&program.finish(scene)?)?;
        let to = scene.with_session(|session| contents::ends(session, topics))?;
        let log = arguments.data.open_log(scene.env)?;
        for job in scene.jobs() {
            let begun = begin_anew(&log, job.as_str());
            begun.with_context(|| format!("{job} cannot begin anew, to be run once more"))?;
        }
        log.close()?;
        Ok(Self::Earlier { from, to })
    }

    /// Compares what the run with kills gave.
    fn compare(&self, scene: &Scene<'_>, topics: &[TopicName]) -> anyhow::Result<Vec<Comparison>> {
        let copy;
        let (killed, whole) = match self {
            Self::Copy(directory) => {
                let place = Place::Directory(data_of(directory));
                copy = Scene::new(scene.env, place, scene.jobs())?;
                (Run::alone(scene), Run::alone(&copy))
            }
            Self::Earlier { from, to } => {
                let run = |from: &Ends, to| Run {
                    scene,
                    from: from.clone(),
                    to,
                };
                (run(to, None), run(from, Some(to.clone())))
            }
        };
        let compared = topics.iter();
        compared
            .map(|topic| contents::compare(topic, &killed, &whole))
            .collect()
    }
}

fn data_of(reference: &TemporaryDirectory) -> PathBuf {
    reference.path().join("data")
}

/// Has the program do its work on a copy of the data directory.
fn run_on_copy(
    scene: &Scene<'_>,
    program: &Program<'_>,
    data: &Path,
) -> anyhow::Result<TemporaryDirectory> {
    let env = scene.env;
    // Beside the data directory, where there is as much room.
    let parent = data
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = TemporaryDirectory::create(env, Some(parent.unwrap_or(Path::new("."))))?;
    if env.files.exists(data)? {
        contents::copy_tree(env, data, &data_of(&directory))?;
    }
    let copy = Scene::new(env, Place::Directory(data_of(&directory)), scene.jobs())?;
    refuse_unfinished(&program.finish(&copy)?)?;
    Ok(directory)
}

fn refuse_unfinished(look: &Look) -> anyhow::Result<()> {
    let problems = look.problems();
    if !problems.is_empty() {
        bail!(
            "even without kills the program does not do its work: {}",
            problems.join("; ")
        );
    }
    Ok(())
}

impl Outcome {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.findings.problems();
        if self.is_untouched && self.kills.done > 0 {
            let why = "the job had committed nothing by the last kill, so that they prove nothing: give it more time between them (--longest)";
            problems.push(why.to_owned());
        }
        problems.extend(self.comparisons.iter().filter_map(Comparison::problem));
        problems
    }

    fn print(&self, is_json: bool) -> anyhow::Result<()> {
        let mut out = output::stdout();
        match is_json {
            true => writeln!(out, "{}", self.as_json())?,
            false => self.print_lines(&mut out)?,
        }
        Ok(out.flush()?)
    }

    fn print_lines(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let Look {
            positions,
            positions_of_files,
            ..
        } = &self.findings.look;
        writeln!(out, "kills         {}", self.kills.done)?;
        if self.kills.missed > 0 {
            writeln!(
                out,
                "not killed    {} (it had done its work)",
                self.kills.missed
            )?;
        }
        write!(out, "positions     {} of topics", positions.len())?;
        match positions_of_files {
            0 => writeln!(out)?,
            count => writeln!(out, ", {count} of other sources, which are not checked")?,
        }
        writeln!(out, "transactions  {} ids", self.findings.transactions)?;
        writeln!(
            out,
            "records       {} visible, {} of aborted transactions",
            output::grouped(self.findings.visible),
            output::grouped(self.findings.aborted)
        )?;
        for comparison in &self.comparisons {
            writeln!(
                out,
                "compared      {}: {} records, {} keys",
                comparison.topic,
                output::grouped(comparison.records),
                output::grouped(comparison.keys)
            )?;
        }
        let problems = self.problems();
        for problem in &problems {
            writeln!(out, "WRONG: {}", output::printable(problem))?;
        }
        if problems.is_empty() {
            writeln!(out, "all of it holds (--seed {})", self.seed)?;
        }
        Ok(())
    }

    fn as_json(&self) -> serde_json::Value {
        let compared = self.comparisons.iter().map(|comparison| {
            serde_json::json!({
                "topic": comparison.topic.as_str(),
                "records": comparison.records,
                "keys": comparison.keys,
                "differing_keys": comparison.differing.len(),
            })
        });
        serde_json::json!({
            "seed": self.seed,
            "kills": self.kills.done,
            "missed": self.kills.missed,
            "positions": self.findings.look.positions.len(),
            "positions_of_files": self.findings.look.positions_of_files,
            "transactions": self.findings.transactions,
            "visible_records": self.findings.visible,
            "aborted_records": self.findings.aborted,
            "compared": compared.collect::<Vec<_>>(),
            "problems": self.problems(),
        })
    }
}
