//! Topics: found, created, grown, configured and deleted.

use super::{Fixture, batch, values};
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchProducer;
use crate::protocol::wire::messages::alter_configs::{self, AlterConfigsRequest};
use crate::protocol::wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use crate::protocol::wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use crate::protocol::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use crate::protocol::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::protocol::wire::messages::describe_cluster::DescribeClusterRequest;
use crate::protocol::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use crate::protocol::wire::messages::describe_groups::DescribeGroupsRequest;
use crate::protocol::wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use crate::protocol::wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, TopicRequest,
};
use crate::protocol::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use crate::protocol::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::types::TopicId;

fn named(name: &str) -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    }
}

#[tokio::test]
async fn a_topic_asked_for_is_created_and_has_its_leader_at_once() {
    let fixture = Fixture::new();
    for version in 0..=13 {
        let name = format!("made-by-{version}");
        let answer = fixture.ask(version, &named(&name)).await;
        let topic = &answer.topics[0];
        assert_eq!(
            (topic.error_code, topic.partitions.len()),
            (0, 1),
            "version {version}"
        );
        assert_eq!(topic.partitions[0].leader_id, answer.brokers[0].node_id);
        assert_eq!(
            (answer.brokers[0].host.as_str(), answer.brokers[0].port),
            ("127.0.0.1", 9092)
        );
    }
    let mut unwanted = named("unwanted");
    unwanted.allow_auto_topic_creation = false;
    let answer = fixture.ask(4, &unwanted).await;
    assert_eq!(
        answer.topics[0].error_code,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    let answer = fixture.ask(4, &named("../etc")).await;
    assert_eq!(
        answer.topics[0].error_code,
        ErrorCode::InvalidTopicException.code()
    );
}

#[tokio::test]
async fn an_empty_list_of_topics_asks_for_all_in_version_0_and_for_none_later() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let all = MetadataRequest::default();
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..MetadataRequest::default()
    };
    let names = |answer: crate::protocol::wire::messages::MetadataResponse| {
        answer
            .topics
            .into_iter()
            .filter_map(|topic| topic.name)
            .collect::<Vec<_>>()
    };
    assert!(names(fixture.ask(0, &none).await).contains(&"t".to_owned()));
    assert_eq!(names(fixture.ask(1, &none).await), Vec::<String>::new());
    assert!(names(fixture.ask(1, &all).await).contains(&"t".to_owned()));
}

#[tokio::test]
async fn a_topic_is_found_and_deleted_by_its_id_which_no_other_topic_ever_has() {
    let fixture = Fixture::new();
    let id = fixture.create("t", 2).await;
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: None,
        }]),
        ..MetadataRequest::default()
    };
    let found = fixture.ask(12, &by_id(id)).await;
    assert_eq!(found.topics[0].name.as_deref(), Some("t"));
    let missing = fixture.ask(12, &by_id(TopicId(id.0 ^ 1))).await;
    assert_eq!(
        missing.topics[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: None,
            topic_id: id,
        }],
        ..DeleteTopicsRequest::default()
    };
    let deleted = fixture.ask(6, &delete).await;
    assert_eq!(deleted.responses[0].error_code, 0);
    assert_eq!(deleted.responses[0].name.as_deref(), Some("t"));
    let again = fixture.ask(6, &delete).await;
    assert_eq!(
        again.responses[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
    assert_ne!(fixture.create("t", 2).await, id);
}

#[tokio::test]
async fn each_topic_of_a_creation_is_answered_by_itself() {
    let fixture = Fixture::new();
    fixture.create("there", 1).await;
    let topic = |name: &str, count| CreatableTopic {
        name: name.to_owned(),
        num_partitions: count,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let mut set = topic("wrongly-set", 1);
    set.configs.push(CreatableTopicConfig {
        name: "retention.ms".to_owned(),
        value: Some("soon".to_owned()),
    });
    let mut request = CreateTopicsRequest {
        topics: vec![
            topic("new", -1),
            topic("there", 1),
            topic("twice", 1),
            topic("twice", 1),
            topic("none", 0),
            set,
        ],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let expected = [0, 36, 42, 42, 37, 40];
    for _ in 0..2 {
        let answer = fixture.ask(5, &request).await;
        let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, expected);
        assert_eq!(
            (
                answer.topics[0].num_partitions,
                answer.topics[0].replication_factor
            ),
            (1, 1)
        );
        // Only now is the new one made, the second time round.
        request.validate_only = false;
    }
}

#[tokio::test]
async fn x19_more_replicas_than_there_are_brokers_are_refused() {
    let fixture = Fixture::new();
    fixture.create("there", 1).await;
    let topic = |name: &str, replication_factor| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor,
        ..CreatableTopic::default()
    };
    let assigned = |name: &str, broker_ids: &[i32]| CreatableTopic {
        num_partitions: -1,
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: broker_ids.to_vec(),
        }],
        ..topic(name, -1)
    };
    let mut both = assigned("both", &[0]);
    both.replication_factor = 1;
    let request = CreateTopicsRequest {
        topics: vec![
            topic("three", 3),
            topic("none", 0),
            topic("less", -2),
            assigned("elsewhere", &[1]),
            assigned("copied", &[0, 1]),
            assigned("nowhere", &[]),
            both,
            assigned("here", &[0]),
            topic("default", -1),
        ],
        ..CreateTopicsRequest::default()
    };
    let answer = fixture.ask(5, &request).await;
    let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [38, 38, 38, 39, 39, 39, 42, 0, 0]);
    let why = answer.topics[0].error_message.as_deref().unwrap();
    assert!(why.contains("replication factor of 3"), "{why}");
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "there".to_owned(),
            count: 2,
            assignments: Some(vec![CreatePartitionsAssignment {
                broker_ids: vec![0, 1],
            }]),
        }],
        ..CreatePartitionsRequest::default()
    };
    let grown = fixture.ask(2, &grow).await;
    assert_eq!(grown.results[0].error_code, 39, "{grown:?}");
}

#[tokio::test]
async fn partitions_are_added_and_listed_page_by_page() {
    let fixture = Fixture::new();
    fixture.create("a", 2).await;
    let grow = |count| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "a".to_owned(),
            count,
            assignments: None,
        }],
        ..CreatePartitionsRequest::default()
    };
    assert_eq!(fixture.ask(3, &grow(5)).await.results[0].error_code, 0);
    let refused = fixture.ask(3, &grow(5)).await;
    assert_eq!(
        refused.results[0].error_code,
        ErrorCode::InvalidPartitions.code()
    );
    // One partition more, and no replica for it.
    let mut assigned = grow(6);
    assigned.topics[0].assignments = Some(Vec::new());
    let refused = fixture.ask(3, &assigned).await;
    assert_eq!(
        refused.results[0].error_code,
        ErrorCode::InvalidReplicaAssignment.code()
    );
    let mut request = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest {
            name: "a".to_owned(),
        }],
        response_partition_limit: 2,
        ..DescribeTopicPartitionsRequest::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = fixture.ask(0, &request).await;
        let topics = page.topics.iter();
        seen.extend(
            topics
                .flat_map(|t| &t.partitions)
                .map(|p| p.partition_index),
        );
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn settings_are_changed_one_by_one_and_shown_with_where_they_come_from() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let alter =
        |name: &str, config_operation, value: Option<&str>| IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: "t".to_owned(),
                configs: vec![AlterableConfig {
                    name: name.to_owned(),
                    config_operation,
                    value: value.map(str::to_owned),
                }],
            }],
            validate_only: false,
        };
    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configuration_keys: Some(vec!["cleanup.policy".to_owned()]),
        }],
        ..DescribeConfigsRequest::default()
    };
    let steps = [
        // Kafka's default, then compact appended, then delete taken out, then the setting taken away.
        (None, ("delete", 5)),
        (Some((2, Some("compact"))), ("delete,compact", 1)),
        (Some((3, Some("delete"))), ("compact", 1)),
        (Some((1, None)), ("delete", 5)),
    ];
    for (change, (value, source)) in steps {
        if let Some((operation, change)) = change {
            let answer = fixture
                .ask(1, &alter("cleanup.policy", operation, change))
                .await;
            assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
        }
        let shown = fixture.ask(4, &describe).await;
        let entry = &shown.results[0].configs[0];
        assert_eq!(
            (entry.value.as_deref(), entry.config_source),
            (Some(value), source)
        );
        assert_eq!(shown.results[0].configs.len(), 1);
    }
    for (name, operation, value) in [
        ("retention.ms", 0, Some("soon")),
        ("retention.ms", 2, Some("1")),
    ] {
        let answer = fixture.ask(1, &alter(name, operation, value)).await;
        assert_eq!(
            answer.responses[0].error_code,
            ErrorCode::InvalidConfig.code()
        );
    }
}

#[tokio::test]
async fn clients_are_told_what_they_may_do_if_they_ask() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let metadata = |asks| MetadataRequest {
        topics: None,
        include_topic_authorized_operations: asks,
        include_cluster_authorized_operations: asks,
        ..MetadataRequest::default()
    };
    let cluster = |asks| DescribeClusterRequest {
        include_cluster_authorized_operations: asks,
        ..DescribeClusterRequest::default()
    };
    let groups = |asks| DescribeGroupsRequest {
        groups: vec!["g".to_owned()],
        include_authorized_operations: asks,
    };
    // Everything that there is to do with a topic, with the cluster, with a group, in Kafka's bits.
    for (asks, expected) in [(true, [3576, 8096, 3400]), (false, [i32::MIN; 3])] {
        let shown = fixture.ask(8, &metadata(asks)).await;
        let topic = shown
            .topics
            .iter()
            .find(|it| it.name.as_deref() == Some("t"));
        let topic = topic.unwrap().topic_authorized_operations;
        assert_eq!([topic, shown.cluster_authorized_operations], expected[..2]);
        let shown = fixture.ask(1, &cluster(asks)).await;
        assert_eq!(shown.cluster_authorized_operations, expected[1]);
        let shown = fixture.ask(5, &groups(asks)).await;
        assert_eq!(shown.groups[0].authorized_operations, expected[2]);
    }
}

#[tokio::test]
async fn settings_are_shown_with_their_sources_and_by_all_their_names() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let describe = |resource_type, name: &str, keys: &[&str]| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configuration_keys: (!keys.is_empty())
                .then(|| keys.iter().map(|&key| key.to_owned()).collect()),
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    let broker = fixture.ask(4, &describe(4, "0", &[])).await;
    let settings = &broker.results[0].configs;
    assert!(settings.len() >= 50, "{} settings", settings.len());
    assert!(settings.is_sorted_by(|a, b| a.name < b.name));
    for setting in settings {
        assert!(
            setting.read_only && setting.documentation.is_some(),
            "{setting:?}"
        );
        let first = &setting.synonyms[0];
        assert_eq!(
            (&first.value, first.source),
            (&setting.value, setting.config_source)
        );
    }
    let of = |name: &str| {
        let found = settings.iter().find(|setting| setting.name == name);
        let found = found.unwrap_or_else(|| panic!("{name} is not shown"));
        (
            found.value.as_deref().unwrap(),
            found.config_source,
            found.config_type,
        )
    };
    assert_eq!(of("log.retention.ms"), ("604800000", 5, 5));
    assert_eq!(of("offsets.topic.replication.factor"), ("1", 5, 3));
    assert_eq!(of("group.consumer.assignors"), ("uniform,range", 5, 7));
    assert_eq!(of("transaction.max.timeout.ms"), ("900000", 5, 3));
    assert_eq!(of("auto.create.topics.enable"), ("true", 5, 1));
    assert_eq!(of("advertised.listeners").0, "PLAINTEXT://127.0.0.1:9092");
    let topic = fixture.ask(4, &describe(2, "t", &["retention.ms"])).await;
    let setting = &topic.results[0].configs[0];
    assert_eq!((setting.config_source, setting.config_type), (5, 5));
    assert_eq!(setting.synonyms[0].name, "log.retention.ms");
    let group = fixture.ask(4, &describe(32, "g", &[])).await;
    let names = group.results[0].configs.iter();
    let names: Vec<_> = names.map(|setting| setting.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "consumer.heartbeat.interval.ms",
            "consumer.session.timeout.ms"
        ]
    );
    let other = fixture.ask(4, &describe(4, "1", &[])).await;
    assert_eq!(
        other.results[0].error_code,
        ErrorCode::InvalidRequest.code()
    );
}

#[tokio::test]
async fn deleted_records_are_gone_and_the_directory_shows_its_sizes() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    for value in ["a", "b", "c"] {
        fixture
            .produce(9, "t", None, batch(&[value], BatchProducer::Plain))
            .await;
    }
    let delete = |offset| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "t".to_owned(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset,
            }],
        }],
        ..DeleteRecordsRequest::default()
    };
    let answer = fixture.ask(2, &delete(1)).await;
    assert_eq!(answer.topics[0].partitions[0].low_watermark, 1);
    let read = fixture.fetch(9, &super::fetch_request("t", 1, 0)).await;
    assert_eq!(values(&super::only(&read).records), ["b", "c"]);
    let read = fixture.fetch(9, &super::fetch_request("t", 0, 0)).await;
    assert_eq!(
        super::only(&read).error_code,
        ErrorCode::OffsetOutOfRange.code()
    );
    let answer = fixture.ask(2, &delete(-1)).await;
    assert_eq!(answer.topics[0].partitions[0].low_watermark, 3);
    let dirs = fixture
        .ask(4, &DescribeLogDirsRequest { topics: None })
        .await;
    let topic = dirs.results[0]
        .topics
        .iter()
        .find(|topic| topic.name == "t")
        .unwrap();
    assert!(topic.partitions[0].partition_size > 0);
}

#[tokio::test]
async fn x16_alter_configs_replaces_all_settings_of_a_topic() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let replace = |settings: &[(&str, Option<&str>)], validate_only| AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configs: settings
                .iter()
                .map(|(name, value)| alter_configs::AlterableConfig {
                    name: (*name).to_owned(),
                    value: value.map(str::to_owned),
                })
                .collect(),
        }],
        validate_only,
    };
    let set = || {
        let topic = crate::types::TopicName::new("t").unwrap();
        let entries = fixture.dispatch.broker.describe_configs(&topic).unwrap();
        let set = entries.into_iter().filter(|entry| !entry.is_default);
        set.map(|entry| entry.name).collect::<Vec<_>>()
    };
    for version in [0, 1, 2] {
        let both = [("retention.ms", Some("7")), ("segment.ms", Some("8"))];
        let answer = fixture.ask(version, &replace(&both, false)).await;
        assert_eq!(answer.responses[0].error_code, 0);
        assert_eq!(set(), ["retention.ms", "segment.ms"]);
        for (wrong, code) in [
            ([("retention.ms", None), ("segment.ms", Some("8"))], 42),
            ([("segment.ms", Some("1")), ("segment.ms", Some("8"))], 42),
            ([("segment.ms", Some("1")), ("no.such", Some("8"))], 40),
        ] {
            let answer = fixture.ask(version, &replace(&wrong, false)).await;
            assert_eq!(answer.responses[0].error_code, code, "{wrong:?}");
        }
        let one = [("segment.ms", Some("9"))];
        let answer = fixture.ask(version, &replace(&one, true)).await;
        assert_eq!(answer.responses[0].error_code, 0);
        assert_eq!(set(), ["retention.ms", "segment.ms"]);
        fixture.ask(version, &replace(&one, false)).await;
        assert_eq!(set(), ["segment.ms"]);
        fixture.ask(version, &replace(&[], false)).await;
        assert!(set().is_empty());
    }
}
