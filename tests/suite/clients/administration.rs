//! `Admin` end to end.

use super::*;
use onceflow::client::ErrorCode;
use onceflow::internals::protocol::messages::{OffsetSpec, TransactionState};
use onceflow::types::TopicName;

pub(super) fn topics_are_created_described_altered_grown_and_deleted(backend: Backend) {
    let world = World::new(backend);
    let admin = &world.admin;
    let name = TopicName::new(&format!("{}-other", topic())).unwrap();
    wait(async {
        assert!(admin.topic(&name).await.is_err());
        let created = admin.create_topic(&name, 2).await.unwrap();
        assert_eq!(created.partitions_count, 2);
        let again = admin.create_topic(&name, 2).await.unwrap_err();
        assert_eq!(again.code(), Some(ErrorCode::TopicAlreadyExists));
        admin.create_partitions(&name, 5).await.unwrap();
        assert_eq!(admin.topic(&name).await.unwrap().partitions_count, 5);
        assert_eq!(admin.describe_partitions(&name).await.unwrap().len(), 5);
        let names: Vec<_> = admin
            .topics()
            .await
            .unwrap()
            .into_iter()
            .map(|t| t.name)
            .collect();
        assert!(names.contains(&name) && names.contains(&topic()));
        admin.delete_topic(&name).await.unwrap();
        let missing = admin.topic(&name).await.unwrap_err();
        assert_eq!(missing.code(), Some(ErrorCode::UnknownTopicOrPartition));
    });
}

pub(super) fn settings_are_set_reset_and_checked(backend: Backend) {
    let world = World::new(backend);
    let admin = &world.admin;
    let value = async || {
        let configs = admin.describe_configs(&topic()).await.unwrap();
        let entry = configs
            .into_iter()
            .find(|c| c.name == "retention.ms")
            .unwrap();
        (entry.value, entry.is_default)
    };
    wait(async {
        let default = value().await;
        assert!(default.1);
        admin
            .set_config(&topic(), "retention.ms", "3600000")
            .await
            .unwrap();
        assert_eq!(value().await, ("3600000".to_owned(), false));
        admin.reset_config(&topic(), "retention.ms").await.unwrap();
        assert_eq!(value().await, default);
        let refused = admin.set_config(&topic(), "retention.ms", "soon").await;
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::InvalidConfig));
    });
}

pub(super) fn offsets_are_listed_and_records_deleted(backend: Backend) {
    let world = World::new(backend);
    let producer = world.producer(quick());
    for value in ["a", "b", "c"] {
        send(&producer, value);
    }
    let admin = &world.admin;
    let list = async |spec| {
        let listed = admin
            .list_offset(&partition(0), spec, Isolation::ReadCommitted)
            .await;
        listed.unwrap().unwrap().offset.0
    };
    wait(async {
        assert_eq!(list(OffsetSpec::Latest).await, 3);
        let start = admin
            .delete_records(&partition(0), Offset(2))
            .await
            .unwrap();
        assert_eq!(start, Offset(2));
        assert_eq!(list(OffsetSpec::Earliest).await, 2);
    });
    assert_eq!(world.committed_values(), ["c"]);
}

pub(super) fn groups_are_listed_described_and_deleted(backend: Backend) {
    let world = World::new(backend);
    let consumer = world.consumer(earliest().group_id(group()));
    let admin = &world.admin;
    wait(async {
        let offsets = vec![(partition(0), position(4))];
        consumer.commit_offsets(offsets).await.unwrap();
        assert!(admin.list_groups().await.unwrap().contains(&group()));
        let described = admin.describe_group(&group()).await.unwrap();
        assert_eq!(described.offsets, [(partition(0), position(4))]);
        let committed = admin.committed(&group()).await.unwrap();
        assert_eq!(committed, [(partition(0), Some(position(4)))]);
        admin.delete_group(&group()).await.unwrap();
        assert!(!admin.list_groups().await.unwrap().contains(&group()));
    });
}

pub(super) fn transactions_and_producers_are_described(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "x");
    let id = id("id");
    let admin = &world.admin;
    wait(async {
        let described = admin.describe_transaction(&id).await.unwrap();
        assert_eq!(described.state, TransactionState::Ongoing);
        assert_eq!(described.partitions, [partition(0)]);
        let listed = admin.list_transactions().await.unwrap();
        assert!(listed.contains(&described));
        let producers = admin.describe_producers(&partition(0)).await.unwrap();
        assert_eq!(producers[0].producer.id, described.producer_id);
        assert_eq!(producers[0].current_transaction_start, Some(Offset(0)));
    });
}
