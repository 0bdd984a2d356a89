//! A batch with some of its records removed, as compaction leaves it, or with all of them compressed otherwise.

use bytes::BytesMut;

use super::writer::{Parts, RecordWriter};
use super::{Batch, BatchError, Compression, DecompressionLimit, Header, Record};
use crate::types::Timestamp;

/// Builds `batch` again with the records that `keep` wants, with the same offsets, timestamps, producer,
/// sequences, kind and compression; perhaps without any record. A `delete_horizon` is noted in it;
/// without a new one, an earlier one stays.
///
/// # Errors
/// If the records cannot be read within `limit`.
pub fn rewrite(
    batch: &Batch,
    limit: &DecompressionLimit,
    delete_horizon: Option<Timestamp>,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<BytesMut, BatchError> {
    let mut header = with_horizon(batch.header(), delete_horizon);
    let mut max_timestamp = None;
    let mut writer = RecordWriter::default();
    writer.begin(batch.bytes().len());
    header.records_count = 0;
    for record in &batch.records(limit)? {
        let record = record?;
        if keep(&record) {
            writer.write_with_headers(parts(&record, &header)?, record.headers.raw());
            max_timestamp = max_timestamp.max(Some(record.timestamp));
            header.records_count += 1;
        }
    }
    match max_timestamp {
        Some(max_timestamp) => header.max_timestamp = max_timestamp,
        None => return Ok(empty(header)),
    }
    Ok(writer.seal(header, None))
}

/// Builds `batch` again, compressed by `compression`; `level` is the compression's own, `None` its default.
///
/// # Errors
/// If the records cannot be read within `limit`.
pub fn recompress(
    batch: &Batch,
    limit: &DecompressionLimit,
    compression: Compression,
    level: Option<i32>,
) -> Result<BytesMut, BatchError> {
    let mut header = *batch.header();
    header.attributes = header.attributes.compressed_by(compression);
    let mut writer = RecordWriter::default();
    writer.begin(batch.bytes().len());
    for record in &batch.records(limit)? {
        let record = record?;
        writer.write_with_headers(parts(&record, batch.header())?, record.headers.raw());
    }
    Ok(writer.seal(header, level))
}

/// Builds `batch` again without records, which are not looked at: a header alone, as Kafka leaves it, that says who
/// wrote the offsets that were here.
#[must_use]
pub fn emptied(batch: &Batch) -> BytesMut {
    empty(*batch.header())
}

fn empty(mut header: Header) -> BytesMut {
    header.records_count = 0;
    header.attributes = header.attributes.uncompressed();
    let mut writer = RecordWriter::default();
    writer.begin(0);
    writer.seal(header, None)
}

fn with_horizon(header: &Header, delete_horizon: Option<Timestamp>) -> Header {
    match delete_horizon {
        Some(horizon) => Header {
            attributes: header.attributes.delete_horizon(),
            base_timestamp: horizon,
            ..*header
        },
        None => *header,
    }
}

fn parts<'a>(record: &Record<'a>, header: &Header) -> Result<Parts<'a>, BatchError> {
    let offset_delta = i32::try_from(record.offset.since(header.base_offset)).map_err(|_| {
        BatchError::BadRecord {
            index: header.records_count,
            why: "its offset is out of order",
        }
    })?;
    Ok(Parts {
        timestamp_delta: record.timestamp.0.wrapping_sub(header.base_timestamp.0),
        offset_delta,
        key: record.key,
        value: record.value,
    })
}
