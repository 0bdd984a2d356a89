//! Decisions without I/O: who leads, what a failure means, whose turn it is, which version is sent, what a setting says.

mod ends;
mod fake;
mod outbox;
mod requests;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;

use super::backoff::Backoff;
use super::judge::{Next, Repeat, error_of, judge, refused};
use super::metadata::{Leader, Lookup, Metadata};
use super::settings::{KafkaSettings, SecurityProtocol, TransactionProtocol};
use super::turns::Turns;
use super::versions::Versions;
use crate::client::ClientError;
use crate::env::{Env, Instant};
use crate::protocol::wire::ApiKey;
use crate::protocol::wire::messages::api_versions::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey,
};
use crate::protocol::wire::messages::metadata::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{TopicId, TopicName, TopicPartition};

const AGE_MAX: Duration = Duration::from_secs(300);

fn place() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), 0)
}

fn at(seconds: u64) -> Instant {
    Instant(Duration::from_secs(seconds))
}

/// Two brokers, and one partition that `leader` leads at `epoch`.
fn news(topic: u128, leader: i32, epoch: i32) -> MetadataResponse {
    let broker = |node_id| MetadataResponseBroker {
        node_id,
        host: "localhost".to_owned(),
        port: 9092 + node_id,
        rack: None,
    };
    MetadataResponse {
        brokers: vec![broker(1), broker(2)],
        topics: vec![MetadataResponseTopic {
            name: Some("t".to_owned()),
            topic_id: TopicId(topic),
            partitions: vec![MetadataResponsePartition {
                leader_id: leader,
                leader_epoch: epoch,
                ..MetadataResponsePartition::default()
            }],
            ..MetadataResponseTopic::default()
        }],
        ..MetadataResponse::default()
    }
}

fn leader(node: i32, epoch: i32) -> Lookup {
    Lookup::Known(Leader { node, epoch })
}

#[test]
fn a_leader_is_believed_until_it_is_denied_or_the_news_is_too_old() {
    let mut metadata = Metadata::default();
    assert_eq!(metadata.leader(&place(), at(0), AGE_MAX, None), Lookup::Ask);
    metadata.learn(&news(7, 1, 3), at(0));
    assert_eq!(
        metadata.leader(&place(), at(1), AGE_MAX, None),
        leader(1, 3)
    );
    assert_eq!(
        metadata.leader(&place(), at(301), AGE_MAX, None),
        Lookup::Ask
    );
    metadata.deny(&place(), Leader { node: 1, epoch: 3 }, None);
    assert_eq!(metadata.leader(&place(), at(1), AGE_MAX, None), Lookup::Ask);
    metadata.learn(&news(7, 2, 4), at(2));
    assert_eq!(
        metadata.leader(&place(), at(3), AGE_MAX, None),
        leader(2, 4)
    );
}

#[test]
fn old_news_never_replaces_newer_unless_the_topic_was_created_anew() {
    let mut metadata = Metadata::default();
    metadata.learn(&news(7, 2, 5), at(0));
    // A broker that has not heard of the move yet.
    metadata.learn(&news(7, 1, 4), at(1));
    assert_eq!(
        metadata.leader(&place(), at(1), AGE_MAX, None),
        leader(2, 5)
    );
    metadata.learn(&news(8, 1, 0), at(2));
    assert_eq!(
        metadata.leader(&place(), at(2), AGE_MAX, None),
        leader(1, 0)
    );
}

#[test]
fn a_denial_of_an_earlier_leader_says_nothing_of_the_present_one() {
    let mut metadata = Metadata::default();
    metadata.learn(&news(7, 2, 5), at(0));
    metadata.deny(&place(), Leader { node: 1, epoch: 4 }, None);
    assert_eq!(
        metadata.leader(&place(), at(1), AGE_MAX, None),
        leader(2, 5)
    );
    // Who denies may know better.
    let current = Leader { node: 1, epoch: 6 };
    metadata.deny(&place(), Leader { node: 2, epoch: 5 }, Some(current));
    assert_eq!(
        metadata.leader(&place(), at(1), AGE_MAX, None),
        leader(1, 6)
    );
}

#[test]
fn what_a_lost_broker_led_is_asked_for_again() {
    let mut metadata = Metadata::default();
    metadata.learn(&news(7, 1, 3), at(0));
    metadata.deny_all_of(2);
    assert_eq!(
        metadata.leader(&place(), at(1), AGE_MAX, None),
        leader(1, 3)
    );
    metadata.deny_all_of(1);
    assert_eq!(metadata.leader(&place(), at(1), AGE_MAX, None), Lookup::Ask);
}

#[test]
fn news_without_a_leader_or_topic_is_told_apart_from_no_news() {
    let mut metadata = Metadata::default();
    metadata.learn(&news(7, -1, 3), at(5));
    assert_eq!(metadata.leader(&place(), at(5), AGE_MAX, None), Lookup::Ask);
    assert_eq!(
        metadata.leader(&place(), at(5), AGE_MAX, Some(at(5))),
        Lookup::NoLeader
    );
    let other = TopicPartition::new(place().topic, 9);
    assert_eq!(
        metadata.leader(&other, at(5), AGE_MAX, Some(at(5))),
        Lookup::NoSuchPartition
    );
}

fn unanswered() -> ClientError {
    ClientError::Unanswered {
        request: "EndTxn",
        why: "lost".to_owned(),
        kind: ErrorKind::Retriable,
    }
}

#[test]
fn k4_each_error_means_the_same_to_each_request() {
    let told = |code| judge(&refused("x", code, "", None), Repeat::IfRefused);
    for code in [
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::LeaderNotAvailable,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::UnknownLeaderEpoch,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
        ErrorCode::NotController,
        ErrorCode::KafkaStorageError,
        ErrorCode::ThrottlingQuotaExceeded,
    ] {
        assert_eq!(told(code), Next::Again, "{code}");
    }
    for code in [
        ErrorCode::InvalidProducerEpoch,
        ErrorCode::ProducerFenced,
        ErrorCode::InvalidTxnState,
        ErrorCode::TransactionalIdAuthorizationFailed,
        ErrorCode::TopicAuthorizationFailed,
        ErrorCode::UnsupportedVersion,
        ErrorCode::InvalidProducerIdMapping,
        ErrorCode::UnknownProducerId,
        ErrorCode::TransactionAbortable,
        ErrorCode::IllegalGeneration,
        ErrorCode::OutOfOrderSequenceNumber,
        // The callers of transactional requests wait for these in their own time.
        ErrorCode::ConcurrentTransactions,
        ErrorCode::UnstableOffsetCommit,
    ] {
        assert_eq!(told(code), Next::GiveUp, "{code}");
    }
    assert_eq!(
        told(ErrorCode::UnknownTopicOrPartition),
        Next::AgainForAWhile
    );
}

#[test]
fn k1_a_lost_answer_is_repeated_only_where_that_is_safe() {
    assert_eq!(judge(&unanswered(), Repeat::Always), Next::Again);
    assert_eq!(judge(&unanswered(), Repeat::IfRefused), Next::GiveUp);
    let timed_out = refused("x", ErrorCode::RequestTimedOut, "", None);
    assert_eq!(judge(&timed_out, Repeat::Always), Next::Again);
    assert_eq!(judge(&timed_out, Repeat::IfRefused), Next::GiveUp);
    let never_sent = ClientError::Connect {
        address: "b:1".to_owned(),
        why: "refused".to_owned(),
        kind: ErrorKind::Retriable,
    };
    assert_eq!(judge(&never_sent, Repeat::IfRefused), Next::Again);
}

#[test]
fn a_number_that_kafka_may_add_counts_as_unexpected() {
    assert_eq!(error_of(0), None);
    assert_eq!(error_of(6), Some(ErrorCode::NotLeaderOrFollower));
    assert_eq!(error_of(30_000), Some(ErrorCode::UnknownServerError));
}

#[test]
fn a_missing_right_is_named_with_what_to_do() {
    let error = refused("Produce", ErrorCode::TopicAuthorizationFailed, "t-0", None);
    let text = error.to_string();
    assert!(text.contains("t-0") && text.contains("Write"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
}

#[test]
fn turns_are_taken_in_the_order_of_the_calls_whoever_waits_first() {
    let turns = Turns::new();
    let mut first = turns.take(&"p");
    let mut second = turns.take(&"p");
    let mut third = turns.take(&"p");
    let mut other = turns.take(&"q");
    assert!(other.wait().now_or_never().is_some());
    assert!(third.wait().now_or_never().is_none());
    assert!(second.wait().now_or_never().is_none());
    assert!(first.wait().now_or_never().is_some());
    drop(first);
    // It had begun to wait before: its turn is still kept.
    assert!(turns.take(&"p").wait().now_or_never().is_none());
    drop((second, third));
    assert!(turns.take(&"p").wait().now_or_never().is_some());
}

#[test]
fn pauses_double_up_to_their_bound_within_a_fifth() {
    let random = Env::real().random;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    for expected in [100, 200, 400, 800, 1000, 1000, 1000] {
        let millis = backoff.next(&*random).as_millis();
        assert!(
            (expected * 8 / 10..=expected * 12 / 10).contains(&millis),
            "{millis}"
        );
    }
    backoff.reset();
    assert!(backoff.next(&*random).as_millis() <= 120);
}

fn offered(transaction_version: i16) -> Versions {
    let api = |api_key, min_version, max_version| ApiVersion {
        api_key,
        min_version,
        max_version,
    };
    Versions::new(&ApiVersionsResponse {
        api_keys: vec![api(0, 0, 13), api(26, 0, 5), api(28, 0, 5), api(3, 20, 30)],
        finalized_features: vec![FinalizedFeatureKey {
            name: "transaction.version".to_owned(),
            max_version_level: transaction_version,
            min_version_level: transaction_version,
        }],
        ..ApiVersionsResponse::default()
    })
}

#[test]
fn transactions_v2_are_seen_and_the_older_protocol_keeps_to_its_versions() {
    assert!(offered(2).has_transactions_v2());
    assert!(!offered(1).has_transactions_v2());
    assert!(!Versions::default().has_transactions_v2());
    let versions = offered(2);
    assert_eq!(versions.choose(ApiKey::Produce).unwrap(), 12);
    assert_eq!(versions.choose(ApiKey::EndTxn).unwrap(), 5);
    assert_eq!(versions.choose_older(ApiKey::Produce).unwrap(), 11);
    assert_eq!(versions.choose_older(ApiKey::EndTxn).unwrap(), 4);
    assert_eq!(versions.choose_older(ApiKey::TxnOffsetCommit).unwrap(), 4);
}

#[test]
fn a_broker_that_speaks_no_common_version_is_named_as_such() {
    let too_new = offered(2).choose(ApiKey::Metadata).unwrap_err().to_string();
    assert!(too_new.contains("20 to 30"), "{too_new}");
    let unknown = offered(2).choose(ApiKey::Fetch).unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnsupportedVersion));
}

#[test]
fn a_cluster_without_transactions_v2_is_refused_with_the_way_out() {
    let refused = super::transactions::check_protocol(&offered(1)).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("transaction.protocol=v1"), "{text}");
    assert!(super::transactions::check_protocol(&offered(2)).is_ok());
}

#[test]
fn settings_come_from_code_a_file_and_the_environment() {
    let file = "[bootstrap]\nservers = \"a:1,b:2\"\n[request]\ntimeout.ms = 700\n";
    let variables = [
        ("ONCEFLOW_KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
        ("ONCEFLOW_KAFKA_SASL_USERNAME", "me"),
        ("ONCEFLOW_KAFKA_CONFIG", "/not/a/setting"),
        ("PATH", "/bin"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = KafkaSettings::parse_toml(file).unwrap();
    let settings = settings.with_environment(variables).unwrap();
    let settings = settings.with("transaction.protocol", "v1").unwrap();
    assert_eq!(settings.bootstrap_servers.len(), 2);
    assert_eq!(settings.request_timeout, Duration::from_millis(700));
    assert_eq!(settings.security_protocol, SecurityProtocol::SaslSsl);
    assert_eq!(settings.transaction_protocol, TransactionProtocol::V1);
    let missing = settings.check().unwrap_err().to_string();
    assert!(missing.contains("sasl.password"), "{missing}");
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
    let map = BTreeMap::from([("client.idd".to_owned(), "x".to_owned())]);
    let near = KafkaSettings::from_map(&map).unwrap_err().to_string();
    assert!(near.contains("did you mean client.id?"), "{near}");
    let far = KafkaSettings::default().with("zookeeper.connect", "x");
    let far = far.unwrap_err().to_string();
    assert!(far.contains("there are bootstrap.servers"), "{far}");
}

#[test]
fn secrets_are_never_shown() {
    let settings = KafkaSettings::new("a:1").unwrap();
    let settings = settings.with("sasl.password", "hunter2").unwrap();
    let key = "-----BEGIN PRIVATE KEY-----hunter2";
    let settings = settings.with("ssl.key.location", key).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let typo = KafkaSettings::default().with("sasl.passwort", "hunter2");
    assert!(!typo.unwrap_err().to_string().contains("hunter2"));
}
