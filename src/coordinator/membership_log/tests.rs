//! Golden bytes of a group's record, and hostile bytes.

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record() -> ClassicRecord {
    ClassicRecord {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_since: Timestamp(1000),
        members: vec![ClassicMemberRecord {
            member_id: "m".into(),
            instance_id: None,
            client: ClientIdentity {
                client_id: "c".into(),
                client_host: "/h".into(),
            },
            rebalance_timeout: Duration::from_millis(300),
            session_timeout: Duration::from_millis(100),
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"as"),
        }],
    }
}

#[test]
fn the_bytes_of_a_classic_group_are_golden() {
    let group = GroupId::new("g").unwrap();
    assert_eq!(hex(&classic_key(&group)), "0002000167");
    let expected = [
        "0003",
        "0008636f6e73756d6572",
        "00000003",
        "000572616e6765",
        "00016d",
        "00000000000003e8",
        "00000001",
        "00016d",
        "ffff",
        "000163",
        "00022f68",
        "0000012c",
        "00000064",
        "0000000173",
        "000000026173",
    ];
    let bytes = record().encode();
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(ClassicRecord::decode(&bytes), Ok(record()));
}

#[test]
fn older_versions_are_read_and_newer_ones_refused() {
    // Version 0: no time, no instance id, one timeout.
    let old = [
        "0000",
        "0008636f6e73756d6572",
        "00000003",
        "000572616e6765",
        "00016d",
        "00000001",
        "00016d",
        "000163",
        "00022f68",
        "00000064",
        "0000000173",
        "000000026173",
    ];
    let old = old.concat();
    let bytes: Vec<u8> = (0..old.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&old[at..at + 2], 16).unwrap())
        .collect();
    let mut expected = record();
    expected.state_since = Timestamp::NONE;
    expected.members[0].rebalance_timeout = Duration::from_millis(100);
    assert_eq!(ClassicRecord::decode(&bytes), Ok(expected));
    let newer = ClassicRecord::decode(&[0, 4]);
    assert!(matches!(newer, Err(CoordinatorError::NewerVersion { .. })));
}

#[test]
fn every_prefix_of_a_record_is_refused() {
    let bytes = record().encode();
    for end in 0..bytes.len() {
        assert!(ClassicRecord::decode(&bytes[..end]).is_err());
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClassicRecord::decode(&bytes);
        let _ = subscribed_topics(&bytes);
        let after_version = [&[0, 3, 0, 0, 0, 0, 0, 0], &bytes[..]].concat();
        let _ = ClassicRecord::decode(&after_version);
    }
}
