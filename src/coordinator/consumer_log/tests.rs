//! Golden bytes of each record, and hostile bytes.

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assignment() -> Assignment {
    [(TopicId(1), [0, 2].into())].into()
}

fn member() -> MemberRecord {
    MemberRecord {
        instance_id: None,
        rack_id: Some("r".into()),
        client: ClientIdentity {
            client_id: "c".into(),
            client_host: "/h".into(),
        },
        subscribed_topic_names: [TopicName::new("t").unwrap()].into(),
        subscribed_topic_regex: None,
        rebalance_timeout: Duration::from_millis(300),
        server_assignor: Some("range".into()),
    }
}

fn current() -> CurrentRecord {
    CurrentRecord {
        epoch: 3,
        previous_epoch: 2,
        state: MemberState::UnrevokedPartitions,
        assigned: assignment(),
        revoking: Assignment::new(),
    }
}

const TOPIC: &str = "00000000000000000000000000000001";

#[test]
fn the_bytes_of_each_record_are_golden() {
    let group = GroupId::new("g").unwrap();
    let keys = [
        (ConsumerKey::Group, "0003000167"),
        (ConsumerKey::Topics, "0004000167"),
        (ConsumerKey::Member("m".into()), "000500016700016d"),
        (ConsumerKey::Target, "0006000167"),
        (ConsumerKey::TargetMember("m".into()), "000700016700016d"),
        (ConsumerKey::Current("m".into()), "000800016700016d"),
        (
            ConsumerKey::Expression("t.*".into()),
            "00100001670003742e2a",
        ),
    ];
    for (key, expected) in keys {
        assert_eq!(hex(&key.encode(&group)), expected);
    }
    let record = GroupRecord {
        epoch: 3,
        metadata_hash: -1,
    };
    assert_eq!(
        hex(&record.encode()),
        "0000000000030100 08ffffffffffffffff".replace(' ', "")
    );
    assert_eq!(GroupRecord::decode(&record.encode()), Ok(record));
    let expected = [
        "0000",
        "00",
        "0272",
        "0263",
        "032f68",
        "020274",
        "00",
        "0000012c",
        "0672616e6765",
        "00",
    ];
    assert_eq!(hex(&member().encode()), expected.concat());
    assert_eq!(MemberRecord::decode(&member().encode()), Ok(member()));
    assert_eq!(hex(&put_assignment_epoch(3)), "00000000000300");
    assert_eq!(assignment_epoch(&put_assignment_epoch(3)), Ok(3));
    let partitions = ["02", TOPIC, "03", "00000000", "00000002", "00"].concat();
    let target = TargetRecord(assignment());
    assert_eq!(hex(&target.encode()), ["0000", &partitions, "00"].concat());
    assert_eq!(TargetRecord::decode(&target.encode()), Ok(target));
    let expected = [
        "0000",
        "00000003",
        "00000002",
        "01",
        &partitions,
        "01",
        "00",
    ];
    assert_eq!(hex(&current().encode()), expected.concat());
    assert_eq!(CurrentRecord::decode(&current().encode()), Ok(current()));
    let named = ExpressionRecord([TopicName::new("t").unwrap()].into());
    let expected = format!("0000020274{}00", "00".repeat(16));
    assert_eq!(hex(&named.encode()), expected);
    assert_eq!(ExpressionRecord::decode(&named.encode()), Ok(named));
}

#[test]
fn every_prefix_of_a_record_is_refused() {
    let (member, current) = (member().encode(), current().encode());
    for end in 0..member.len() {
        assert!(MemberRecord::decode(&member[..end]).is_err());
    }
    for end in 0..current.len() {
        assert!(CurrentRecord::decode(&current[..end]).is_err());
    }
}

#[test]
fn newer_versions_and_unknown_states_are_refused() {
    let newer = TargetRecord::decode(&[0, 1, 1, 0]);
    assert!(matches!(newer, Err(CoordinatorError::NewerVersion { .. })));
    let mut bytes = current().encode().to_vec();
    bytes[10] = 3;
    assert!(CurrentRecord::decode(&bytes).is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&[0, 0], &bytes[..]].concat();
        let _ = GroupRecord::decode(&bytes);
        let _ = MemberRecord::decode(&bytes);
        let _ = TargetRecord::decode(&bytes);
        let _ = CurrentRecord::decode(&bytes);
        let _ = ExpressionRecord::decode(&bytes);
        let _ = assignment_epoch(&bytes);
    }
}
