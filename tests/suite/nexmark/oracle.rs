//! SQLite as the judge: the one that comes with Python, outside the crate.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onceflow::cli::nexmark::{Generator, Query};
use serde_json::Value;

use super::sql;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/nexmark/oracle.py");

/// The tables of all events.
pub(super) struct Oracle {
    database: PathBuf,
}

impl Oracle {
    /// Makes the tables of the first `events` events; `None` where there is no Python with SQLite.
    pub(super) fn load(folder: &Path, generator: &Generator, events: u64) -> Option<Self> {
        let has_sqlite = Command::new("python3")
            .args(["-c", "import sqlite3"])
            .status();
        if !has_sqlite.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no python3 with its module sqlite3 to ask");
            return None;
        }
        let database = folder.join("oracle");
        let lines = (0..events).map(|number| {
            let mut line = serde_json::to_vec(&generator.event(number)).unwrap();
            line.push(b'\n');
            line
        });
        let oracle = Self { database };
        oracle.run("load", lines.flatten().collect());
        Some(oracle)
    }

    /// The rows of a query.
    pub(super) fn rows(&self, query: Query) -> Vec<Vec<Value>> {
        let answered = self.run("ask", sql::of(query).into_bytes());
        let lines = answered.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn run(&self, command: &str, input: Vec<u8>) -> Vec<u8> {
        let mut child = Command::new("python3")
            .args([SCRIPT, command])
            .arg(&self.database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&input).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the oracle failed at {command}");
        output.stdout
    }
}
