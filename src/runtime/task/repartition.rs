//! The shuffle between processes: an exchange through a topic of the job, one partition a state partition.
//!
//! Records of one process belong to its cycle's transaction; the owner of the state partition reads them once they are
//! committed, and its position in the topic belongs to its own cycle. So each hop costs one commit (design D9).
//!
//! Where a step asks for the time, marks travel with the records (`marks.rs`), and what their senders told last is committed with
//! the position (`contract/senders.rs`). A record whose key is not placed by its own bytes, as that of a window is, has the hash
//! that places it in a header.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;

use super::appender::TopicAppender;
use super::chains::StageFactory;
use super::exchange::{Batch, Receiver};
use super::feed::Feed;
use super::fetched::{FetchCursor, Taken};
use super::marks::{Marks, SharedTasks};
use super::pace::Turn;
use super::quarantine::{Admission, ApartAhead};
use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::codec::{Codec, CodecError, Datum};
use crate::protocol::batch::{HeaderList, Headers};
use crate::protocol::messages::OffsetSpec;
use crate::protocol::murmur2;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Signal, Stage};
use crate::runtime::contract::record::{Key, Meta, Origin, Record};
use crate::runtime::contract::senders::{Mark, SenderClocks, Senders};
use crate::runtime::contract::source::{AssignedSplit, Pace, Position, Raw, Read, Split};
use crate::runtime::contract::time::{Advance, EventClock};
use crate::runtime::{JobContext, OperatorContext};
use crate::state::Trace;
use crate::types::{Isolation, NameError, Offset, Timestamp, TopicName};

/// The topic of an exchange, which is named by the node behind it.
pub(crate) fn repartition_topic(job: &str, exchange: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-{exchange}-repartition"))
}

/// The last header of a record whose key is placed by another hash than that of its bytes: that hash.
const HASH_HEADER: &str = "onceflow.hash";

/// One worker's sending end of an exchange between processes.
pub(crate) struct RepartitionSender<K: ?Sized, V: Datum + ?Sized> {
    appender: TopicAppender,
    partitions_count: u32,
    codec: V::DefaultCodec,
    scratch: Vec<u8>,
    headers: HeaderList,
    marks: Option<Marks>,
    trace: Trace,
    types: PhantomData<fn(&K)>,
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> RepartitionSender<K, V> {
    pub(crate) fn new(exchange: usize, context: &mut OperatorContext) -> Result<Self, JobError> {
        let marks = Marks::new(exchange, context);
        let job = context.job();
        let topic = repartition_topic(job.name(), &job.exchanges[exchange])?;
        let appender = TopicAppender::new(job, context.writer_cell(), topic, job.compression)?;
        Ok(Self {
            partitions_count: appender.partitions_count(),
            appender,
            codec: V::DefaultCodec::default(),
            scratch: Vec::with_capacity(64),
            headers: HeaderList::default(),
            marks,
            trace: context.trace(),
            types: PhantomData,
        })
    }

    #[inline]
    pub(crate) fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        let value = match self.codec.as_encoded(record.value) {
            Some(bytes) => bytes,
            None => {
                self.scratch.clear();
                self.codec.encode(record.value, &mut self.scratch)?;
                &self.scratch
            }
        };
        let headers = headers_of(&record, &mut self.headers);
        self.appender.append_with(
            record.key.partition(self.partitions_count),
            record.meta.timestamp,
            Some(record.key.bytes()),
            Some(value),
            headers,
        )?;
        self.trace.leave();
        Ok(())
    }

    /// Time has come so far.
    pub(crate) fn pass_time(&mut self, advance: Advance) {
        if let Some(marks) = &mut self.marks {
            marks.note(advance);
        }
    }

    pub(crate) fn end_cycle(&mut self) -> Flow {
        if let Some(marks) = &mut self.marks {
            marks.end_cycle(&mut self.appender)?;
        }
        self.appender.flush_all()
    }
}

/// The headers that a record has in the topic.
#[inline]
fn headers_of<'h, K: ?Sized, V: ?Sized>(
    record: &Record<'h, K, V>,
    scratch: &'h mut HeaderList,
) -> Headers<'h> {
    let is_placed_by_bytes = record.key.partition_hash() == murmur2(record.key.bytes());
    if is_placed_by_bytes && record.headers.is_empty() {
        return Headers::NONE;
    }
    // A header of that name may be the user's own.
    if is_placed_by_bytes && record.headers.split_last(HASH_HEADER.as_bytes()).is_none() {
        return record.headers;
    }
    scratch.clear();
    scratch.add_all(record.headers);
    let hash = record.key.partition_hash().to_be_bytes();
    scratch.add(HASH_HEADER, Some(&hash));
    scratch.headers()
}

/// The key as it was sent, and the headers without ours.
#[inline]
fn key_and_headers<'a, K: ?Sized>(
    key: &'a [u8],
    headers: Headers<'a>,
) -> (Key<'a, K>, Headers<'a>) {
    if headers.is_empty() {
        return (Key::new(key), headers);
    }
    let own = headers.split_last(HASH_HEADER.as_bytes());
    let own = own.and_then(|(front, hash)| Some((front, hash?.try_into().ok()?)));
    match own {
        Some((front, hash)) => (Key::with_hash(key, u32::from_be_bytes(hash)), front),
        None => (Key::new(key), headers),
    }
}

/// One partition of the topic, being read.
struct PartitionState {
    number: u32,
    split: Split,
    /// Its number in the topic: that of its state partition.
    partition: u32,
    cursor: FetchCursor,
    apart: ApartAhead,
    /// The clocks of its senders, as of the last record that was processed.
    senders: SenderClocks,
    /// Its number among the inputs of the feed's clock.
    input: usize,
}

impl PartitionState {
    /// Opens a partition; the feed's clock is yet to be told of it.
    fn open(
        assigned: &AssignedSplit,
        senders: &[Senders],
        job: &JobContext,
    ) -> Result<Self, JobError> {
        let Split::Partition(partition) = &assigned.split else {
            unreachable!("the splits of an exchange are partitions")
        };
        let committed = assigned.position.as_ref();
        let committed = committed.map_or(&[][..], |position| &position.fingerprint);
        let list = || {
            let earliest = OffsetSpec::Earliest;
            wait(
                job.transport
                    .list_offset(partition, earliest, Isolation::ReadCommitted),
            )
        };
        let position = match &assigned.position {
            Some(position) => position.offset,
            None => list()?.map_or(Offset::ZERO, |found| found.offset),
        };
        let reader = PartitionReader::new(
            job.transport.clone(),
            partition.clone(),
            position,
            Isolation::ReadCommitted,
        );
        Ok(Self {
            number: assigned.number,
            split: assigned.split.clone(),
            partition: u32::try_from(partition.partition).unwrap_or(u32::MAX),
            cursor: FetchCursor::new(reader),
            apart: job.apart_ahead(assigned),
            senders: SenderClocks::new(senders, committed),
            input: usize::MAX,
        })
    }
}

/// Records that were read of one partition and are not all processed yet.
struct Rows<V: Datum + ?Sized> {
    batch: Batch<V>,
    /// The mark that came behind them, if one did.
    mark: Option<Mark>,
    /// The place of their partition in the feed.
    index: usize,
    /// The first row that is not processed.
    row: usize,
}

/// One worker's receiving end of an exchange between processes, with the chain behind it.
struct RepartitionFeed<K: ?Sized, V: Datum + ?Sized, S> {
    job: Arc<JobContext>,
    receiver: Receiver<K, V, S>,
    taken: Rows<V>,
    partitions: Vec<PartitionState>,
    next: usize,
    records: u64,
    /// Those who send to the topic, in all processes.
    senders: Vec<Senders>,
    /// The time over the partitions, and what of it the chain was told.
    clock: EventClock,
    told: Advance,
    /// The partitions as tasks, for those behind that speak for them.
    tasks: SharedTasks,
}

/// Builds a worker's receiving end; it reads the partitions of the state that the worker owns.
pub(crate) fn repartition_feed<K, V, F>(
    stage: &F,
    context: &mut OperatorContext,
) -> Result<Box<dyn Feed>, JobError>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    F: StageFactory<K, V>,
{
    let tasks = context.tasks();
    let receiver = Receiver::new(stage, context)?;
    let clock = EventClock::new(Timestamp::MIN);
    Ok(Box::new(RepartitionFeed {
        receiver,
        senders: Vec::new(),
        told: clock.now(),
        clock,
        tasks,
        // They come as the group gives them.
        partitions: Vec::new(),
        taken: Rows {
            batch: Batch::new(context.job().pressure.batch_records_max()),
            mark: None,
            index: 0,
            row: 0,
        },
        job: context.shared_job(),
        next: 0,
        records: 0,
    }))
}

impl<V: Datum + ?Sized> Rows<V> {
    /// Adds a record of a partition of so many, or says why it cannot be.
    fn push<K: Datum + ?Sized>(
        &mut self,
        (key, value, headers): (Option<&[u8]>, Option<&[u8]>, Headers<'_>),
        meta: Meta,
        (partition, partitions_count): (u32, u32),
    ) -> Result<(), CodecError> {
        let (key, value, end) = decode::<V>(key, value, &self.batch)?;
        let (key, headers) = key_and_headers::<K>(key, headers);
        let belongs_to = key.partition(partitions_count);
        if belongs_to != partition {
            return Err(CodecError::Decode {
                codec: "a key",
                length_bytes: key.bytes().len(),
                why: format!(
                    "it belongs to partition {belongs_to}: the topic is the job's own, write nothing into it"
                ),
            });
        }
        self.batch.push(key, value.into_owned(), meta, headers, end);
        Ok(())
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.mark = None;
        self.row = 0;
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, S: Stage<K, V>> RepartitionFeed<K, V, S> {
    /// Reads a partition again from a place on.
    fn seek(&mut self, index: usize, position: Offset) -> Result<(), JobError> {
        let partition = &mut self.partitions[index];
        let assigned = AssignedSplit {
            number: partition.number,
            split: partition.split.clone(),
            position: Some(position.into()),
        };
        partition.cursor = PartitionState::open(&assigned, &[], &self.job)?.cursor;
        Ok(())
    }

    /// Puts back records of another partition than the one that has the cycle to itself: they are read again later.
    fn put_back(&mut self) -> Result<(), JobError> {
        let position = self.taken.batch.offset(self.taken.row);
        self.seek(self.taken.index, position)?;
        self.taken.clear();
        Ok(())
    }

    /// Reads what was fetched of one partition, a batch of the shuffle at a time, and runs it through the chain.
    fn read(
        &mut self,
        index: usize,
        waker: &Waker,
        current: &mut Origin,
    ) -> Result<Read, JobError> {
        let partition = &mut self.partitions[index];
        current.split = partition.number;
        let split = partition.number;
        let records_max = self.job.pressure.batch_records_max();
        let place_of_key = (partition.partition, u32::from(self.job.state_partitions));
        let (taken, poison, records) = (&mut self.taken, self.receiver.poison(), &mut self.records);
        taken.index = index;
        let apart = &mut partition.apart;
        let place = partition.split.clone();
        let read = partition.cursor.read(waker, |offered| {
            let record = match (offered, &place) {
                (Ok(record), _) => record,
                // The job wrote it itself: no policy makes this a poison record.
                (Err(bad), Split::Partition(place)) => return Err(bad.error(place).into()),
                (Err(_), Split::Named { .. }) => {
                    unreachable!("the splits of an exchange are partitions")
                }
            };
            if record.key.is_none()
                && let Some(mark) = record.value.and_then(Mark::decode)
            {
                taken.mark = Some(mark);
                return Ok(Taken::Yes(Pace::Pause));
            }
            let meta = Meta {
                timestamp: record.timestamp,
                origin: Origin {
                    split,
                    offset: record.offset,
                },
            };
            let raw = Raw::Bytes {
                key: record.key,
                value: record.value,
                headers: record.headers,
            };
            if record.offset >= apart.next_offset() {
                if !taken.batch.is_empty() {
                    // First those before it: a letter is of the cycle whose position is behind it.
                    return Ok(Taken::NotYet);
                }
                match apart.admit(record.offset) {
                    Admission::Enters => {}
                    Admission::Waits => return Ok(Taken::Yes(Pace::Pause)),
                    Admission::IsPoison(why) => {
                        *records += 1;
                        poison.letter(&why, meta, raw)?;
                        return Ok(Taken::Yes(Pace::GoOn));
                    }
                }
            }
            let parts = (record.key, record.value, record.headers);
            let taking = taken.push::<K>(parts, meta, place_of_key);
            if let Err(e) = taking {
                if !taken.batch.is_empty() {
                    return Ok(Taken::NotYet);
                }
                *records += 1;
                poison.letter(&e.to_string(), meta, raw)?;
            }
            Ok(Taken::Yes(match taken.batch.is_full(records_max) {
                true => Pace::Pause,
                false => Pace::GoOn,
            }))
        })?;
        self.process(current)?;
        Ok(read)
    }

    /// Processes what was taken, as far as the open cycle may have it. The mark is behind the records.
    fn process(&mut self, current: &mut Origin) -> Result<(), JobError> {
        if !self.taken.batch.is_empty() {
            self.process_rows(current)?;
        }
        if !self.taken.batch.is_empty() {
            return Ok(());
        }
        match self.taken.mark.take() {
            // Marks of an earlier build of the job may be left.
            Some(mark) if self.job.uses_time => {
                let partition = &mut self.partitions[self.taken.index];
                if let Some(advance) = partition.senders.take(&mark) {
                    self.clock.note(partition.input, advance);
                }
                self.pass_time(*current)
            }
            _ => Ok(()),
        }
    }

    /// Tells the chain how far time has come, if that is news.
    fn pass_time(&mut self, current: Origin) -> Result<(), JobError> {
        if !self.job.uses_time {
            return Ok(());
        }
        self.clock.settle();
        let now = self.clock.now();
        if now == self.told {
            return Ok(());
        }
        self.told = now;
        // The step's results of it are to be committed.
        self.receiver.turn().begin_record();
        self.receiver.tell_time(now, current)
    }

    fn process_rows(&mut self, current: &mut Origin) -> Result<(), JobError> {
        let Rows { batch, row, .. } = &mut self.taken;
        self.receiver.turn().begin_record();
        let first_row = *row;
        *row = self
            .receiver
            .process_from(batch, first_row, current, Turn::end_record)?;
        self.records += (*row - first_row) as u64;
        if *row == batch.len() {
            batch.clear();
            *row = 0;
        }
        Ok(())
    }
}

/// The key, the value, and where the key would end in the batch. The sender writes neither without bytes: a null is somebody else's.
fn decode<'r, V: Datum + ?Sized>(
    key: Option<&'r [u8]>,
    value: Option<&'r [u8]>,
    batch: &Batch<V>,
) -> Result<(&'r [u8], Cow<'r, V>, u32), CodecError> {
    let absent = |part| CodecError::Absent {
        part,
        advice: "the topic is the job's own, write nothing into it",
    };
    let key = key.ok_or_else(|| absent("key"))?;
    let value = value.ok_or_else(|| absent("value"))?;
    let end = batch.end_of(key).ok_or_else(|| CodecError::Decode {
        codec: "a key",
        length_bytes: key.len(),
        why: "it is too long".to_owned(),
    })?;
    Ok((key, V::DefaultCodec::default().decode(value)?, end))
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, S: Stage<K, V>> Feed for RepartitionFeed<K, V, S> {
    fn poll(&mut self, waker: &Waker, current: &mut Origin) -> Result<Read, JobError> {
        let alone = self.job.alone.split();
        let is_other = |number: u32| alone.is_some_and(|alone| alone != number);
        if !self.taken.batch.is_empty() && is_other(self.partitions[self.taken.index].number) {
            self.put_back()?;
        }
        if !self.taken.batch.is_empty() {
            self.process(current)?;
            return Ok(Read::Progress);
        }
        self.pass_time(*current)?;
        let mut idle = Read::Exhausted;
        for _ in 0..self.partitions.len() {
            let index = self.next;
            self.next = (self.next + 1) % self.partitions.len();
            let partition = &self.partitions[index];
            if is_other(partition.number) {
                idle = idle.sooner(Read::Pending);
                continue;
            }
            if let Some(held) = partition.apart.held() {
                if alone.is_none() {
                    self.receiver.turn().hold(partition.number);
                    idle = idle.sooner(Read::Pending);
                    continue;
                }
                self.seek(index, held)?;
                self.partitions[index].apart.release();
            }
            match self.read(index, waker, current)? {
                Read::Progress => return Ok(Read::Progress),
                waiting => idle = idle.sooner(waiting),
            }
        }
        Ok(idle)
    }

    fn take_records(&mut self) -> u64 {
        std::mem::take(&mut self.records)
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.receiver.stage().signal(signal)
    }

    fn positions(&self, visit: &mut dyn FnMut(u32, Position)) {
        let Rows {
            batch, index, row, ..
        } = &self.taken;
        for (place, partition) in self.partitions.iter().enumerate() {
            let position = match place == *index && !batch.is_empty() {
                true => batch.offset(*row),
                false => {
                    let held = partition.apart.held();
                    held.unwrap_or_else(|| partition.cursor.position())
                }
            };
            let clocks = self.job.uses_time.then(|| partition.senders.committed());
            visit(
                partition.number,
                Position {
                    fingerprint: clocks.unwrap_or_default(),
                    ..position.into()
                },
            );
        }
    }

    fn expect_senders(&mut self, senders: Vec<Senders>) {
        self.senders = senders;
    }

    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError> {
        let mut partition = PartitionState::open(assigned, &self.senders, &self.job)?;
        // Time goes on once all that come are there: see `pass_time`.
        let restored = partition.senders.now();
        partition.input = self.clock.add(restored.watermark);
        self.clock.note(partition.input, restored);
        self.tasks.borrow_mut().add(partition.partition);
        self.partitions.push(partition);
        Ok(())
    }

    fn close_splits(&mut self, numbers: &[u32]) {
        // Records that were taken of a partition that goes are its next owner's; those of one that stays keep their place.
        let index = self.taken.index;
        let number = self.partitions.get(index).map(|partition| partition.number);
        let (clock, mut tasks) = (&mut self.clock, self.tasks.borrow_mut());
        self.partitions.retain(|partition| {
            let stays = !numbers.contains(&partition.number);
            if !stays {
                clock.remove(partition.input);
                tasks.remove(partition.partition);
            }
            stays
        });
        drop(tasks);
        let stays = self
            .partitions
            .iter()
            .position(|partition| Some(partition.number) == number);
        self.taken.index = stays.unwrap_or(0);
        if stays.is_none() {
            self.taken.clear();
        }
        self.next = 0;
    }
}
