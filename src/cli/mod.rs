//! The command `onceflow`: arguments in, work through the doors of `client` and `log`, exit code out.
//!
//! One file a command; each has its arguments and one function that runs them. Results go to standard output, errors
//! to standard error. Exit codes: 0 done, 1 failed, 2 used wrongly. A closed pipe ends a command quietly.
//!
//! Reading order: this file, `topic.rs` (the simplest command), `session.rs` (a data directory in use), the others.

mod acl;
mod bench;
mod broker;
mod check;
mod child;
mod config;
mod consume;
mod crash_test;
mod demo;
mod format;
mod group;
mod job;
mod last_records;
mod letters;
mod log;
mod new;
pub mod nexmark;
mod output;
mod perf;
mod produce;
mod records;
mod reset;
mod savepoint;
mod session;
mod state;
mod text;
mod time;
mod top;
mod topic;
mod txn;
mod user;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::env::Env;

/// The exit code of a command that was used wrongly; clap's own.
const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  onceflow new my-job                                  a project that runs, with a crash test
  onceflow demo                                        word count, its process killed three times
  onceflow topic create lines --partitions 4 --data ./data
  seq 1000 | onceflow produce lines --data ./data
  onceflow consume lines --from beginning --max 10 --data ./data
  onceflow log verify ./data

With --output json every command prints JSON. The data directory can be given once: export ONCEFLOW_DATA=./data
Set ONCEFLOW_LOG=info (or debug, trace) to see on standard error what the log does.";

/// Exactly-once stream processing on an embedded, transactional log.
#[derive(Debug, Parser)]
#[command(name = "onceflow", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Arguments {
    /// The form of what is printed
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "table"
    )]
    output: output::Form,
    /// Don't tell on a terminal how far work is that takes long
    #[arg(long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new project: a job that runs, and its crash test
    New(new::NewArguments),
    /// Create, list, describe, alter, grow and delete topics
    Topic(topic::TopicArguments),
    /// Show and change the settings of a topic, and list the names of all settings
    Config(config::ConfigArguments),
    /// Write lines of standard input to a topic
    Produce(produce::ProduceArguments),
    /// Read records of a topic
    Consume(consume::ConsumeArguments),
    /// Look at a topic as it lies in the log, and follow a record to all that came of it
    Records(records::RecordsArguments),
    /// Look into the files of a stopped data directory
    Log(log::LogArguments),
    /// List, describe and abort transactions
    Txn(txn::TxnArguments),
    /// List and describe groups, their members and positions, move their positions, and delete them
    Group(group::GroupArguments),
    /// Compare a program's job with its lock file, before it is deployed
    Check(check::CheckArguments),
    /// Take, list, check and restore savepoints of jobs
    Savepoint(savepoint::SavepointArguments),
    /// Have a job begin anew
    Job(job::JobArguments),
    /// List and show dead and late letters of a job, and have it take them back
    Letters(letters::LettersArguments),
    /// Look into the state of a stopped job
    State(state::StateArguments),
    /// Show a running job: how it is, its commits, splits, workers and stores
    Top(top::TopArguments),
    /// Serve a data directory to any Kafka client
    Broker(broker::BrokerArguments),
    /// Add, list and delete the users of a broker
    User(user::UserArguments),
    /// Add, list and delete the access rules of a broker
    Acl(acl::AclArguments),
    /// Count the words of real text exactly once, while the job's process is killed again and again
    Demo(demo::DemoArguments),
    /// Kill any program's job at random moments, start it again, and check what it leaves
    CrashTest(crash_test::CrashTestArguments),
    /// Measure this machine, each figure beside a bare loop in the same run
    Bench(bench::BenchArguments),
    /// Measure how fast this client writes and reads, on a data directory or on Kafka
    Perf(perf::PerfArguments),
    #[command(hide = true)]
    DemoJob(demo::JobArguments),
    #[command(hide = true)]
    BenchRestartJob(bench::RestartJobArguments),
    #[command(hide = true)]
    NexmarkJob(nexmark::QueryJobArguments),
    /// Print a shell's completions for this command.
    #[command(
        after_help = "Example:\n  onceflow completions bash > ~/.local/share/bash-completion/completions/onceflow"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of this command, a file each.
    #[command(
        after_help = "Example:\n  onceflow man ~/.local/share/man/man1 && man onceflow-topic"
    )]
    Man {
        /// The directory; it is made if it is absent.
        directory: std::path::PathBuf,
    },
}

/// The command was used wrongly in a way that its grammar cannot say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the command line `arguments`, the program's name first. Blocks until the command has ended; inside a runtime too.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(refused) => {
            // Help asked for is printed to standard output; if that is closed, nobody is left to tell.
            drop(refused.print());
            return ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(USAGE));
        }
    };
    output::choose(arguments.output);
    if arguments.quiet {
        crate::env::progress::hush();
    }
    start_tracing();
    match dispatch_anywhere(Env::real(), arguments.command) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// Runs the command; on a thread of its own where the caller's belongs to a runtime of tokio, since commands have theirs (X20).
fn dispatch_anywhere(env: Env, command: Command) -> anyhow::Result<ExitCode> {
    if tokio::runtime::Handle::try_current().is_err() {
        return dispatch(&env, command);
    }
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let inner = env.clone();
    let body = move || {
        // Whoever runs the command waits for this.
        let _ = done.send(dispatch(&inner, command));
    };
    let thread = env.spawn.spawn("of-command", Box::new(body));
    let thread = thread.context("cannot start the command's thread")?;
    match result.recv() {
        Ok(result) => result,
        Err(_) => {
            let why = thread.join().err().unwrap_or_default();
            anyhow::bail!("the command ended without a word: {why}")
        }
    }
}

fn dispatch(env: &Env, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(arguments) => new::run(env, &arguments)?,
        Command::Config(arguments) => config::run(env, arguments)?,
        Command::Topic(arguments) => topic::run(env, arguments)?,
        Command::Produce(arguments) => produce::run(env, &arguments)?,
        Command::Consume(arguments) => consume::run(env, &arguments)?,
        Command::Records(arguments) => records::run(env, arguments)?,
        Command::Log(arguments) => return log::run(env, arguments),
        Command::Txn(arguments) => txn::run(env, arguments)?,
        Command::Group(arguments) => group::run(env, arguments)?,
        Command::Check(arguments) => check::run(env, &arguments)?,
        Command::Savepoint(arguments) => savepoint::run(env, arguments)?,
        Command::Job(arguments) => job::run(env, arguments)?,
        Command::Letters(arguments) => letters::run(env, arguments)?,
        Command::State(arguments) => state::run(env, arguments)?,
        Command::Top(arguments) => top::run(env, arguments)?,
        Command::Broker(arguments) => broker::run(env, arguments)?,
        Command::User(arguments) => user::run(env, arguments)?,
        Command::Acl(arguments) => acl::run(env, arguments)?,
        Command::Demo(arguments) => return demo::run(env, &arguments),
        Command::CrashTest(arguments) => return crash_test::run(env, &arguments),
        Command::Bench(arguments) => bench::run(env, &arguments)?,
        Command::Perf(arguments) => perf::run(env, &arguments)?,
        Command::DemoJob(arguments) => demo::run_job(env, &arguments)?,
        Command::BenchRestartJob(arguments) => bench::run_restart_job(env, &arguments)?,
        Command::NexmarkJob(arguments) => nexmark::run_job(env, &arguments)?,
        Command::Completions { shell } => completions(shell)?,
        Command::Man { directory } => manual(env, &directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "onceflow", &mut script);
    let mut out = output::stdout();
    io::Write::write_all(&mut out, &script)?;
    io::Write::flush(&mut out)
}

/// Writes a page for the command and each of its commands that is shown in the help.
fn manual(env: &Env, directory: &std::path::Path) -> anyhow::Result<()> {
    let mut root = Arguments::command();
    root.build();
    env.files.create_dir(directory)?;
    let shown = root.get_subcommands().filter(|it| !it.is_hide_set());
    let mut pages: Vec<(String, clap::Command)> = shown
        .filter(|it| it.get_name() != "help")
        .map(|it| (format!("onceflow-{}", it.get_name()), it.clone()))
        .collect();
    pages.push(("onceflow".to_owned(), root));
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        let path = directory.join(format!("{name}.1"));
        new::write(env, &path, &page)?;
    }
    Ok(())
}

/// Says on standard error why a command failed, and what exit code that is.
fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    output::say_error(&message(error));
    match error.is::<UsageError>() {
        true => ExitCode::from(USAGE),
        false => ExitCode::FAILURE,
    }
}

/// Whether the reader of our output went away (`onceflow consume … | head`).
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The error and its causes, each said once: many messages end in their cause's own.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    output::printable(&message).into_owned()
}

fn start_tracing() {
    let Ok(filter) = std::env::var("ONCEFLOW_LOG") else {
        return;
    };
    let filter = match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(filter) => filter,
        Err(error) => {
            return output::say(&format!(
                "onceflow: ONCEFLOW_LOG={filter:?} is no filter ({error}): use info, debug or trace; nothing is logged"
            ));
        }
    };
    // A second subscriber (none is expected in this binary) would be refused; the first one stays.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_writer(io::stderr)
            .try_init(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = anyhow::anyhow!("disk full");
        let error = cause
            .context("cannot write a: disk full")
            .context("cannot produce");
        assert_eq!(message(&error), "cannot produce: cannot write a: disk full");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_closed_pipe(&closed.context("printing")));
        assert!(!is_closed_pipe(&anyhow::anyhow!("else")));
    }
}
