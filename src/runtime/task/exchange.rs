//! The shuffle: typed batches that bring all records of a key to the worker that owns it (design D9).
//!
//! A sender fills one batch per worker and hands it over by memory; nothing is serialised but the
//! key, which is needed as bytes by the store anyway. A batch moves when it is full, and all
//! do when the cycle closes, so nothing is ever in flight across a commit.
//!
//! A job spread over processes goes through a topic instead: `repartition.rs`, behind the same door.

use std::any::Any;
use std::borrow::Borrow;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::chains::StageFactory;
use super::context::{JobContext, OperatorContext};
use super::header_column::HeaderColumn;
use super::inbox::Message;
use super::pace::Turn;
use super::poison::Poison;
use super::read_ahead::{SharedReadAhead, read_ahead};
use super::repartition::RepartitionSender;
use crate::codec::Datum;
use crate::protocol::batch::Headers;
use crate::runtime::contract::error::{Failure, JobError};
use crate::runtime::contract::operator::{Flow, Output, Signal, Stage};
use crate::runtime::contract::record::{Key, Meta, Origin, Record};
use crate::runtime::contract::source::Pace;
use crate::runtime::contract::time::{Advance, EventClock, News};
use crate::state::Trace;
use crate::types::{Offset, Timestamp};

/// Bytes of keys and values a batch holds at most, for those that are long. What a value keeps elsewhere in
/// memory is known for text and bytes only.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// The most empty batches that wait for each worker to be filled again.
const SPENT_BATCHES_MAX: usize = 8;

/// Batches of one exchange that a worker has processed. Its senders fill them again: what the allocator gives back to
/// the system costs page faults when the next batch is made. One thread receives and sends, so nothing is locked.
pub(crate) type SpentBatches = Rc<RefCell<Vec<Box<dyn Any + Send>>>>;

/// Records bound for one worker, column by column.
pub(crate) struct Batch<V: Datum + ?Sized> {
    key_bytes: Vec<u8>,
    key_ends: Vec<u32>,
    partition_hashes: Vec<u32>,
    values: Vec<V::Owned>,
    value_bytes: usize,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    /// The first row of each run of records of one split, with the split.
    runs: Vec<(u32, u32)>,
    headers: HeaderColumn,
    /// The sender's times, each with the row before which time had come so far.
    marks: Vec<(u32, Advance)>,
    /// The number of the sender among all of the exchange.
    sender: usize,
}

impl<V: Datum + ?Sized> Batch<V> {
    pub(crate) fn new(records_max: usize) -> Self {
        Self {
            key_bytes: Vec::with_capacity(records_max * 8),
            key_ends: Vec::with_capacity(records_max),
            partition_hashes: Vec::with_capacity(records_max),
            values: Vec::with_capacity(records_max),
            value_bytes: 0,
            timestamps: Vec::with_capacity(records_max),
            offsets: Vec::with_capacity(records_max),
            runs: Vec::new(),
            headers: HeaderColumn::default(),
            marks: Vec::new(),
            sender: 0,
        }
    }

    /// Notes that time went on behind the last row.
    #[inline]
    fn mark(&mut self, advance: Advance) {
        let row = u32::try_from(self.key_ends.len()).unwrap_or(u32::MAX);
        match self.marks.last_mut() {
            Some(last) if last.0 == row => last.1 = advance,
            _ => self.marks.push((row, advance)),
        }
    }

    /// Appends a record, whose value is given as its owner. `end` is where its key ends among the keys of the batch.
    #[inline]
    pub(crate) fn push<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        value: V::Owned,
        meta: Meta,
        headers: Headers<'_>,
        end: u32,
    ) {
        self.headers.push(self.key_ends.len(), headers);
        let split = meta.origin.split;
        if self.runs.last().is_none_or(|run| run.1 != split) {
            // The row count is far below 2^32.
            self.runs.push((
                u32::try_from(self.key_ends.len()).unwrap_or(u32::MAX),
                split,
            ));
        }
        self.key_bytes.extend_from_slice(key.bytes());
        self.key_ends.push(end);
        self.partition_hashes.push(key.partition_hash());
        self.value_bytes += size_of_val::<V>(value.borrow());
        self.values.push(value);
        self.timestamps.push(meta.timestamp.0);
        self.offsets.push(meta.origin.offset.0);
    }

    /// Where the next key ends among the keys of the batch; `None` if it is too long to be told.
    pub(crate) fn end_of(&self, key: &[u8]) -> Option<u32> {
        u32::try_from(self.key_bytes.len() + key.len()).ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// The offset of a record's source record.
    pub(crate) fn offset(&self, row: usize) -> Offset {
        Offset(self.offsets[row])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.key_bytes.clear();
        self.key_ends.clear();
        self.partition_hashes.clear();
        self.values.clear();
        self.value_bytes = 0;
        self.timestamps.clear();
        self.offsets.clear();
        self.runs.clear();
        self.headers.clear();
        self.marks.clear();
    }

    pub(crate) fn is_full(&self, records_max: usize) -> bool {
        self.key_ends.len() >= records_max || self.content_bytes() >= BATCH_BYTES_MAX
    }

    /// Whether it keeps no more memory than a new one of so many records may come to have.
    fn is_worth_keeping(&self, records_max: usize) -> bool {
        self.values.capacity() <= 2 * records_max
            && self.key_bytes.capacity() <= BATCH_BYTES_MAX
            && self.headers.capacity_bytes() <= BATCH_BYTES_MAX
    }

    /// Bytes of keys, values and headers.
    fn content_bytes(&self) -> usize {
        self.key_bytes.len() + self.value_bytes + self.headers.size_bytes()
    }

    fn size_bytes(&self) -> usize {
        self.content_bytes() + self.key_ends.len() * (4 + 4 + 8 + 8 + size_of::<V::Owned>())
    }

    fn keys(&self) -> impl Iterator<Item = (&[u8], u32)> + Clone {
        let mut start = 0;
        self.key_ends
            .iter()
            .zip(&self.partition_hashes)
            .map(move |(&end, &hash)| {
                let key = &self.key_bytes[start as usize..end as usize];
                start = end;
                (key, hash)
            })
    }
}

/// Builds the sending end of an exchange.
pub(crate) struct SenderFactory<KV> {
    exchange: Arc<str>,
    types: PhantomData<KV>,
}

impl<KV> SenderFactory<KV> {
    pub(crate) fn new(exchange: Arc<str>) -> Self {
        Self {
            exchange,
            types: PhantomData,
        }
    }
}

#[diagnostic::do_not_recommend]
impl<K: Datum + ?Sized, V: Datum + ?Sized> StageFactory<K, V> for SenderFactory<fn(&K, &V)> {
    type Stage = AnySender<K, V>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        let id = context.exchange(&self.exchange);
        if context.job().is_spread {
            return Ok(AnySender::Topic(RepartitionSender::new(id, context)?));
        }
        let number = context.note_edge_to(id);
        let job = context.shared_job();
        let records_max = job.pressure.batch_records_max();
        Ok(AnySender::Memory(Sender {
            id,
            number,
            batches: job
                .inboxes
                .iter()
                .map(|_| Box::new(Batch::new(records_max)))
                .collect(),
            spent: context.spent_batches(id),
            records_max,
            workers: u32::try_from(job.inboxes.len()).unwrap_or(u32::MAX),
            state_partitions: u32::from(job.state_partitions),
            job,
            turn: context.turn(),
            trace: context.trace(),
            sent_at: Timestamp::MIN,
            key: PhantomData,
        }))
    }
}

/// One worker's sending end: to the workers of this process, or to a topic that all processes of the job share.
pub(crate) enum AnySender<K: ?Sized, V: Datum + ?Sized> {
    Memory(Sender<K, V>),
    Topic(RepartitionSender<K, V>),
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> Output<K, V> for AnySender<K, V> {
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        match self {
            Self::Memory(sender) => sender.push(record),
            Self::Topic(sender) => sender.push(record),
        }
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> Stage<K, V> for AnySender<K, V> {
    fn signal(&mut self, signal: Signal) -> Flow {
        match (signal, self) {
            (Signal::Time(advance), Self::Memory(sender)) => {
                sender.pass_time(advance);
                Ok(())
            }
            (Signal::Time(advance), Self::Topic(sender)) => {
                sender.pass_time(advance);
                Ok(())
            }
            // Each worker tells its own chains.
            (Signal::Clock(_), _) => Ok(()),
            (Signal::EndOfCycle, Self::Memory(sender)) => sender.end_cycle(),
            (Signal::EndOfCycle, Self::Topic(sender)) => sender.end_cycle(),
        }
    }
}

/// One worker's sending end, by memory.
pub(crate) struct Sender<K: ?Sized, V: Datum + ?Sized> {
    id: usize,
    /// Its number among all senders of the exchange.
    number: usize,
    #[allow(clippy::vec_box, reason = "a batch leaves and comes back in its box")]
    batches: Vec<Box<Batch<V>>>,
    spent: SpentBatches,
    /// Records of a full batch, as of the last one sent.
    records_max: usize,
    job: Arc<JobContext>,
    turn: Rc<Turn>,
    trace: Trace,
    /// The watermark when all batches were last sent for its sake.
    sent_at: Timestamp,
    workers: u32,
    state_partitions: u32,
    key: PhantomData<fn(&K)>,
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> Sender<K, V> {
    fn send(&mut self, worker: usize) {
        let pressure = &self.job.pressure;
        self.records_max = pressure.batch_records_max();
        let next = self.empty_batch();
        let mut batch = std::mem::replace(&mut self.batches[worker], next);
        batch.sender = self.number;
        let records_count = batch.len();
        let size_bytes = pressure.weight_bytes(records_count, batch.size_bytes());
        self.job.inboxes[worker].send(Message::Batch {
            exchange: self.id,
            batch,
            records_count,
            size_bytes,
        });
        if self.job.is_crowded(worker) || self.job.calls.are_crowded() {
            self.turn.crowd();
        }
    }

    fn empty_batch(&self) -> Box<Batch<V>> {
        let spent = self.spent.borrow_mut().pop();
        spent
            .and_then(|batch| batch.downcast::<Batch<V>>().ok())
            .filter(|batch| batch.is_worth_keeping(self.records_max))
            .unwrap_or_else(|| Box::new(Batch::new(self.records_max)))
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> Sender<K, V> {
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        let worker = (record.key.partition(self.state_partitions) % self.workers) as usize;
        let batch = &mut self.batches[worker];
        let Some(end) = batch.end_of(record.key.bytes()) else {
            return Err(Failure::poison(format_args!(
                "a key of {} bytes is too long",
                record.key.bytes().len()
            )));
        };
        let value = record.value.to_owned();
        batch.push(record.key, value, record.meta, record.headers, end);
        self.trace.leave();
        if batch.is_full(self.records_max) {
            self.send(worker);
        }
        Ok(())
    }

    /// Time went on. Where sources wait for each other, receivers learn of it before the batch is full, once it went on by what
    /// sources may be ahead: else they would keep what the faster sources bring until the cycle ends.
    #[inline]
    fn pass_time(&mut self, advance: Advance) {
        let batches = self.batches.iter_mut();
        batches.for_each(|batch| batch.mark(advance));
        if self.job.alignment.is_over(self.sent_at, advance.watermark) {
            self.sent_at = advance.watermark;
            self.send_all();
        }
    }

    fn end_cycle(&mut self) -> Flow {
        self.send_all();
        Ok(())
    }

    fn send_all(&mut self) {
        (0..self.batches.len())
            .filter(|&w| !self.batches[w].is_empty() || !self.batches[w].marks.is_empty())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|w| self.send(w));
    }
}

/// One worker's receiving end, whatever its types.
pub(crate) trait Receive {
    /// Processes a batch that a sender of the same exchange sent.
    fn receive(&mut self, batch: Box<dyn Any + Send>, current: &mut Origin)
    -> Result<(), JobError>;
    /// Tells the chain behind.
    fn signal(&mut self, signal: Signal) -> Flow;
    /// Told once, before anything else, of each sender in all workers whether it will ever send.
    fn expect_senders(&mut self, senders: &[bool]);
}

/// The end of an exchange: what comes out of it runs through the chain behind.
pub(crate) struct Receiver<K: ?Sized, V: ?Sized, S> {
    stage: S,
    /// The stores of the chain whose rows are told by the records of the exchange.
    stores: Vec<SharedReadAhead>,
    poison: Poison,
    turn: Rc<Turn>,
    spent: SpentBatches,
    /// The time over its senders.
    clock: EventClock,
    types: PhantomData<fn(&K, &V)>,
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, S: Stage<K, V>> Receiver<K, V, S> {
    /// Builds the chain behind the exchange, with this end of it.
    pub(crate) fn new<F>(chain: &F, context: &mut OperatorContext) -> Result<Self, JobError>
    where
        F: StageFactory<K, V, Stage = S>,
    {
        let stores_before = context.stores_count();
        Ok(Self {
            stage: chain.build(context)?,
            stores: context.stores_since(stores_before),
            poison: context.poison()?,
            turn: context.turn(),
            spent: context.spent_batches_here(),
            clock: EventClock::new(Timestamp::MIN),
            types: PhantomData,
        })
    }

    pub(crate) fn turn(&self) -> &Turn {
        &self.turn
    }

    pub(crate) fn stage(&mut self) -> &mut S {
        &mut self.stage
    }

    pub(crate) fn poison(&mut self) -> &mut Poison {
        &mut self.poison
    }

    /// Tells the chain how far time has come.
    pub(crate) fn tell_time(&mut self, advance: Advance, current: Origin) -> Result<(), JobError> {
        match self.stage.signal(Signal::Time(advance)) {
            Ok(()) => Ok(()),
            Err(failure) => self.poison.fatal(failure, current),
        }
    }

    /// Runs a batch through the chain.
    pub(crate) fn process(
        &mut self,
        batch: &Batch<V>,
        current: &mut Origin,
    ) -> Result<(), JobError> {
        let received = |turn: &Turn, at| {
            turn.end_received(at);
            Pace::GoOn
        };
        self.process_from(batch, 0, current, received).map(drop)
    }

    /// Runs a batch through the chain from a row on, after its keys were brought into memory in one go. `look` sees the turn and
    /// the record after each row, and may pause; answers the row to go on from.
    pub(crate) fn process_from(
        &mut self,
        batch: &Batch<V>,
        first_row: usize,
        current: &mut Origin,
        look: impl Fn(&Turn, Origin) -> Pace,
    ) -> Result<usize, JobError> {
        let times = batch.timestamps.iter().map(|time| Timestamp(*time));
        let coming = batch.keys().zip(times).skip(first_row);
        let coming = coming.map(|((bytes, hash), time)| (bytes, hash, time));
        if let Err(failure) = read_ahead(&self.stores, coming) {
            return self.poison.fatal(failure, *current).map(|()| first_row);
        }
        let mut runs = batch.runs.iter().copied().peekable();
        let mut headers = batch.headers.rows();
        let mut marks = batch.marks.iter().copied().peekable();
        for (row, (bytes, hash)) in batch.keys().enumerate() {
            if let Some((_, split)) = runs.next_if(|run| run.0 as usize == row) {
                current.split = split;
            }
            let headers = headers.of(row);
            if row < first_row {
                continue;
            }
            while let Some((_, advance)) = marks.next_if(|mark| mark.0 as usize == row) {
                self.pass_on(batch.sender, advance, *current)?;
            }
            current.offset = batch.offset(row);
            let meta = Meta {
                timestamp: Timestamp(batch.timestamps[row]),
                origin: *current,
            };
            let value: &V = batch.values[row].borrow();
            if let Err(failure) = self.stage.push(Record {
                key: Key::with_hash(bytes, hash),
                value,
                meta,
                headers,
            }) {
                self.poison.set_apart(failure, *current)?;
            }
            if look(&self.turn, *current) == Pace::Pause {
                return Ok(row + 1);
            }
        }
        for (_, advance) in marks {
            self.pass_on(batch.sender, advance, *current)?;
        }
        Ok(batch.len())
    }

    /// Time went on at a sender: tells the chain if it went on here.
    fn pass_on(
        &mut self,
        sender: usize,
        advance: Advance,
        current: Origin,
    ) -> Result<(), JobError> {
        match self.clock.step_to(sender, advance) {
            Some(advance) => self.tell_time(advance, current),
            None => Ok(()),
        }
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, S: Stage<K, V>> Receive for Receiver<K, V, S> {
    fn expect_senders(&mut self, senders: &[bool]) {
        // All are there before one ends: else time would be at its end where the first ones never send.
        let inputs: Vec<usize> = senders
            .iter()
            .map(|_| self.clock.add(Timestamp::MIN))
            .collect();
        for (input, sends) in inputs.into_iter().zip(senders) {
            if !sends {
                self.clock.step(input, News::Ended);
            }
        }
    }

    fn receive(
        &mut self,
        batch: Box<dyn Any + Send>,
        current: &mut Origin,
    ) -> Result<(), JobError> {
        let mut batch = batch
            .downcast::<Batch<V>>()
            .unwrap_or_else(|_| unreachable!("an exchange has one batch type"));
        self.process(&batch, current)?;
        batch.clear();
        let mut spent = self.spent.borrow_mut();
        if spent.len() < SPENT_BATCHES_MAX {
            spent.push(batch);
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.stage.signal(signal)
    }
}
