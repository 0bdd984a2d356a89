//! The binary `onceflow` as a user meets it: exit codes, messages, and what comes out of what went in.

mod broker_page;
mod checks;
mod crash_test;
mod demo;
mod groups;
mod letters;
mod log;
mod new_project;
mod outputs;
mod packages;
mod produce_consume;
mod records;
mod refusals;
mod savepoints;
mod security;
mod setup;
mod top;
mod topics;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A data directory, and the command that works on it.
struct Cli {
    directory: TempDir,
}

/// Result of a command.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Cli {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Runs `onceflow` with these arguments on this data directory.
    fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Done {
        self.run_with_input(arguments, b"")
    }

    fn run_with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Done {
        let mut command = onceflow(arguments);
        command.env("ONCEFLOW_DATA", self.data());
        finish(command, input)
    }

    /// Runs a command that must succeed, and returns what it printed.
    fn ok(&self, line: &str) -> String {
        self.ok_with_input(line, b"")
    }

    fn ok_with_input(&self, line: &str, input: &[u8]) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let done = self.run_with_input(&arguments, input);
        assert_eq!(done.code, 0, "`onceflow {line}`: {done:?}");
        done.out
    }

    /// Runs a command that must fail, and returns its message.
    fn fails(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let done = self.run(&arguments);
        assert_eq!(done.code, 1, "`onceflow {line}`: {done:?}");
        assert!(done.err.starts_with("onceflow: "), "{done:?}");
        done.err
    }
}

/// The command `onceflow` with these arguments, without a data directory from the outside.
fn onceflow<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onceflow"));
    command
        .args(arguments)
        .env_remove("ONCEFLOW_DATA")
        .env_remove("ONCEFLOW_LOG");
    command
}

/// Runs a command to its end.
fn finish(mut command: Command, input: &[u8]) -> Done {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read its input closes the pipe; that is its right.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// All files below a directory, with their bytes: to see that a command changed nothing.
fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => files.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}
