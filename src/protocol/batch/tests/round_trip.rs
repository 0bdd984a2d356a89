//! Round trips of any records with every compression; the builder's own accounts.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::types::{Offset, TimestampType};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(0u8..3, 0..600)]
}

fn any_timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        0i64..10_000,
        1_700_000_000_000i64..1_800_000_000_000,
        any::<i64>()
    ]
}

pub(super) fn any_records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let header = ("[a-zü]{0,5}", option::of(bytes()));
    let record = (
        any_timestamp(),
        option::of(bytes()),
        option::of(bytes()),
        vec(header, 0..3),
    );
    let number = |(offset, record)| {
        let (timestamp, key, value, headers) = record;
        OwnedRecord {
            offset,
            timestamp,
            key,
            value,
            headers,
        }
    };
    vec(record, 1..80).prop_map(move |records| (0..).zip(records).map(number).collect())
}

pub(super) fn any_compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_built_is_read_back(
        records in any_records(),
        compression in any_compression(),
        level in option::of(-5i32..30),
        base_offset in 0i64..1 << 40,
    ) {
        let mut builder = BatchBuilder::new(compression, level);
        for record in &records {
            record.push_to(&mut builder);
        }
        prop_assert_eq!(usize::try_from(builder.records_count()).unwrap(), records.len());
        let size_bytes = builder.size_bytes();
        let max_timestamp = records.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(builder.max_timestamp(), Timestamp(max_timestamp));
        let mut bytes = builder.finish(BatchProducer::Idempotent(identity(1, 0), Sequence(9)));
        stamp(&mut bytes, Offset(base_offset), 4);

        let batch = parse(bytes);
        prop_assert_eq!(batch.check_crc(), Ok(()));
        prop_assert_eq!(check_client_batch(batch.header()), Ok(()));
        prop_assert_eq!(batch.header().compression(), compression);
        prop_assert_eq!(batch.header().partition_leader_epoch, 4);
        prop_assert_eq!(batch.header().max_timestamp, Timestamp(max_timestamp));
        if compression == Compression::None {
            prop_assert_eq!(batch.bytes().len(), size_bytes);
        }
        let mut expected = records;
        for record in &mut expected {
            record.offset += base_offset;
        }
        prop_assert_eq!(read(&batch).unwrap(), expected);
    }

    #[test]
    fn the_size_is_known_before_a_record_is_added(records in any_records()) {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for record in &records {
            let headers: Vec<(&str, Option<&[u8]>)> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect();
            let expected = builder.size_bytes_with(
                Timestamp(record.timestamp),
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            );
            record.push_to(&mut builder);
            prop_assert_eq!(builder.size_bytes(), expected);
        }
    }

    #[test]
    fn several_batches_are_read_in_order_and_a_partial_one_ends_them(
        counts in vec(1usize..5, 1..6),
        cut in 1usize..100,
    ) {
        let mut all = BytesMut::new();
        let mut builder = BatchBuilder::new(Compression::None, None);
        for count in &counts {
            for _ in 0..*count {
                builder.push(Timestamp(1), None, Some(b"value"));
            }
            all.extend_from_slice(&builder.finish(BatchProducer::Plain));
        }
        let partial = sample(Compression::Lz4);
        let cut = cut.min(partial.len() - 1);
        all.extend_from_slice(&partial[..cut]);

        let mut batches = Batches::new(all.freeze());
        let read: Vec<usize> = batches
            .by_ref()
            .map(|batch| usize::try_from(batch.unwrap().header().records_count).unwrap())
            .collect();
        prop_assert_eq!(read, counts);
        prop_assert_eq!(batches.rest(), &partial[..cut]);
    }
}

#[test]
fn records_around_each_bound_of_the_fast_path_survive() {
    let sizes = [0, 1, 62, 63, 64, 2000, 4095, 4096, 4097, 8191, 8192, 17_000];
    let times = [
        0,
        63,
        -64,
        64,
        1 << 20,
        (1 << 48) - 1,
        -(1 << 48),
        1 << 48,
        i64::MIN,
        i64::MAX,
    ];
    let mut records = Vec::new();
    for (key_bytes, value_bytes) in sizes
        .iter()
        .flat_map(|key| sizes.map(|value| (*key, value)))
    {
        for timestamp in times {
            records.push(OwnedRecord {
                offset: i64::try_from(records.len()).unwrap(),
                timestamp,
                key: Some(vec![1; key_bytes]),
                value: (value_bytes != 1).then(|| vec![2; value_bytes]),
                headers: vec![],
            });
        }
    }
    let mut builder = BatchBuilder::new(Compression::None, None);
    for record in &records {
        record.push_to(&mut builder);
    }
    let size_bytes = builder.size_bytes();
    let batch = parse(builder.finish(BatchProducer::Plain));
    assert_eq!(batch.bytes().len(), size_bytes);
    assert_eq!(batch.check_crc(), Ok(()));
    assert!(read(&batch).unwrap() == records);
}

#[test]
fn a_builder_begins_anew_after_each_batch() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, None);
        let mut build = |value: &[u8]| {
            builder.push(Timestamp(3), None, Some(value));
            builder.push(Timestamp(2), None, Some(value));
            let batch = builder.finish(BatchProducer::Plain);
            assert!(builder.is_empty());
            assert_eq!(builder.size_bytes(), HEADER_BYTES);
            assert_eq!(builder.max_timestamp(), Timestamp::NONE);
            batch
        };
        let first = build(&[7; 9000]);
        build(&[8; 10]);
        assert_eq!(build(&[7; 9000]), first);
    }
}

#[test]
fn a_finished_batch_is_its_holders_alone_and_stamped_without_a_copy() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1), None, Some(b"value"));
    let bytes = builder.finish(BatchProducer::Plain).freeze();
    builder.push(Timestamp(1), None, Some(b"next"));
    let place = bytes.as_ptr();
    let batch = Batch::parse(bytes).unwrap();
    let mut bytes = batch.into_bytes().try_into_mut().expect("the only holder");
    stamp(&mut bytes, Offset(70), 2);
    assert_eq!(bytes.as_ptr(), place);
    let batch = parse(bytes);
    assert_eq!(
        batch.check_crc(),
        Ok(()),
        "the checksum does not cover what is stamped"
    );
    assert_eq!(read(&batch).unwrap()[0].offset, 70);
}

#[test]
fn log_append_time_is_the_time_of_every_record() {
    for compression in Compression::ALL {
        let mut bytes = sample(compression);
        stamp_log_append_time(&mut bytes, Timestamp(5000));
        let batch = parse(bytes);
        assert_eq!(batch.check_crc(), Ok(()));
        assert_eq!(
            batch.header().timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert!(batch.header().is_transactional());
        for record in read(&batch).unwrap() {
            assert_eq!(record.timestamp, 5000);
        }
    }
}

#[test]
fn reading_an_uncompressed_batch_copies_nothing() {
    let batch = parse(sample(Compression::None));
    let records = batch.records(&DecompressionLimit::default()).unwrap();
    assert_eq!(
        records.bytes().as_ptr(),
        batch.bytes()[HEADER_BYTES..].as_ptr()
    );
    let shared = records.bytes().clone();
    let value = records.iter().next().unwrap().unwrap().value.unwrap();
    assert_eq!(shared.slice_ref(value), &b"v"[..]);
    assert_eq!(records.iter().count(), 2);
}

#[test]
fn ten_megabytes_survive_every_compression_at_its_extreme_levels() {
    let value: Vec<u8> = (0..10u32 << 20)
        .map(|i| (i.wrapping_mul(i) >> 13).to_le_bytes()[0])
        .collect();
    for (compression, level) in [
        (Compression::None, None),
        (Compression::Gzip, Some(1)),
        (Compression::Snappy, None),
        (Compression::Lz4, None),
        (Compression::Zstd, Some(-7)),
        (Compression::Zstd, Some(22)),
    ] {
        let mut builder = BatchBuilder::new(compression, level);
        builder.push(Timestamp(1), None, Some(&value));
        let batch = parse(builder.finish(BatchProducer::Plain));
        let records = batch.records(&DecompressionLimit::default()).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        assert_eq!(record.value, Some(&value[..]), "{compression} {level:?}");
    }
}
