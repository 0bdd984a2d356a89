//! Data files with a manifest: who follows the manifest sees each row once, whatever step the job is killed at (O1–O8).

#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "object-store")]
mod store;

use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::runtime::file_table::{Csv, FileTable, JsonLines, RowFormat, file_table, published};

use crate::effects::support::{clicks, clicks_of};
use crate::jobs::support::{Place, run, until};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::{Click, feed, ms, topic_of_clicks};

const VARIABLE: &str = "ONCEFLOW_FILE_TABLES_CHILD";

fn writes<F: RowFormat<String, Click>>(sink: FileTable<F>, is_endless: bool) -> Launch {
    let job = Job::new("writes");
    let seen = clicks_of(&job, is_endless).stateful(
        "seen",
        |seen: &mut Option<u64>, click: &Click, results| {
            *seen = Some(seen.unwrap_or(0) + 1);
            results.push(click.clone());
        },
    );
    seen.sink(sink);
    job.exactly_once(Commit::every(ms(5))).state_partitions(8)
}

/// The numbers of the committed rows, in order. Each file is what the manifest says of it.
fn numbers(table: &Path) -> Vec<i64> {
    let mut numbers = Vec::new();
    for file in published(table).unwrap() {
        let bytes = std::fs::read(table.join(&file.name)).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes);
        assert_eq!(crc32c::crc32c(&bytes), file.crc32c);
        let rows = rows_of(&file.name, bytes);
        assert_eq!(rows.len() as u64, file.rows);
        numbers.extend(rows);
    }
    numbers.sort_unstable();
    numbers
}

fn rows_of(name: &str, bytes: Vec<u8>) -> Vec<i64> {
    #[cfg(feature = "parquet")]
    if name.ends_with("parquet") {
        return parquet::numbers(bytes);
    }
    let text = String::from_utf8(bytes).unwrap();
    let number = |line: &str| match name.ends_with("csv") {
        // A tuple has no names, so there is no line of them.
        true => line.split(',').nth(1).unwrap().parse().unwrap(),
        false => serde_json::from_str::<Click>(line).unwrap().1,
    };
    text.lines().map(number).collect()
}

/// The child's entry.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn writes_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [kind, workers, is_endless, folder] = plan.split('|').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let folder = Path::new(folder);
    let (log, table) = (open(&folder.join("data")), folder.join("table"));
    let is_endless = is_endless == "true";
    let launch = match kind {
        "csv" => writes(file_table(table, Csv).file_bytes(100), is_endless),
        "json" => writes(file_table(table, JsonLines).file_bytes(100), is_endless),
        #[cfg(feature = "parquet")]
        "parquet" => {
            let sink = file_table(table, parquet::columns());
            writes(sink.file_bytes(100), is_endless)
        }
        #[cfg(feature = "object-store")]
        port => writes(objects::table(port.parse().unwrap()), is_endless),
        #[cfg(not(feature = "object-store"))]
        other => panic!("no kind {other}"),
    };
    let launch = launch.workers(workers.parse().unwrap());
    wait(launch.start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

fn start(kind: &str, folder: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{kind}|{workers}|{is_endless}|{}", folder.display());
    let test = "file_tables::writes_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

fn survives_kills(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    std::fs::create_dir(&table).unwrap();
    survives_kills_in(kind, folder.path(), &table);
}

/// Kills the job again and again; `table` is where its files are.
fn survives_kills_in(kind: &str, folder: &Path, table: &Path) {
    let data = folder.join("data");
    let log = open(&data);
    topic_of_clicks(&log, "in", 1);
    log.close().unwrap();
    let points = [
        "cycle.drained",
        "sink.prepared",
        "commit.before_decision",
        "commit.decision_written",
        "commit.after_decision",
        "cycle.committed",
        "sink.committed",
        "sink.recovered",
    ];
    let mut count = 0;
    for life in 0..24 {
        let log = open(&data);
        let some = clicks(count, 60, 11);
        some.chunks(20).for_each(|chunk| feed(&log, "in", 0, chunk));
        count += 60;
        log.close().unwrap();
        let failpoint = match life % 3 {
            2 => String::new(),
            _ => format!("{}=kill@{}", points[life % points.len()], 1 + life % 4),
        };
        let mut process = start(kind, folder, 1 + life % 3, true, &failpoint);
        process.is_killed_within(ms(100 + 53 * (life as u64 % 17)));
        drop(process);
        let found = numbers(table);
        assert!(
            found.windows(2).all(|pair| pair[0] < pair[1]),
            "each row once"
        );
    }
    let mut last = start(kind, folder, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    assert!(numbers(table).into_iter().eq(0..count));
}

#[test]
fn o1_o4_o6_o8_json_lines_hold_each_row_once_whatever_step_is_killed() {
    survives_kills("json");
}

#[test]
fn o1_o4_o6_o8_csv_holds_each_row_once_whatever_step_is_killed() {
    survives_kills("csv");
}

fn log_with(place: &Place, all: &[Click]) -> Log {
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, all);
    log
}

#[test]
fn o2_rows_of_a_job_on_a_new_log_appear_behind_those_that_are_there() {
    let (place, other) = (Place::new(), Place::new());
    let table = place.path("table");
    let launch = || writes(file_table(&table, Csv), false).workers(2);
    run(launch(), &log_with(&place, &clicks(0, 50, 5))).unwrap();
    run(launch(), &log_with(&other, &clicks(0, 30, 5))).unwrap();
    let expected = (0..30).flat_map(|number| [number; 2]).chain(30..50);
    assert!(numbers(&table).into_iter().eq(expected));
}

#[test]
fn o3_a_job_that_went_back_writes_its_rows_again() {
    let (place, other) = (Place::new(), Place::new());
    let table = place.path("table");
    let log = log_with(&place, &clicks(0, 50, 5));
    let launch = |is_endless| writes(file_table(&table, JsonLines), is_endless).workers(2);
    let running = launch(true).start(&log).unwrap();
    let count = || {
        if table.exists() {
            numbers(&table).len()
        } else {
            0
        }
    };
    until("then is written", || count() == 50);
    let savepoint = wait(running.savepoint(place.path("savepoint"))).unwrap();
    feed(&log, "in", 0, &clicks(50, 50, 5));
    until("since is written", || count() == 100);
    wait(running.stop()).unwrap();
    let log = log_with(&other, &clicks(0, 50, 5));
    feed(&log, "in", 0, &clicks(50, 50, 5));
    launch(false).restore(&log, &savepoint).unwrap();
    run(launch(false), &log).unwrap();
    let expected = (0..50).chain((50..100).flat_map(|number| [number; 2]));
    assert!(numbers(&table).into_iter().eq(expected));
}
