//! Batches whose headers lie, and records that nobody could read or that the topic refuses: what is taken, what is refused,
//! and what readers get afterwards. Kafka's answers decide.

use std::time::Duration;

use bytes::Bytes;
use onceflow::client::ErrorCode;
use onceflow::client::{ClientError, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{
    Acks, InitProducerIdRequest, ListedOffset, OffsetSpec, ProduceRequest, ProduceResponse,
};
use onceflow::types::{Isolation, Offset, Sequence, Timestamp};

use super::PATIENCE;
use super::world::{Backend, World, partition};
use crate::support::records::{
    LAST_OFFSET_DELTA_AT, MAX_TIMESTAMP_AT, RECORDS_AT, RECORDS_COUNT_AT, forged, miscounted, now,
    put,
};

const HOUR_MS: i64 = 60 * 60 * 1000;

impl World {
    /// Sends the batch, again and again while a cluster does not lead the new topic yet.
    fn append(&self, records: Bytes) -> Result<ProduceResponse, ClientError> {
        let clock = &self.transport.env().clock;
        let deadline = clock.now().plus(PATIENCE);
        loop {
            let written = wait(self.transport.produce(ProduceRequest {
                partition: partition(0),
                records: records.clone().into(),
                acks: Acks::All,
                transactional_id: None,
            }));
            let code = written.as_ref().err().and_then(ClientError::code);
            let is_too_early = matches!(
                code,
                Some(ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicOrPartition)
            );
            if !is_too_early || clock.now() >= deadline {
                return written;
            }
            clock.sleep(Duration::from_millis(5));
        }
    }

    fn refusal(&self, records: Bytes) -> Option<ErrorCode> {
        match self.append(records) {
            Ok(_) => None,
            Err(error) => Some(error.code().unwrap_or(ErrorCode::UnknownServerError)),
        }
    }

    fn listed(&self, spec: OffsetSpec) -> Option<(i64, i64)> {
        let listed = wait(self.transport.list_offset(
            &partition(0),
            spec,
            Isolation::ReadUncommitted,
        ));
        let pair = |found: ListedOffset| (found.offset.0, found.timestamp.0);
        listed.unwrap().map(pair)
    }
}

/// A batch of keyed records with these times.
fn at_times(compression: Compression, times: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None);
    for (number, time) in times.iter().enumerate() {
        let value = format!("record {number}");
        builder.push(Timestamp(*time), Some(b"key"), Some(value.as_bytes()));
    }
    builder.finish(BatchProducer::Plain).freeze()
}

/// An uncompressed batch that says it has one record, and holds these bytes.
fn holding(records: &[u8]) -> Bytes {
    forged(&at_times(Compression::None, &[now().0]), |bytes| {
        bytes.truncate(RECORDS_AT);
        bytes.extend_from_slice(records);
    })
}

pub(super) fn x1_the_newest_record_is_named_whatever_the_batchs_header_says(backend: Backend) {
    for compression in [Compression::None, Compression::Lz4] {
        for lie_ms in [1000, -1000, HOUR_MS * 24 * 365] {
            let world = World::new(backend);
            let now = now().0;
            let batch = at_times(compression, &[now - 10, now - 5, now - 7]);
            let batch = forged(&batch, |bytes| {
                put(bytes, MAX_TIMESTAMP_AT, (now - 5 + lie_ms).to_be_bytes());
            });
            world.append(batch).unwrap();
            assert_eq!(
                world.listed(OffsetSpec::MaxTimestamp),
                Some((1, now - 5)),
                "{compression}, {lie_ms} ms"
            );
            let later = OffsetSpec::Timestamp(Timestamp(now - 4));
            assert_eq!(world.listed(later), None, "{compression}, {lie_ms} ms");
            let newest = OffsetSpec::Timestamp(Timestamp(now - 5));
            assert_eq!(world.listed(newest), Some((1, now - 5)));
        }
    }
}

pub(super) fn x2_a_batch_that_nobody_could_read_is_refused(backend: Backend) {
    let world = World::new(backend);
    let mut bad = Vec::new();
    for compression in Compression::ALL {
        let two = at_times(compression, &[now().0, now().0]);
        bad.push(("a record too few", miscounted(&two, 3)));
        bad.push(("a record too many", miscounted(&two, 1)));
        bad.push(("a huge count", miscounted(&two, i32::MAX)));
    }
    bad.push(("a truncated varint", holding(&[0x80])));
    bad.push(("a negative length", holding(&[0x05, 0, 0, 0, 0, 0, 0, 0])));
    bad.push((
        "a huge length",
        holding(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
    ));
    // Seven bytes: attributes, times, and a key of 20 bytes that are not there.
    bad.push(("a key past the end", holding(&[14, 0, 0, 0, 40, 1, 1, 0])));
    bad.push(("no records at all", holding(&[])));
    for (what, batch) in bad {
        let refused = world.refusal(batch);
        assert_eq!(refused, Some(ErrorCode::InvalidRecord), "{what}");
    }
    // A count of offsets that is not that of records.
    let gap = forged(&at_times(Compression::None, &[now().0]), |bytes| {
        put(bytes, LAST_OFFSET_DELTA_AT, 4i32.to_be_bytes());
    });
    assert_eq!(world.refusal(gap), Some(ErrorCode::InvalidRecord));
    let none = forged(&at_times(Compression::None, &[now().0]), |bytes| {
        put(bytes, RECORDS_COUNT_AT, 0i32.to_be_bytes());
    });
    assert_eq!(world.refusal(none), Some(ErrorCode::InvalidRecord));
    let written = world
        .append(at_times(Compression::None, &[now().0]))
        .unwrap();
    assert_eq!(
        written.base_offset,
        Offset::ZERO,
        "nothing was taken before"
    );
    let seen = world.read(Isolation::ReadCommitted);
    assert_eq!(seen, [(0, "record 0".to_owned())]);
}

pub(super) fn x2_records_that_cannot_be_decompressed_are_refused(backend: Backend) {
    let world = World::new(backend);
    for compression in &Compression::ALL[1..] {
        let batch = forged(&at_times(*compression, &[now().0, now().0]), |bytes| {
            let end = bytes.len();
            bytes[RECORDS_AT..end].fill(0xa5);
        });
        let refused = world.refusal(batch);
        assert!(refused.is_some(), "{compression}");
        for missing in [1, 3, 4] {
            let batch = forged(&at_times(*compression, &[now().0, now().0]), |bytes| {
                bytes.truncate(bytes.len() - missing);
            });
            let refused = world.refusal(batch);
            assert!(
                refused.is_some(),
                "{compression}: {missing} bytes are missing"
            );
        }
    }
    world
        .append(at_times(Compression::None, &[now().0]))
        .unwrap();
    assert_eq!(world.read(Isolation::ReadCommitted).len(), 1);
}

/// Kafka's brokers do not look at names of headers; what is not UTF-8 reaches every reader, ours too.
pub(super) fn x2_a_headers_name_that_is_not_utf_8_is_read_as_in_java(backend: Backend) {
    let world = World::new(backend);
    let mut builder = BatchBuilder::new(Compression::None, None);
    let headers = [("namX", Some(&b"v"[..]))];
    builder.push_with_headers(now(), None, Some(b"value"), &headers);
    let batch = builder.finish(BatchProducer::Plain);
    let name_at = batch.windows(4).position(|window| window == b"namX");
    let batch = forged(&batch, |bytes| bytes[name_at.unwrap() + 3] = 0xff);
    world.append(batch).unwrap();
    let mut consumer = world.consumer(super::earliest());
    let records = wait(consumer.poll(PATIENCE)).unwrap();
    let record = records.iter().next().unwrap();
    let names: Vec<_> = record
        .headers()
        .map(|(name, _)| name.into_owned())
        .collect();
    assert_eq!(names, ["nam\u{fffd}"]);
}

pub(super) fn x13_records_too_far_from_the_clock_are_refused(backend: Backend) {
    let world = World::with_topic(backend, &[("message.timestamp.before.max.ms", "60000")]);
    let now = now().0;
    for compression in [Compression::None, Compression::Gzip] {
        for time in [now + 2 * HOUR_MS, now - HOUR_MS] {
            let batch = at_times(compression, &[now, time]);
            let refused = world.refusal(batch);
            assert_eq!(refused, Some(ErrorCode::InvalidTimestamp), "{time}");
        }
    }
    // Within the bounds, and without a time.
    let fine = at_times(Compression::None, &[now, now + HOUR_MS / 2, -1]);
    world.append(fine).unwrap();
    assert_eq!(world.read(Isolation::ReadCommitted).len(), 3);
    // The bounds are of times that producers set.
    let stamped = World::with_topic(backend, &[("message.timestamp.type", "LogAppendTime")]);
    let future = at_times(Compression::None, &[now + 24 * HOUR_MS]);
    stamped.append(future).unwrap();
}

pub(super) fn x13_a_time_before_1970_is_before_every_record(backend: Backend) {
    let world = World::new(backend);
    let now = now().0;
    world
        .append(at_times(Compression::None, &[now - 2, now - 1]))
        .unwrap();
    for before in [-1, -2, -3, -86_400_000] {
        let spec = OffsetSpec::Timestamp(Timestamp(before));
        assert_eq!(world.listed(spec), Some((0, now - 2)), "{before}");
    }
}

/// Kafka reads a gzip member and leaves alone what follows and is no other one.
pub(super) fn x13_a_repeated_batch_is_checked_against_the_clock_like_any_other(backend: Backend) {
    let world = World::with_topic(backend, &[("message.timestamp.before.max.ms", "60000")]);
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(60),
        current: None,
    };
    let producer = wait(world.transport.init_producer_id(request)).unwrap();
    let batch = |time| {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(Timestamp(time), None, Some(b"value"));
        let producer = BatchProducer::Idempotent(producer, Sequence(0));
        builder.finish(producer).freeze()
    };
    let first = world.append(batch(now().0)).unwrap();
    let again = world.append(batch(now().0)).unwrap();
    assert_eq!(again.base_offset, first.base_offset);
    let refused = world.refusal(batch(now().0 - HOUR_MS));
    assert_eq!(refused, Some(ErrorCode::InvalidTimestamp));
    assert_eq!(world.read(Isolation::ReadCommitted).len(), 1);
}

pub(super) fn x14_bytes_behind_a_gzip_member_are_left_alone(backend: Backend) {
    let world = World::new(backend);
    for (number, tail) in [&b"\0\0\0\0"[..], &[0xab; 100]].into_iter().enumerate() {
        let batch = forged(&at_times(Compression::Gzip, &[now().0, now().0]), |bytes| {
            bytes.extend_from_slice(tail);
        });
        world.append(batch).unwrap();
        let seen = world.read(Isolation::ReadCommitted);
        assert_eq!(seen.len(), 2 * (number + 1));
    }
}
