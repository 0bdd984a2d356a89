//! Positions of sources that are not topics: a compacted topic of the job, written in the cycle's transaction.
//!
//! Key: the source's name and the split's name, joined by a 0 byte. Value: the position, eight bytes, big-endian, and
//! behind it the source's fingerprint of the input before it, if it has one. Sinks of files keep the lengths of their
//! parts here, too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::cycle::WRITERS_COUNT;
use super::error::JobError;
use super::source::Position;
use crate::client::consumer::PartitionReader;
use crate::client::{PartitionWriter, TransactionalWriter, Transport, wait};
use crate::env::Env;
use crate::protocol::batch::{BatchBuilder, Compression};
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, NameError, Offset, TopicName, TopicPartition};

/// How much of a sink's part a cycle commits; `None` forgets the part.
pub(crate) struct SinkMark {
    pub(crate) sink: String,
    pub(crate) part: String,
    pub(crate) position: Option<Offset>,
}

/// The marks of one worker's sinks, collected while a cycle closes.
pub(crate) type SinkMarks = Rc<RefCell<Vec<SinkMark>>>;

/// The topic of a job's positions.
pub(crate) fn positions_topic(job: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-positions"))
}

/// Writes positions.
pub(crate) struct Positions {
    env: Env,
    builder: BatchBuilder,
    writers: [PartitionWriter; WRITERS_COUNT],
}

impl Positions {
    pub(crate) fn new(
        env: Env,
        topic: TopicName,
        writers: &[TransactionalWriter; WRITERS_COUNT],
    ) -> Self {
        let partition = TopicPartition::new(topic, 0);
        Self {
            env,
            builder: BatchBuilder::new(Compression::None, None),
            writers: writers
                .each_ref()
                .map(|writer| writer.partition(&partition)),
        }
    }

    pub(crate) fn append(
        &mut self,
        writer: usize,
        source: &str,
        split: &str,
        position: &Position,
    ) -> Result<(), JobError> {
        let key = [source.as_bytes(), &[0], split.as_bytes()].concat();
        let value = [&position.offset.0.to_be_bytes(), &*position.fingerprint].concat();
        let now = self.env.clock.wall();
        self.builder.push(now, Some(&key), Some(&value));
        if self.builder.size_bytes() > 256 * 1024 {
            self.flush(writer)
        } else {
            Ok(())
        }
    }

    /// Notes what a sink's part holds by this cycle, or that it need no longer be known.
    pub(crate) fn append_mark(&mut self, writer: usize, mark: &SinkMark) -> Result<(), JobError> {
        match mark.position {
            Some(length) => self.append(writer, &mark.sink, &mark.part, &length.into()),
            None => {
                let key = [mark.sink.as_bytes(), &[0], mark.part.as_bytes()].concat();
                self.builder.push(self.env.clock.wall(), Some(&key), None);
                Ok(())
            }
        }
    }

    pub(crate) fn flush(&mut self, writer: usize) -> Result<(), JobError> {
        if !self.builder.is_empty() {
            self.writers[writer].hand_over(&mut self.builder)?;
        }
        Ok(())
    }
}

/// The committed positions, by source and split.
pub(crate) type NamedPositions = HashMap<(String, String), Position>;

/// Reads all committed positions of a job.
pub(crate) fn read_positions(
    transport: &Arc<dyn Transport>,
    topic: &TopicName,
) -> Result<NamedPositions, JobError> {
    let place = TopicPartition::new(topic.clone(), 0);
    let list = |spec| wait(transport.list_offset(&place, spec, Isolation::ReadCommitted));
    let start = list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset);
    let end = list(OffsetSpec::Latest)?.map_or(Offset::ZERO, |found| found.offset);
    let mut reader = PartitionReader::new(
        Arc::clone(transport),
        place.clone(),
        start,
        Isolation::ReadCommitted,
    );
    let mut positions = NamedPositions::new();
    while reader.position() < end {
        for batch in reader.fetch_now()? {
            let batch = batch?;
            for record in batch.iter() {
                let record = record?;
                let entry = parse(record.key, record.value).ok_or_else(|| JobError::Source {
                    source_name: topic.to_string(),
                    why: format!("record {} is no position: the topic is the job's own, write nothing into it", record.offset),
                })?;
                match entry {
                    (key, Some(position)) => drop(positions.insert(key, position)),
                    (key, None) => drop(positions.remove(&key)),
                }
            }
        }
    }
    Ok(positions)
}

type Entry = ((String, String), Option<Position>);

fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Entry> {
    let key = std::str::from_utf8(key?).ok()?;
    let (source, split) = key.split_once('\0')?;
    let position = match value {
        Some(value) => {
            let (offset, fingerprint) = value.split_first_chunk()?;
            Some(Position {
                offset: Offset(i64::from_be_bytes(*offset)),
                fingerprint: fingerprint.to_vec(),
            })
        }
        None => None,
    };
    Some(((source.to_owned(), split.to_owned()), position))
}
