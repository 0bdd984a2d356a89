//! Lookups by time name records that readers see: never a marker, never one that was deleted or is hidden yet.

use bytes::Bytes;

use super::place;
use super::support::{Place, abort, commit, producer};
use crate::log::PartitionLog;
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use crate::types::{Durability, Isolation, Offset, Sequence, Timestamp};

const BOTH: [Isolation; 2] = [Isolation::ReadUncommitted, Isolation::ReadCommitted];

/// One batch with records of these times.
fn at(times: &[i64], producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for time in times {
        builder.push(Timestamp(*time), None, Some(b"v"));
    }
    builder.finish(producer).freeze()
}

fn newest(log: &PartitionLog, isolation: Isolation) -> Option<(i64, i64)> {
    let found = log.max_timestamp_offset(isolation).unwrap();
    found.map(|found| (found.timestamp.0, found.offset.0))
}

fn first_since(log: &PartitionLog, time: i64) -> Option<i64> {
    let found = log.offset_for_timestamp(Timestamp(time), Isolation::ReadUncommitted);
    found.unwrap().map(|found| found.offset.0)
}

fn process() -> Place {
    let (_world, mut place) = place();
    place.config.durability = Durability::Process;
    place.config.index_interval_bytes = 1;
    place
}

#[test]
fn x7_the_newest_record_is_found_when_newer_ones_were_deleted() {
    for batches in [
        vec![vec![1000, 500, 400]],
        vec![vec![1000], vec![500], vec![400]],
    ] {
        for is_reopened in [false, true] {
            let place = process();
            let mut log = place.create();
            for times in &batches {
                log.put(at(times, BatchProducer::Plain)).unwrap();
            }
            if is_reopened {
                log.close().unwrap();
                log = place.open();
            }
            for isolation in BOTH {
                assert_eq!(newest(&log, isolation), Some((1000, 0)));
            }
            for (before, expected) in [(1, Some((500, 1))), (2, Some((400, 2))), (3, None)] {
                log.delete_records(Offset(before)).unwrap();
                for isolation in BOTH {
                    assert_eq!(newest(&log, isolation), expected, "before {before}");
                }
            }
            log.put(at(&[300, 300], BatchProducer::Plain)).unwrap();
            assert_eq!(newest(&log, BOTH[0]), Some((300, 3)));
        }
    }
}

#[test]
fn x7_a_marker_is_never_the_newest_record_nor_the_first_of_its_time() {
    for marker in [commit(), abort()] {
        for is_reopened in [false, true] {
            let mut place = process();
            place.config.segment_bytes = 400;
            let mut log = place.create();
            for epoch in 0..5 {
                let data = BatchProducer::Transactional(producer(7, epoch), Sequence(0));
                log.put(at(&[1000 + i64::from(epoch), 900], data)).unwrap();
                let ended = producer(7, epoch + 1);
                log.append_marker(ended, marker).unwrap();
            }
            assert!(log.segments_count() > 1);
            if is_reopened {
                log.close().unwrap();
                log = place.open();
            }
            // Twice: what a first lookup learns of a segment does not change the answer.
            for _ in 0..2 {
                for isolation in BOTH {
                    assert_eq!(newest(&log, isolation), Some((1004, 12)));
                }
                assert_eq!(first_since(&log, 1003), Some(9));
                assert_eq!(first_since(&log, 1005), None);
            }
        }
    }
}

#[test]
fn x7_the_newest_record_is_one_that_the_reader_sees() {
    let (_world, place) = place();
    let mut log = place.create();
    log.put(at(&[10, 30], BatchProducer::Plain)).unwrap();
    log.put(at(&[20], BatchProducer::Plain)).unwrap();
    log.sync();
    // Not on the disk yet, and told to nobody.
    log.put(at(&[50], BatchProducer::Plain)).unwrap();
    for isolation in BOTH {
        assert_eq!(newest(&log, isolation), Some((30, 1)));
    }
    log.sync();
    let open = BatchProducer::Transactional(producer(7, 0), Sequence(0));
    log.put(at(&[90], open)).unwrap();
    log.sync();
    assert_eq!(newest(&log, Isolation::ReadCommitted), Some((50, 3)));
    assert_eq!(newest(&log, Isolation::ReadUncommitted), Some((90, 4)));
}
