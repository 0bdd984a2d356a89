//! Attacks by record batches.

use bytes::Bytes;
use onceflow::client::Compression;

use super::{Target, batch, compressed};

/// Where the fields of a batch stand.
const BATCH_LENGTH: usize = 8;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const RECORDS_COUNT: usize = 57;

/// A batch with `bytes` written over it at `position`, its checksum made right again.
fn forged(position: usize, bytes: &[u8]) -> Bytes {
    let mut forged = batch(&[b"one", b"two"]).to_vec();
    forged[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&forged[ATTRIBUTES..]);
    if position != CRC {
        forged[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    }
    forged.into()
}

/// Every one of the batches is refused, and nothing of them can be read.
fn refuses(batches: Vec<(&str, Bytes)>) {
    let target = Target::start();
    let mut client = target.connect();
    assert_eq!(client.create_topic("attacked"), 0);
    for (what, records) in batches {
        let mut client = target.connect();
        let code = client.produce("attacked", records);
        assert_ne!(code, 0, "{what} was taken");
        assert_ne!(code, -1, "{what}: a refusal has a code of its own");
    }
    let fetched = client.fetch("attacked", 0);
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!(
        (partition.high_watermark, partition.records.is_empty()),
        (0, true)
    );
    target.assert_unharmed();
}

#[test]
fn batch_with_a_wrong_checksum() {
    refuses(vec![("a wrong checksum", forged(CRC, &[1, 2, 3, 4]))]);
}

#[test]
fn batch_of_another_format() {
    refuses(vec![
        ("format 0", forged(MAGIC, &[0])),
        ("format 1", forged(MAGIC, &[1])),
        ("format 3", forged(MAGIC, &[3])),
    ]);
}

#[test]
fn control_batch_from_a_client() {
    refuses(vec![
        (
            "a control batch",
            forged(ATTRIBUTES, &0x20i16.to_be_bytes()),
        ),
        (
            "a transactional control batch",
            forged(ATTRIBUTES, &0x30i16.to_be_bytes()),
        ),
    ]);
}

#[test]
fn transactional_batch_without_a_transaction() {
    refuses(vec![(
        "a transactional batch",
        forged(ATTRIBUTES, &0x10i16.to_be_bytes()),
    )]);
}

#[test]
fn batch_that_lies_about_its_records() {
    refuses(vec![
        (
            "two billion records",
            forged(RECORDS_COUNT, &i32::MAX.to_be_bytes()),
        ),
        ("no records", forged(RECORDS_COUNT, &0i32.to_be_bytes())),
        (
            "minus one record",
            forged(RECORDS_COUNT, &(-1i32).to_be_bytes()),
        ),
        (
            "offsets to two billion",
            forged(LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes()),
        ),
        (
            "an unknown compression",
            forged(ATTRIBUTES, &7i16.to_be_bytes()),
        ),
    ]);
}

#[test]
fn batch_that_lies_about_its_length() {
    refuses(vec![
        (
            "two billion bytes",
            forged(BATCH_LENGTH, &i32::MAX.to_be_bytes()),
        ),
        ("one byte", forged(BATCH_LENGTH, &1i32.to_be_bytes())),
        (
            "minus one byte",
            forged(BATCH_LENGTH, &(-1i32).to_be_bytes()),
        ),
        ("nothing at all", Bytes::new()),
        ("half a header", batch(&[b"x"]).slice(..30)),
    ]);
}

#[test]
fn batch_larger_than_the_topic_takes() {
    let large = vec![b'x'; 2 << 20];
    refuses(vec![("two mebibytes", batch(&[&large]))]);
}

#[test]
fn compressed_bombs() {
    let target = Target::start();
    let zeros = vec![0; 16 << 20];
    let values: Vec<&[u8]> = vec![&zeros; 4];
    for compression in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let bomb = compressed(&values, compression);
        let mut client = target.connect();
        assert_eq!(client.create_topic("bombs"), 0);
        // Small enough or not, taken or refused: it is not blown up here.
        client.produce("bombs", bomb);
    }
    let fetched = target.connect().fetch("bombs", 0);
    assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
    target.assert_unharmed();
}

#[test]
fn records_that_are_no_records() {
    let mut garbage = batch(&[&[b'x'; 100]]).to_vec();
    let end = garbage.len();
    garbage[end - 100..].fill(0xFF);
    garbage[61..66].fill(0xFF);
    let crc = crc32c::crc32c(&garbage[ATTRIBUTES..]);
    garbage[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    let target = Target::start();
    let mut client = target.connect();
    assert_eq!(client.create_topic("garbage"), 0);
    client.produce("garbage", garbage.into());
    client.fetch("garbage", 0);
    target.assert_unharmed();
}
