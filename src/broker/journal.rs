//! The batches of the coordinators' journals, and what they say of their journal's durability.
//!
//! The first record of each batch has a header, `durable-end`: up to where the journal was durable when the batch was
//! written. A torn tail and rot look alike; what a whole batch behind the damage says tells them apart (F9).

use crate::coordinator::{TRANSACTION_STATE_TOPIC, transaction_log};
use crate::protocol::batch::{
    Batch, BatchBuilder, BatchProducer, BuiltBatch, Compression, DecompressionLimit,
};
use crate::types::{Offset, Timestamp, TopicId, TopicName};

/// The header's name; its value is an i64.
const DURABLE_END: &str = "durable-end";

/// A batch of a journal that is durable up to `durable_end`; a record is a key and a value, which a tombstone lacks.
pub(super) fn journal_batch<'a>(
    wall: Timestamp,
    records: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    producer: BatchProducer,
    durable_end: Offset,
) -> BuiltBatch {
    let durable_end = durable_end.0.to_be_bytes();
    let headers = [(DURABLE_END, Some(&durable_end[..]))];
    let mut headers = &headers[..];
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (key, value) in records {
        builder.push_with_headers(wall, Some(key), value, headers);
        headers = &[];
    }
    builder.build(producer)
}

/// Up to where the journal of that name and id was durable when this batch of it was written, if the batch says so.
pub(super) fn attested_end(batch: &Batch, journal: &TopicName, id: TopicId) -> Option<Offset> {
    let mut end = None;
    let mut records = batch.records(&DecompressionLimit::default()).ok()?;
    while let Some(Ok(record)) = records.next() {
        let mut headers = record.headers;
        let noted = headers.find_map(|(name, value)| {
            let bytes = value?.try_into().ok()?;
            (name == DURABLE_END).then_some(Offset(i64::from_be_bytes(bytes)))
        });
        end = end.max(noted);
        if journal.as_str() == TRANSACTION_STATE_TOPIC {
            let key = record.key.unwrap_or_default();
            end = end.max(decided_end(key, record.value, id));
        }
    }
    end
}

/// Reads the journal's own end from a decision's record.
fn decided_end(key: &[u8], value: Option<&[u8]>, id: TopicId) -> Option<Offset> {
    let ends = transaction_log::durable_ends(key, value).ok()?;
    let own = ends.into_iter().filter(|end| end.topic_id == id);
    own.map(|end| end.offset).max()
}
