//! Settings of topics that change how a log appends.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::support::*;
use crate::env::simulated::SimulatedWorld;
use crate::log::*;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{
    BatchBuilder, BatchProducer, Batches, Compression, DecompressionLimit,
};
use crate::types::{Isolation, Offset, Sequence, Timestamp};

#[test]
fn x16_segment_jitter_ms_shortens_the_time_of_each_segment_by_another_part() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    place.config.segment_ms = 1000;
    place.config.segment_jitter_ms = 1000;
    let mut log = place.create();
    let mut spans = BTreeSet::new();
    let (mut first, mut count) = (0, 1);
    for time in 0..20_000 {
        log.put(keyed(&[("a", None)], time, BatchProducer::Plain))
            .unwrap();
        if log.segments_count() > count {
            count = log.segments_count();
            assert!((1..=1001).contains(&(time - first)), "{}", time - first);
            spans.insert(time - first);
            first = time;
        }
    }
    assert!(spans.len() > 10, "{spans:?}");
}

fn compressed(compression: Compression, producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None);
    let header = [("h", Some(&b"1"[..])), ("null", None)];
    builder.push_with_headers(Timestamp(7), Some(b"k"), None, &header);
    builder.push(Timestamp(5), None, Some(&[b'v'; 500]));
    builder.finish(producer).freeze()
}

/// All that is in a batch's records.
fn contents(batch: &crate::protocol::batch::Batch) -> String {
    let records = batch.records(&DecompressionLimit::default()).unwrap();
    let all = records.iter().map(|record| {
        let record = record.unwrap();
        let headers: Vec<_> = record.headers.collect();
        format!(
            "{} {} {:?} {:?} {headers:?}",
            record.offset, record.timestamp, record.key, record.value
        )
    });
    all.collect::<Vec<_>>().join("; ")
}

#[test]
fn x16_batches_are_stored_compressed_as_their_topic_wants_them() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    for wanted in Compression::ALL {
        place.dir = format!("/{wanted}-0").into();
        place.config.compression = Some(wanted);
        let mut log = place.create();
        let mut sequence = Sequence::ZERO;
        for sent in Compression::ALL {
            let by = BatchProducer::Idempotent(producer(7, 0), sequence);
            log.put(compressed(sent, by)).unwrap();
            // Sent again, it is known.
            assert!(log.put(compressed(sent, by)).unwrap().is_duplicate);
            sequence = sequence.plus(2);
        }
        log.sync();
        let read = log.plan_read(Offset(0), 1 << 20, Isolation::ReadCommitted);
        let records = read.unwrap().execute().unwrap().records;
        let batches: Vec<_> = Batches::new(records).map(Result::unwrap).collect();
        assert_eq!(batches.len(), Compression::ALL.len());
        for (index, batch) in batches.iter().enumerate() {
            batch.check_crc().unwrap();
            let header = batch.header();
            assert_eq!(header.compression(), wanted);
            assert_eq!(header.max_timestamp, Timestamp(7));
            let first = 2 * i32::try_from(index).unwrap();
            assert_eq!(header.base_sequence, Sequence(first));
            let mut plain = Place::new(&world);
            plain.dir = format!("/plain-{wanted}-{index}").into();
            let mut plain = plain.create();
            for _ in 0..=index {
                plain
                    .put(compressed(Compression::None, BatchProducer::Plain))
                    .unwrap();
            }
            plain.sync();
            let read = plain.plan_read(Offset(i64::from(first)), 1 << 20, Isolation::ReadCommitted);
            let alone = read.unwrap().execute().unwrap().records;
            let alone = Batches::new(alone).next().unwrap().unwrap();
            assert_eq!(contents(batch), contents(&alone));
        }
        drop(log);
        let log = place.open();
        assert_eq!(log.log_end_offset(), Offset(10));
    }
}

#[test]
fn x16_a_batch_that_is_too_large_once_it_is_compressed_otherwise_is_refused() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    place.config.compression = Some(Compression::None);
    place.config.max_message_bytes = 300;
    let mut log = place.create();
    let refused = log.put(compressed(Compression::Zstd, BatchProducer::Plain));
    let Err(LogError::Refused { code, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(code, ErrorCode::MessageTooLarge);
    assert_eq!(log.log_end_offset(), Offset(0));
}
