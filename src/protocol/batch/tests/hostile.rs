//! Damaged, truncated and malicious bytes: refused or harmless, never a panic and never too much memory.

use proptest::collection::vec;
use proptest::prelude::*;

use super::round_trip::any_compression;
use super::*;
use crate::protocol::ErrorKind;
use crate::types::Offset;

const LIMIT: DecompressionLimit = DecompressionLimit {
    output_bytes_max: 64 << 20,
    ratio_max: 1000,
    ratio_free_bytes: 1 << 20,
};

/// Reads everything there is to read, as a careless reader would: without a look at the checksum.
fn read_carelessly(bytes: Bytes) -> Result<usize, BatchError> {
    let batch = Batch::parse(bytes)?;
    batch.control()?;
    check_client_records(&batch, &LIMIT, &RecordRules::default())?;
    rewrite(&batch, &LIMIT, Some(Timestamp(1)), |_| true)?;
    let records = read(&batch).expect("what the log's check takes can be read");
    Ok(records.len())
}

#[test]
fn the_default_limit_is_64_mib_and_a_thousandfold_above_1_mib() {
    assert_eq!(DecompressionLimit::default(), LIMIT);
    assert_eq!(LIMIT.ceiling_bytes(0), 1 << 20);
    assert_eq!(LIMIT.ceiling_bytes(2000), 2_000_000);
    assert_eq!(LIMIT.ceiling_bytes(1 << 20), 64 << 20);
    assert_eq!(LIMIT.ceiling_bytes(usize::MAX), 64 << 20);
}

#[test]
fn f7_every_truncation_is_refused() {
    for compression in Compression::ALL {
        let whole = sample(compression).freeze();
        for length in 0..whole.len() {
            let cut = whole.slice(..length);
            let need_bytes = match length {
                ..HEADER_BYTES => HEADER_BYTES,
                _ => whole.len(),
            };
            let have_bytes = length;
            let error = Batch::parse(cut.clone()).unwrap_err();
            assert_eq!(
                error,
                BatchError::TooShort {
                    need_bytes,
                    have_bytes
                }
            );
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let mut batches = Batches::new(cut.clone());
            assert!(batches.next().is_none());
            assert_eq!(batches.rest(), &cut);
        }
    }
}

#[test]
fn f7_every_bit_flip_is_refused_or_harmless() {
    for compression in Compression::ALL {
        let whole = sample(compression);
        let records = read(&parse(whole.clone())).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let checked = Batch::parse(flipped.freeze());
            let Ok(batch) = checked.and_then(|batch| batch.check_crc().map(|()| batch)) else {
                continue;
            };
            // Only what the log itself stamps is outside the checksum: base offset and leader epoch.
            assert!(matches!(bit / 8, 0..8 | 12..16), "bit {bit} is unnoticed");
            let base = batch.header().base_offset.0;
            let mut moved = read(&batch).unwrap();
            moved.iter_mut().for_each(|record| record.offset -= base);
            assert_eq!(moved, records);
        }
    }
}

#[test]
fn every_bit_flip_under_a_valid_checksum_is_read_or_refused() {
    for compression in Compression::ALL {
        let whole = sample(compression);
        for bit in HEADER_BYTES * 8..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let header = Header::parse(&whole).unwrap();
            header.seal(&mut flipped);
            if let Ok(count) = read_carelessly(flipped.freeze()) {
                assert_eq!(count, 2, "bit {bit}");
            }
        }
    }
}

#[test]
fn zeros_are_no_batch() {
    assert_eq!(
        Header::parse(&[0; 4096]),
        Err(BatchError::BadMagic { found: 0 })
    );
    assert!(matches!(
        Batches::new(Bytes::from_static(&[0; 4096])).next(),
        Some(Err(_))
    ));
}

/// The sample's header after `change`, parsed again.
fn changed(change: impl Fn(&mut Header)) -> Result<Header, BatchError> {
    let mut header = Header::parse(&sample(Compression::None)).unwrap();
    change(&mut header);
    Header::parse(&header.to_bytes())
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    assert!(changed(|_| ()).is_ok());
    for length_bytes in [-1, 0, 48, i32::MIN] {
        let refused = changed(|header| header.length_bytes = length_bytes);
        assert_eq!(refused, Err(BatchError::BadLength { length_bytes }));
    }
    let changes: [&dyn Fn(&mut Header); 6] = [
        &|header| header.base_offset = Offset(-1),
        &|header| header.base_offset = Offset(i64::MAX - 1),
        &|header| header.last_offset_delta = -1,
        &|header| header.records_count = -1,
        &|header| header.records_count = 3,
        &|header| header.records_count = i32::MAX,
    ];
    for change in changes {
        assert!(matches!(changed(change), Err(BatchError::BadHeader { .. })));
    }
    for id in 5u8..8 {
        let mut head = Header::parse(&sample(Compression::None))
            .unwrap()
            .to_bytes();
        head[22] |= id;
        assert_eq!(
            Header::parse(&head),
            Err(BatchError::UnknownCompression { id })
        );
    }
    for found in [-1i8, 0, 1, 3] {
        let mut head = sample(Compression::None);
        head[16] = found.to_be_bytes()[0];
        assert_eq!(Header::parse(&head), Err(BatchError::BadMagic { found }));
    }
}

#[test]
fn a_bad_batch_ends_the_iteration_with_its_error() {
    let mut bytes = sample(Compression::None);
    let good = bytes.len();
    bytes.extend_from_slice(&sample(Compression::None));
    bytes[good + 16] = 1;
    let mut batches = Batches::new(bytes.freeze());
    assert!(batches.next().unwrap().is_ok());
    assert_eq!(
        batches.next().unwrap().unwrap_err(),
        BatchError::BadMagic { found: 1 }
    );
    assert!(batches.next().is_none());
    assert_eq!(batches.rest().len(), good);
}

fn why(count: i32, records: &[u8]) -> (i32, &'static str) {
    let mut header = Header::parse(&sample(Compression::None)).unwrap();
    header.records_count = count;
    match read(&parse(with_records(header, records))) {
        Err(BatchError::BadRecord { index, why }) => (index, why),
        other => panic!("not refused as a bad record: {other:?}"),
    }
}

#[test]
fn malformed_records_are_refused_with_their_place() {
    let good: &[u8] = &[14, 0, 0, 0, 1, 2, b'v', 0];
    let one = |record: &[u8]| why(1, &[record, &[0; 8]].concat());
    let in_body = |body: &[u8]| {
        let length = u8::try_from(body.len() * 2).unwrap();
        let padded = [&[length], body].concat();
        why(
            1,
            &[&padded[..], &vec![0; 8usize.saturating_sub(padded.len())]].concat(),
        )
        .1
    };
    assert_eq!(
        one(&[0xff; 8]),
        (0, "its length is not valid, or past the end")
    );
    assert_eq!(one(&[1]).1, "its length is not valid, or past the end");
    assert_eq!(one(&[100]).1, "its length is not valid, or past the end");
    assert_eq!(in_body(&[]), "it has no attributes");
    assert_eq!(in_body(&[0]), "its timestamp is not valid");
    assert_eq!(in_body(&[0, 0x80, 0x00]), "its timestamp is not valid");
    assert_eq!(in_body(&[0, 0]), "its offset is not valid");
    assert_eq!(in_body(&[0, 0, 0]), "its key's length is not valid");
    assert_eq!(in_body(&[0, 0, 0, 3]), "its key's length is not valid");
    assert_eq!(
        in_body(&[0, 0, 0, 1, 20]),
        "its value's length is not valid"
    );
    assert_eq!(in_body(&[0, 0, 0, 1, 1]), "its headers' count is not valid");
    assert_eq!(
        in_body(&[0, 0, 0, 1, 1, 1]),
        "it has a negative count of headers"
    );
    assert_eq!(
        in_body(&[0, 0, 0, 1, 1, 2]),
        "it has more headers than bytes for them"
    );
    assert_eq!(
        in_body(&[0, 0, 0, 1, 1, 0, 9]),
        "bytes follow its last header"
    );
    assert_eq!(
        in_body(&[0, 0, 0, 1, 1, 2, 1, 1]),
        "one of its headers is not valid"
    );
    assert_eq!(in_body(&[0, 0, 1, 1, 1, 0]), "its offset is out of order");
    assert_eq!(in_body(&[0, 0, 4, 1, 1, 0]), "its offset is out of order");

    let twice = [good, good].concat();
    assert_eq!(why(2, &twice), (1, "its offset is out of order"));
    assert_eq!(why(1, &twice), (1, "bytes follow the last record"));
    assert_eq!(
        why(2, &[good, &[16, 0]].concat()).1,
        "the batch is too short for its count of records"
    );
    assert_eq!(why(0, good), (0, "bytes follow the last record"));
}

#[test]
fn s15_a_count_of_two_billion_headers_takes_no_memory() {
    let count = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let record = [&[20, 0, 0, 0, 1, 1][..], &count].concat();
    assert_eq!(why(1, &record).1, "it has more headers than bytes for them");
}

#[test]
fn decompression_bombs_are_refused_for_each_compression() {
    // A hundredfold and more, past 64 MiB; and a thousandfold and more, past 1 MiB.
    for (compression, content_bytes) in [
        (Compression::Gzip, 65 << 20),
        (Compression::Snappy, 65 << 20),
        (Compression::Lz4, 65 << 20),
        (Compression::Zstd, 65 << 20),
        (Compression::Gzip, 10 << 20),
        (Compression::Zstd, 10 << 20),
    ] {
        let bomb = compression::compress(compression, None, 0, &vec![0; content_bytes]).unwrap();
        let ceiling = LIMIT.ceiling_bytes(bomb.len());
        if ceiling >= content_bytes {
            // gzip stays just below a thousandfold.
            assert_eq!(compression, Compression::Gzip);
            continue;
        }
        let refused = compression::decompress(compression, bomb.freeze(), &LIMIT);
        let expected = BatchError::TooLarge {
            limit_bytes: ceiling,
        };
        assert_eq!(refused, Err(expected), "{compression} {content_bytes}");
    }
}

#[test]
fn declared_sizes_are_not_believed() {
    // A Snappy block that declares 60 MiB, alone and in a frame, and more than the limit.
    let block = [0x80, 0x80, 0x80, 0x1e, 0x08, b'a', b'b', b'c'];
    let framed = [
        &b"\x82SNAPPY\0"[..],
        &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8],
        &block,
    ]
    .concat();
    let limit = DecompressionLimit {
        ratio_max: usize::MAX,
        ..LIMIT
    };
    for bytes in [block.to_vec(), framed.clone()] {
        let refused = compression::decompress(Compression::Snappy, bytes.clone().into(), &limit);
        assert!(
            matches!(refused, Err(BatchError::Decompression { .. })),
            "{refused:?}"
        );
        let refused = compression::decompress(Compression::Snappy, bytes.into(), &LIMIT);
        assert!(
            matches!(refused, Err(BatchError::TooLarge { .. })),
            "{refused:?}"
        );
    }
    // A zstd frame with a window of 1 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00];
    let refused = compression::decompress(Compression::Zstd, window.to_vec().into(), &LIMIT);
    assert!(
        matches!(refused, Err(BatchError::Decompression { .. })),
        "{refused:?}"
    );
    // A Snappy frame whose block is longer than the frame, or negative.
    for length in [i32::MAX, 9, -1] {
        let mut bytes = framed.clone();
        bytes[16..20].copy_from_slice(&length.to_be_bytes());
        let refused = compression::decompress(Compression::Snappy, bytes.into(), &limit);
        assert!(
            matches!(refused, Err(BatchError::Decompression { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn bytes_behind_the_compressed_records_are_refused() {
    for compression in Compression::ALL {
        let header = Header::parse(&sample(compression)).unwrap();
        let records = [&sample(compression)[HEADER_BYTES..], b"more"].concat();
        assert_eq!(
            read(&parse(with_records(header, &records))).is_ok(),
            compression == Compression::Gzip,
            "{compression}"
        );
    }
}

#[test]
fn x14_gzip_members_are_read_one_after_the_other_and_what_is_none_is_left_alone() {
    let limit = DecompressionLimit::default();
    let member = |content: &[u8]| compression::compress(Compression::Gzip, None, 0, content);
    let (a, b) = (member(b"first").unwrap(), member(b"second").unwrap());
    for (tail, expected) in [
        (&b""[..], &b"first"[..]),
        (&b"\x1f\x8b\x08\0 too short for one"[..18], b"first"),
        (&[0; 100], b"first"),
        (&b, b"firstsecond"),
        (&[&b[..], &[7; 40]].concat(), b"firstsecond"),
    ] {
        let bytes = [&a[..], tail].concat();
        let read = compression::decompress(Compression::Gzip, bytes.into(), &limit);
        assert_eq!(&read.unwrap()[..], expected);
    }
    // A member that begins, and is damaged.
    let bytes = [&a[..], &b[..b.len() - 1]].concat();
    assert!(compression::decompress(Compression::Gzip, bytes.into(), &limit).is_err());
}

#[test]
fn x2_compressed_records_without_their_end_are_refused() {
    let limit = DecompressionLimit::default();
    for compression in &Compression::ALL[1..] {
        let whole = compression::compress(*compression, None, 0, b"some records").unwrap();
        for missing in 1..whole.len() {
            let cut = whole.clone().freeze().slice(..whole.len() - missing);
            let read = compression::decompress(*compression, cut, &limit);
            // Framed Snappy ends where a block does: nothing shows that its only block is missing.
            let is_empty = read.as_ref().is_ok_and(|it| it.is_empty());
            let is_unseen = *compression == Compression::Snappy && is_empty;
            assert!(
                read.is_err() || is_unseen,
                "{compression}: {missing} are missing"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(read_carelessly(bytes.clone().into()).is_err());
        prop_assert!(Batches::new(bytes.into()).filter(Result::is_ok).count() == 0);
    }

    #[test]
    fn arbitrary_records_under_a_valid_header_never_panic(
        records in vec(prop_oneof![0u8..24, any::<u8>()], 0..120),
        compression in any_compression(),
        is_control: bool,
        records_count in 0i32..4,
    ) {
        let mut header = Header::parse(&sample(compression)).unwrap();
        header.records_count = records_count;
        header.last_offset_delta = 3;
        if is_control {
            header.attributes = header.attributes.control();
        }
        // Raw, and well compressed.
        let _ = read_carelessly(with_records(header, &records).freeze());
        let records = compression::compress(compression, None, 0, &records).unwrap();
        let _ = read_carelessly(with_records(header, &records).freeze());
    }
}
