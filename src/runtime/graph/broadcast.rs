//! [`Broadcast`]: the latest value of every key of a topic, as a whole in each process of the job.
//!
//! ```text
//!   topic ─┬─► a source as any other ─► nothing    its bad records follow the job's policy, its positions are committed, once for the job
//!          └─► each process: all of it, before its first record; then what is new, between two cycles
//! ```
//! A worker takes the values when it first looks something up in a cycle; what is new waits until all steps that look up have ended the
//! cycle, on all workers. So all records of a cycle find one state of the table, without a lock or a copy for each.

use std::any::Any;
use std::collections::HashMap;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tracing::info;

use super::source::{From, Source};
use super::stream::{Attach, Keyed, Place, Stream, Upstream};
use super::topology::Graph;
use crate::client::wait;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::record::{Key, Unkeyed};
use crate::runtime::contract::source::{
    Emit, Emitted, Pace, Position, Raw, Read, Split, SplitReader,
};
use crate::runtime::task::context::{JobContext, OperatorContext};
use crate::runtime::task::discard::Discard;
use crate::runtime::task::progress::Progress;
use crate::state::StoreSize;
use crate::types::Offset;

/// The most changes that wait until nobody reads the table; more stay in the topic.
const CHANGES_MAX: usize = 65_536;
/// The most bytes of changes that wait, but for the last one.
const CHANGES_BYTES_MAX: usize = 16 << 20;
/// The bytes that a table takes at most, if its user says nothing else.
const BYTES_MAX: usize = 256 << 20;
/// The bytes that a row takes beside its key and value.
const ROW_BYTES: usize = 64;
/// The port of a step that looks values up, as the job's graph calls it.
const TABLE: &str = "table";

/// Opens a worker's way to a table that takes at most so many bytes.
type Open<K, V> =
    Arc<dyn Fn(&OperatorContext, usize) -> Result<BroadcastReader<K, V>, JobError> + Send + Sync>;

/// The latest value of every key of a topic, as a whole in the memory of each process of the job, for joins without a shuffle. Made by
/// [`Job::broadcast`](crate::runtime::Job::broadcast). Cheap to clone.
pub struct Broadcast<K: ?Sized, V> {
    graph: Graph,
    place: Place,
    open: Open<K, V>,
    bytes_max: usize,
}

impl<K: ?Sized, V> Clone for Broadcast<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            place: self.place.clone(),
            open: Arc::clone(&self.open),
            bytes_max: self.bytes_max,
        }
    }
}

impl<K: ?Sized + 'static, V: 'static> Broadcast<K, V> {
    /// Sets how many bytes the table may take in each process: those of its keys and values in the topic, and 64 a key. The default is
    /// 256 MiB, beside [`Launch::memory_bytes`](crate::runtime::Launch::memory_bytes). A job whose table is larger stops with
    /// [`JobError::TableTooLarge`]. To be called before the table is used; of several bounds of one table the largest counts.
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// The table's values for operators that read them.
    #[must_use]
    pub fn view(&self) -> BroadcastView<K, V> {
        BroadcastView {
            open: Arc::clone(&self.open),
            bytes_max: self.bytes_max,
        }
    }
}

/// A broadcast table's values as an operator reads them: opened on each worker. Made by [`Broadcast::view`].
pub struct BroadcastView<K: ?Sized, V> {
    open: Open<K, V>,
    bytes_max: usize,
}

impl<K: ?Sized, V> BroadcastView<K, V> {
    /// Opens a worker's way to the values, which are all there then.
    ///
    /// # Errors
    /// If the topic cannot be read, or the table is larger than it may be.
    pub fn open(&self, context: &mut OperatorContext) -> Result<BroadcastReader<K, V>, JobError> {
        (self.open)(context, self.bytes_max)
    }
}

impl<K, V, S> Keyed<K, Option<V>, From<S>>
where
    K: ?Sized + 'static,
    V: Clone + Send + Sync + 'static,
    S: Source<Key = K, Value = Option<V>>,
{
    /// The table of a source's last values, as a whole in each process of the job; none deletes a key.
    pub fn broadcast(self) -> Broadcast<K, V> {
        let source = Arc::new(self.upstream.0);
        From(ReadTwice(Arc::clone(&source))).attach(&self.graph, Discard);
        Broadcast {
            graph: self.graph,
            place: self.place,
            open: Arc::new(move |context, bytes_max| open(&source, context, bytes_max)),
            bytes_max: BYTES_MAX,
        }
    }
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Says that the next step reads a table, so that the job's graph shows it.
    ///
    /// # Panics
    /// If the table belongs to another job.
    pub fn beside<K: ?Sized, V>(self, table: &Broadcast<K, V>) -> Self {
        Self {
            place: beside(&self.graph, self.place, table),
            ..self
        }
    }
}

impl<J: ?Sized + 'static, T: ?Sized + 'static, U: Upstream<J, T>> Keyed<J, T, U> {
    /// Says that the next step reads a table, so that the job's graph shows it.
    ///
    /// # Panics
    /// If the table belongs to another job.
    pub fn beside<K: ?Sized, V>(self, table: &Broadcast<K, V>) -> Self {
        Self {
            place: beside(&self.graph, self.place, table),
            ..self
        }
    }
}

fn beside<K: ?Sized, V>(graph: &Graph, place: Place, table: &Broadcast<K, V>) -> Place {
    assert!(
        graph.is_same(&table.graph),
        "a stream cannot read the table of another job: build both from one `Job`"
    );
    place.and(table.place.clone().at_port(TABLE))
}

/// A source that two read: the table, and the job, for the positions. Its letters do not come back: they would reach the job alone.
struct ReadTwice<S>(Arc<S>);

impl<S: Source> Source for ReadTwice<S> {
    type Key = S::Key;
    type Value = S::Value;
    type Reader = S::Reader;

    fn name(&self) -> String {
        self.0.name()
    }

    fn topic(&self) -> Option<(String, Option<i32>)> {
        self.0.topic()
    }

    fn reads_until_end(&self) -> bool {
        self.0.reads_until_end()
    }

    fn is_rereadable(&self) -> bool {
        self.0.is_rereadable()
    }

    fn prepare(&self) -> Result<(), JobError> {
        self.0.prepare()
    }

    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError> {
        self.0.splits(context)
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<S::Reader, JobError> {
        self.0.open(split, position, context)
    }

    fn resume(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<S::Reader, JobError> {
        self.0.resume(split, position, context)
    }
}

/// Values by the bytes of their keys, each with the bytes that its row takes.
type Values<V> = HashMap<Box<[u8]>, (V, usize)>;

/// A change of the table.
struct NewValue<V> {
    key: Box<[u8]>,
    value: Option<V>,
    /// The bytes that its row takes.
    bytes: usize,
}

/// Changes that wait until nobody reads the table.
struct Changes<V> {
    list: Vec<NewValue<V>>,
    bytes: usize,
}

impl<V> Changes<V> {
    fn is_full(&self) -> bool {
        self.list.len() >= CHANGES_MAX || self.bytes >= CHANGES_BYTES_MAX
    }
}

/// The table of a process.
struct Shared<V>(Mutex<State<V>>);

struct State<V> {
    /// The name of the source.
    name: String,
    values: Arc<Values<V>>,
    /// The bytes that they take.
    bytes: usize,
    bytes_max: usize,
    /// Position of each split, if any was read.
    positions: Option<Vec<(Split, Offset)>>,
    /// The changes that were read since and are not in the values.
    new: Changes<V>,
    /// Which of those that were to read on does: the last one.
    follower: usize,
    /// Readers in all workers.
    readers: usize,
    /// Those of them that ended the cycle.
    ended: usize,
    /// Whether one took the values in this cycle.
    is_taken: bool,
}

impl<V> State<V> {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            values: Arc::default(),
            bytes: 0,
            bytes_max: 0,
            positions: None,
            new: Changes {
                list: Vec::new(),
                bytes: 0,
            },
            follower: 0,
            readers: 0,
            ended: 0,
            is_taken: false,
        }
    }

    /// One more reader ended the cycle: behind the last one begins the next.
    fn end(&mut self) {
        self.ended += 1;
        if self.ended >= self.readers {
            (self.ended, self.is_taken) = (0, false);
        }
    }

    /// Puts what is new into the values, unless the cycle has seen them.
    fn apply(&mut self, progress: &Progress) -> Result<(), JobError> {
        if self.new.list.is_empty() || self.is_taken {
            return Ok(());
        }
        let Some(values) = Arc::get_mut(&mut self.values) else {
            return Ok(());
        };
        self.new.bytes = 0;
        for NewValue { key, value, bytes } in self.new.list.drain(..) {
            let before = match value {
                Some(value) => {
                    self.bytes += bytes;
                    values.insert(key, (value, bytes))
                }
                None => values.remove(&key),
            };
            self.bytes -= before.map_or(0, |(_, bytes)| bytes);
        }
        let (rows, bytes) = (self.values.len(), self.bytes);
        // No store of a job has a name with a space in it.
        let size = StoreSize {
            rows_in_memory: rows as u64,
            memory_bytes: bytes as u64,
            ..StoreSize::default()
        };
        progress.note_size(&format!("broadcast {}", self.name), 0, size);
        if bytes > self.bytes_max {
            return Err(JobError::TableTooLarge {
                table: self.name.clone(),
                keys: rows,
                bytes,
                bytes_max: self.bytes_max,
            });
        }
        Ok(())
    }
}

/// A worker's way to the values of a [`Broadcast`] table, made by [`BroadcastView::open`]. Whoever has one calls
/// [`end_cycle`](Self::end_cycle) and [`on_clock`](Self::on_clock) in the methods of an operator of the same names.
pub struct BroadcastReader<K: ?Sized, V> {
    shared: Arc<Shared<V>>,
    progress: Arc<Progress>,
    /// The values as this cycle sees them, once it asked.
    values: Option<Arc<Values<V>>>,
    /// Reads on, on the worker that does.
    follow: Option<Follow<V>>,
    key: PhantomData<fn(&K)>,
}

/// Reads what is new.
type Follow<V> = Box<dyn FnMut(&mut State<V>) -> Result<(), JobError>>;

impl<K: ?Sized, V> BroadcastReader<K, V> {
    /// The value of a key: the same for all of a cycle.
    #[inline]
    pub fn get(&mut self, key: Key<'_, K>) -> Option<&V> {
        let shared = &self.shared;
        let values = self.values.get_or_insert_with(|| {
            let mut state = shared.0.lock();
            state.is_taken = true;
            Arc::clone(&state.values)
        });
        values.get(key.bytes()).map(|(value, _)| value)
    }

    /// Lets the values go: the next cycle sees what is new.
    ///
    /// # Errors
    /// If the topic cannot be read, or the table is larger than it may be.
    pub fn end_cycle(&mut self) -> Flow {
        self.values = None;
        self.shared.0.lock().end();
        self.on_clock()
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// As [`end_cycle`](Self::end_cycle).
    pub fn on_clock(&mut self) -> Flow {
        let mut state = self.shared.0.lock();
        if let Some(follow) = &mut self.follow {
            follow(&mut state)?;
        }
        Ok(state.apply(&self.progress)?)
    }
}

impl<K: ?Sized, V> Drop for BroadcastReader<K, V> {
    fn drop(&mut self) {
        self.shared.0.lock().readers -= 1;
    }
}

/// Keeps new values. What cannot be decoded is left to the source beside, which has a policy for it.
struct Keep<'a, V>(&'a mut Changes<V>);

impl<K: ?Sized, V: Clone> Emit<K, Option<V>> for Keep<'_, V> {
    fn emit(&mut self, emitted: Emitted<'_, K, Option<V>>) -> Result<Pace, JobError> {
        if let Ok((key, value)) = emitted.record {
            let value_bytes = match emitted.raw {
                Raw::Bytes { value, .. } | Raw::Letter { value, .. } => {
                    value.map_or(0, <[u8]>::len)
                }
                Raw::Encode(encode) => {
                    let mut bytes = Vec::new();
                    encode(&mut bytes).map_or(0, |()| bytes.len())
                }
            };
            let bytes = key.bytes().len() + value_bytes + ROW_BYTES;
            self.0.bytes += bytes;
            self.0.list.push(NewValue {
                key: key.bytes().into(),
                value: value.clone(),
                bytes,
            });
        }
        Ok(match self.0.is_full() {
            true => Pace::Pause,
            false => Pace::GoOn,
        })
    }
}

/// Opens a worker's way to the table of its process; the first one reads all that there is.
fn open<K, V, S>(
    source: &Arc<S>,
    context: &OperatorContext,
    bytes_max: usize,
) -> Result<BroadcastReader<K, V>, JobError>
where
    K: ?Sized + 'static,
    V: Clone + Send + Sync + 'static,
    S: Source<Key = K, Value = Option<V>>,
{
    let job = context.shared_job();
    let shared = shared::<V>(&job, &source.name());
    let mut state = shared.0.lock();
    state.bytes_max = state.bytes_max.max(bytes_max);
    if state.positions.is_none() {
        load(&**source, &job, &mut state)?;
    }
    let follows = context.worker() == 0 && !source.reads_until_end();
    let positions = state.positions.iter().flatten().filter(|_| follows);
    let readers: Result<Vec<_>, JobError> = positions
        .map(|(split, offset)| source.open(split, Some(*offset), &job))
        .collect();
    let readers = readers?;
    state.follower += usize::from(follows);
    let follow = follow(readers, state.follower);
    state.readers += 1;
    drop(state);
    Ok(BroadcastReader {
        shared,
        progress: Arc::clone(&job.progress),
        values: None,
        follow: follows.then_some(follow),
        key: PhantomData,
    })
}

/// The table of this process, by its source's name.
fn shared<V: Send + Sync + 'static>(job: &JobContext, name: &str) -> Arc<Shared<V>> {
    let mut tables = job.broadcasts.lock();
    let table = tables.entry(name.to_owned()).or_insert_with(|| {
        let state = State::<V>::new(name);
        Arc::new(Shared(Mutex::new(state))) as Arc<dyn Any + Send + Sync>
    });
    let table = Arc::clone(table).downcast();
    table.unwrap_or_else(|_| unreachable!("a job's sources have names of their own"))
}

/// Reads all splits up to what is their end: no state that comes before it is ever seen (J21).
fn load<K, V, S>(source: &S, job: &Arc<JobContext>, state: &mut State<V>) -> Result<(), JobError>
where
    K: ?Sized + 'static,
    V: Clone + 'static,
    S: Source<Key = K, Value = Option<V>>,
{
    let begin = job.env().clock.now();
    let mut positions = Vec::new();
    for split in source.splits(job)? {
        let mut reader = source.open(&split, None, job)?;
        loop {
            let read = wait(poll_fn(|polled| {
                match reader.read(polled.waker(), &mut Keep(&mut state.new)) {
                    Ok(Read::Pending) if !reader.has_caught_up() => Poll::Pending,
                    read => Poll::Ready(read),
                }
            }))?;
            state.apply(&job.progress)?;
            match read {
                Read::Exhausted => break,
                Read::Pending | Read::Later(_) if reader.has_caught_up() => break,
                Read::Later(after) => job.env().clock.sleep(after),
                Read::Progress | Read::Pending => {}
            }
        }
        positions.push((split, reader.position()));
    }
    state.positions = Some(positions);
    info!(
        table = %source.name(),
        keys = state.values.len(),
        bytes = state.bytes,
        millis = job.env().clock.now().since(begin).as_millis(),
        "read the whole table"
    );
    Ok(())
}

/// Reads what is new in each split, without waiting, as long as no other one does.
fn follow<K, V, R>(mut readers: Vec<R>, number: usize) -> Follow<V>
where
    K: ?Sized + 'static,
    V: Clone + 'static,
    R: SplitReader<K, Option<V>> + 'static,
{
    Box::new(move |state| {
        if state.follower != number {
            return Ok(());
        }
        for (split, reader) in readers.iter_mut().enumerate() {
            while !state.new.is_full() {
                match reader.read(Waker::noop(), &mut Keep(&mut state.new))? {
                    Read::Progress => {}
                    Read::Pending | Read::Later(_) | Read::Exhausted => break,
                }
            }
            let positions = state.positions.as_mut();
            if let Some((_, offset)) = positions.and_then(|it| it.get_mut(split)) {
                *offset = reader.position();
            }
        }
        Ok(())
    })
}
