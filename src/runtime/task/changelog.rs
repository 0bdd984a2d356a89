//! A store's changelog: its write-ahead log, a compacted topic with one partition a state partition (design D6).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::appender::TopicAppender;
use super::context::JobContext;
use super::continuation::{Bounds, Continuation};
use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::env::progress::Unit;
use crate::env::{failpoint, warn};
use crate::protocol::batch::Record;
use crate::runtime::contract::error::{Failure, JobError};
use crate::state::{BoxError, CycleStore, FlushBatch, FlushUrgency, StateError};
use crate::types::{Isolation, NameError, Offset, Timestamp, TopicName, TopicPartition};

/// The topic of a store's changelog.
pub(crate) fn changelog_topic(job: &str, store: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-{store}-changelog"))
}

/// Longest wait of a restore at once for what is not decided yet.
const RESTORE_WAIT_MAX: Duration = Duration::from_millis(500);

/// The most keys whose last value could not be read so far, while a changelog is replayed.
const UNREAD_KEYS_MAX: usize = 1_000_000;

/// One worker's part of a changelog.
pub(crate) struct Changelog {
    /// `None` where the topic that the store is made of has its changes.
    appender: Option<TopicAppender>,
    /// Per owned state partition, the offset behind the last change that the store holds. Where there is no appender, that is the
    /// position of the source, which the driver knows once a cycle is drained.
    positions: Vec<(u16, Offset)>,
}

/// Values for RocksDB, to be written once their cycle is committed.
pub(crate) struct Flush {
    pub(crate) batch: FlushBatch,
    pub(crate) positions: Vec<(u16, Offset)>,
}

impl Changelog {
    /// Replays what RocksDB lacks into the store.
    pub(crate) fn open(
        job: &JobContext,
        writer: Rc<Cell<usize>>,
        store: &mut dyn CycleStore,
    ) -> Result<Self, JobError> {
        let mut positions = Vec::new();
        if let Some(source) = job.source_changelogs.get(store.name()) {
            for partition in store.partitions().to_vec() {
                positions.push((partition, source.restore(job, store, partition)?));
                failpoint("start.partition_restored");
            }
            return Ok(Self {
                appender: None,
                positions,
            });
        }
        let start = job.env.clock.now();
        let topic = changelog_topic(&job.name, store.name())?;
        let appender = TopicAppender::new(job, writer, topic.clone(), job.compression)?;
        let mut replayed = 0;
        for partition in store.partitions().to_vec() {
            let from = job.backend.position(store.name(), partition);
            let place = TopicPartition::new(topic.clone(), i32::from(partition));
            let (begin, end) = restore(job, &place, from, store, partition)?;
            replayed += u64::try_from(end.since(begin)).unwrap_or(0);
            positions.push((partition, end));
            failpoint("start.partition_restored");
        }
        let worker = store.partitions().first();
        if let Some(worker) = worker.and_then(|&first| job.worker_of_state(first)) {
            let took = job.env.clock.now().since(start);
            job.progress.meters.note_replayed(worker, replayed, took);
        }
        Ok(Self {
            appender: Some(appender),
            positions,
        })
    }

    /// Takes on state partitions, between two cycles. RocksDB holds all that their changelogs do.
    pub(crate) fn add(
        &mut self,
        job: &JobContext,
        store: &mut dyn CycleStore,
        partitions: &[u16],
    ) -> Result<(), JobError> {
        store.add_partitions(partitions)?;
        self.positions.extend(partitions.iter().map(|&partition| {
            let position = job.backend.position(store.name(), partition);
            // Without one its changelog is empty.
            (partition, position.unwrap_or(Offset::ZERO))
        }));
        Ok(())
    }

    /// Lets state partitions go, between two cycles; none of their values is on its way to RocksDB.
    pub(crate) fn remove(&mut self, store: &mut dyn CycleStore, partitions: &[u16]) {
        store.remove_partitions(partitions);
        self.positions.retain(|(it, _)| !partitions.contains(it));
    }

    /// Writes what the cycle changed; nothing of the store is in flight any more.
    pub(crate) fn drain(
        &mut self,
        store: &mut dyn CycleStore,
        timestamp: Timestamp,
        urgency: FlushUrgency,
    ) -> Result<Option<Flush>, Failure> {
        let Some(appender) = &mut self.appender else {
            // The source's records are the changes.
            store.drain_cycle(&mut |_, _, _| Ok(())).map_err(unbox)?;
            return self.take_flush(store, urgency);
        };
        let drained = store.drain_cycle(&mut |partition, key, value| {
            appender
                .append(u32::from(partition), timestamp, Some(key), value)
                .map_err(|f| BoxError::from(ChangelogFailure(f)))
        });
        drained.map_err(unbox)?;
        appender.flush_all()?;
        for (partition, position) in &mut self.positions {
            // The log's answer is awaited here: a flush must not name a position that was not written.
            let end_offset = appender.settle(u32::from(*partition))?;
            *position = end_offset.map_or(*position, |end| end.max(*position));
        }
        self.take_flush(store, urgency)
    }

    /// Takes what RocksDB lacks up to the drained cycle, unless a flush is under way.
    pub(crate) fn take_flush(
        &self,
        store: &mut dyn CycleStore,
        urgency: FlushUrgency,
    ) -> Result<Option<Flush>, Failure> {
        let batch = store.take_flush(urgency)?;
        Ok(batch.map(|batch| Flush {
            batch,
            positions: self.positions.clone(),
        }))
    }
}

/// Carries a failure through the store's drain.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
struct ChangelogFailure(Failure);

fn unbox(error: BoxError) -> Failure {
    match error.downcast::<ChangelogFailure>() {
        Ok(failure) => failure.0,
        Err(other) => Failure::poison(other),
    }
}

/// The key of a changelog record. A null key is not the empty one, and the job writes none.
pub(crate) fn key_of<'a>(
    record: &Record<'a>,
    place: &TopicPartition,
) -> Result<&'a [u8], JobError> {
    record.key.ok_or_else(|| JobError::Source {
        source_name: place.to_string(),
        why: format!(
            "record {} has no key, so it is no change of a store: the topic is the job's own, write nothing into it",
            record.offset
        ),
    })
}

/// Forgets what RocksDB holds of state partitions that their changelog does not continue: they are restored in full (S6). Called
/// before the store is opened.
pub(crate) fn wipe_what_cannot_be_continued(
    job: &JobContext,
    store: &str,
    partitions: &[u16],
) -> Result<(), JobError> {
    if let Some(source) = job.source_changelogs.get(store) {
        return source.wipe_what_cannot_be_continued(job, partitions);
    }
    let topic = changelog_topic(&job.name, store)?;
    let mut continuation = Continuation::new(&job.transport, &topic, job.env.clock.wall());
    for &partition in partitions {
        let place = TopicPartition::new(topic.clone(), i32::from(partition));
        let bounds = Bounds::of(&job.transport, &place)?;
        let Some(position) = job.backend.position(store, partition) else {
            continue;
        };
        if let Some(why) = continuation.obstacle(&place, position, bounds)? {
            let Bounds { start, end } = bounds;
            warn!(%position, %start, %end, changelog = %place, why, "the state on disk cannot be continued; restoring all of it");
            job.backend.wipe(store, partition)?;
        }
    }
    Ok(())
}

/// Reads a changelog partition from `from` (all of it, if RocksDB has nothing) to its end; where that was.
fn restore(
    job: &JobContext,
    place: &TopicPartition,
    from: Option<Offset>,
    store: &mut dyn CycleStore,
    partition: u16,
) -> Result<(Offset, Offset), JobError> {
    let Bounds { start, end } = Bounds::of(&job.transport, place)?;
    let begin = from.unwrap_or(start);
    let mut position = begin;
    assert!(
        (start..=end).contains(&position),
        "what cannot be continued was wiped"
    );
    let mut reader = PartitionReader::new(
        job.transport.clone(),
        place.clone(),
        position,
        Isolation::ReadCommitted,
    );
    let mut told = job.env.progress(
        format!("replaying {place}"),
        Unit::Things("offsets"),
        u64::try_from(end.since(position)).ok(),
    );
    let begin = position;
    // A value of a later build that a savepoint took back is followed by the one that took its place.
    let mut unread = BTreeMap::new();
    while position < end {
        // Waits while a transaction of another process, or one that is being decided, stands before the end.
        for batch in wait(reader.fetch(RESTORE_WAIT_MAX))? {
            let batch = batch?;
            for record in batch.iter() {
                let record = record?;
                let next = record.offset.plus(1);
                let key = key_of(&record, place)?;
                match store.restore(partition, key, record.value, next) {
                    Ok(()) if unread.is_empty() => {}
                    Ok(()) => drop(unread.remove(key)),
                    Err(e @ StateError::Decode { .. }) if unread.len() < UNREAD_KEYS_MAX => {
                        unread.insert(key.to_vec(), e);
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        position = reader.position();
        told.at(u64::try_from(position.since(begin)).unwrap_or(0));
    }
    match unread.into_values().next() {
        Some(e) => Err(e.into()),
        None => Ok((begin, position)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{
        BatchBuilder, BatchProducer, Batches, Compression, DecompressionLimit,
    };

    /// A compacted topic refuses such a record; a changelog that was not always compacted may hold one.
    #[test]
    fn x6_a_record_without_a_key_is_no_change_of_a_store() {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(Timestamp(0), Some(b""), Some(b"1"));
        builder.push(Timestamp(0), None, Some(b"1"));
        let bytes = builder.finish(BatchProducer::Plain).freeze();
        let batch = Batches::new(bytes).next().unwrap().unwrap();
        let records = batch.records(&DecompressionLimit::default()).unwrap();
        let records: Vec<_> = records.iter().map(Result::unwrap).collect();
        let place = TopicPartition::new(TopicName::new("job-s-changelog").unwrap(), 0);
        assert_eq!(key_of(&records[0], &place).unwrap(), b"");
        let refused = key_of(&records[1], &place).unwrap_err().to_string();
        assert!(refused.contains("record 1 has no key"), "{refused}");
    }
}
