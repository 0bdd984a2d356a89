//! Batches that somebody else built: what their headers say of the records is not believed, and what nobody can read is
//! not taken. And logs that hold such a batch already.

use bytes::Bytes;

use super::support::*;
use crate::env::OpenMode;
use crate::env::simulated::SimulatedWorld;
use crate::log::*;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{
    Batch, BatchBuilder, BatchProducer, Batches, Compression, HEADER_BYTES,
};
use crate::protocol::messages::ListedOffset;
use crate::types::{Isolation, Offset, Timestamp};

const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The batch changed by `change`, with the checksum that belongs to it.
fn forged(batch: &[u8], change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

fn with_max_timestamp(batch: &[u8], told: i64) -> Bytes {
    forged(batch, |bytes| {
        bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&told.to_be_bytes());
    })
}

fn at_times(compression: Compression, times: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None);
    for time in times {
        builder.push(Timestamp(*time), Some(b"key"), Some(b"value"));
    }
    builder.finish(BatchProducer::Plain).freeze()
}

/// The batches from `from` on as they are stored.
fn stored(log: &PartitionLog, from: i64) -> Vec<Batch> {
    let plan = log.plan_read(Offset(from), 1 << 20, Isolation::ReadUncommitted);
    let read = plan.unwrap().execute().unwrap();
    Batches::new(read.records).map(Result::unwrap).collect()
}

#[test]
fn x1_the_log_stamps_the_largest_timestamp_that_the_records_have() {
    for compression in Compression::ALL {
        for (times, told, expected) in [
            (&[5, 9, 7][..], 1009, 9),
            (&[5, 9, 7], 3, 9),
            (&[5, 9, 7], 9, 9),
            (&[-1, -1], 77, -1),
            (&[-50, -60], -50, -1),
        ] {
            let world = SimulatedWorld::new(1);
            let mut log = Place::new(&world).create();
            log.put(with_max_timestamp(&at_times(compression, times), told))
                .unwrap();
            log.sync();
            let [batch] = &stored(&log, 0)[..] else {
                panic!("one batch")
            };
            batch.check_crc().unwrap();
            assert_eq!(batch.header().max_timestamp, Timestamp(expected));
        }
    }
}

#[test]
fn x1_retention_goes_by_the_times_that_the_records_have() {
    let world = SimulatedWorld::new(1);
    let place = Place::new(&world);
    let now = place.env.clock.wall();
    for (time, told, is_deleted) in [
        (now.0, now.0 - 30 * DAY_MS, false),
        (now.0 - 30 * DAY_MS, i64::MAX, true),
    ] {
        let world = SimulatedWorld::new(1);
        let mut log = Place::new(&world).create();
        log.put(with_max_timestamp(
            &at_times(Compression::None, &[time]),
            told,
        ))
        .unwrap();
        log.sync();
        let deleted = log.apply_retention(now).unwrap();
        assert_eq!(!deleted.is_empty(), is_deleted, "{time}, told {told}");
    }
}

#[test]
fn x1_a_lookup_finds_the_newest_record_though_the_header_named_a_later_time() {
    let world = SimulatedWorld::new(1);
    let mut log = Place::new(&world).create();
    let honest = at_times(Compression::None, &[100, 400, 300]);
    log.put(with_max_timestamp(&honest, 1400)).unwrap();
    log.put(at_times(Compression::None, &[200])).unwrap();
    log.sync();
    let newest = Some(ListedOffset {
        offset: Offset(1),
        timestamp: Timestamp(400),
    });
    assert_eq!(
        log.max_timestamp_offset(Isolation::ReadUncommitted)
            .unwrap(),
        newest
    );
}

#[test]
fn x2_a_batch_of_our_own_builder_is_taken_as_it_is() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    place.config.cleanup = CleanupPolicy::Compact;
    let mut log = place.create();
    let mut builder = BatchBuilder::new(Compression::Zstd, None);
    builder.push(Timestamp(5), Some(b"key"), Some(b"value"));
    log.append(builder.build(BatchProducer::Plain), AppendOrigin::Client)
        .unwrap();
    // Rules of the topic hold for everybody.
    builder.push(Timestamp(5), Some(b"key"), Some(b"value"));
    builder.push(Timestamp(5), None, Some(b"value"));
    let refused = log.append(builder.build(BatchProducer::Plain), AppendOrigin::Client);
    assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidRecord);
    let future = place.env.clock.wall().plus_millis(DAY_MS);
    builder.push(future, Some(b"key"), Some(b"value"));
    let refused = log.append(builder.build(BatchProducer::Plain), AppendOrigin::Client);
    assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidTimestamp);
}

#[test]
fn x16_the_records_of_a_batch_that_are_bad_are_named() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    place.config.timestamp_before_max_ms = 1000;
    let mut log = place.create();
    let now = place.env.clock.wall().0;
    let batch = at_times(Compression::Lz4, &[now, now - 5000, now, -1, now + DAY_MS]);
    let Err(LogError::InvalidBatch(error)) = log.put(batch) else {
        panic!("it was taken")
    };
    let indices: Vec<_> = error.bad_records().iter().map(|bad| bad.index).collect();
    assert_eq!(indices, [1, 4]);
    assert_eq!(error.code(), ErrorCode::InvalidTimestamp);
    assert!(
        error.to_string().contains("2 of the batch's records"),
        "{error}"
    );
}

#[test]
fn x13_records_without_a_timestamp_age_by_their_segments_file() {
    let world = SimulatedWorld::new(1);
    let place = Place::new(&world);
    let mut log = place.create();
    log.put(at_times(Compression::None, &[-1, -1])).unwrap();
    log.sync();
    let now = place.env.clock.wall();
    assert_eq!(log.apply_retention(now).unwrap(), []);
    let path = place.dir.join("00000000000000000000.log");
    world.set_modified(&path, now.plus_millis(-30 * DAY_MS));
    assert_eq!(log.apply_retention(now).unwrap().len(), 1);
}

/// A log as an older release left it: the second of three batches has its right checksum, and nobody can read it.
fn with_a_bad_batch(place: &Place) -> PartitionLog {
    let mut log = place.create();
    for (time, key) in (5..).zip(["a", "b", "a"]) {
        log.put(keyed(
            &[(key, Some("1")), (key, Some("2"))],
            time,
            BatchProducer::Plain,
        ))
        .unwrap();
    }
    log.sync();
    let batches = stored(&log, 0);
    let bad = forged(batches[1].bytes(), |bytes| bytes[HEADER_BYTES] = 0x7f);
    let position = batches[0].bytes().len() as u64;
    log.close().unwrap();
    let path = place.dir.join("00000000000000000000.log");
    let file = place.env.files.open(&path, OpenMode::Write).unwrap();
    file.write_all_at(&bad, position).unwrap();
    file.sync_data().unwrap();
    drop(file);
    let mut log = place.open();
    log.sync();
    log
}

#[test]
fn x2_verify_names_a_bad_batch_and_looks_at_what_follows_it() {
    let world = SimulatedWorld::new(1);
    let place = Place::new(&world);
    let log = with_a_bad_batch(&place);
    log.close().unwrap();
    let report = verify(&place.env, &place.dir).unwrap();
    let [finding] = &report.findings[..] else {
        panic!("{:?}", report.findings)
    };
    assert_eq!(finding.kind, FindingKind::BadBatch);
    assert!(finding.why.contains("offsets 2 to 3"), "{}", finding.why);
    assert_eq!(report.segments[0].batches_count, 3);
    assert_eq!(report.segments[0].next_offset, Offset(6));
}

#[test]
fn x2_a_lookup_passes_over_a_bad_batch() {
    let world = SimulatedWorld::new(1);
    let log = with_a_bad_batch(&Place::new(&world));
    let found = log.offset_for_timestamp(Timestamp(6), Isolation::ReadCommitted);
    let next = ListedOffset {
        offset: Offset(4),
        timestamp: Timestamp(7),
    };
    assert_eq!(found.unwrap(), Some(next));
}

#[test]
fn x2_compaction_keeps_a_bad_batch_and_compacts_the_others() {
    let world = SimulatedWorld::new(1);
    let mut place = Place::new(&world);
    place.config.cleanup = CleanupPolicy::Compact;
    place.config.min_cleanable_dirty_ratio = 0.0;
    let mut log = with_a_bad_batch(&place);
    let before = stored(&log, 0);
    log.roll().unwrap();
    log.sync();
    log.compact(Timestamp(10)).unwrap().unwrap();
    let after = stored(&log, 0);
    let offsets: Vec<_> = after
        .iter()
        .map(|batch| batch.header().base_offset)
        .collect();
    assert_eq!(
        offsets,
        [Offset(2), Offset(4)],
        "the first one is superseded"
    );
    assert_eq!(after[0].bytes(), before[1].bytes());
    assert_eq!(after[1].header().records_count, 1);
    assert_eq!(log.log_end_offset(), Offset(6));
}
