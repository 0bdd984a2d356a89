//! A sink of one's own is exactly once, whatever fails before, at and after the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use onceflow::prelude::*;
use onceflow::runtime::{
    Flow, JobContext, MarkChanges, Marks, OperatorContext, Record, Sink, SinkWriter, Unkeyed,
};
use onceflow::types::TopicName;
use parking_lot::Mutex;

use super::support::{OFTEN, Place, committed, run};

/// A step of the sink, at the how-manieth call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Recover(u32),
    Open(u32),
    Write(u32),
    Prepare(u32),
    Commit(u32),
    Close(u32),
}

/// A database: rows that were prepared, by worker and transaction, and those that everybody sees.
#[derive(Debug, Default)]
struct Table {
    prepared: BTreeMap<(String, u64), Vec<u64>>,
    shown: Vec<u64>,
    /// The step that fails, once.
    fails_at: Option<Step>,
    calls: BTreeMap<&'static str, u32>,
}

impl Table {
    fn step(&mut self, name: &'static str, step: fn(u32) -> Step) -> Result<(), JobError> {
        let calls = self.calls.entry(name).or_default();
        *calls += 1;
        match self.fails_at == Some(step(*calls)) {
            true => Err(JobError::Sink {
                sink: "table".to_owned(),
                why: format!("{name} failed on purpose"),
            }),
            false => Ok(()),
        }
    }
}

/// A sink into a table. A worker's mark is the number of its last transaction.
#[derive(Clone)]
struct IntoTable {
    name: &'static str,
    table: Arc<Mutex<Table>>,
}

impl IntoTable {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            table: Arc::default(),
        }
    }

    fn fail_at(&self, step: Option<Step>) {
        let mut table = self.table.lock();
        table.fails_at = step;
        table.calls.clear();
    }

    fn shown(&self) -> Vec<u64> {
        self.table.lock().shown.clone()
    }
}

struct TableWriter {
    table: Arc<Mutex<Table>>,
    worker: String,
    rows: Vec<u64>,
    transaction: u64,
}

fn transaction_of(marks: &Marks, worker: &str) -> u64 {
    let mark = marks.get(worker).map(|mark| mark.try_into().unwrap());
    mark.map_or(0, u64::from_be_bytes)
}

impl<K: ?Sized + 'static> Sink<K, u64> for IntoTable {
    type Writer = TableWriter;

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn recover(&self, marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
        let mut table = self.table.lock();
        table.step("recover", Step::Recover)?;
        for ((worker, transaction), rows) in std::mem::take(&mut table.prepared) {
            if transaction <= transaction_of(marks, &worker) {
                table.shown.extend(rows);
            }
        }
        Ok(())
    }

    fn open(&self, context: &mut OperatorContext) -> Result<TableWriter, JobError> {
        self.table.lock().step("open", Step::Open)?;
        Ok(TableWriter {
            table: Arc::clone(&self.table),
            worker: context.worker().to_string(),
            rows: Vec::new(),
            // Transactions of all runs have numbers of their own: a mark may not cover what was undone.
            transaction: context.job().env().clock.wall().0.unsigned_abs() << 16,
        })
    }

    fn close(&self, marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
        let mut table = self.table.lock();
        assert!(table.prepared.is_empty() && marks.iter().count() > 0);
        table.step("close", Step::Close)
    }
}

impl<K: ?Sized> SinkWriter<K, u64> for TableWriter {
    fn write(&mut self, record: Record<'_, K, u64>) -> Flow {
        self.table.lock().step("write", Step::Write)?;
        self.rows.push(*record.value);
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        let mut table = self.table.lock();
        self.transaction += 1;
        let key = (self.worker.clone(), self.transaction);
        table.prepared.insert(key, std::mem::take(&mut self.rows));
        table.step("prepare", Step::Prepare)?;
        marks.set(self.worker.as_str(), self.transaction.to_be_bytes());
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        let mut table = self.table.lock();
        table.step("commit", Step::Commit)?;
        let key = (self.worker.clone(), self.transaction);
        let rows = table.prepared.remove(&key).expect("it was prepared");
        table.shown.extend(rows);
        Ok(())
    }
}

const ROWS: u64 = 3_000;

/// Copies numbers into two tables, on a worker or, by key, on three.
fn copy(first: &IntoTable, second: &IntoTable, workers: usize) -> onceflow::runtime::Launch {
    let job = Job::new("copy");
    let (left, right) = job.source(values("n", 0..ROWS)).tee();
    left.sink(first.clone());
    right
        .key_by(|n| n % 97)
        .partitioned("spread")
        .sink(second.clone());
    let commit = Commit::every(OFTEN).or_records(500);
    job.exactly_once(commit).workers(workers)
}

#[test]
fn o1_a_sink_of_ones_own_holds_each_record_once_whatever_step_fails() {
    let steps = [
        Step::Recover(1),
        Step::Open(1),
        Step::Write(1),
        Step::Write(1_700),
        Step::Prepare(1),
        Step::Prepare(3),
        Step::Commit(1),
        Step::Commit(2),
        Step::Close(1),
    ];
    for (workers, fails, step) in [1, 3].into_iter().flat_map(|workers| {
        let cases = steps.into_iter();
        cases.flat_map(move |step| [(workers, 0, step), (workers, 1, step)])
    }) {
        let place = Place::new();
        let log = place.log();
        let tables = [IntoTable::new("first"), IntoTable::new("second")];
        let launch = || copy(&tables[0], &tables[1], workers);
        tables[fails].fail_at(Some(step));
        let error = run(launch(), &log).unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        tables[fails].fail_at(None);
        run(launch(), &log).unwrap();
        for table in &tables {
            let mut shown = table.shown();
            if workers > 1 {
                shown.sort_unstable();
            }
            let is_whole = shown.iter().copied().eq(0..ROWS);
            assert!(is_whole, "{step:?} of {fails}: {} rows", shown.len());
        }
    }
}

#[test]
fn a_sink_behind_several_streams_has_one_writer_a_worker() {
    let place = Place::new();
    let log = place.log();
    let table = IntoTable::new("table");
    let job = Job::new("both");
    let (even, odd) = (
        job.source(values("even", [2u64, 4])),
        job.source(values("odd", [1u64, 3])),
    );
    even.merge(odd).sink(table.clone());
    run(job.exactly_once(Commit::every(OFTEN)).workers(1), &log).unwrap();
    let mut shown = table.shown();
    shown.sort_unstable();
    assert_eq!(shown, [1, 2, 3, 4]);
    assert_eq!(table.table.lock().calls["open"], 1);
}

#[test]
fn x9_what_a_record_wrote_into_a_sink_of_ones_own_before_it_failed_is_undone() {
    let place = Place::new();
    let log = place.log();
    let table = IntoTable::new("table");
    let job = Job::new("failing");
    let (left, right) = job.source(values("n", 0..100u64)).tee();
    left.sink(table.clone());
    right
        .try_map(|n: &u64| match n % 10 {
            7 => Err("a seven"),
            _ => Ok(*n),
        })
        .sink(topic("out"));
    let dead = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    run(job.exactly_once(Commit::every(OFTEN)).on_poison(dead), &log).unwrap();
    let mut shown = table.shown();
    shown.sort_unstable();
    assert!(shown.into_iter().eq((0..100).filter(|n| n % 10 != 7)));
    assert_eq!(committed(&log, "dead").len(), 10);
}

/// A sink that has nothing but a name, and sees records at least once.
struct Named<const IS_TRANSACTIONAL: bool>(&'static str);

impl<const IS_TRANSACTIONAL: bool> Sink<Unkeyed, u64> for Named<IS_TRANSACTIONAL> {
    type Writer = Nowhere;
    const IS_TRANSACTIONAL: bool = IS_TRANSACTIONAL;

    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn open(&self, _context: &mut OperatorContext) -> Result<Nowhere, JobError> {
        Ok(Nowhere)
    }
}

struct Nowhere;

impl SinkWriter<Unkeyed, u64> for Nowhere {
    fn write(&mut self, _record: Record<'_, Unkeyed, u64>) -> Flow {
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        marks.set("all", [1]);
        Ok(())
    }
}

#[test]
fn sinks_whose_marks_would_be_taken_for_anothers_are_refused() {
    let place = Place::new();
    let log = place.log();
    let refused = |names: [&'static str; 2], why: &str| {
        let job = Job::new("two");
        let (left, right) = job.source(values("n", 0..10u64)).tee();
        left.sink(Named::<true>(names[0]));
        right.sink(Named::<true>(names[1]));
        let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(["same", "same"], "two sinks are called \"same\"");
    refused(["n", "other"], "a source and a sink are called \"n\"");
    refused(["", "other"], "cannot be called");
    // A sink that is not given its marks again may not set any.
    let job = Job::new("one");
    job.source(values("n", 0..10u64))
        .sink(Named::<false>("lost"));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(error.to_string().contains("not transactional"), "{error}");
}

/// Sends records and commits elsewhere.
struct Posts(std::sync::mpsc::Sender<&'static str>);

impl Sink<Unkeyed, u64> for Posts {
    type Writer = Post;
    const IS_TRANSACTIONAL: bool = false;

    fn name(&self) -> String {
        "posts".to_owned()
    }

    fn open(&self, _context: &mut OperatorContext) -> Result<Post, JobError> {
        Ok(Post(self.0.clone()))
    }
}

struct Post(std::sync::mpsc::Sender<&'static str>);

impl SinkWriter<Unkeyed, u64> for Post {
    fn write(&mut self, _record: Record<'_, Unkeyed, u64>) -> Flow {
        self.0.send("record").unwrap();
        Ok(())
    }

    fn prepare_commit(&mut self, _marks: &mut MarkChanges) -> Flow {
        self.0.send("prepare").unwrap();
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        self.0.send("commit").unwrap();
        Ok(())
    }
}

#[test]
fn a_sink_without_marks_is_told_of_commits_too_and_its_name_need_not_be_its_own() {
    let place = Place::new();
    let log = place.log();
    let (sender, told) = std::sync::mpsc::channel();
    let job = Job::new("posting");
    let (left, right) = job.source(values("n", [1u64])).tee();
    let (other, unheard) = std::sync::mpsc::channel();
    left.sink(Posts(sender));
    right.sink(Posts(other));
    run(job.exactly_once(Commit::every(OFTEN)).workers(1), &log).unwrap();
    drop(unheard);
    let mut told: Vec<&str> = told.iter().collect();
    told.dedup();
    assert_eq!(told, ["record", "prepare", "commit"]);
}
