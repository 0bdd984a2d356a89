//! Tests of the batch codec, and what they share.

mod golden;
mod hostile;
mod oracle;
mod round_trip;
mod rules;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp};

/// A record with what it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedRecord {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    fn of(record: &Record<'_>) -> Self {
        Self {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }

    fn push_to(&self, builder: &mut BatchBuilder) {
        let headers: Vec<(&str, Option<&[u8]>)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        match headers.is_empty() {
            true => builder.push(Timestamp(self.timestamp), key, value),
            false => {
                builder.push_with_headers(Timestamp(self.timestamp), key, value, &headers);
            }
        }
    }
}

fn identity(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

/// Two records, the second with a later time, no key, no value, and two headers.
fn sample(compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(compression, None);
    builder.push(Timestamp(1000), Some(b"k"), Some(b"v"));
    let headers = [("h", Some(&b"x"[..])), ("n", None)];
    builder.push_with_headers(Timestamp(1064), None, None, &headers);
    builder.finish(BatchProducer::Transactional(identity(7, 3), Sequence(5)))
}

fn parse(bytes: impl Into<Bytes>) -> Batch {
    Batch::parse(bytes.into()).unwrap()
}

fn read(batch: &Batch) -> Result<Vec<OwnedRecord>, BatchError> {
    let mut records = batch.records(&DecompressionLimit::default())?;
    let mut all = Vec::new();
    while let Some(record) = records.next() {
        all.push(OwnedRecord::of(&record?));
    }
    assert!(records.next().is_none(), "the end stays the end");
    Ok(all)
}

/// A sealed batch with `records` as they are, and `header` completed.
fn with_records(header: Header, records: &[u8]) -> BytesMut {
    let mut batch = BytesMut::zeroed(HEADER_BYTES);
    batch.extend_from_slice(records);
    header.seal(&mut batch);
    batch
}
