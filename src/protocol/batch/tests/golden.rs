//! The bytes of each element, written out by hand from the format.

use super::*;
use crate::types::Offset;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Checksums were computed apart, bit by bit.
const SAMPLE: &str = "
    0000000000000000 00000049 ffffffff 02 909d01d5
    0010 00000001 00000000000003e8 0000000000000428 0000000000000007 0003 00000005 00000002
    10 00 00 00 02 6b 02 76 00
    1c 00 8001 02 01 01 04 02 68 02 78 02 6e 01";

const MARKER: &str = "
    0000000000000000 00000042 ffffffff 02 b2888345
    0030 00000000 0000000000000005 0000000000000005 0000000000000009 0002 ffffffff 00000001
    20 00 00 00 08 0000 0001 0c 0000 00000004 00";

const EMPTY: &str = "
    0000000000000000 00000031 ffffffff 02 9224e82f
    0010 00000001 00000000000003e8 0000000000000428 0000000000000007 0003 00000005 00000000";

fn sample_bytes() -> Vec<u8> {
    hex(SAMPLE)
}

#[test]
fn golden_bytes_of_a_batch() {
    assert_eq!(sample(Compression::None), sample_bytes());
    let batch = parse(sample_bytes());
    batch.check_crc().unwrap();
    let header = batch.header();
    assert_eq!(header.base_offset, Offset(0));
    assert_eq!(header.length_bytes, 73);
    assert_eq!(header.total_bytes(), 85);
    assert_eq!(header.partition_leader_epoch, -1);
    assert_eq!(header.attributes.bits(), 1 << 4);
    assert_eq!(header.base_timestamp, Timestamp(1000));
    assert_eq!(header.max_timestamp, Timestamp(1064));
    assert_eq!(header.producer, identity(7, 3));
    assert_eq!(header.base_sequence, Sequence(5));
    assert_eq!(header.last_sequence(), Sequence(6));
    assert_eq!(header.records_count, 2);
    assert_eq!(header.next_offset(), Offset(2));
    assert_eq!(&header.to_bytes()[..], &sample_bytes()[..HEADER_BYTES]);
    let first = OwnedRecord {
        offset: 0,
        timestamp: 1000,
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        headers: vec![],
    };
    let second = OwnedRecord {
        offset: 1,
        timestamp: 1064,
        key: None,
        value: None,
        headers: vec![("h".into(), Some(b"x".to_vec())), ("n".into(), None)],
    };
    assert_eq!(read(&batch).unwrap(), [first, second]);
}

#[test]
fn golden_bytes_of_a_marker() {
    let record = ControlRecord {
        kind: ControlType::Commit,
        coordinator_epoch: 4,
    };
    let marker = encode_marker(identity(9, 2), record, Timestamp(5));
    let golden = hex(MARKER);
    assert_eq!(marker, golden);
    assert_eq!(marker.len(), MARKER_BYTES);
    let batch = parse(marker);
    batch.check_crc().unwrap();
    assert_eq!(batch.control(), Ok(Some(record)));
    assert_eq!(batch.header().last_sequence(), Sequence::NONE);
}

#[test]
fn golden_bytes_of_an_abort_marker_differ_in_its_type() {
    let marker = |kind| {
        let record = ControlRecord {
            kind,
            coordinator_epoch: 4,
        };
        encode_marker(identity(9, 2), record, Timestamp(5))
    };
    let (abort, commit) = (marker(ControlType::Abort), marker(ControlType::Commit));
    let differing: Vec<usize> = (21..MARKER_BYTES)
        .filter(|&i| abort[i] != commit[i])
        .collect();
    assert_eq!(differing, [61 + 8]);
    assert_eq!((abort[61 + 8], commit[61 + 8]), (0, 1));
}

#[test]
fn golden_bytes_of_a_batch_that_compaction_emptied() {
    let batch = parse(sample(Compression::None));
    let emptied = rewrite(&batch, &DecompressionLimit::default(), None, |_| false).unwrap();
    assert_eq!(emptied, hex(EMPTY));
    let emptied = parse(emptied);
    emptied.check_crc().unwrap();
    assert_eq!(read(&emptied).unwrap(), []);
    assert_eq!(emptied.header().next_offset(), Offset(2));
}

#[test]
fn golden_bits_of_the_attributes() {
    let ids = Compression::ALL.map(|compression| Attributes::new(compression).bits());
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    let plain = Attributes::new(Compression::None);
    assert_eq!(plain.log_append_time().bits(), 8);
    assert_eq!(plain.transactional().bits(), 16);
    assert_eq!(plain.control().bits(), 32);
    assert_eq!(plain.delete_horizon().bits(), 64);
    for compression in Compression::ALL {
        assert_eq!(compression.to_string().parse(), Ok(compression));
        assert_eq!(Compression::from_id(compression.id()), Some(compression));
    }
    assert!("LZ4".parse::<Compression>().is_err());
    assert_eq!(Compression::from_id(5), None);
}

#[test]
fn golden_bytes_of_the_snappy_frame() {
    let frame = xerial::compress(b"abc", BytesMut::new()).unwrap();
    let golden = "82 534e41505059 00 00000001 00000001 00000005 03 08 616263";
    assert_eq!(frame, hex(golden));
    assert_eq!(xerial::decompress(&frame, 100).unwrap(), &b"abc"[..]);
    // Clients other than the Java one write the block alone.
    assert_eq!(
        xerial::decompress(&hex("03 08 616263"), 100).unwrap(),
        &b"abc"[..]
    );
}

#[test]
fn golden_bytes_from_other_compressors_are_read() {
    // Written by the command-line tools gzip, lz4 and zstd.
    let content = b"onceflow onceflow onceflow";
    for (compression, bytes) in [
        (Compression::Gzip, GZIP),
        (Compression::Lz4, LZ4),
        (Compression::Zstd, ZSTD),
    ] {
        let limit = DecompressionLimit::default();
        let out = compression::decompress(compression, hex(bytes).into(), &limit);
        assert_eq!(out.unwrap(), &content[..], "{compression}");
    }
}

const GZIP: &str = "1f8b0800000000000003cbcf4b4e4dcbc92f57c847670000 82f80a3e1a000000";
const LZ4: &str = "04224d186440a712000000986f6e6365666c6f772009005065666c6f77000000005c40fd34";
const ZSTD: &str = "28b52ffd04587d0000486f6e6365666c6f772001009ccb115d9767b8";
