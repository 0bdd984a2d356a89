//! The bytes of a fetch as a reader sees them, in text.

use bytes::Bytes;
use onceflow::internals::protocol::batch::{Batch, Batches, DecompressionLimit, Record};
use onceflow::internals::protocol::wire::messages::fetch::PartitionData;
use onceflow::types::Timestamp;

use super::side::{Side, line};

/// The aborted transactions that a fetch names, as text and by offset.
pub(super) fn aborted(side: &Side, fetched: &PartitionData) -> (String, Vec<(i64, String)>) {
    let Some(aborted) = &fetched.aborted_transactions else {
        return (String::new(), Vec::new());
    };
    let named = aborted
        .iter()
        .map(|it| (it.first_offset, side.producer_name(it.producer_id)));
    let mut named: Vec<(i64, String)> = named.collect();
    named.sort();
    let mut text = String::new();
    for (offset, producer) in &named {
        line(
            &mut text,
            format_args!("  aborted: {producer} from {offset}"),
        );
    }
    (text, named)
}

/// Batch by batch and record by record, and the offset that follows.
pub(super) fn batches(side: &Side, bytes: Bytes) -> (String, Option<i64>) {
    let (mut text, mut next) = (String::new(), None);
    for batch in Batches::new(bytes) {
        match batch {
            Ok(batch) => {
                next = Some(batch.header().next_offset().0);
                one(side, &batch, &mut text);
            }
            Err(error) => line(&mut text, format_args!("  unreadable: {error}")),
        }
    }
    (text, next)
}

fn one(side: &Side, batch: &Batch, text: &mut String) {
    let header = batch.header();
    let (time, max_time) = (header.base_timestamp.0, header.max_timestamp.0);
    line(
        text,
        format_args!(
            "  batch {}..{}: {} records, {}, {:?}, {}, epoch {}, sequence {}, {}{}base {}, largest {}{}",
            header.base_offset.0,
            header.last_offset().0,
            header.records_count,
            header.compression(),
            header.timestamp_type(),
            side.producer_name(header.producer.id.0),
            header.producer.epoch.0,
            header.base_sequence.0,
            if header.is_transactional() {
                "transactional, "
            } else {
                ""
            },
            if header.is_control() { "control, " } else { "" },
            side.time(time),
            side.time(max_time),
            if batch.check_crc().is_ok() {
                ""
            } else {
                ", checksum wrong"
            },
        ),
    );
    if header.is_control() {
        let control = batch.control().map(|it| it.map(|it| it.kind));
        line(text, format_args!("    {control:?}"));
        return;
    }
    let mut records = match batch.records(&DecompressionLimit::default()) {
        Ok(records) => records,
        Err(error) => return line(text, format_args!("    unreadable: {error}")),
    };
    while let Some(record) = records.next() {
        match record {
            Ok(record) => record_line(side, &record, text),
            Err(error) => return line(text, format_args!("    unreadable: {error}")),
        }
    }
}

fn record_line(side: &Side, record: &Record<'_>, text: &mut String) {
    let show = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) if bytes.len() > 20 => format!("{} bytes", bytes.len()),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        None => "null".to_owned(),
    };
    let Timestamp(time) = record.timestamp;
    line(
        text,
        format_args!(
            "    {}: {} {}={}",
            record.offset.0,
            side.time(time),
            show(record.key),
            show(record.value),
        ),
    );
}
