//! Support of this layer's tests: batches in a line, a log in a directory, and reading it all back.

use std::path::PathBuf;

use bytes::Bytes;

use crate::env::Env;
use crate::env::simulated::SimulatedWorld;
use crate::log::{
    AppendOrigin, Appended, LogConfig, LogError, PartitionLog, RecoveryMarks, RecoveryReport,
};
use crate::protocol::batch::{
    BatchBuilder, BatchProducer, Batches, Compression, ControlRecord, ControlType,
    DecompressionLimit,
};
use crate::protocol::messages::AbortedTransaction;
use crate::types::{
    Isolation, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp, TopicId,
};

pub(in crate::log) const TOPIC: TopicId = TopicId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

pub(in crate::log) fn producer(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

pub(in crate::log) fn abort() -> ControlRecord {
    ControlRecord {
        kind: ControlType::Abort,
        coordinator_epoch: 0,
    }
}

pub(in crate::log) fn commit() -> ControlRecord {
    ControlRecord {
        kind: ControlType::Commit,
        coordinator_epoch: 0,
    }
}

/// A batch of keyed records at `timestamp`; a `None` value is a tombstone.
pub(in crate::log) fn keyed(
    records: &[(&str, Option<&str>)],
    timestamp: i64,
    producer: BatchProducer,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (key, value) in records {
        builder.push(
            Timestamp(timestamp),
            Some(key.as_bytes()),
            value.map(str::as_bytes),
        );
    }
    builder.finish(producer).freeze()
}

/// A batch of values at timestamp 0, 1, 2…
pub(in crate::log) fn values(values: &[&str], producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (timestamp, value) in (0..).zip(values) {
        builder.push(Timestamp(timestamp), None, Some(value.as_bytes()));
    }
    builder.finish(producer).freeze()
}

pub(in crate::log) fn plain(records: &[&str]) -> Bytes {
    values(records, BatchProducer::Plain)
}

pub(in crate::log) fn idempotent(id: i64, epoch: i16, sequence: i32, records: &[&str]) -> Bytes {
    values(
        records,
        BatchProducer::Idempotent(producer(id, epoch), Sequence(sequence)),
    )
}

pub(in crate::log) fn transactional(id: i64, epoch: i16, sequence: i32, records: &[&str]) -> Bytes {
    values(
        records,
        BatchProducer::Transactional(producer(id, epoch), Sequence(sequence)),
    )
}

/// A directory with one log in it.
pub(in crate::log) struct Place {
    pub(in crate::log) env: Env,
    pub(in crate::log) dir: PathBuf,
    pub(in crate::log) config: LogConfig,
}

impl Place {
    /// The only partition of a simulated machine.
    pub(in crate::log) fn new(world: &SimulatedWorld) -> Self {
        Self {
            env: world.env(),
            dir: PathBuf::from("/t-0"),
            config: LogConfig::default(),
        }
    }

    /// The same directory on another machine.
    pub(in crate::log) fn on(&self, world: &SimulatedWorld) -> Self {
        Self {
            env: world.env(),
            dir: self.dir.clone(),
            config: self.config.clone(),
        }
    }

    pub(in crate::log) fn create(&self) -> PartitionLog {
        PartitionLog::create(&self.env, &self.dir, TOPIC, self.config.clone()).unwrap()
    }

    pub(in crate::log) fn open(&self) -> PartitionLog {
        self.open_with(RecoveryMarks::default()).unwrap().0
    }

    pub(in crate::log) fn open_with(
        &self,
        marks: RecoveryMarks,
    ) -> Result<(PartitionLog, RecoveryReport), LogError> {
        PartitionLog::open(&self.env, &self.dir, self.config.clone(), marks)
    }
}

/// A reader's view of a record: offset, and value or key=value.
pub(in crate::log) type Seen = (i64, String);

impl PartitionLog {
    pub(in crate::log) fn put(&mut self, records: Bytes) -> Result<Appended, LogError> {
        self.append(records, AppendOrigin::Client)
    }

    pub(in crate::log) fn sync(&mut self) {
        if let Some(plan) = self.plan_sync() {
            plan.execute().unwrap();
            self.synced(&plan);
        }
    }

    /// Everything that a reader at `isolation` sees from `from` on, in reads of `max_bytes`.
    pub(in crate::log) fn seen_from(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Vec<Seen>, LogError> {
        let mut seen = Vec::new();
        let mut position = from;
        loop {
            let fetched = self.plan_read(position, max_bytes, isolation)?.execute()?;
            let next = collect(
                &mut seen,
                position,
                &fetched.records,
                &fetched.aborted_transactions,
            );
            if next == position {
                return Ok(seen);
            }
            position = next;
        }
    }

    pub(in crate::log) fn seen(&self, isolation: Isolation) -> Vec<Seen> {
        self.seen_from(self.log_start_offset(), 1 << 20, isolation)
            .unwrap()
    }

    pub(in crate::log) fn committed(&self) -> Vec<Seen> {
        self.seen(Isolation::ReadCommitted)
    }

    pub(in crate::log) fn uncommitted(&self) -> Vec<Seen> {
        self.seen(Isolation::ReadUncommitted)
    }
}

/// Consumes fetched batches (kafka.md 2.9): leaves aborted ones out, and returns its next position.
pub(in crate::log) fn collect(
    seen: &mut Vec<Seen>,
    from: Offset,
    records: &Bytes,
    aborted: &[AbortedTransaction],
) -> Offset {
    let mut pending: Vec<_> = aborted.iter().rev().copied().collect();
    let mut active = std::collections::HashSet::new();
    let mut position = from;
    for batch in Batches::new(records.clone()) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        let header = *batch.header();
        while pending
            .last()
            .is_some_and(|next| next.first_offset <= header.last_offset())
        {
            active.insert(pending.pop().unwrap().producer_id);
        }
        position = header.next_offset();
        if let Some(marker) = batch.control().unwrap() {
            if marker.kind == ControlType::Abort {
                active.remove(&header.producer.id);
            }
            continue;
        }
        if header.is_control()
            || (header.is_transactional() && active.contains(&header.producer.id))
        {
            continue;
        }
        for record in &batch.records(&DecompressionLimit::default()).unwrap() {
            let record = record.unwrap();
            if record.offset < from {
                continue;
            }
            let text =
                |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
            let shown = match record.key {
                Some(key) => format!("{}={}", text(Some(key)), text(record.value)),
                None => text(record.value),
            };
            seen.push((record.offset.0, shown));
        }
    }
    position
}

/// `["a", "b"]` at offsets 0, 1, … as a reader sees them.
pub(in crate::log) fn numbered(values: &[&str]) -> Vec<Seen> {
    (0..).zip(values.iter().map(|v| (*v).to_owned())).collect()
}
