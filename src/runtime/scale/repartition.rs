//! The shuffle between processes: an exchange through a topic of the job, one partition a state partition.
//!
//! What one process sends belongs to its cycle's transaction; the owner of the state partition reads it once it is
//! committed, and its position in the topic belongs to its own cycle. So each hop costs one commit (design D9).

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::codec::{Codec, CodecError, Datum};
use crate::protocol::messages::OffsetSpec;
use crate::runtime::appender::TopicAppender;
use crate::runtime::connectors::FetchState;
use crate::runtime::error::JobError;
use crate::runtime::exchange::{Batch, Receiver};
use crate::runtime::operator::{Flow, Stage};
use crate::runtime::record::{Key, Meta, Origin, Record};
use crate::runtime::source::{AssignedSplit, Feed, Position, Raw, Read, Split};
use crate::runtime::stream::StageFactory;
use crate::runtime::{JobContext, OperatorContext};
use crate::state::CycleStore;
use crate::types::{Isolation, NameError, Offset, TopicName};

/// The topic of an exchange.
pub(crate) fn repartition_topic(job: &str, exchange: usize) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-exchange-{exchange}-repartition"))
}

/// One worker's sending end of an exchange between processes.
pub(crate) struct RepartitionSender<K: ?Sized, V: Datum + ?Sized> {
    appender: TopicAppender,
    partitions_count: u32,
    codec: V::DefaultCodec,
    scratch: Vec<u8>,
    types: PhantomData<fn(&K)>,
}

impl<K: Datum + ?Sized, V: Datum + ?Sized> RepartitionSender<K, V> {
    pub(crate) fn new(exchange: usize, context: &mut OperatorContext) -> Result<Self, JobError> {
        let job = context.job();
        let topic = repartition_topic(job.name(), exchange)?;
        let appender = TopicAppender::new(job, context.writer_cell(), topic, job.compression)?;
        Ok(Self {
            partitions_count: appender.partitions_count(),
            appender,
            codec: V::DefaultCodec::default(),
            scratch: Vec::with_capacity(64),
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
        self.appender.append(
            record.key.partition(self.partitions_count),
            record.meta.timestamp,
            Some(record.key.bytes()),
            Some(value),
        )
    }

    pub(crate) fn end_cycle(&mut self) -> Flow {
        self.appender.flush_all()
    }
}

/// One partition of the topic, being read.
struct PartitionState {
    number: u32,
    fetch: FetchState,
    position: Offset,
}

impl PartitionState {
    fn open(assigned: &AssignedSplit, job: &JobContext) -> Result<Self, JobError> {
        let Split::Partition(partition) = &assigned.split else {
            unreachable!("the splits of an exchange are partitions")
        };
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
            fetch: FetchState::Idle(reader),
            position,
        })
    }
}

/// One worker's receiving end of an exchange between processes, with the chain behind it.
struct RepartitionFeed<K: ?Sized, V: Datum + ?Sized, S> {
    job: Arc<JobContext>,
    receiver: Receiver<K, V, S>,
    batch: Batch<V>,
    partitions: Vec<PartitionState>,
    next: usize,
    records: u64,
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
    let receiver = Receiver::new(
        stage.build(context)?,
        context.poison()?,
        context.spent_batches_here(),
    );
    Ok(Box::new(RepartitionFeed {
        receiver,
        // They come as the group gives them.
        partitions: Vec::new(),
        batch: Batch::new(context.job().pressure.batch_records_max()),
        job: context.shared_job(),
        next: 0,
        records: 0,
    }))
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, S: Stage<K, V>> RepartitionFeed<K, V, S> {
    /// Reads what was fetched of one partition and runs it through the chain.
    fn read(
        &mut self,
        index: usize,
        waker: &Waker,
        current: &mut Origin,
    ) -> Result<Read, JobError> {
        let fetched = match self.partitions[index].fetch.poll(waker) {
            Poll::Ready(fetched) => fetched?,
            Poll::Pending => return Ok(Read::Pending),
        };
        let end = fetched.end();
        current.split = self.partitions[index].number;
        for batch in fetched {
            let batch = batch?;
            for record in batch.iter() {
                let record = record?;
                current.offset = record.offset;
                let meta = Meta {
                    timestamp: record.timestamp,
                    origin: *current,
                };
                self.take_in(record.key, record.value, meta, current)?;
            }
        }
        self.process(current)?;
        let is_moved = end > self.partitions[index].position;
        self.partitions[index].position = end;
        // A long poll that found nothing is sent again by the next call.
        Ok(match is_moved {
            true => Read::Progress,
            false => Read::Later(std::time::Duration::ZERO),
        })
    }

    fn take_in(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        meta: Meta,
        current: &mut Origin,
    ) -> Result<(), JobError> {
        self.records += 1;
        match decode::<V>(key, value, &self.batch) {
            Ok((key, value, end)) => {
                let key: Key<'_, K> = Key::new(key);
                self.batch.push(key, value.into_owned(), meta, end);
            }
            Err(e) => {
                let raw = Raw::Bytes { key, value };
                self.receiver
                    .poison()
                    .handle_raw(e.into(), meta.origin, raw)?;
            }
        }
        let records_max = self.job.pressure.batch_records_max();
        match self.batch.is_full(records_max) {
            true => self.process(current),
            false => Ok(()),
        }
    }

    fn process(&mut self, current: &mut Origin) -> Result<(), JobError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let processed = self.receiver.process(&self.batch, current);
        self.batch.clear();
        processed
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
        let mut idle = Read::Exhausted;
        for _ in 0..self.partitions.len() {
            let index = self.next;
            self.next = (self.next + 1) % self.partitions.len();
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

    fn end_cycle(&mut self) -> Flow {
        self.receiver.stage().end_cycle()
    }

    fn stores(&mut self, visit: &mut dyn FnMut(&mut dyn CycleStore)) {
        self.receiver.stage().stores(visit);
    }

    fn positions(&self, visit: &mut dyn FnMut(u32, Position)) {
        self.partitions
            .iter()
            .for_each(|partition| visit(partition.number, partition.position.into()));
    }

    fn open_split(&mut self, assigned: &AssignedSplit) -> Result<(), JobError> {
        self.partitions
            .push(PartitionState::open(assigned, &self.job)?);
        Ok(())
    }

    fn close_splits(&mut self, numbers: &[u32]) {
        self.partitions
            .retain(|partition| !numbers.contains(&partition.number));
        self.next = 0;
    }
}
