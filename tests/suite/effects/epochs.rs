//! A target that keeps the epoch beside its rows is exactly once: a sink on the public contract, and a table that is killed on both sides.
//!
//! Each worker writes a part of the table. A commit of the job is an epoch of each part: its rows wait in a file of their own, whose name
//! has the lineage and the epoch, and its mark says both. After the decision the table takes the rows and the epoch in one step, and only
//! where it stands at the epoch before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{
    Flow, JobContext, Launch, MarkChanges, Marks, OperatorContext, Record, Sink, SinkWriter,
};
use serde::{Deserialize, Serialize};

use super::support::{clicks, clicks_of};
use crate::jobs::support::{Place, run, until};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::{Click, feed, ms, topic_of_clicks};

/// Where the target dies, as the how-manieth change: `before N` or `after N` the moment that it takes effect.
const DEATH: &str = "ONCEFLOW_TABLE_DIES";
const VARIABLE: &str = "ONCEFLOW_EPOCHS_CHILD";

/// Frontier of a part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Frontier {
    /// The life of the job that writes the part: it changes where the job begins anew, or goes back.
    lineage: u64,
    epoch: u64,
    /// The lineage before.
    parent: Option<u64>,
}

/// The table on the disk: one file, which is replaced as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    parts: BTreeMap<String, Frontier>,
    rows: Vec<Click>,
    changes: u64,
}

/// A table of rows in a directory, with how far each part of it has come.
#[derive(Debug, Clone)]
struct Table(PathBuf);

impl Table {
    fn read(&self) -> Stored {
        match fs::read(self.0.join("table.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => Stored::default(),
        }
    }

    /// Brings a part from one frontier to the next with these rows, or changes nothing and says how far the part is (O4, O5). Whoever
    /// calls this again after an unknown outcome is told that it is done (O6).
    fn compare_and_commit(
        &self,
        part: &str,
        from: Option<&Frontier>,
        to: &Frontier,
        rows: Vec<Click>,
    ) -> Result<(), String> {
        // One change at a time: the check and the change are one step.
        let lock = fs::File::create(self.0.join("lock")).unwrap();
        lock.lock().unwrap();
        let mut stored = self.read();
        let found = stored.parts.get(part);
        if found == Some(to) {
            return Ok(());
        }
        if found != from {
            return Err(format!("{part} is at {found:?} and not at {from:?}"));
        }
        stored.parts.insert(part.to_owned(), to.clone());
        stored.rows.extend(rows);
        stored.changes += 1;
        let next = self.0.join("table.next");
        fs::write(&next, serde_json::to_vec(&stored).unwrap()).unwrap();
        die("before", stored.changes);
        fs::rename(&next, self.0.join("table.json")).unwrap();
        die("after", stored.changes);
        Ok(())
    }

    fn pending(&self, part: &str, at: &Frontier) -> PathBuf {
        // O7, O8: an exact name, which no other epoch of any lineage has.
        let Frontier { lineage, epoch, .. } = at;
        self.0
            .join(format!("pending {part} {lineage:016x} {epoch:016x}"))
    }
}

/// Ends the process as a kill does, if its time has come.
fn die(moment: &str, change: u64) {
    let wanted = std::env::var(DEATH).unwrap_or_default();
    if wanted
        .strip_prefix(moment)
        .and_then(|it| it.trim().parse().ok())
        == Some(change)
    {
        std::process::abort();
    }
}

fn failed(why: impl std::fmt::Display) -> JobError {
    JobError::Sink {
        sink: "table".to_owned(),
        why: why.to_string(),
    }
}

struct IntoTable(Table);

struct PartWriter {
    table: Table,
    part: String,
    /// Frontier of the part in the table.
    at: Frontier,
    rows: Vec<Click>,
    /// The frontier that the last closed cycle commits.
    prepared: Option<Frontier>,
}

impl IntoTable {
    /// Begins a new lineage of a part that stands where it was found (O2, O3).
    fn begin(&self, part: &str, lineage: u64) -> Result<Frontier, JobError> {
        let found = self.0.read().parts.get(part).cloned();
        let begun = Frontier {
            lineage,
            epoch: 0,
            parent: found.as_ref().map(|found| found.lineage),
        };
        let committed = self
            .0
            .compare_and_commit(part, found.as_ref(), &begun, Vec::new());
        committed.map_err(failed)?;
        Ok(begun)
    }

    /// Finishes what the mark of a part covers.
    fn finish(&self, part: &str, mark: &Frontier) -> Result<(), JobError> {
        let Some(found) = self.0.read().parts.get(part).cloned() else {
            return Err(failed(format!(
                "{part} is not there: the table is another one"
            )));
        };
        let is_before = found.lineage == mark.lineage && found.epoch + 1 == mark.epoch;
        if is_before {
            let rows = fs::read(self.0.pending(part, mark)).map_err(failed)?;
            let rows = serde_json::from_slice(&rows).map_err(failed)?;
            let committed = self.0.compare_and_commit(part, Some(&found), mark, rows);
            return committed.map_err(failed);
        }
        let is_there = found.lineage == mark.lineage && found.epoch >= mark.epoch;
        let went_on = found.parent == Some(mark.lineage) && found.epoch == 0;
        match is_there || went_on {
            true => Ok(()),
            false => Err(failed(format!(
                "{part} is at {found:?}, the job at {mark:?}"
            ))),
        }
    }
}

impl Sink<String, Click> for IntoTable {
    type Writer = PartWriter;

    fn name(&self) -> String {
        "table".to_owned()
    }

    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        let mut marked = BTreeMap::new();
        for (part, mark) in marks.iter() {
            let mark: Frontier = serde_json::from_slice(mark).map_err(failed)?;
            self.finish(part, &mark)?;
            marked.insert(part.to_owned(), mark);
        }
        // What no mark covers was never committed.
        for entry in fs::read_dir(&self.0.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_string_lossy().contains("/pending ") {
                fs::remove_file(path).map_err(failed)?;
            }
        }
        for worker in 0..8 {
            let part = format!("worker {worker}");
            let found = self.0.read().parts.get(&part).cloned();
            let goes_on = match (&found, marked.get(&part)) {
                (Some(found), Some(mark)) => {
                    (found.lineage, found.epoch) == (mark.lineage, mark.epoch)
                }
                _ => false,
            };
            if !goes_on {
                self.begin(&part, job.env().random.next_u64())?;
            }
        }
        Ok(())
    }

    fn open(&self, context: &mut OperatorContext) -> Result<PartWriter, JobError> {
        let part = format!("worker {}", context.worker());
        let at = self.0.read().parts.get(&part).cloned();
        Ok(PartWriter {
            table: self.0.clone(),
            at: at.ok_or_else(|| failed("recover comes first"))?,
            part,
            rows: Vec::new(),
            prepared: None,
        })
    }
}

impl SinkWriter<String, Click> for PartWriter {
    fn write(&mut self, record: Record<'_, String, Click>) -> Flow {
        self.rows.push(record.value.clone());
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        if self.rows.is_empty() {
            return Ok(());
        }
        let next = Frontier {
            epoch: self.at.epoch + 1,
            ..self.at.clone()
        };
        // O1: under a pending name, until the job has decided.
        let rows = serde_json::to_vec(&std::mem::take(&mut self.rows)).map_err(failed)?;
        let mut file = fs::File::create(self.table.pending(&self.part, &next)).map_err(failed)?;
        file.write_all(&rows)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        marks.set(&*self.part, serde_json::to_vec(&next).map_err(failed)?);
        self.prepared = Some(next);
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        let Some(to) = self.prepared.take() else {
            return Ok(());
        };
        let pending = self.table.pending(&self.part, &to);
        let rows = serde_json::from_slice(&fs::read(&pending).map_err(failed)?).map_err(failed)?;
        let committed = self
            .table
            .compare_and_commit(&self.part, Some(&self.at), &to, rows);
        committed.map_err(failed)?;
        fs::remove_file(pending).map_err(failed)?;
        self.at = to;
        Ok(())
    }
}

fn writes(table: &Table, is_endless: bool) -> Launch {
    let job = Job::new("writes");
    // A store, without which there are no savepoints.
    let numbered = clicks_of(&job, is_endless).stateful(
        "seen",
        |seen: &mut Option<u64>, click: &Click, results| {
            *seen = Some(seen.unwrap_or(0) + 1);
            results.push(click.clone());
        },
    );
    numbered.sink(IntoTable(table.clone()));
    job.exactly_once(Commit::every(ms(5))).state_partitions(8)
}

fn numbers(table: &Table) -> Vec<i64> {
    let mut numbers: Vec<i64> = table.read().rows.iter().map(|it| it.1).collect();
    numbers.sort_unstable();
    numbers
}

fn table(place: &Place) -> Table {
    let path = place.path("table");
    fs::create_dir_all(&path).unwrap();
    Table(path)
}

#[test]
fn o4_o5_a_commit_needs_exactly_the_epoch_before_it_and_lands_once() {
    let place = Place::new();
    let table = table(&place);
    let at = |lineage, epoch| Frontier {
        lineage,
        epoch,
        parent: None,
    };
    let row = |number| clicks(number, 1, 1);
    table
        .compare_and_commit("a", None, &at(7, 0), vec![])
        .unwrap();
    // One that was slow and the one that was made after it, at the same moment: one lands.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                table
                    .compare_and_commit("a", Some(&at(7, 0)), &at(7, 1), row(1))
                    .unwrap()
            });
        }
    });
    assert_eq!(numbers(&table), [1]);
    table
        .compare_and_commit("a", Some(&at(7, 1)), &at(7, 2), row(2))
        .unwrap();
    // Too late, too early, of another lineage: neither equal nor "not the same" is enough.
    for (from, to) in [
        (at(7, 0), at(7, 1)),
        (at(7, 3), at(7, 4)),
        (at(8, 2), at(8, 3)),
    ] {
        let refused = table.compare_and_commit("a", Some(&from), &to, row(3));
        assert!(refused.unwrap_err().contains("is at"), "{from:?}");
    }
    assert_eq!(numbers(&table), [1, 2]);
}

fn lineages(table: &Table) -> Vec<u64> {
    let parts = table.read().parts.into_values();
    parts.map(|part| part.lineage).collect()
}

/// A log that has these clicks.
fn log_with(place: &Place, all: &[Click]) -> Log {
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, all);
    log
}

#[test]
fn o2_rows_of_a_job_on_a_new_log_appear_though_the_table_has_later_epochs() {
    let place = Place::new();
    let table = table(&place);
    let all = clicks(0, 50, 5);
    let log = log_with(&place, &all);
    let running = writes(&table, true).workers(2).start(&log).unwrap();
    for round in 1..=4 {
        feed(&log, "in", 0, &clicks(50 * round, 50, 5));
        let count = usize::try_from(50 * (round + 1)).unwrap();
        until("they are written", || numbers(&table).len() == count);
    }
    wait(running.stop()).unwrap();
    let before = lineages(&table);
    let other = Place::new();
    let log = log_with(&other, &all);
    run(writes(&table, false).workers(2), &log).unwrap();
    let expected = (0..50).flat_map(|number| [number; 2]).chain(50..250);
    assert!(numbers(&table).into_iter().eq(expected));
    assert!(lineages(&table).iter().all(|it| !before.contains(it)));
}

#[test]
fn o3_a_job_that_went_back_writes_on_under_a_new_lineage_and_nothing_is_taken_for_written() {
    let place = Place::new();
    let table = table(&place);
    let (then, since) = (clicks(0, 50, 5), clicks(50, 50, 5));
    let log = log_with(&place, &then);
    let running = writes(&table, true).workers(2).start(&log).unwrap();
    until("then is written", || numbers(&table).len() == 50);
    let savepoint = wait(running.savepoint(place.path("savepoint"))).unwrap();
    for some in since.chunks(10) {
        feed(&log, "in", 0, some);
        let count = 51 + usize::try_from(some[0].1 - 50).unwrap() + 9;
        until("since is written", || numbers(&table).len() == count);
    }
    wait(running.stop()).unwrap();
    let before = lineages(&table);
    let other = Place::new();
    let log = log_with(&other, &then);
    feed(&log, "in", 0, &since);
    writes(&table, false).restore(&log, &savepoint).unwrap();
    run(writes(&table, false).workers(2), &log).unwrap();
    let expected = (0..50).chain((50..100).flat_map(|number| [number; 2]));
    assert!(numbers(&table).into_iter().eq(expected));
    assert!(lineages(&table).iter().any(|it| !before.contains(it)));
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn writes_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, folder] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(&Path::new(folder).join("data"));
    let table = Table(Path::new(folder).join("table"));
    let launch = writes(&table, is_endless == "true").workers(workers.parse().unwrap());
    wait(launch.start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

fn start(folder: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", folder.display());
    let test = "effects::epochs::writes_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

#[test]
fn o1_o5_o6_a_target_that_keeps_the_epoch_has_each_row_once_whatever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, table) = (
        folder.path().join("data"),
        Table(folder.path().join("table")),
    );
    fs::create_dir(&table.0).unwrap();
    let log = open(&data);
    topic_of_clicks(&log, "in", 1);
    log.close().unwrap();
    let points = [
        "cycle.drained",
        "commit.before_decision",
        "commit.after_decision",
        "cycle.committed",
        "sink.prepared",
        "sink.committed",
        "sink.recovered",
    ];
    let mut count = 0;
    for life in 0..20 {
        let log = open(&data);
        feed(&log, "in", 0, &clicks(count, 60, 11));
        count += 60;
        log.close().unwrap();
        let changes = table.read().changes;
        let failpoint = match life % 2 {
            0 => format!("{}=kill@{}", points[life % points.len()], 1 + life % 3),
            _ => String::new(),
        };
        let moment = ["before", "after"][life / 2 % 2];
        let death = format!("{moment} {}", changes + 1 + life as u64 % 7);
        // The target dies in half of the lives, the job in the other half; the child is told by its environment.
        let mut process = match life % 2 {
            0 => start(folder.path(), 1 + life % 3, true, &failpoint),
            _ => start_dying(folder.path(), 1 + life % 3, &death),
        };
        process.is_killed_within(ms(1_500));
        drop(process);
        let found = numbers(&table);
        assert!(
            found.windows(2).all(|pair| pair[0] < pair[1]),
            "each row once"
        );
    }
    let mut last = start(folder.path(), 2, false, "");
    assert!(last.0.wait().unwrap().success());
    assert!(numbers(&table).into_iter().eq(0..count));
}

fn start_dying(folder: &Path, workers: usize, death: &str) -> Process {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "effects::epochs::writes_until_it_is_killed"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{workers} true {}", folder.display()))
        .env(DEATH, death)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    Process(child.unwrap())
}
