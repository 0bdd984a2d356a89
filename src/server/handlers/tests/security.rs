//! Users and access rules by Kafka's own requests.

use bytes::Bytes;

use super::Fixture;
use crate::protocol::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use crate::protocol::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use crate::protocol::wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use crate::protocol::wire::messages::describe_acls::DescribeAclsRequest;
use crate::protocol::wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};

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
