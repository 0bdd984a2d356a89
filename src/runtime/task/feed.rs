//! One worker's splits of a source: the reading end of the chains behind it.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::context::{JobContext, OperatorContext};
use super::marks::SharedTasks;
use super::meter::SplitState as StateOfSplit;
use super::pace::Turn;
use super::poison::Poison;
use super::quarantine::{Admission, ApartAhead};
use super::source_time::{FeedTime, SplitTime};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Signal, Stage};
use crate::runtime::contract::record::{Meta, Origin, Record};
use crate::runtime::contract::senders::Senders;
use crate::runtime::contract::source::{
    AssignedSplit, Emit, Emitted, Pace, Position, Read, Split, SplitReader,
};

/// A worker's part of a source, with the chain behind it, whatever its types.
pub(crate) trait Feed {
    /// Reads about one batch from the next split that has one, and runs it through the chain.
    fn poll(&mut self, waker: &Waker, current: &mut Origin) -> Result<Read, JobError>;
    /// Takes the count of records that were read since.
    fn take_records(&mut self) -> u64;
    /// Tells the chain.
    fn signal(&mut self, signal: Signal) -> Flow;
    /// Where each split stands: its number and position.
    fn positions(&self, visit: &mut dyn FnMut(u32, Position));
    /// Visits the time of each split: its number, and whether time waits for it.
    fn states(&self, _visit: &mut dyn FnMut(u32, StateOfSplit)) {}
    /// Whether letters that are replayed may come, though all else has ended.
    fn takes_letters(&self) -> bool {
        false
    }
    /// Told once, before any split is opened, who sends to the topic that is read, if it is one between processes.
    fn expect_senders(&mut self, _senders: Vec<Senders>) {}
    /// Reads this split, too.
    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError>;
    /// Reads these splits no more; others are none of it.
    fn close_splits(&mut self, numbers: &[u32]);
}

/// Opens a split of one source.
pub(crate) type OpenSplit<R> = Box<dyn Fn(&AssignedSplit) -> Result<R, JobError>>;

/// The number of a split that is a partition of a topic.
fn partition_of(split: &Split) -> Option<u32> {
    match split {
        Split::Partition(place) => u32::try_from(place.partition).ok(),
        Split::Named { .. } => None,
    }
}

struct SplitState<R> {
    number: u32,
    split: Split,
    reader: R,
    apart: ApartAhead,
    time: SplitTime,
    is_exhausted: bool,
}

/// A worker's splits of one source, in front of a chain.
pub(crate) struct SplitFeed<R, G, KV> {
    stage: G,
    are_letters: bool,
    time: FeedTime,
    poison: Poison,
    open: OpenSplit<R>,
    readers: Vec<SplitState<R>>,
    next: usize,
    records: u64,
    turn: Rc<Turn>,
    job: Arc<JobContext>,
    /// The splits as tasks, for those behind that speak for them.
    tasks: SharedTasks,
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
        let mut waits = false;
        match result {
            Err(failure) => self.poison.handle_raw(failure, meta, emitted.raw)?,
            Ok(()) if self.time.follows_records() => {
                self.time.record(self.split_time, meta.timestamp);
                tell_time(self.time, self.stage, self.poison, *self.current)?;
                waits = self.split_time.waits();
            }
            Ok(()) => {}
        }
        let pace = self.turn.end_record(*self.current);
        Ok(if waits { Pace::Pause } else { pace })
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
    /// Opens the splits that fall to the worker, in front of a chain.
    pub(crate) fn new(
        stage: G,
        open: OpenSplit<R>,
        context: &mut OperatorContext,
    ) -> Result<Self, JobError> {
        let time = FeedTime::new(context);
        Self::with_time(stage, open, time, context)
    }

    /// As [`new`](Self::new), for letters that are replayed: the job ends without them once those that are there are read.
    pub(crate) fn of_letters(
        stage: G,
        open: OpenSplit<R>,
        context: &mut OperatorContext,
    ) -> Result<Self, JobError> {
        let time = FeedTime::of_letters(context);
        let feed = Self::with_time(stage, open, time, context)?;
        Ok(Self {
            are_letters: true,
            ..feed
        })
    }

    fn with_time(
        stage: G,
        open: OpenSplit<R>,
        time: FeedTime,
        context: &mut OperatorContext,
    ) -> Result<Self, JobError> {
        let mut feed = Self {
            stage,
            are_letters: false,
            time,
            poison: context.poison()?,
            open,
            readers: Vec::new(),
            next: 0,
            records: 0,
            turn: context.turn(),
            job: context.shared_job(),
            tasks: context.tasks(),
            types: PhantomData,
        };
        let splits = context.take_splits();
        splits
            .iter()
            .try_for_each(|assigned| feed.open_split(assigned))?;
        if feed.readers.is_empty() && !feed.job.is_spread {
            feed.time.has_no_splits();
        }
        Ok(feed)
    }

    /// Time may go on without a record: a split was found empty, or has ended.
    fn pass_time(&mut self, current: Origin) -> Result<(), JobError> {
        if !self.time.is_used() {
            return Ok(());
        }
        self.time.settle();
        if let Some(news) = self.time.news() {
            // The step's results of it are to be committed.
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
            if alone.is_none() && split.time.waits_now() {
                idle = idle.sooner(Read::Pending);
                continue;
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
            let is_over = read == Read::Exhausted;
            let is_away = read != Read::Progress && split.reader.has_caught_up();
            split.time.come_to(is_over || is_away);
            match read {
                Read::Progress => return Ok(Read::Progress),
                Read::Exhausted => {
                    split.is_exhausted = true;
                    self.time.ended(&split.time);
                }
                // The end of the job does not wait for more letters.
                Read::Pending if self.are_letters && is_away => {}
                waiting => {
                    idle = idle.sooner(waiting);
                    if self.time.is_used() && is_away {
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

    fn takes_letters(&self) -> bool {
        self.are_letters && self.readers.iter().any(|split| !split.is_exhausted)
    }

    fn states(&self, visit: &mut dyn FnMut(u32, StateOfSplit)) {
        for split in &self.readers {
            let state = match (split.is_exhausted, split.time.is_idle()) {
                (true, _) => StateOfSplit::Ended,
                (false, true) => StateOfSplit::Idle,
                (false, false) => StateOfSplit::Active,
            };
            visit(split.number, state);
        }
    }

    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError> {
        let position = assigned.position.as_ref();
        if let Some(partition) = partition_of(&assigned.split) {
            self.tasks.borrow_mut().add(partition);
        }
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
                if let Some(partition) = partition_of(&split.split) {
                    self.tasks.borrow_mut().remove(partition);
                }
            }
            !is_closed
        });
        self.next = 0;
    }
}
