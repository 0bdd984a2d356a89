//! The contract of a sink: where a stream ends. Its end on a worker is a [`SinkWriter`].

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::stream::{Keyed, Stream, Upstream};
use super::table::Table;
use super::topology::{Graph, SinkNode};
use crate::runtime::contract::change::Change;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Output, Signal, Stage};
use crate::runtime::contract::record::{Record, Unkeyed};
use crate::runtime::contract::sink::{MarkChanges, Marks, SinkWriter};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::context::{JobContext, OperatorContext};
use crate::runtime::task::discard::Discard;
use crate::runtime::task::open_sink::{AnySink, AnyWriter, OpenSink};
use crate::state::Trace;

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
/// behind them, and finishes what they cover. So each record is in the sink once. A target that keeps a number of the commit beside its
/// rows, as a database can, is exactly once by these steps: docs/operators.md, "Targets that keep the epoch". One that cannot take
/// anything back, such as a service, is reached by [`effect`](Keyed::effect).
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
                sink: Erased::hide(self),
            });
        }
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

    /// Ends the stream without a sink: the steps in front of it run, and what they push goes nowhere. For steps that do their work in
    /// stores, side streams, or outside.
    #[track_caller]
    pub fn discard(self) {
        self.end("discard".to_owned(), Discard);
    }
}

impl<K: ?Sized + 'static, V: 'static, U: Upstream<K, Change<V>>, D> Table<K, V, U, D> {
    /// Keeps the table up to date without using its changes.
    #[track_caller]
    pub fn materialize(self) {
        let (changes, _) = self.into_parts();
        changes.place.then(&changes.graph, "table".to_owned());
        changes.upstream.attach(&changes.graph, Discard);
    }
}

/// A sink whose types are to be hidden.
pub(crate) struct Erased<S, KV> {
    sink: Arc<S>,
    types: PhantomData<KV>,
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> Erased<S, fn(&K, &V)> {
    fn hide(sink: Arc<S>) -> Arc<dyn AnySink> {
        Arc::new(Self {
            sink,
            types: PhantomData,
        })
    }
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> AnySink for Erased<S, fn(&K, &V)> {
    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        self.sink.recover(marks, job)
    }

    fn close(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        self.sink.close(marks, job)
    }
}

struct Writer<W, KV> {
    writer: W,
    types: PhantomData<KV>,
}

impl<W: SinkWriter<K, V>, K: ?Sized, V: ?Sized> AnyWriter for Writer<W, fn(&K, &V)> {
    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        self.writer.prepare_commit(marks)
    }

    fn commit(&mut self) -> Flow {
        self.writer.commit()
    }
}

/// Builds the end of a stream.
pub(crate) struct SinkFactory<S, KV> {
    sink: Arc<S>,
    types: PhantomData<KV>,
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> SinkFactory<S, fn(&K, &V)> {
    pub(crate) fn new(sink: Arc<S>) -> Self {
        Self {
            sink,
            types: PhantomData,
        }
    }

    fn open(&self, context: &mut OperatorContext) -> Result<Shared<S::Writer, K, V>, JobError> {
        let address = Arc::as_ptr(&self.sink).addr();
        let mut opened = context
            .sinks()
            .iter()
            .filter(|open| open.address == address);
        let shared = opened.find_map(|open| Rc::clone(&open.typed).downcast().ok());
        if let Some(writer) = shared {
            return Ok(writer);
        }
        let writer: Shared<S::Writer, K, V> = Rc::new(RefCell::new(Writer {
            writer: self.sink.open(context)?,
            types: PhantomData,
        }));
        context.add_sink(OpenSink {
            name: self.sink.name(),
            is_transactional: S::IS_TRANSACTIONAL,
            writer: Rc::clone(&writer) as Rc<RefCell<dyn AnyWriter>>,
            address,
            typed: Rc::clone(&writer) as Rc<dyn Any>,
        });
        Ok(writer)
    }
}

type Shared<W, K, V> = Rc<RefCell<Writer<W, fn(&K, &V)>>>;

#[diagnostic::do_not_recommend]
impl<S, K, V> StageFactory<K, V> for SinkFactory<S, fn(&K, &V)>
where
    S: Sink<K, V>,
    K: ?Sized + 'static,
    V: ?Sized + 'static,
{
    type Stage = SinkStage<S, K, V>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(SinkStage {
            writer: self.open(context)?,
            trace: context.trace(),
        })
    }
}

/// The end of a chain in a sink.
pub(crate) struct SinkStage<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> {
    writer: Shared<S::Writer, K, V>,
    trace: Trace,
}

impl<S: Sink<K, V>, K: ?Sized, V: ?Sized> Output<K, V> for SinkStage<S, K, V> {
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        self.writer.borrow_mut().writer.write(record)?;
        if S::IS_TRANSACTIONAL {
            self.trace.leave();
        }
        Ok(())
    }
}

impl<S: Sink<K, V>, K: ?Sized, V: ?Sized> Stage<K, V> for SinkStage<S, K, V> {
    /// The worker asks its sinks itself, once nothing more can come from any chain.
    fn signal(&mut self, _signal: Signal) -> Flow {
        Ok(())
    }
}
