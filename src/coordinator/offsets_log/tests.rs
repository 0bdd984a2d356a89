//! Golden bytes of each record, and hostile bytes.

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn committed() -> CommittedOffset {
    CommittedOffset {
        offset: Offset(42),
        leader_epoch: 3,
        metadata: "m".into(),
    }
}

#[test]
fn the_bytes_of_each_record_are_golden() {
    let group = GroupId::new("g").unwrap();
    let partition = TopicPartition::new(TopicName::new("topic").unwrap(), 7);
    let key = encode_key(&group, &partition);
    assert_eq!(
        hex(&key),
        ["0001", "000167", "0005746f706963", "00000007"].concat()
    );
    assert_eq!(Key::decode(&key), Ok(Key::Offset(group, partition)));
    let value = encode_value(&committed(), Timestamp(1000));
    let expected = [
        "0003",
        "000000000000002a",
        "00000003",
        "00016d",
        "00000000000003e8",
    ];
    assert_eq!(hex(&value), expected.concat());
    assert_eq!(decode_value(&value), Ok((committed(), Timestamp(1000))));
}

#[test]
fn keys_of_members_are_told_apart_and_newer_records_are_refused() {
    assert_eq!(
        Key::decode(&[0, 2, 0, 1, b'g']),
        Ok(Key::Classic(GroupId::new("g").unwrap()))
    );
    assert!(matches!(
        Key::decode(&[0, 9]),
        Err(CoordinatorError::NewerVersion { .. })
    ));
    assert!(matches!(
        decode_value(&[0, 4]),
        Err(CoordinatorError::NewerVersion { .. })
    ));
    let bytes = encode_value(&committed(), Timestamp(1000));
    for length in 0..bytes.len() {
        assert!(
            decode_value(&bytes[..length]).is_err(),
            "{length} bytes were accepted"
        );
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Key::decode(&bytes);
        let _ = decode_value(&bytes);
    }
}
