//! The contract of a source: splits that are read at a position and can be read from there again.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::error::JobError;
use super::operator::{Flow, Signal, Stage};
use super::record::{Key, Meta, Origin, Record};
use crate::codec::CodecError;
use crate::protocol::batch::Headers;
use crate::protocol::messages::CommittedOffset;
use crate::runtime::graph::stream::Attach;
use crate::runtime::graph::topology::{Graph, SourceNode};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::pace::{Pace, Turn};
use crate::runtime::task::poison::Poison;
use crate::runtime::task::quarantine::{Admission, ApartAhead};
use crate::runtime::task::source_time::{FeedTime, SplitTime};
use crate::types::{Offset, Timestamp, TopicPartition};

/// A part of a source that is read in order by one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// A partition of a topic; its position is a committed offset of the job's group.
    Partition(TopicPartition),
    /// Anything else, by a name that stays the same across restarts.
    Named {
        /// The source.
        source: String,
        /// The split within the source.
        name: String,
    },
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Partition(partition) => partition.fmt(f),
            Self::Named { name, .. } => f.write_str(name),
        }
    }
}

/// A position in a split, and what tells later that the input before it is still the one that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The position.
    pub offset: Offset,
    /// Bytes of the source's own; see [`SplitReader::fingerprint`].
    pub fingerprint: Vec<u8>,
    /// The split's watermark there, if the job keeps one.
    pub watermark: Option<Timestamp>,
}

/// Stands before a watermark in the metadata of a committed offset.
const WATERMARK: &str = "watermark=";

impl Position {
    /// A position as an offset and its metadata keep it.
    pub(crate) fn of_committed(committed: &CommittedOffset) -> Self {
        let millis = committed.metadata.strip_prefix(WATERMARK);
        Self {
            watermark: millis.and_then(|millis| millis.parse().ok()).map(Timestamp),
            ..committed.offset.into()
        }
    }

    /// The metadata of the offset as committed.
    pub(crate) fn to_metadata(&self) -> String {
        let metadata = |watermark: Timestamp| format!("{WATERMARK}{watermark}");
        self.watermark.map_or_else(String::new, metadata)
    }
}

impl std::convert::From<Offset> for Position {
    fn from(offset: Offset) -> Self {
        Self {
            offset,
            fingerprint: Vec::new(),
            watermark: None,
        }
    }
}

/// What a read achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Records were emitted, or at least the position moved.
    Progress,
    /// Nothing is there now; the waker will be called.
    Pending,
    /// Nothing is there now, and nobody will say when there is: ask again after so long.
    Later(Duration),
    /// The split has ended.
    Exhausted,
}

impl Read {
    /// Of two answers without progress, the one that asks for attention sooner.
    pub(crate) fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Later(a), Self::Later(b)) => Self::Later(a.min(b)),
            (Self::Later(_), _) | (Self::Pending, Self::Exhausted) => self,
            _ => other,
        }
    }
}

/// A record's bytes as they were in the source, for a dead-letter topic.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// The bytes that were read, and the headers.
    Bytes {
        /// The key.
        key: Option<&'a [u8]>,
        /// The value; `None` is null, which is not the same as empty.
        value: Option<&'a [u8]>,
        /// The headers; none if the source has no such thing.
        headers: Headers<'a>,
    },
    /// The source has values, not bytes; this encodes the value.
    Encode(&'a dyn Fn(&mut Vec<u8>) -> Result<(), CodecError>),
}

impl<'a> Raw<'a> {
    #[inline]
    fn headers(&self) -> Headers<'a> {
        match self {
            Self::Bytes { headers, .. } => *headers,
            Self::Encode(_) => Headers::NONE,
        }
    }
}

/// A record as its source found it: decoded, or why it cannot be.
pub struct Emitted<'a, K: ?Sized, V: ?Sized> {
    /// Its key ([`Key::none`] for sources without) and value.
    pub record: Result<(Key<'a, K>, &'a V), CodecError>,
    /// Its event time, the same whenever the record is read again; [`Timestamp::NONE`] if the source knows none.
    pub timestamp: Timestamp,
    /// Its offset in the split.
    pub offset: Offset,
    /// Its bytes.
    pub raw: Raw<'a>,
}

/// Where a reader puts the records that it reads.
pub trait Emit<K: ?Sized, V: ?Sized> {
    /// Hands a record to the job, and says whether the reader may emit the next one in the same call.
    ///
    /// # Errors
    /// What stops the job; the reader passes it up with `?`.
    fn emit(&mut self, record: Emitted<'_, K, V>) -> Result<Pace, JobError>;
}

/// Reads one split. Used on one worker's thread.
pub trait SplitReader<K: ?Sized, V: ?Sized> {
    /// Emits about one batch of records without blocking, and fewer if it is asked to [`Pause`](Pace::Pause) within it; where
    /// there are none now, arranges for `waker` to be called.
    ///
    /// # Errors
    /// If the split cannot be read, or the job is to stop.
    fn read(&mut self, waker: &Waker, emit: &mut impl Emit<K, V>) -> Result<Read, JobError>;

    /// The position behind the last record emitted: reading from here again gives what was not emitted yet.
    fn position(&self) -> Offset;

    /// A fingerprint that tells [`Source::resume`] whether the input before the position is still the one that was read: kept with the
    /// position, where the split is not a partition of a topic. Its first byte is its version.
    fn fingerprint(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A source of records: where a stream begins.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source",
    note = "sources are made by `topic`, `keyed_topic`, `lines`, `stdin_lines` and `values`; one of your own implements `Source`"
)]
pub trait Source: Send + Sync + 'static {
    /// The key type; [`Unkeyed`](crate::runtime::Unkeyed) for sources without.
    type Key: ?Sized + 'static;
    /// The value type.
    type Value: ?Sized + 'static;
    /// Reads one split.
    type Reader: SplitReader<Self::Key, Self::Value> + 'static;

    /// The source's name, stable across restarts.
    fn name(&self) -> String;

    /// The topic that the source reads, and the partitions it gets if it is absent; `None` if it reads something else,
    /// which a job spread over several processes cannot share out.
    fn topic(&self) -> Option<(String, Option<i32>)> {
        None
    }

    /// Whether the source ends at the end that its topic has at the start. Then a topic that is absent is an error, and is not
    /// created.
    fn reads_until_end(&self) -> bool {
        false
    }

    /// Whether a record that was read can be read again within this run of the program. Where it cannot, a record that fails after
    /// part of its effects stops the job, also where there is a dead-letter topic.
    fn is_rereadable(&self) -> bool {
        true
    }

    /// Lists the splits. Called once at every start; a split that was there before keeps its position.
    ///
    /// # Errors
    /// If the source is not there.
    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError>;

    /// Opens a split behind the last committed position, or at its start.
    ///
    /// # Errors
    /// If it cannot be read from there.
    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError>;

    /// Opens a split behind a committed position, and looks whether the input before it is the one that was read.
    ///
    /// # Errors
    /// If it cannot be read from there, or was changed.
    fn resume(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        self.open(split, Some(position.offset), context)
    }
}

/// A source with its types hidden.
pub(crate) trait SplitLister: Send + Sync {
    fn topic(&self) -> Option<(String, Option<i32>)>;
    fn reads_until_end(&self) -> bool;
    fn is_rereadable(&self) -> bool;
    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError>;
}

impl<S: Source> SplitLister for S {
    fn topic(&self) -> Option<(String, Option<i32>)> {
        Source::topic(self)
    }

    fn reads_until_end(&self) -> bool {
        Source::reads_until_end(self)
    }

    fn is_rereadable(&self) -> bool {
        Source::is_rereadable(self)
    }

    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError> {
        Source::splits(self, context)
    }
}

/// A source as the beginning of a stream.
pub struct From<S>(pub(crate) S);

impl<S: Source> Attach<S::Key, S::Value> for From<S> {
    fn attach<F: StageFactory<S::Key, S::Value>>(self, graph: &Graph, stage: F) {
        let source = Arc::new(self.0);
        let lister = Arc::clone(&source);
        let name = source.name();
        graph.add_source(SourceNode {
            name,
            lister,
            feed: Arc::new(move |context| {
                let (opener, job) = (Arc::clone(&source), context.shared_job());
                let stage = stage.build(context)?;
                let mut feed = SplitFeed {
                    stage,
                    time: FeedTime::new(context),
                    poison: context.poison()?,
                    open: Box::new(move |assigned| match &assigned.position {
                        Some(position) => opener.resume(&assigned.split, position, &job),
                        None => opener.open(&assigned.split, None, &job),
                    }),
                    readers: Vec::new(),
                    next: 0,
                    records: 0,
                    turn: context.turn(),
                    job: context.shared_job(),
                    types: PhantomData::<fn(&S::Key, &S::Value)>,
                };
                let splits = context.take_splits();
                splits
                    .iter()
                    .try_for_each(|assigned| feed.open_split(assigned))?;
                if feed.readers.is_empty() && !feed.job.is_spread {
                    feed.time.has_no_splits();
                }
                Ok(Box::new(feed))
            }),
        });
    }
}

/// A worker's part of a source, with the chain behind it, whatever its types.
pub(crate) trait Feed {
    /// Reads about one batch from the next split that has one, and runs it through the chain.
    fn poll(&mut self, waker: &Waker, current: &mut Origin) -> Result<Read, JobError>;
    /// How many records were read since this was last asked.
    fn take_records(&mut self) -> u64;
    /// Tells the chain.
    fn signal(&mut self, signal: Signal) -> Flow;
    /// Where each split stands: its number and position.
    fn positions(&self, visit: &mut dyn FnMut(u32, Position));
    /// Reads this split, too.
    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError>;
    /// Reads these splits no more; others are none of it.
    fn close_splits(&mut self, numbers: &[u32]);
}

/// Opens a split of one source.
type OpenSplit<R> = Box<dyn Fn(&AssignedSplit) -> Result<R, JobError>>;

struct SplitState<R> {
    number: u32,
    split: Split,
    reader: R,
    apart: ApartAhead,
    time: SplitTime,
    is_exhausted: bool,
}

struct SplitFeed<R, G, KV> {
    stage: G,
    time: FeedTime,
    poison: Poison,
    open: OpenSplit<R>,
    readers: Vec<SplitState<R>>,
    next: usize,
    records: u64,
    turn: Rc<Turn>,
    job: Arc<JobContext>,
    types: PhantomData<KV>,
}

struct StageEmit<'a, G> {
    turn: &'a Turn,
    apart: &'a mut ApartAhead,
    time: &'a mut FeedTime,
    split_time: &'a mut SplitTime,
    records: &'a mut u64,
    stage: &'a mut G,
    poison: &'a mut Poison,
    current: &'a mut Origin,
}

impl<G> StageEmit<'_, G> {
    /// Makes a record that is known to be poison a dead letter.
    #[cold]
    fn bury<K: ?Sized, V: ?Sized>(
        &mut self,
        emitted: &Emitted<'_, K, V>,
        why: String,
    ) -> Result<Pace, JobError> {
        self.turn.begin_record();
        self.turn.trace().wipe();
        *self.records += 1;
        self.current.offset = emitted.offset;
        let meta = Meta {
            timestamp: emitted.timestamp,
            origin: *self.current,
        };
        self.poison.letter(&why, meta, emitted.raw)?;
        Ok(self.turn.end_record(*self.current))
    }
}

impl<K: ?Sized, V: ?Sized, G: Stage<K, V>> Emit<K, V> for StageEmit<'_, G> {
    #[inline]
    fn emit(&mut self, emitted: Emitted<'_, K, V>) -> Result<Pace, JobError> {
        if emitted.offset >= self.apart.next_offset() {
            match self.apart.admit(emitted.offset) {
                Admission::Enters => {}
                Admission::Waits => return Ok(Pace::Pause),
                Admission::IsPoison(why) => return self.bury(&emitted, why),
            }
        }
        self.turn.begin_record();
        self.turn.trace().wipe();
        *self.records += 1;
        self.current.offset = emitted.offset;
        let meta = Meta {
            timestamp: emitted.timestamp,
            origin: *self.current,
        };
        let result = match emitted.record {
            Ok((key, value)) => match self.time.check(meta.timestamp) {
                Ok(()) => self.stage.push(Record {
                    key,
                    value,
                    meta,
                    headers: emitted.raw.headers(),
                }),
                Err(failure) => Err(failure),
            },
            Err(e) => Err(e.into()),
        };
        match result {
            Err(failure) => self.poison.handle_raw(failure, meta, emitted.raw)?,
            Ok(()) if self.time.is_used() => {
                self.time.record(self.split_time, meta.timestamp);
                tell_time(self.time, self.stage, self.poison, *self.current)?;
            }
            Ok(()) => {}
        }
        Ok(self.turn.end_record(*self.current))
    }
}

/// Tells the chain how far time has come, if that is news.
#[inline]
fn tell_time<K: ?Sized, V: ?Sized>(
    time: &mut FeedTime,
    stage: &mut impl Stage<K, V>,
    poison: &mut Poison,
    current: Origin,
) -> Result<(), JobError> {
    match time.news().map(|news| stage.signal(Signal::Time(news))) {
        Some(Err(failure)) => poison.fatal(failure, current),
        _ => Ok(()),
    }
}

impl<K: ?Sized, V: ?Sized, R: SplitReader<K, V>, G: Stage<K, V>> SplitFeed<R, G, fn(&K, &V)> {
    /// Time may go on without a record: a split was found empty, or has ended.
    fn pass_time(&mut self, current: Origin) -> Result<(), JobError> {
        if !self.time.is_used() {
            return Ok(());
        }
        self.time.settle();
        if let Some(news) = self.time.news() {
            // What a step pushes because of it is to be committed.
            self.turn.begin_record();
            if let Err(failure) = self.stage.signal(Signal::Time(news)) {
                return self.poison.fatal(failure, current);
            }
        }
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized, R: SplitReader<K, V>, G: Stage<K, V>> Feed
    for SplitFeed<R, G, fn(&K, &V)>
{
    fn poll(&mut self, waker: &Waker, current: &mut Origin) -> Result<Read, JobError> {
        let mut idle = Read::Exhausted;
        let alone = self.job.alone.split();
        self.pass_time(*current)?;
        for _ in 0..self.readers.len() {
            let index = self.next;
            self.next = (self.next + 1) % self.readers.len();
            let split = &mut self.readers[index];
            if split.is_exhausted {
                continue;
            }
            if alone.is_some_and(|number| number != split.number) {
                idle = idle.sooner(Read::Pending);
                continue;
            }
            if split.apart.held().is_some() {
                if alone.is_none() {
                    self.turn.hold(split.number);
                    idle = idle.sooner(Read::Pending);
                    continue;
                }
                split.apart.release();
            }
            current.split = split.number;
            let mut emit = StageEmit {
                turn: &self.turn,
                apart: &mut split.apart,
                time: &mut self.time,
                split_time: &mut split.time,
                records: &mut self.records,
                stage: &mut self.stage,
                poison: &mut self.poison,
                current,
            };
            let read = split.reader.read(waker, &mut emit)?;
            if let Some(held) = split.apart.held() {
                // The reader went past the record; in its own cycle it is read again.
                split.reader = (self.open)(&AssignedSplit {
                    number: split.number,
                    split: split.split.clone(),
                    position: Some(held.into()),
                })?;
                return Ok(Read::Progress);
            }
            match read {
                Read::Progress => return Ok(Read::Progress),
                Read::Exhausted => {
                    split.is_exhausted = true;
                    self.time.ended(&split.time);
                }
                waiting => {
                    idle = idle.sooner(waiting);
                    if self.time.is_used() {
                        let now = self.job.env.clock.now();
                        let until_idle = self.time.empty(&mut split.time, now);
                        idle = until_idle.map_or(idle, |until| idle.sooner(Read::Later(until)));
                    }
                }
            }
        }
        self.pass_time(*current)?;
        Ok(idle)
    }

    fn take_records(&mut self) -> u64 {
        std::mem::take(&mut self.records)
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.stage.signal(signal)
    }

    fn positions(&self, visit: &mut dyn FnMut(u32, Position)) {
        for split in &self.readers {
            let position = Position {
                offset: split.reader.position(),
                fingerprint: split.reader.fingerprint(),
                watermark: split.time.committed().filter(|_| self.time.is_used()),
            };
            visit(split.number, position);
        }
    }

    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError> {
        let position = assigned.position.as_ref();
        self.readers.push(SplitState {
            time: self
                .time
                .open_split(position.and_then(|position| position.watermark)),
            number: assigned.number,
            split: assigned.split.clone(),
            reader: (self.open)(assigned)?,
            apart: self.job.apart_ahead(assigned),
            is_exhausted: false,
        });
        Ok(())
    }

    fn close_splits(&mut self, numbers: &[u32]) {
        self.readers.retain(|split| {
            let is_closed = numbers.contains(&split.number);
            if is_closed {
                self.time.close_split(&split.time);
            }
            !is_closed
        });
        self.next = 0;
    }
}

/// A split that this worker is to read.
pub(crate) struct AssignedSplit {
    pub(crate) number: u32,
    pub(crate) split: Split,
    pub(crate) position: Option<Position>,
}
