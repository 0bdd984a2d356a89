//! One worker's writing end of a topic: record batches in the making, one a partition.

use std::cell::Cell;
use std::rc::Rc;

use super::context::JobContext;
use super::cycle::WRITERS_COUNT;
use crate::client::PartitionWriter;
use crate::protocol::batch::{
    BatchBuilder, Compression, HEADER_BYTES, Headers, first_record_size_bytes,
};
use crate::runtime::contract::error::{Failure, JobError};
use crate::types::{Offset, Timestamp, TopicName, TopicPartition};

/// The most bytes of a record without headers beside its key and value: six varints of up to ten bytes, and its attributes.
const RECORD_OVERHEAD_BYTES_MAX: usize = 61;

/// Appends records to the partitions of a topic, in the transaction of the open cycle.
pub(crate) struct TopicAppender {
    topic: TopicName,
    partitions: Vec<PartitionAppender>,
    /// The writer of the open cycle; shared by all appenders of the worker.
    writer: Rc<Cell<usize>>,
    record_bytes_max: usize,
    /// A batch is not let grow to this size.
    batch_bytes: usize,
}

struct PartitionAppender {
    builder: BatchBuilder,
    writers: [PartitionWriter; WRITERS_COUNT],
}

impl TopicAppender {
    pub(crate) fn new(
        job: &JobContext,
        writer: Rc<Cell<usize>>,
        topic: TopicName,
        compression: Compression,
    ) -> Result<Self, JobError> {
        let (partitions_count, record_bytes_max) = job.topic(&topic)?;
        let batch_bytes = job
            .pressure
            .append_bytes_max(usize::try_from(partitions_count).unwrap_or(usize::MAX));
        let partitions = (0..partitions_count)
            .map(|partition| {
                let partition = TopicPartition::new(topic.clone(), partition);
                PartitionAppender {
                    builder: BatchBuilder::new(compression, None),
                    writers: job
                        .writers()
                        .each_ref()
                        .map(|writer| writer.partition(&partition)),
                }
            })
            .collect();
        Ok(Self {
            topic,
            partitions,
            writer,
            record_bytes_max,
            batch_bytes: batch_bytes
                .min(record_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES_MAX)),
        })
    }

    pub(crate) fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub(crate) fn partitions_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Appends a record. A record larger than the topic takes is refused before it enters the transaction (S15).
    #[inline]
    pub(crate) fn append(
        &mut self,
        partition: u32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let size_bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.make_room(partition, size_bytes, key, value, Headers::NONE)?;
        self.partitions[partition as usize]
            .builder
            .push(timestamp, key, value);
        Ok(())
    }

    /// Appends a record that may have headers.
    #[inline]
    pub(crate) fn append_with(
        &mut self,
        partition: u32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Result<(), Failure> {
        match headers.is_empty() {
            true => self.append(partition, timestamp, key, value),
            false => self.append_with_headers(partition, timestamp, key, value, headers),
        }
    }

    /// Appends a record with headers.
    #[cold]
    pub(crate) fn append_with_headers(
        &mut self,
        partition: u32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Result<(), Failure> {
        let size_bytes = first_record_size_bytes(key, value, headers);
        self.make_room(partition, size_bytes, key, value, headers)?;
        self.partitions[partition as usize]
            .builder
            .push_with_headers_of(timestamp, key, value, headers);
        Ok(())
    }

    /// Sends the batch in the making, if it would grow too large with a record of about this size.
    #[inline]
    fn make_room(
        &mut self,
        partition: u32,
        size_bytes: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Result<(), Failure> {
        let target = &self.partitions[partition as usize];
        if target.builder.size_bytes() + size_bytes < self.batch_bytes {
            return Ok(());
        }
        if size_bytes + HEADER_BYTES >= self.batch_bytes {
            self.check_size(partition, key, value, headers)?;
        }
        self.flush(partition)
    }

    fn check_size(
        &self,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Result<(), Failure> {
        let size_bytes = first_record_size_bytes(key, value, headers) + HEADER_BYTES;
        match size_bytes > self.record_bytes_max {
            true => Err(Failure::poison(format_args!(
                "a record of {size_bytes} bytes is larger than {}-{partition} takes ({} bytes): raise max.message.bytes of the topic, or send less",
                self.topic, self.record_bytes_max
            ))),
            false => Ok(()),
        }
    }

    /// Appends what waits for one partition.
    pub(crate) fn flush(&mut self, partition: u32) -> Result<(), Failure> {
        let target = &mut self.partitions[partition as usize];
        if target.builder.is_empty() {
            return Ok(());
        }
        Ok(target.writers[self.writer.get()].hand_over(&mut target.builder)?)
    }

    /// Appends everything that waits.
    pub(crate) fn flush_all(&mut self) -> Result<(), Failure> {
        (0..self.partitions_count()).try_for_each(|partition| self.flush(partition))
    }

    /// Waits for the log's answers to all that was appended to the partition in the open cycle; returns the
    /// offset behind its last record, if there was any.
    pub(crate) fn settle(&mut self, partition: u32) -> Result<Option<Offset>, Failure> {
        let writer = self.writer.get();
        Ok(self.partitions[partition as usize].writers[writer].settle()?)
    }
}
