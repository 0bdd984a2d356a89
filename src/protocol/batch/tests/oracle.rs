//! Another implementation of the format reads what we write, and we read what it writes.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType as TheirTimestampType,
};
use proptest::prelude::*;

use super::round_trip::{any_compression, any_records};
use super::*;

fn theirs(compression: Compression) -> TheirCompression {
    match compression {
        Compression::None => TheirCompression::None,
        Compression::Gzip => TheirCompression::Gzip,
        Compression::Snappy => TheirCompression::Snappy,
        Compression::Lz4 => TheirCompression::Lz4,
        Compression::Zstd => TheirCompression::Zstd,
    }
}

fn to_theirs(record: &OwnedRecord) -> TheirRecord {
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let name = StrBytes::from_string(name.clone());
        (name, value.clone().map(Bytes::from))
    };
    TheirRecord {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 7,
        producer_epoch: 3,
        timestamp_type: TheirTimestampType::Creation,
        offset: record.offset,
        sequence: i32::try_from(record.offset).unwrap() + 11,
        timestamp: record.timestamp,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record.headers.iter().map(header).collect(),
    }
}

fn of_theirs(record: &TheirRecord) -> OwnedRecord {
    OwnedRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_deref().map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// The other implementation counts times from the smallest, without wrapping, and keeps one header a name.
fn comparable(mut records: Vec<OwnedRecord>) -> Vec<OwnedRecord> {
    for record in &mut records {
        record.timestamp &= (1 << 60) - 1;
        record.headers.dedup_by(|a, b| a.0 == b.0);
    }
    records.sort_by_key(|record| record.timestamp);
    for (offset, record) in (0..).zip(&mut records) {
        record.offset = offset;
    }
    records
}

fn ours(records: &[OwnedRecord], compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(compression, None);
    for record in records {
        record.push_to(&mut builder);
    }
    builder.finish(BatchProducer::Transactional(identity(7, 3), Sequence(11)))
}

fn written_by_them(records: &[OwnedRecord], compression: Compression) -> BytesMut {
    let records: Vec<TheirRecord> = records.iter().map(to_theirs).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: theirs(compression),
    };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn they_read_what_we_write(records in any_records(), compression in any_compression()) {
        let records = comparable(records);
        let mut bytes = ours(&records, compression).freeze();
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert_eq!(set.compression, theirs(compression));
        let read: Vec<OwnedRecord> = set.records.iter().map(of_theirs).collect();
        prop_assert_eq!(read, records);
        for record in &set.records {
            prop_assert!(record.transactional && !record.control);
            prop_assert_eq!((record.producer_id, record.producer_epoch), (7, 3));
        }
    }

    #[test]
    fn we_read_what_they_write(records in any_records(), compression in any_compression()) {
        let records = comparable(records);
        let batch = parse(written_by_them(&records, compression));
        prop_assert_eq!(batch.check_crc(), Ok(()));
        prop_assert_eq!(check_client_batch(batch.header()), Ok(()));
        prop_assert_eq!(batch.header().producer, identity(7, 3));
        prop_assert_eq!(batch.header().base_sequence, Sequence(11));
        prop_assert_eq!(read(&batch).unwrap(), records);
    }

    #[test]
    fn uncompressed_both_write_the_same_bytes(records in any_records()) {
        let records = comparable(records);
        prop_assert_eq!(
            ours(&records, Compression::None),
            written_by_them(&records, Compression::None)
        );
    }
}
