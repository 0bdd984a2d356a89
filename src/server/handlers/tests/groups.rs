//! Groups: a member's life in the classic protocol, and positions outside transactions.

use bytes::Bytes;

use super::Fixture;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use crate::protocol::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use crate::protocol::wire::messages::delete_groups::DeleteGroupsRequest;
use crate::protocol::wire::messages::describe_groups::DescribeGroupsRequest;
use crate::protocol::wire::messages::find_coordinator::FindCoordinatorRequest;
use crate::protocol::wire::messages::heartbeat::HeartbeatRequest;
use crate::protocol::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::protocol::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::protocol::wire::messages::list_groups::ListGroupsRequest;
use crate::protocol::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::protocol::wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use crate::protocol::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

fn join(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"m"),
        }],
        ..JoinGroupRequest::default()
    }
}

/// The assignment of a group with one member.
fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        ..SyncGroupRequest::default()
    }
}

#[tokio::test]
async fn a_member_joins_syncs_lives_and_leaves() {
    let fixture = Fixture::new();
    let asked = fixture.ask(6, &join("")).await;
    assert_eq!(asked.error_code, ErrorCode::MemberIdRequired.code());
    assert!(!asked.member_id.is_empty());
    let joined = fixture.ask(6, &join(&asked.member_id)).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(fixture.ask(4, &sync(&joined)).await.assignment, "all");
    let heartbeat = |generation_id| HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    };
    assert_eq!(
        fixture
            .ask(4, &heartbeat(joined.generation_id))
            .await
            .error_code,
        0
    );
    let late = fixture.ask(4, &heartbeat(joined.generation_id - 1)).await;
    assert_eq!(late.error_code, ErrorCode::IllegalGeneration.code());
    let describe = DescribeGroupsRequest {
        groups: vec!["g".to_owned(), "none".to_owned()],
        ..DescribeGroupsRequest::default()
    };
    let described = fixture.ask(5, &describe).await;
    assert_eq!(described.groups[0].group_state, "Stable");
    assert_eq!(described.groups[0].members[0].client_host, "/127.0.0.1");
    assert_eq!(described.groups[1].group_state, "Dead");
    let listed = fixture.ask(5, &ListGroupsRequest::default()).await;
    assert_eq!(
        (
            listed.groups[0].group_id.as_str(),
            listed.groups[0].group_type.as_str()
        ),
        ("g", "classic")
    );
    let delete = DeleteGroupsRequest {
        groups_names: vec!["g".to_owned()],
    };
    let refused = fixture.ask(2, &delete).await;
    assert_eq!(
        refused.results[0].error_code,
        ErrorCode::NonEmptyGroup.code()
    );
    let leave = LeaveGroupRequest {
        group_id: "g".to_owned(),
        members: vec![MemberIdentity {
            member_id: joined.member_id.clone(),
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    };
    assert_eq!(fixture.ask(4, &leave).await.members[0].error_code, 0);
    let gone = LeaveGroupRequest {
        group_id: "g".to_owned(),
        member_id: joined.member_id.clone(),
        ..LeaveGroupRequest::default()
    };
    // Before members left in batches, the one's error is the request's.
    assert_eq!(
        fixture.ask(0, &gone).await.error_code,
        ErrorCode::UnknownMemberId.code()
    );
}

#[tokio::test]
async fn each_position_is_answered_by_itself() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let partition = |partition_index, metadata: &str| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 3,
        committed_metadata: Some(metadata.to_owned()),
        ..OffsetCommitRequestPartition::default()
    };
    let request = |group: &str| OffsetCommitRequest {
        group_id: group.to_owned(),
        topics: vec![
            OffsetCommitRequestTopic {
                name: "t".to_owned(),
                partitions: vec![
                    partition(0, ""),
                    partition(1, ""),
                    partition(0, &"x".repeat(5000)),
                ],
            },
            OffsetCommitRequestTopic {
                name: "missing".to_owned(),
                partitions: vec![partition(0, "")],
            },
        ],
        ..OffsetCommitRequest::default()
    };
    for version in 2..=9 {
        let answer = fixture.ask(version, &request("g")).await;
        let codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
        assert_eq!(
            codes.map(|p| p.error_code).collect::<Vec<_>>(),
            [0, 3, 12, 3]
        );
    }
    let answer = fixture.ask(9, &request("")).await;
    assert_eq!(
        answer.topics[0].partitions[0].error_code,
        ErrorCode::InvalidGroupId.code()
    );
}

#[tokio::test]
async fn the_coordinator_is_this_broker_for_every_key_at_every_version() {
    let fixture = Fixture::new();
    for version in 0..=5 {
        let request = match version {
            ..=3 => FindCoordinatorRequest {
                key: "g".to_owned(),
                ..FindCoordinatorRequest::default()
            },
            _ => FindCoordinatorRequest {
                coordinator_keys: vec!["g".to_owned(), "h".to_owned()],
                ..FindCoordinatorRequest::default()
            },
        };
        let answer = fixture.ask(version, &request).await;
        let found = match version {
            ..=3 => vec![(answer.host.clone(), answer.port)],
            _ => answer
                .coordinators
                .iter()
                .map(|c| (c.host.clone(), c.port))
                .collect(),
        };
        assert!(!found.is_empty());
        assert!(
            found
                .iter()
                .all(|found| *found == ("127.0.0.1".to_owned(), 9092))
        );
    }
    let odd = FindCoordinatorRequest {
        key: "g".to_owned(),
        key_type: 7,
        ..FindCoordinatorRequest::default()
    };
    let refused = fixture.ask(3, &odd).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn a_member_that_asks_for_positions_must_be_one_still() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let joining = ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let epoch = fixture.ask(1, &joining).await.member_epoch;
    let member = Some("AAAAAAAAAAAAAAAAAAAAAQ");
    for (version, group, member_id, member_epoch, code) in [
        (9, "g", member, epoch, 0),
        (
            9,
            "g",
            member,
            epoch - 1,
            ErrorCode::StaleMemberEpoch.code(),
        ),
        (
            9,
            "g",
            Some("other"),
            epoch,
            ErrorCode::UnknownMemberId.code(),
        ),
        (9, "g", None, -1, 0),
        (8, "g", None, -1, 0),
        (9, "unknown", Some("other"), 1, 0),
    ] {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.to_owned(),
                member_id: member_id.map(str::to_owned),
                member_epoch,
                topics: None,
            }],
            ..OffsetFetchRequest::default()
        };
        let answer = fixture.ask(version, &request).await;
        let found = answer.groups[0].error_code;
        assert_eq!(found, code, "{group} {member_id:?} {member_epoch}");
    }
}

#[tokio::test]
async fn a_member_subscribes_by_a_regular_expression() {
    let fixture = Fixture::new();
    let id = fixture.create("metrics-1", 2).await;
    fixture.create("other", 1).await;
    let joining = |expression: &str| ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_regex: Some(expression.to_owned()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let refused = fixture.ask(1, &joining("metrics-[")).await;
    assert_eq!(
        refused.error_code,
        ErrorCode::InvalidRegularExpression.code()
    );
    let answer = fixture.ask(1, &joining(r"metrics-\d")).await;
    assert_eq!(answer.error_code, 0, "{answer:?}");
    let assignment = answer.assignment.expect("an assignment");
    assert_eq!(assignment.topic_partitions.len(), 1);
    assert_eq!(assignment.topic_partitions[0].topic_id, id);
    assert_eq!(assignment.topic_partitions[0].partitions, [0, 1]);
}

#[tokio::test]
async fn a_member_of_the_consumer_protocol_is_given_its_partitions_by_the_broker() {
    let fixture = Fixture::new();
    let id = fixture.create("t", 3).await;
    let heartbeat = |member_epoch| ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        member_epoch,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: (member_epoch == 0).then(|| vec!["t".to_owned()]),
        topic_partitions: (member_epoch == 0).then(Vec::new),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let mut answer = fixture.ask(1, &heartbeat(0)).await;
    assert_eq!(answer.error_code, 0, "{answer:?}");
    for _ in 0..10 {
        if answer
            .assignment
            .as_ref()
            .is_some_and(|a| !a.topic_partitions.is_empty())
        {
            break;
        }
        answer = fixture.ask(1, &heartbeat(answer.member_epoch)).await;
    }
    let assignment = answer.assignment.expect("an assignment");
    assert_eq!(assignment.topic_partitions[0].topic_id, id);
    assert_eq!(assignment.topic_partitions[0].partitions, [0, 1, 2]);
    let describe = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".to_owned()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let described = fixture.ask(1, &describe).await;
    let member = &described.groups[0].members[0];
    assert_eq!(member.subscribed_topic_names, ["t"]);
    assert_eq!(member.target_assignment.topic_partitions[0].topic_name, "t");
    let fenced = fixture.ask(1, &heartbeat(99)).await;
    assert_eq!(fenced.error_code, ErrorCode::FencedMemberEpoch.code());
    assert_eq!(fixture.ask(1, &heartbeat(-1)).await.member_epoch, -1);
}
