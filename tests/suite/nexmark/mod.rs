//! The queries of Nexmark: each gives, row by row, what SQLite gives for the published SQL on the same events, also when its process is
//! killed twenty times on the way.

mod files;
mod native;
mod oracle;
mod queries;
mod sql;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use onceflow::cli::nexmark::{Format, Generator, Pace, Policy, Query, RESULTS};
use onceflow::runtime::Log;
use serde_json::Value;
use tempfile::TempDir;

use self::oracle::Oracle;
use crate::jobs::support::{Seen, committed};

const EVENTS: u64 = 20_000;
/// A tenth of a second of event time for ten events: windows of ten seconds have a thousand.
const RATE: u64 = 100;
const PARTITIONS: i32 = 4;
const KILLS: u64 = 20;
/// Long enough that no life of a process comes to the end of the input.
const DELAY: Duration = Duration::from_micros(50);

/// The events, in a log and as tables.
struct World {
    folder: TempDir,
    oracle: Option<Oracle>,
}

/// The events, which are made once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        for (name, format) in [("json", Format::Json), ("native", Format::Native)] {
            let log = Log::embedded(folder.path().join(name)).unwrap();
            onceflow::cli::nexmark::load(&log, &generator(), format, EVENTS, PARTITIONS).unwrap();
            log.close().unwrap();
        }
        let oracle = Oracle::load(folder.path(), &generator(), EVENTS);
        World { folder, oracle }
    })
}

fn generator() -> Generator {
    Generator::new(Pace::over_days(EVENTS, RATE))
}

/// A copy of the events for one run.
struct Run {
    query: Query,
    format: &'static str,
    workers: &'static str,
    folder: TempDir,
}

impl Run {
    fn of(query: Query) -> Self {
        Self::with(query, "json", "2")
    }

    fn with(query: Query, format: &'static str, workers: &'static str) -> Self {
        let folder = TempDir::new().unwrap();
        copy(
            &world().folder.path().join(format),
            &folder.path().join("data"),
        );
        Self {
            query,
            format,
            workers,
            folder,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the query in a process of its own.
    fn start(&self, delay: Duration) -> Child {
        Command::new(env!("CARGO_BIN_EXE_onceflow"))
            .args(["nexmark-job", "--format", self.format])
            .args(["--workers", self.workers])
            .args(["--query", self.query.name(), "--commit-millis", "5"])
            .args(["--delay-micros", &delay.as_micros().to_string()])
            .arg("--data")
            .arg(self.data())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Kills the process soon after its first commit, again and again.
    fn kill(&self, times: u64) {
        for kill in 0..times {
            let mut child = self.start(DELAY);
            let mut said = String::new();
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            lines.read_line(&mut said).unwrap();
            assert!(
                !said.is_empty(),
                "the query ended or failed before kill {kill}"
            );
            std::thread::sleep(Duration::from_millis(kill * 7 % 20));
            let has_ended = child.try_wait().unwrap();
            assert_eq!(has_ended, None, "the query ended before kill {kill}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets the query come to its end.
    fn finish(&self) {
        let status = self
            .start(Duration::ZERO)
            .wait_with_output()
            .unwrap()
            .status;
        assert!(status.success(), "{status}");
    }

    /// The rows that were committed, and how often each was written.
    fn results(&self) -> Results {
        self.results_by(|json| serde_json::from_slice(json).unwrap())
    }

    /// As `results`, of rows that `decode` reads.
    fn results_by(&self, decode: impl Fn(&[u8]) -> Value) -> Results {
        let log = Log::embedded(self.data()).unwrap();
        let seen = committed(&log, RESULTS);
        log.close().unwrap();
        Results::of(self.query, seen, decode)
    }
}

/// The committed rows of a query.
struct Results {
    /// Those that stand.
    rows: Vec<Vec<Value>>,
    /// All that were written for each key, in their order; empty where rows never change.
    updates: BTreeMap<Vec<u8>, Vec<Option<Vec<Value>>>>,
}

impl Results {
    fn of(query: Query, seen: Vec<Seen>, decode: impl Fn(&[u8]) -> Value) -> Self {
        let row = |value: &[u8]| {
            let mut row = Vec::new();
            flatten(decode(value), &mut row);
            row
        };
        let mut updates = BTreeMap::<_, Vec<_>>::new();
        let mut rows = Vec::new();
        for record in seen {
            let row = record.value.as_deref().map(row);
            match query.policy() {
                Policy::AppendOnly => rows.extend(row),
                _ => updates.entry(record.key.unwrap()).or_default().push(row),
            }
        }
        rows.extend(
            updates
                .values()
                .filter_map(|all| all.last().cloned().flatten()),
        );
        Self { rows, updates }
    }
}

/// The columns of a row, those of a nested value in their order.
fn flatten(value: Value, row: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.into_iter().for_each(|it| flatten(it, row)),
        Value::Object(fields) => fields.into_iter().for_each(|(_, it)| flatten(it, row)),
        column => row.push(column),
    }
}

/// Compares rows as multisets, and says the first ones that differ.
fn are_same(query: Query, rows: Vec<Vec<Value>>, expected: Vec<Vec<Value>>) {
    let count = |rows: Vec<Vec<Value>>| {
        let mut counts = BTreeMap::<String, i64>::new();
        for row in rows {
            *counts
                .entry(serde_json::to_string(&row).unwrap())
                .or_default() += 1;
        }
        counts
    };
    let (rows, expected) = (count(rows), count(expected));
    assert!(!expected.is_empty(), "{query:?}: the oracle has no rows");
    let differs = |one: &BTreeMap<String, i64>, other: &BTreeMap<String, i64>| {
        let more = one.iter().filter(|(row, n)| other.get(*row) != Some(*n));
        more.map(|(row, n)| format!("{n} x {row}"))
            .take(3)
            .collect::<Vec<_>>()
    };
    let (surplus, missing) = (differs(&rows, &expected), differs(&expected, &rows));
    assert!(
        surplus.is_empty() && missing.is_empty(),
        "{query:?}: {} rows instead of {}\n  only here: {surplus:#?}\n  only there: {missing:#?}",
        rows.values().sum::<i64>(),
        expected.values().sum::<i64>(),
    );
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
