//! Batches of text values, and what a reader at either isolation sees of fetched bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceflow::protocol::batch::{
    Batch, BatchBuilder, BatchProducer, Batches, Compression, ControlType, DecompressionLimit,
};
use onceflow::protocol::messages::FetchedRecords;
use onceflow::types::{Offset, ProducerId, Timestamp};

/// When all test records were made.
pub(crate) const RECORD_TIME: Timestamp = Timestamp(1_767_225_600_000);

/// One batch with a record a value; what stands before a `=` is the record's key too.
pub(crate) fn batch<V: AsRef<str>>(producer: BatchProducer, values: &[V]) -> Bytes {
    batch_at(RECORD_TIME, producer, values)
}

/// As [`batch`], for a log that deletes what is old by the machine's clock.
pub(crate) fn batch_at<V: AsRef<str>>(
    time: Timestamp,
    producer: BatchProducer,
    values: &[V],
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        let value = value.as_ref();
        let key = value.split_once('=').map(|(key, _)| key.as_bytes());
        builder.push(time, key, Some(value.as_bytes()));
    }
    builder.finish(producer).freeze()
}

/// A record as a reader sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    pub(crate) value: String,
}

impl std::fmt::Debug for Seen {
    /// Long values are cut.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{:.12}", self.offset, self.value)
    }
}

/// All data records, those of aborted and open transactions included.
pub(crate) fn all_records(bytes: Bytes) -> Vec<Seen> {
    let mut seen = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        if !batch.header().is_control() {
            values_of(&batch, &mut seen);
        }
    }
    seen
}

/// What is left for a `read_committed` reader: it leaves out what the fetch named as aborted.
pub(crate) fn committed_records(fetched: &FetchedRecords) -> Vec<Seen> {
    let mut announced: BTreeMap<ProducerId, Vec<Offset>> = BTreeMap::new();
    for aborted in &fetched.aborted_transactions {
        let starts = announced.entry(aborted.producer_id).or_default();
        starts.push(aborted.first_offset);
    }
    let mut seen = Vec::new();
    for batch in Batches::new(fetched.records.clone()) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        let header = *batch.header();
        let starts = announced.entry(header.producer.id).or_default();
        let is_aborted = starts
            .first()
            .is_some_and(|start| *start <= header.base_offset);
        if let Some(control) = batch.control().unwrap() {
            if control.kind == ControlType::Abort && is_aborted {
                starts.remove(0);
            }
        } else if !(header.is_transactional() && is_aborted) {
            values_of(&batch, &mut seen);
        }
    }
    seen
}

fn values_of(batch: &Batch, seen: &mut Vec<Seen>) {
    let mut records = batch.records(&DecompressionLimit::default()).unwrap();
    while let Some(record) = records.next() {
        let record = record.unwrap();
        let value = record.value.unwrap_or_default();
        seen.push(Seen {
            offset: record.offset,
            value: String::from_utf8(value.to_vec()).unwrap(),
        });
    }
}
