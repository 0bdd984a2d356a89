//! Which requests are answered, and how those that are not.

use bytes::Bytes;

use super::Fixture;
use crate::protocol::wire::messages::{self, ApiVersionsRequest};
use crate::protocol::wire::{ApiKey, decode_response, encode_request};

#[tokio::test]
async fn every_version_that_is_offered_is_answered() {
    let fixture = Fixture::new();
    macro_rules! ask {
        ($($api:ident => $request:ident),* $(,)?) => { $(
            for version in ApiKey::$api.served() {
                if ApiKey::$api.known().contains(&version) {
                    fixture.ask(version, &messages::$request::default()).await;
                }
            }
        )* };
    }
    ask! {
        Fetch => FetchRequest, ListOffsets => ListOffsetsRequest, Metadata => MetadataRequest,
        OffsetCommit => OffsetCommitRequest, OffsetFetch => OffsetFetchRequest,
        FindCoordinator => FindCoordinatorRequest, JoinGroup => JoinGroupRequest,
        Heartbeat => HeartbeatRequest, LeaveGroup => LeaveGroupRequest, SyncGroup => SyncGroupRequest,
        DescribeGroups => DescribeGroupsRequest, ListGroups => ListGroupsRequest,
        ApiVersions => ApiVersionsRequest, CreateTopics => CreateTopicsRequest,
        DeleteTopics => DeleteTopicsRequest, DeleteRecords => DeleteRecordsRequest,
        InitProducerId => InitProducerIdRequest, OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
        AddPartitionsToTxn => AddPartitionsToTxnRequest, AddOffsetsToTxn => AddOffsetsToTxnRequest,
        EndTxn => EndTxnRequest, TxnOffsetCommit => TxnOffsetCommitRequest,
        DescribeConfigs => DescribeConfigsRequest, DescribeLogDirs => DescribeLogDirsRequest,
        CreatePartitions => CreatePartitionsRequest, DeleteGroups => DeleteGroupsRequest,
        IncrementalAlterConfigs => IncrementalAlterConfigsRequest, OffsetDelete => OffsetDeleteRequest,
        DescribeCluster => DescribeClusterRequest, DescribeProducers => DescribeProducersRequest,
        DescribeTransactions => DescribeTransactionsRequest, ListTransactions => ListTransactionsRequest,
        ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe => ConsumerGroupDescribeRequest,
        DescribeTopicPartitions => DescribeTopicPartitionsRequest,
        AlterConfigs => AlterConfigsRequest, WriteTxnMarkers => WriteTxnMarkersRequest,
    }
}

#[tokio::test]
async fn api_versions_of_an_unknown_version_is_answered_in_version_0_with_all_that_is_known() {
    let fixture = Fixture::new();
    // Version 99, whatever it may hold.
    let frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'c', 0, 1, 2, 3]);
    let answer = fixture.send(frame).await.unwrap().unwrap();
    let (correlation_id, answer) = decode_response::<ApiVersionsRequest>(0, answer).unwrap();
    assert_eq!((correlation_id, answer.error_code), (7, 35));
    let own = answer
        .api_keys
        .iter()
        .find(|api| api.api_key == 18)
        .unwrap();
    assert_eq!((own.min_version, own.max_version), (0, 4));
}

#[tokio::test]
async fn clients_are_offered_what_old_ones_look_for_and_new_ones_need() {
    let fixture = Fixture::new();
    let request = ApiVersionsRequest {
        client_software_name: "of".to_owned(),
        client_software_version: "1.0".to_owned(),
    };
    let answer = fixture.ask(3, &request).await;
    let range = |key: i16| {
        let api = answer
            .api_keys
            .iter()
            .find(|api| api.api_key == key)
            .unwrap();
        (api.min_version, api.max_version)
    };
    // librdkafka before 2.11.1 compresses only for brokers that offer Produce from 0.
    assert_eq!(range(0).0, 0);
    // AddPartitionsToTxn from version 4 on is for brokers only.
    assert_eq!(range(24).1, 3);
    let feature = answer
        .finalized_features
        .iter()
        .find(|f| f.name == "transaction.version");
    assert_eq!(feature.unwrap().max_version_level, 2);
    // A feature from level 0 breaks clients of version 3.
    assert!(
        answer
            .supported_features
            .iter()
            .all(|feature| feature.min_version > 0)
    );
}

#[tokio::test]
async fn a_client_that_misnames_itself_is_refused() {
    let fixture = Fixture::new();
    let request = ApiVersionsRequest {
        client_software_name: "-of-".to_owned(),
        client_software_version: "1.0".to_owned(),
    };
    let answer = fixture.ask(3, &request).await;
    assert_eq!((answer.error_code, answer.api_keys.len()), (42, 0));
}

#[tokio::test]
async fn hostile_requests_that_cannot_be_answered_end_the_connection() {
    let fixture = Fixture::new();
    let mut unknown_version = encode_request(0, 1, None, &messages::MetadataRequest::default())
        .unwrap()
        .to_bytes()
        .to_vec();
    unknown_version[3] = 99;
    let cut = encode_request(1, 1, None, &messages::FindCoordinatorRequest::default()).unwrap();
    let cut = cut.to_bytes();
    for frame in [
        Bytes::new(),
        Bytes::from_static(&[0]),
        // No such API.
        Bytes::from_static(&[0x70, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        Bytes::from(unknown_version),
        cut.slice(..cut.len() - 1),
        // Produce is offered from 0 and answered from 3.
        Bytes::from_static(&[
            0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
        ]),
    ] {
        assert!(
            fixture.send(frame.clone()).await.is_err(),
            "{frame:?} was answered"
        );
    }
}
