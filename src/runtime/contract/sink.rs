//! The contract of a sink: where a stream ends, and what it does before and at a commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::JobError;
use super::operator::Flow;
use super::record::{Record, Unkeyed};
use crate::runtime::graph::stream::{Keyed, Stream, Table, Upstream};
use crate::runtime::graph::topology::{Graph, SinkNode};
use crate::runtime::task::context::{JobContext, OperatorContext};
use crate::runtime::task::discard::Discard;
use crate::runtime::task::sink_stage::{Erased, SinkFactory};

/// Where records leave the job: a sink with a two-phase commit, as Flink has. The crate's own are made by
/// [`topic`](crate::runtime::topic), [`files`](crate::runtime::files) and [`at_least_once`](crate::runtime::at_least_once).
///
/// ```text
/// recover(marks) ─► open ─► write … ─► prepare_commit ─► the job's commit ─► commit ─► … ─► close
///       ▲                                                                      │
///       └──────── an error, a crash or a cycle that is not committed ──────────┘
/// ```
/// [`prepare_commit`](SinkWriter::prepare_commit) makes what was written durable and says in *marks* how much that is. The
/// marks are committed in the job's own transaction, with its results, state and positions. Whatever happens, the next
/// attempt begins with [`recover`](Self::recover) and the marks of the last committed cycle: the sink undoes what was written
/// behind them, and finishes what they cover. So each record is in the sink once.
///
/// ```
/// use std::io::{Seek, SeekFrom, Write};
/// use std::{fs, path::PathBuf, time::Duration};
///
/// use onceflow::prelude::*;
/// use onceflow::runtime::{Flow, JobContext, MarkChanges, Marks, OperatorContext, Record, Sink, SinkWriter, Unkeyed};
///
/// /// Appends numbers to a file a worker, whose committed length is its mark.
/// struct Ledger { folder: PathBuf }
///
/// struct LedgerWriter { file: fs::File, name: String, length: u64 }
///
/// fn failed(why: impl std::fmt::Display) -> JobError {
///     JobError::Sink { sink: "ledger".to_owned(), why: why.to_string() }
/// }
///
/// impl Sink<Unkeyed, u64> for Ledger {
///     type Writer = LedgerWriter;
///
///     fn name(&self) -> String {
///         "ledger".to_owned()
///     }
///
///     fn recover(&self, marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
///         // What is behind a mark was never committed, and neither was a file without one.
///         for entry in fs::read_dir(&self.folder).map_err(failed)? {
///             let path = entry.map_err(failed)?.path();
///             let name = path.file_name().unwrap_or_default().to_string_lossy();
///             let mark = marks.get(&name).and_then(|mark| mark.try_into().ok());
///             let length = mark.map_or(0, u64::from_be_bytes);
///             let file = fs::File::options().write(true).open(&path).map_err(failed)?;
///             file.set_len(length).and_then(|()| file.sync_data()).map_err(failed)?;
///         }
///         Ok(())
///     }
///
///     fn open(&self, context: &mut OperatorContext) -> Result<LedgerWriter, JobError> {
///         let name = format!("worker-{}", context.worker());
///         let path = self.folder.join(&name);
///         let mut file = fs::File::options().create(true).append(true).open(path).map_err(failed)?;
///         let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
///         Ok(LedgerWriter { file, name, length })
///     }
/// }
///
/// impl SinkWriter<Unkeyed, u64> for LedgerWriter {
///     fn write(&mut self, record: Record<'_, Unkeyed, u64>) -> Flow {
///         let line = format!("{}\n", record.value);
///         self.file.write_all(line.as_bytes()).map_err(failed)?;
///         self.length += line.len() as u64;
///         Ok(())
///     }
///
///     fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
///         self.file.sync_data().map_err(failed)?;
///         marks.set(&self.name, self.length.to_be_bytes());
///         Ok(())
///     }
/// }
///
/// let folder = tempfile::tempdir()?;
/// let ledger = Ledger { folder: folder.path().to_owned() };
/// let job = Job::new("numbers");
/// job.source(values("n", 1..=3u64)).sink(ledger);
/// # let data = tempfile::tempdir()?;
/// let running = job.exactly_once(Commit::every(Duration::from_millis(10))).workers(1).start(&Log::embedded(data.path())?)?;
/// onceflow::client::wait(running.finished())?;
/// assert_eq!(fs::read_to_string(folder.path().join("worker-0"))?, "1\n2\n3\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink for these records (key `{K}`, value `{V}`)",
    label = "not a sink for them",
    note = "sinks are made by `topic`, `files` and `at_least_once`; one of your own implements `Sink<{K}, {V}>`",
    note = "a `topic` or `files` takes one type of values: `map` the records to it, or give it another codec"
)]
pub trait Sink<K: ?Sized + 'static, V: ?Sized + 'static>: Send + Sync + 'static {
    /// One worker's end of the sink.
    type Writer: SinkWriter<K, V> + 'static;

    /// Whether what is written in a cycle that is not committed is undone. A sink that cannot do that says `false`: it sees
    /// records at least once, keeps no marks, and a record that fails after it was written there is not held back for it.
    const IS_TRANSACTIONAL: bool = true;

    /// The sink's name: its marks are kept under it, so it stays the same across restarts, and no other sink or source of the
    /// job has it.
    fn name(&self) -> String;

    /// Brings the sink to the last committed cycle, before any worker opens it: finishes what the marks cover, undoes
    /// what is behind them. Called at each start of the job and after each attempt that failed, also twice with the same marks
    /// if it did not come to its end: it must be idempotent. No earlier instance of the job commits any more when it is called,
    /// but one may still be writing.
    ///
    /// # Errors
    /// If the sink is not what the marks say: the job does not start.
    fn recover(&self, _marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
        Ok(())
    }

    /// Makes a worker's end, once a worker.
    ///
    /// # Errors
    /// If it cannot be written.
    fn open(&self, context: &mut OperatorContext) -> Result<Self::Writer, JobError>;

    /// Called once the job has ended well: everything is committed, as the marks say, and every writer is gone.
    ///
    /// # Errors
    /// If the sink cannot be put in order; the next start does, by [`recover`](Self::recover).
    fn close(&self, _marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
        Ok(())
    }

    /// Says what the job needs for it before it runs.
    #[doc(hidden)]
    fn declare(self: Arc<Self>, graph: &Graph)
    where
        Self: Sized,
    {
        if Self::IS_TRANSACTIONAL {
            graph.add_sink(SinkNode {
                name: self.name(),
                sink: Erased::new(self),
            });
        }
    }
}

/// One worker's end of a [`Sink`], used on the worker's thread.
pub trait SinkWriter<K: ?Sized, V: ?Sized> {
    /// Takes a record. One that is refused with [`Failure::poison`](crate::runtime::Failure::poison) must leave nothing.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure).
    fn write(&mut self, record: Record<'_, K, V>) -> Flow;

    /// Every record of the cycle was written: makes them durable, so that they can be finished or undone after any crash, and
    /// changes the marks that are committed with the cycle.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), with which the cycle is not committed.
    fn prepare_commit(&mut self, _marks: &mut MarkChanges) -> Flow {
        Ok(())
    }

    /// The cycle that was prepared last is committed: shows what it wrote. Records of the next cycle may have come meanwhile.
    /// A crash may come before this; then [`Sink::recover`] finishes it.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), which ends the attempt; the cycle stays committed.
    fn commit(&mut self) -> Flow {
        Ok(())
    }
}

/// The marks of a sink as of the last committed cycle, by part. The sink chooses its parts: workers, files, tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<String, Vec<u8>>);

impl Marks {
    /// The mark of a part.
    #[must_use]
    pub fn get(&self, part: &str) -> Option<&[u8]> {
        self.0.get(part).map(Vec::as_slice)
    }

    /// Every part with its mark.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(part, mark)| (&**part, &**mark))
    }
}

impl FromIterator<(String, Vec<u8>)> for Marks {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(marks: I) -> Self {
        Self(marks.into_iter().collect())
    }
}

/// The marks that a cycle changes; those of other parts stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkChanges(BTreeMap<String, Option<Vec<u8>>>);

impl MarkChanges {
    /// Sets the mark of a part.
    pub fn set(&mut self, part: impl Into<String>, mark: impl Into<Vec<u8>>) {
        self.0.insert(part.into(), Some(mark.into()));
    }

    /// Forgets a part, of which nothing need be known any more.
    pub fn forget(&mut self, part: impl Into<String>) {
        self.0.insert(part.into(), None);
    }

    /// Every part with its new mark, or none where it is forgotten.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().map(|(part, mark)| (&**part, mark.as_deref()))
    }
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Ends the stream in a sink.
    #[track_caller]
    pub fn sink<S: Sink<Unkeyed, T>>(self, sink: S) {
        let sink = Arc::new(sink);
        Arc::clone(&sink).declare(&self.graph);
        self.end(sink.name(), SinkFactory::new(sink));
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Ends the stream in a sink.
    #[track_caller]
    pub fn sink<S: Sink<K, V>>(self, sink: S) {
        let sink = Arc::new(sink);
        Arc::clone(&sink).declare(&self.graph);
        self.end(sink.name(), SinkFactory::new(sink));
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Table<K, V, U> {
    /// Keeps the table up to date without using its changes.
    #[track_caller]
    pub fn materialize(self) {
        self.changes().end("materialize".to_owned(), Discard);
    }
}
