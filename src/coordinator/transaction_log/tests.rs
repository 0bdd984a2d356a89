//! Golden bytes of each record, round trips, hostile bytes, and what compaction leaves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::coordinator::Now;
use crate::coordinator::transaction::{Config, Found, Input, TransactionCoordinator};

fn identity(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

fn partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), partition)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decision() -> TransactionRecord {
    TransactionRecord {
        producer: identity(7, 3),
        last: Some(identity(7, 2)),
        next_producer_id: ProducerId::NONE,
        timeout_ms: 60_000,
        state: TransactionState::PrepareCommit,
        partitions: [partition("a", 0), partition("a", 1), partition("b", 0)].into(),
        last_update: Timestamp(1000),
        start: Timestamp(900),
        last_commit: Some(identity(7, 2)),
        durable_ends: vec![DurableEnd {
            partition: partition("a", 1),
            topic_id: TopicId(1),
            offset: Offset(42),
        }],
        epochs: EpochAtEnd::Bumped,
        opening: 0,
        holder: Residence::Remote,
    }
}

#[test]
fn the_bytes_of_a_decision_are_golden() {
    let id = TransactionalId::new("job").unwrap();
    assert_eq!(
        hex(&Key::Transaction(id).encode()),
        "00000003".to_owned() + "6a6f62"
    );
    assert_eq!(hex(&Key::ProducerIds.encode()), "2710");
    assert_eq!(
        hex(&encode_producer_ids(ProducerId(1000))),
        "000000000000000003e8"
    );
    let expected = [
        "0001", // version
        "0000000000000007",
        "0003", // producer id and epoch
        "0000ea60",
        "02", // timeout, PrepareCommit
        "03", // two topics
        "0261",
        "03",
        "00000000",
        "00000001",
        "00", // a: 0 and 1
        "0262",
        "02",
        "00000000",
        "00", // b: 0
        "00000000000003e8",
        "0000000000000384", // last update, start
        "04",               // four tagged fields
        "02",
        "02",
        "0002", // client transaction version 2
        "904e",
        "02",
        "0002", // last producer epoch
        "914e",
        "0a",
        "0000000000000007",
        "0002", // last commit
        "924e",
        "20",
        "02",
        "0261",
        "00000000000000000000000000000001",
        "02",
        "00000001",
        "000000000000002a", // durable ends
    ];
    assert_eq!(hex(&decision().encode()), expected.concat());
}

#[test]
fn the_bytes_of_an_empty_transaction_are_golden() {
    let empty = TransactionRecord {
        state: TransactionState::Empty,
        partitions: BTreeSet::new(),
        last: Some(identity(5, 32_766)),
        next_producer_id: ProducerId(9),
        last_commit: None,
        durable_ends: Vec::new(),
        ..decision()
    };
    let expected = [
        "0001",
        "0000000000000007",
        "0003",
        "0000ea60",
        "00",
        "00", // null: no partitions
        "00000000000003e8",
        "0000000000000384",
        "04",
        "00",
        "08",
        "0000000000000005", // previous producer id
        "01",
        "08",
        "0000000000000009", // next producer id
        "02",
        "02",
        "0002",
        "904e",
        "02",
        "7ffe",
    ];
    assert_eq!(hex(&empty.encode()), expected.concat());
    assert_eq!(TransactionRecord::decode(&empty.encode()), Ok(empty));
}

#[test]
fn the_bytes_of_a_holder_are_golden() {
    let record = TransactionRecord {
        state: TransactionState::Empty,
        partitions: BTreeSet::new(),
        last: None,
        last_commit: None,
        durable_ends: Vec::new(),
        ..decision()
    };
    let first = hex(&record.encode());
    assert!(first.ends_with("0102020002"), "one tag: {first}");
    for (opening, holder, content) in [
        (0, Residence::Embedded, "0000000001"),
        (258, Residence::Remote, "0000010200"),
        (258, Residence::Embedded, "0000010201"),
    ] {
        let held = TransactionRecord {
            opening,
            holder,
            ..record.clone()
        };
        let tags_at = first.len() - "0102020002".len();
        let expected = first[..tags_at].to_owned() + "02020200" + "02934e05" + content;
        assert_eq!(hex(&held.encode()), expected);
        assert_eq!(TransactionRecord::decode(&held.encode()), Ok(held));
    }
}

#[test]
fn durable_ends_are_found_in_decisions_only() {
    let id = TransactionalId::new("job").unwrap();
    let key = Key::Transaction(id).encode();
    let record = decision();
    let ends = durable_ends(&key, Some(&record.encode())).unwrap();
    assert_eq!(ends, record.durable_ends);
    assert_eq!(durable_ends(&key, None), Ok(vec![]));
    let ids = encode_producer_ids(ProducerId(5));
    assert_eq!(
        durable_ends(&Key::ProducerIds.encode(), Some(&ids)),
        Ok(vec![])
    );
}

#[test]
fn newer_records_are_refused_and_unknown_tags_are_passed_over() {
    let newer = CoordinatorError::NewerVersion {
        journal: TRANSACTION_STATE_TOPIC,
        version: 2,
        newest: 1,
    };
    assert_eq!(TransactionRecord::decode(&[0, 2]), Err(newer));
    assert!(matches!(
        Key::decode(&[0, 1, 0, 0]),
        Err(CoordinatorError::NewerVersion { .. })
    ));
    let record = TransactionRecord {
        last_commit: None,
        durable_ends: vec![],
        last: None,
        ..decision()
    };
    let mut bytes = record.encode().to_vec();
    let tags_at = bytes.len() - 5;
    bytes[tags_at] = 2;
    bytes.extend([0x03, 0x02, 0xff, 0xff]);
    assert_eq!(TransactionRecord::decode(&bytes), Ok(record));
}

#[test]
fn every_prefix_of_a_record_is_refused() {
    let bytes = decision().encode();
    for length in 0..bytes.len() {
        assert!(
            TransactionRecord::decode(&bytes[..length]).is_err(),
            "{length} bytes were accepted"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(TransactionRecord::decode(&longer).is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_are_never_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
        let _ = Key::decode(&bytes);
        let _ = TransactionRecord::decode(&bytes);
        let mut valid = decision().encode().to_vec();
        let at = cut.min(valid.len());
        valid.splice(at.., bytes);
        let _ = TransactionRecord::decode(&valid);
    }

    /// C25: a later record of a key says all that an earlier one said and that still matters.
    #[test]
    fn c25_a_journal_without_superseded_records_replays_to_the_same_state(
        records in prop::collection::vec((0u8..3, 0i8..6, 0i16..100), 1..20),
        drops in prop::collection::vec(any::<bool>(), 20),
    ) {
        let journal: Vec<_> = records.iter().map(|(id, state, epoch)| {
            let state = state_from(*state).unwrap();
            let mut record = TransactionRecord { state, producer: identity(i64::from(*id), *epoch), ..decision() };
            if state == TransactionState::Empty {
                record.partitions.clear();
            }
            let key = Key::Transaction(TransactionalId::new(&format!("id-{id}")).unwrap()).encode();
            // Now and then a tombstone.
            (key, (*epoch % 7 != 0).then(|| record.encode()))
        }).collect();
        let compacted: Vec<_> = journal.iter().enumerate().filter(|(at, (key, _))| {
            let is_superseded = journal[at + 1..].iter().any(|(later, _)| later == key);
            !(is_superseded && drops[*at])
        }).map(|(_, record)| record.clone()).collect();
        prop_assert_eq!(replayed(&journal), replayed(&compacted));
    }
}

/// Replays; returns the coordinator's state, and its effects.
fn replayed(journal: &[(Bytes, Option<Bytes>)]) -> (BTreeMap<String, String>, usize) {
    let mut coordinator = TransactionCoordinator::new(Config::default());
    for (key, value) in journal {
        coordinator
            .replay(key, value.as_deref(), Now::default())
            .unwrap();
    }
    let known = coordinator
        .list()
        .map(|it| (it.transactional_id.to_string(), format!("{it:?}")))
        .collect();
    let effects = coordinator.step(Input::ReplayDone(Found::default()), Now::default());
    (known, effects.len())
}
