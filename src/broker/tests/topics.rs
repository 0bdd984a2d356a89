//! Topics: created, grown, changed and deleted, wholly or not at all.

use std::collections::BTreeMap;
use std::fs;

use super::support::{
    Home, Producer, committed, create, create_with, eventually, group, open_simulated, partition,
    position, produce, read, read_committed, topic_name, try_open_simulated,
};
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{NewTopic, OffsetCommitRequest};
use crate::types::Isolation;

fn names(broker: &crate::broker::Broker) -> Vec<String> {
    let topics = broker.topics().unwrap();
    topics
        .iter()
        .filter(|topic| !topic.is_internal)
        .map(|topic| format!("{}x{}", topic.name, topic.partitions_count))
        .collect()
}

#[test]
fn topics_and_their_settings_survive_a_reopening() {
    let home = Home::new();
    let broker = home.open();
    create_with(&broker, "lines", 2, &[("retention.ms", "5000")]);
    create(&broker, "words", 1);
    let id = broker.topic(&topic_name("lines")).unwrap().unwrap().id;
    broker.create_partitions(&topic_name("words"), 3).unwrap();
    let changes = BTreeMap::from([
        ("retention.ms".to_owned(), None),
        ("segment.bytes".to_owned(), Some("4096".to_owned())),
    ]);
    broker
        .alter_configs(&topic_name("lines"), &changes)
        .unwrap();
    for clean in [true, false] {
        let broker = if clean {
            broker.close().unwrap();
            home.open()
        } else {
            home.open()
        };
        assert_eq!(names(&broker), ["linesx2", "wordsx3"]);
        assert_eq!(broker.topic(&topic_name("lines")).unwrap().unwrap().id, id);
        let configs = broker.describe_configs(&topic_name("lines")).unwrap();
        let value = |name: &str| {
            configs
                .iter()
                .find(|c| c.name == name)
                .unwrap()
                .value
                .clone()
        };
        assert_eq!(value("segment.bytes"), "4096");
        assert_eq!(value("retention.ms"), "604800000");
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_code() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 2);
    let new = |name: &str, partitions_count| NewTopic {
        name: topic_name(name),
        partitions_count,
        configs: BTreeMap::new(),
    };
    let code = |name, count| broker.create_topic(&new(name, count)).unwrap_err().code;
    assert_eq!(code("lines", 1), ErrorCode::TopicAlreadyExists);
    assert_eq!(code("words", 0), ErrorCode::InvalidPartitions);
    assert_eq!(code("words", 100_001), ErrorCode::InvalidPartitions);
    assert_eq!(
        code("__consumer_offsets", 1),
        ErrorCode::InvalidTopicException
    );
    let fewer = broker.create_partitions(&topic_name("lines"), 2);
    assert_eq!(fewer.unwrap_err().code, ErrorCode::InvalidPartitions);
    let absent = broker.delete_topic(&topic_name("nothing")).unwrap_err();
    assert_eq!(absent.code, ErrorCode::UnknownTopicOrPartition);
    let internal = broker.delete_topic(&topic_name("__transaction_state"));
    assert_eq!(internal.unwrap_err().code, ErrorCode::InvalidTopicException);
    assert_eq!(names(&broker), ["linesx2"]);
}

#[test]
fn the_longest_name_has_room_for_its_directories() {
    let home = Home::new();
    let broker = home.open();
    let name = "x".repeat(249);
    create(&broker, &name, 2);
    produce(&broker, &partition(&name, 1), &["a"]);
    broker.delete_topic(&topic_name(&name)).unwrap();
    assert!(names(&broker).is_empty());
}

#[test]
fn a_deleted_topic_takes_its_records_and_positions_along() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    let lines = partition("lines", 0);
    produce(&broker, &lines, &["a", "b"]);
    let commit = OffsetCommitRequest {
        group: group("readers"),
        member: Default::default(),
        offsets: vec![(lines.clone(), position(2))],
    };
    crate::env::block_on(broker.offset_commit(commit)).unwrap();
    assert_eq!(committed(&broker, "readers", &lines), Some(2));
    let id = broker.topic(&topic_name("lines")).unwrap().unwrap().id;
    broker.housekeep();
    broker.delete_topic(&topic_name("lines")).unwrap();
    assert!(broker.topic(&topic_name("lines")).unwrap().is_none());
    let left: Vec<_> = fs::read_dir(home.path().join("log")).unwrap().collect();
    let is_of_topic = |name: &std::ffi::OsStr| name.to_string_lossy().contains("lines");
    assert!(
        !left
            .iter()
            .any(|entry| is_of_topic(&entry.as_ref().unwrap().file_name()))
    );
    eventually("the positions are gone", || {
        committed(&broker, "readers", &lines).is_none()
    });

    // The next topic of that name is another one, also after a crash: the old durable mark means nothing to it.
    create(&broker, "lines", 1);
    assert_ne!(broker.topic(&topic_name("lines")).unwrap().unwrap().id, id);
    drop(broker);
    let broker = home.open();
    assert!(read_committed(&broker, "lines").is_empty());
    assert_eq!(produce(&broker, &lines, &["new"]).0, 0);
}

#[test]
fn a_transaction_outlives_the_deletion_of_one_of_its_topics() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "kept", 1);
    create(&broker, "doomed", 1);
    let mut producer = Producer::new(&broker, "p");
    producer.send(&partition("kept", 0), &["k"]);
    producer.send(&partition("doomed", 0), &["d"]);
    broker.delete_topic(&topic_name("doomed")).unwrap();
    producer.commit();
    assert_eq!(read_committed(&broker, "kept"), ["k"]);
    drop(broker);
    drop(producer);
    assert_eq!(read_committed(&home.open(), "kept"), ["k"]);
}

/// Creation, growth and deletion, cut short by a power loss after every single operation on files: the topic is there
/// wholly or not at all, and the directory can always be worked with.
#[test]
fn f10_topics_exist_wholly_or_not_at_all_after_a_power_loss_at_any_step() {
    let script = |broker: &crate::broker::Broker| -> Result<(), crate::broker::BrokerError> {
        broker.create_topic(&NewTopic {
            name: topic_name("lines"),
            partitions_count: 2,
            configs: BTreeMap::new(),
        })?;
        broker.create_partitions(&topic_name("lines"), 4)?;
        broker.delete_topic(&topic_name("lines"))?;
        Ok(())
    };
    for step in 0.. {
        let world = SimulatedWorld::new(step);
        let broker = open_simulated(&world);
        world.power_off_after(step);
        let finished = script(&broker).is_ok();
        drop(broker);
        for loss in PowerLoss::every_mode(step).step_by(3) {
            let after = world.after_power_loss(loss);
            let broker =
                try_open_simulated(&after).unwrap_or_else(|e| panic!("step {step}, {loss:?}: {e}"));
            let found = names(&broker);
            let allowed: &[&[&str]] = &[&[], &["linesx2"], &["linesx4"]];
            assert!(
                allowed.iter().any(|a| found == **a),
                "step {step}, {loss:?}: {found:?}"
            );
            for topic in broker.topics().unwrap() {
                for partition in broker.describe_partitions(&topic.name).unwrap() {
                    assert_eq!(partition.offline, None, "step {step}, {loss:?}");
                }
            }
            let _ = broker.delete_topic(&topic_name("lines"));
            create(&broker, "lines", 1);
            produce(&broker, &partition("lines", 0), &["again"]);
            let seen = read(&broker, &partition("lines", 0), Isolation::ReadCommitted);
            assert_eq!(seen, ["again"], "step {step}, {loss:?}");
        }
        if finished {
            assert!(step > 20, "the script was over after {step} operations");
            return;
        }
    }
}
