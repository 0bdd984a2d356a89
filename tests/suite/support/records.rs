//! Batches of text values, and what a reader at either isolation sees of fetched bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use onceflow::client::FetchedRecords;
use onceflow::internals::protocol::batch::{
    Batch, BatchBuilder, BatchProducer, Batches, Compression, ControlType, DecompressionLimit,
};
use onceflow::types::{Offset, ProducerId, Timestamp};

/// When all test records were made.
pub(crate) const RECORD_TIME: Timestamp = Timestamp(1_767_225_600_000);

/// The time of records that no retention takes: a real Kafka deletes those of 1970 with its next look, every five minutes.
pub(crate) fn now() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since_1970.unwrap().as_millis()).unwrap())
}

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

/// Reads as `read_committed`: leaves out what the fetch named as aborted.
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

/// Places of fields in a batch, in bytes; the records stand behind the last one.
pub(crate) const LAST_OFFSET_DELTA_AT: usize = 23;
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;
pub(crate) const RECORDS_COUNT_AT: usize = 57;
pub(crate) const RECORDS_AT: usize = 61;

/// The batch changed by `change`, with the length and checksum that belong to it: what a client may send that lies.
pub(crate) fn forged(batch: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let counted = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&counted.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

/// Writes `value` over the bytes at `at`.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// The batch with another count of records, and the last offset that belongs to it.
pub(crate) fn miscounted(batch: &[u8], count: i32) -> Bytes {
    forged(batch, |bytes| {
        put(bytes, LAST_OFFSET_DELTA_AT, (count - 1).to_be_bytes());
        put(bytes, RECORDS_COUNT_AT, count.to_be_bytes());
    })
}
