//! Users and access rules by Kafka's own requests.

use std::sync::Arc;

use bytes::Bytes;

use super::Fixture;
use crate::env::Env;
use crate::net::Address;
use crate::protocol::wire::messages::alter_configs::{AlterConfigsRequest, AlterConfigsResource};
use crate::protocol::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use crate::protocol::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use crate::protocol::wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use crate::protocol::wire::messages::describe_acls::DescribeAclsRequest;
use crate::protocol::wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};
use crate::protocol::wire::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use crate::server::Limits;
use crate::server::budget::Budget;
use crate::server::security::{Principal, Security};
use crate::server::session::Session;

/// Kafka's numbers: a topic, a literal pattern, a prefix, any of them, reading, permission.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const ANY: i8 = 1;
const READ: i8 = 3;
const ALLOW: i8 = 3;

fn creation(name: &str, pattern: i8) -> AclCreation {
    AclCreation {
        resource_type: TOPIC,
        resource_name: name.to_owned(),
        resource_pattern_type: pattern,
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation: READ,
        permission_type: ALLOW,
    }
}

#[tokio::test]
async fn rules_are_created_described_and_deleted() {
    let fixture = Fixture::new();
    let mut forged = creation("orders", LITERAL);
    forged.operation = 99;
    let request = CreateAclsRequest {
        creations: vec![
            creation("orders", LITERAL),
            creation("ord", PREFIXED),
            forged,
        ],
    };
    let created = fixture.ask(3, &request).await;
    let codes: Vec<i16> = created
        .results
        .iter()
        .map(|result| result.error_code)
        .collect();
    assert_eq!(codes, [0, 0, 42]);
    let describe = DescribeAclsRequest {
        resource_type_filter: TOPIC,
        resource_name_filter: Some("orders".to_owned()),
        pattern_type_filter: 2,
        principal_filter: None,
        host_filter: None,
        operation: ANY,
        permission_type: ANY,
    };
    let described = fixture.ask(3, &describe).await;
    let names: Vec<&str> = described
        .resources
        .iter()
        .map(|resource| resource.resource_name.as_str())
        .collect();
    assert_eq!(names, ["orders", "ord"], "both are asked about that topic");
    let delete = DeleteAclsRequest {
        filters: vec![DeleteAclsFilter {
            resource_type_filter: TOPIC,
            resource_name_filter: Some("ord".to_owned()),
            pattern_type_filter: PREFIXED,
            principal_filter: Some("User:alice".to_owned()),
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
        }],
    };
    let deleted = fixture.ask(3, &delete).await;
    assert_eq!(deleted.filter_results[0].matching_acls.len(), 1);
    assert_eq!(fixture.ask(3, &describe).await.resources.len(), 1);
}

fn upsertion(name: &str, iterations: i32, salted_bytes: usize) -> ScramCredentialUpsertion {
    ScramCredentialUpsertion {
        name: name.to_owned(),
        mechanism: 1,
        iterations,
        salt: Bytes::from_static(b"salt"),
        salted_password: vec![7; salted_bytes].into(),
    }
}

#[tokio::test]
async fn users_are_set_described_and_deleted() {
    let fixture = Fixture::new();
    let alter = AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "nobody".to_owned(),
            mechanism: 1,
        }],
        upsertions: vec![
            upsertion("alice", 4_096, 32),
            upsertion("few", 100, 32),
            upsertion("short", 4_096, 31),
            upsertion("tab\t", 4_096, 32),
        ],
    };
    let altered = fixture.ask(0, &alter).await;
    let results: Vec<(&str, i16)> = altered
        .results
        .iter()
        .map(|result| (result.user.as_str(), result.error_code))
        .collect();
    let expected = [
        ("alice", 0),
        ("few", 93),
        ("nobody", 91),
        ("short", 93),
        ("tab\t", 93),
    ];
    assert_eq!(results, expected);
    let all = DescribeUserScramCredentialsRequest { users: None };
    let described = fixture.ask(0, &all).await.results;
    assert_eq!(described.len(), 1);
    assert_eq!(described[0].credential_infos[0].iterations, 4_096);
    let named = DescribeUserScramCredentialsRequest {
        users: Some(vec![UserName {
            name: "bob".to_owned(),
        }]),
    };
    assert_eq!(fixture.ask(0, &named).await.results[0].error_code, 91);
    let delete = AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "alice".to_owned(),
            mechanism: 1,
        }],
        upsertions: Vec::new(),
    };
    assert_eq!(fixture.ask(0, &delete).await.results[0].error_code, 0);
    assert!(fixture.ask(0, &all).await.results.is_empty());
}

/// The same broker for a client whose rights the rules decide.
fn under_rules(fixture: &Fixture) -> Fixture {
    let env = Env::real();
    let data = fixture.dir.path().join("data");
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: 9092,
    };
    let session = Session::new(
        2,
        Principal::anonymous(),
        "127.0.0.1:50001".parse().unwrap(),
        address,
        Security::open(&env, &data, true, Vec::new()).unwrap(),
        Budget::new(&Limits::default()),
    );
    Fixture {
        dispatch: Arc::clone(&fixture.dispatch),
        session: Arc::new(session),
        dir: tempfile::tempdir().unwrap(),
    }
}

#[tokio::test]
async fn x16_alter_configs_and_markers_ask_for_the_rights_that_kafka_asks_for() {
    let fixture = Fixture::new();
    fixture.create("orders", 1).await;
    let replace = |resource_type, resource_name: &str| AlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type,
            resource_name: resource_name.to_owned(),
            configs: Vec::new(),
        }],
        validate_only: false,
    };
    let mark = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: 1,
            topics: vec![WritableTxnMarkerTopic {
                name: "orders".to_owned(),
                partition_indexes: vec![0],
            }],
            ..WritableTxnMarker::default()
        }],
    };
    let allowed = |resource_type, name: &str, operation| AclCreation {
        resource_type,
        principal: "User:ANONYMOUS".to_owned(),
        operation,
        ..creation(name, LITERAL)
    };
    let client = under_rules(&fixture);
    for (kind, name, code) in [(TOPIC, "orders", 29), (4, "0", 31)] {
        let answer = client.ask(2, &replace(kind, name)).await;
        assert_eq!(answer.responses[0].error_code, code, "{name}");
    }
    let answer = client.ask(1, &mark).await;
    assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, 31);

    // Kafka's numbers of altering settings, of altering the cluster, and of the cluster.
    let request = CreateAclsRequest {
        creations: vec![allowed(TOPIC, "orders", 11), allowed(4, "kafka-cluster", 7)],
    };
    let created = fixture.ask(3, &request).await;
    assert!(created.results.iter().all(|result| result.error_code == 0));
    let client = under_rules(&fixture);
    let answer = client.ask(2, &replace(TOPIC, "orders")).await;
    assert_eq!(answer.responses[0].error_code, 0);
    let answer = client.ask(1, &mark).await;
    assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, 0);
}
