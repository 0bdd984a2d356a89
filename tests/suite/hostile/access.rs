//! Attacks on logins and rights.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use onceflow::internals::protocol::sasl::{ClientStep, Mechanism, SaslClient};
use onceflow::internals::protocol::wire::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use onceflow::internals::protocol::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use onceflow::internals::protocol::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use onceflow::internals::protocol::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use onceflow::internals::protocol::wire::messages::end_txn::EndTxnRequest;
use onceflow::internals::protocol::wire::messages::init_producer_id::InitProducerIdRequest;
use onceflow::internals::protocol::wire::messages::list_transactions::ListTransactionsRequest;
use onceflow::internals::protocol::wire::messages::metadata::MetadataRequest;
use onceflow::internals::protocol::wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use onceflow::internals::protocol::wire::messages::sasl_handshake::SaslHandshakeRequest;
use onceflow::testing::Env;
use tempfile::TempDir;

use super::{Raw, Target, batch, fetch};

fn onceflow(directory: &TempDir, line: &str, input: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_onceflow"))
        .args(line.split(' '))
        .arg("--data")
        .arg(directory.path().join("data"))
        .env_remove("ONCEFLOW_DATA")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{line}");
}

/// A broker with users root (who may everything), alice (who may use what begins with `alice`) and mallory (who may
/// write to `mallory`), and its topics.
fn guarded() -> Target {
    let directory = TempDir::new().unwrap();
    for user in ["root", "alice", "mallory"] {
        let line = format!("user add {user} --iterations 4096");
        onceflow(&directory, &line, &format!("{user}'s secret\n"));
    }
    for rule in [
        "acl add --allow User:alice --operation all --topic alice*",
        "acl add --allow User:alice --operation all --group alice*",
        "acl add --allow User:alice --operation all --transactional-id alice*",
        "acl add --allow User:mallory --operation write --operation describe --topic mallory",
    ] {
        onceflow(&directory, rule, "");
    }
    let arguments = [
        "--sasl",
        "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
        "--acls",
        "--super-user",
        "User:root",
    ];
    let target = Target::start_in(directory, &arguments);
    let mut root = logged_in(&target, "root");
    for topic in ["alice", "mallory"] {
        assert_eq!(root.create_topic(topic), 0);
        assert_eq!(root.produce(topic, batch(&[b"secret"])), 0);
    }
    target
}

/// All is as it was, seen by alice.
fn assert_unharmed(mut target: Target) {
    let mut alice = logged_in(&target, "alice");
    assert_eq!(alice.produce("alice", batch(&[b"more"])), 0);
    let partition = &alice.fetch("alice", 0).responses[0].partitions[0];
    assert!(partition.error_code == 0 && !partition.records.is_empty());
    target.assert_alive_without_a_panic();
}

fn logged_in(target: &Target, user: &str) -> Raw {
    let mut client = target.connect();
    let mechanism = "SCRAM-SHA-256".parse().unwrap();
    let code = log_in(&mut client, mechanism, user, &format!("{user}'s secret"));
    assert_eq!(code, 0, "{user}");
    client
}

fn log_in(client: &mut Raw, mechanism: Mechanism, user: &str, password: &str) -> i16 {
    let env = Env::real();
    let mut sasl = SaslClient::new(mechanism, user, &password.into(), &*env.random).unwrap();
    choose(client, mechanism);
    let mut message = sasl.first_message();
    loop {
        let (code, answer) = authenticate(client, message);
        if code != 0 {
            return code;
        }
        match sasl.answer(&answer).unwrap() {
            ClientStep::Send(next) => message = next,
            ClientStep::Done => return 0,
        }
    }
}

fn choose(client: &mut Raw, mechanism: Mechanism) {
    let request = SaslHandshakeRequest {
        mechanism: mechanism.to_string(),
    };
    assert_eq!(client.request(1, &request).unwrap().error_code, 0);
}

fn authenticate(client: &mut Raw, message: Vec<u8>) -> (i16, Bytes) {
    let request = SaslAuthenticateRequest {
        auth_bytes: message.into(),
    };
    let response = client.request(2, &request).unwrap();
    (response.error_code, response.auth_bytes)
}

#[test]
fn requests_before_the_login() {
    let target = guarded();
    let request = MetadataRequest::default();
    assert!(target.connect().request(9, &request).is_none());
    let request = fetch("alice", 0, 1 << 20);
    assert!(target.connect().request(12, &request).is_none());
    // Also in the middle of a login.
    let mut client = target.connect();
    choose(&mut client, Mechanism::Plain);
    assert!(client.request(9, &MetadataRequest::default()).is_none());
    assert_unharmed(target);
}

#[test]
fn large_frames_before_the_login() {
    let target = guarded();
    let mut client = target.connect();
    client.send(&(1i32 << 20).to_be_bytes());
    client.send(&vec![0; 1 << 20]);
    assert!(client.is_cut());
    assert_unharmed(target);
}

#[test]
fn passwords_tried_one_after_the_other() {
    let target = guarded();
    let begin = Instant::now();
    for guess in 0..5 {
        let mut client = target.connect();
        let code = log_in(
            &mut client,
            Mechanism::Plain,
            "alice",
            &format!("guess {guess}"),
        );
        assert_eq!(code, 58);
        assert!(client.is_cut());
    }
    // 100 + 200 + 400 + 800 + 1,600 ms.
    assert!(begin.elapsed().as_millis() >= 3_100);
    assert_unharmed(target);
}

#[test]
fn login_heard_and_replayed() {
    let target = guarded();
    let env = Env::real();
    let mechanism: Mechanism = "SCRAM-SHA-256".parse().unwrap();
    let password = "alice's secret".into();
    let mut sasl = SaslClient::new(mechanism, "alice", &password, &*env.random).unwrap();
    let mut client = target.connect();
    choose(&mut client, mechanism);
    let first = sasl.first_message();
    let (_, challenge) = authenticate(&mut client, first.clone());
    let ClientStep::Send(last) = sasl.answer(&challenge).unwrap() else {
        panic!("the login went on");
    };
    assert_eq!(authenticate(&mut client, last.clone()).0, 0);
    let mut replay = target.connect();
    choose(&mut replay, mechanism);
    assert_eq!(authenticate(&mut replay, first).0, 0);
    assert_eq!(authenticate(&mut replay, last).0, 58);
    assert!(replay.is_cut());
    assert_unharmed(target);
}

#[test]
fn login_as_one_user_and_again_as_another() {
    let target = guarded();
    let mut client = logged_in(&target, "mallory");
    let mechanism = "SCRAM-SHA-256".parse().unwrap();
    let env = Env::real();
    let password = "alice's secret".into();
    let mut sasl = SaslClient::new(mechanism, "alice", &password, &*env.random).unwrap();
    choose(&mut client, mechanism);
    let (_, challenge) = authenticate(&mut client, sasl.first_message());
    let ClientStep::Send(last) = sasl.answer(&challenge).unwrap() else {
        panic!("the login went on");
    };
    let request = SaslAuthenticateRequest {
        auth_bytes: last.into(),
    };
    assert!(
        client.request(2, &request).is_none(),
        "even with the right password"
    );
    assert_unharmed(target);
}

#[test]
fn reading_and_writing_what_belongs_to_another() {
    let target = guarded();
    let mut mallory = logged_in(&target, "mallory");
    assert_eq!(mallory.produce("alice", batch(&[b"x"])), 29);
    let partition = &mallory.fetch("alice", 0).responses[0].partitions[0];
    assert_eq!(
        (partition.error_code, partition.records.is_empty()),
        (29, true)
    );
    // Writing is not reading.
    assert_eq!(mallory.produce("mallory", batch(&[b"x"])), 0);
    assert_eq!(
        mallory.fetch("mallory", 0).responses[0].partitions[0].error_code,
        29
    );
    assert_unharmed(target);
}

#[test]
fn fetching_in_the_name_of_a_broker() {
    let target = guarded();
    let mut mallory = logged_in(&target, "mallory");
    for replica in [0, 1, i32::MAX] {
        let mut request = fetch("alice", 0, 1 << 20);
        request.replica_id = replica;
        let Some(response) = mallory.request(12, &request) else {
            mallory = logged_in(&target, "mallory");
            continue;
        };
        for topic in &response.responses {
            assert!(
                topic
                    .partitions
                    .iter()
                    .all(|it| it.error_code != 0 && it.records.is_empty())
            );
        }
    }
    assert_unharmed(target);
}

#[test]
fn learning_what_exists() {
    let target = guarded();
    let mut mallory = logged_in(&target, "mallory");
    // What is there and forbidden looks like what is not there and forbidden.
    for topic in ["alice", "alice-and-bob", "nothing"] {
        assert_eq!(mallory.create_topic(topic), 29, "{topic}");
        assert_eq!(
            mallory.fetch(topic, 0).responses[0].partitions[0].error_code,
            29
        );
    }
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let seen = mallory.request(9, &all).unwrap().topics;
    let names: Vec<_> = seen
        .iter()
        .filter_map(|topic| topic.name.as_deref())
        .collect();
    assert_eq!(names, ["mallory"]);
    assert_unharmed(target);
}

#[test]
fn learning_topics_by_a_regular_expression() {
    let target = guarded();
    let request = ConsumerGroupHeartbeatRequest {
        group_id: "alice-and-the-rest".to_owned(),
        member_id: "alice".to_owned(),
        rebalance_timeout_ms: 1_000,
        subscribed_topic_regex: Some(".*".to_owned()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let told = logged_in(&target, "alice").request(1, &request).unwrap();
    assert_eq!(told.error_code, 0);
    let topics = told.assignment.unwrap().topic_partitions;
    assert_eq!(
        topics.len(),
        1,
        "she may not know of mallory's, nor of the coordinators'"
    );
    assert_unharmed(target);
}

#[test]
fn fencing_anothers_producer() {
    let target = guarded();
    let mut alice = logged_in(&target, "alice");
    let take = InitProducerIdRequest {
        transactional_id: Some("alice's job".to_owned()),
        transaction_timeout_ms: 10_000,
        ..InitProducerIdRequest::default()
    };
    let held = alice.request(4, &take).unwrap();
    assert_eq!(held.error_code, 0);
    let mut mallory = logged_in(&target, "mallory");
    assert_eq!(mallory.request(4, &take).unwrap().error_code, 53);
    let end = EndTxnRequest {
        transactional_id: "alice's job".to_owned(),
        producer_id: held.producer_id,
        producer_epoch: held.producer_epoch,
        ..EndTxnRequest::default()
    };
    assert_eq!(mallory.request(3, &end).unwrap().error_code, 53);
    let add = AddOffsetsToTxnRequest {
        transactional_id: "alice's job".to_owned(),
        producer_id: held.producer_id,
        producer_epoch: held.producer_epoch,
        group_id: "alice's group".to_owned(),
    };
    assert_eq!(mallory.request(3, &add).unwrap().error_code, 53);
    let listed = mallory
        .request(0, &ListTransactionsRequest::default())
        .unwrap();
    assert!(listed.transaction_states.is_empty());
    // She still holds it.
    let again = alice.request(4, &take).unwrap();
    assert_eq!(again.producer_epoch, held.producer_epoch + 1);
    assert_unharmed(target);
}

#[test]
fn making_oneself_an_administrator() {
    let target = guarded();
    let mut mallory = logged_in(&target, "mallory");
    let rule = CreateAclsRequest {
        creations: vec![AclCreation {
            resource_type: 2,
            resource_name: "*".to_owned(),
            resource_pattern_type: 3,
            principal: "User:mallory".to_owned(),
            host: "*".to_owned(),
            operation: 2,
            permission_type: 3,
        }],
    };
    assert_eq!(mallory.request(2, &rule).unwrap().results[0].error_code, 31);
    let user = AlterUserScramCredentialsRequest {
        upsertions: vec![ScramCredentialUpsertion {
            name: "root".to_owned(),
            mechanism: 1,
            iterations: 4_096,
            salt: Bytes::from_static(b"salt"),
            salted_password: Bytes::from(vec![7; 32]),
        }],
        ..AlterUserScramCredentialsRequest::default()
    };
    assert_eq!(mallory.request(0, &user).unwrap().results[0].error_code, 31);
    assert_eq!(
        mallory.fetch("alice", 0).responses[0].partitions[0].error_code,
        29
    );
    // Root may do both.
    let mut root = logged_in(&target, "root");
    assert_eq!(root.request(2, &rule).unwrap().results[0].error_code, 0);
    assert_eq!(
        mallory.fetch("alice", 0).responses[0].partitions[0].error_code,
        0
    );
    assert_unharmed(target);
}
