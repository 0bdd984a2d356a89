//! Requests over real sockets to brokers that misbehave in one way each: leaders and coordinators that move, pauses that
//! are asked for, answers that never come, topics made anew, leaders that lack what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::fake::{Asked, Fake, Heard, PARTITIONS};
use crate::client::transport::Transport;
use crate::client::{ClientError, wait};
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression, stamp};
use crate::protocol::messages::{
    Acks, FetchPartition, FetchRequest, FetchedPartition, NewTopic, OffsetFetchRequest, OffsetSpec,
    ProduceRequest,
};
use crate::protocol::wire::messages::create_topics as creations;
use crate::protocol::wire::messages::fetch as fetches;
use crate::protocol::wire::messages::list_offsets as offsets;
use crate::protocol::wire::messages::offset_fetch as positions;
use crate::protocol::wire::messages::offset_for_leader_epoch as ends;
use crate::protocol::wire::messages::produce as wire;
use crate::protocol::wire::{ApiKey, RecordBytes};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{GroupId, Isolation, Offset, Timestamp, TopicId, TopicName, TopicPartition};

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), partition)
}

fn records() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1), None, Some(b"value"));
    builder.finish(BatchProducer::Plain).freeze()
}

fn batch(partition: i32) -> ProduceRequest {
    ProduceRequest {
        partition: place(partition),
        records: records().into(),
        acks: Acks::All,
        transactional_id: None,
    }
}

/// Every partition of the request is answered alike.
fn produced(asked: &Asked, part: &wire::PartitionProduceResponse) -> wire::ProduceResponse {
    let request: wire::ProduceRequest = asked.request();
    let topics = request.topic_data.into_iter().map(|topic| {
        let parts = topic
            .partition_data
            .iter()
            .map(|data| wire::PartitionProduceResponse {
                index: data.index,
                ..part.clone()
            });
        wire::TopicProduceResponse {
            name: topic.name,
            partition_responses: parts.collect(),
            ..wire::TopicProduceResponse::default()
        }
    });
    wire::ProduceResponse {
        responses: topics.collect(),
        ..wire::ProduceResponse::default()
    }
}

fn partitions_of(asked: &Asked) -> BTreeSet<i32> {
    let request: wire::ProduceRequest = asked.request();
    let topics = request.topic_data.iter();
    topics
        .flat_map(|topic| topic.partition_data.iter().map(|data| data.index))
        .collect()
}

#[test]
fn batches_that_wait_for_one_broker_share_a_request() {
    let fake = Fake::new(|asked| {
        let answer = || produced(asked, &wire::PartitionProduceResponse::default());
        (asked.api == ApiKey::Produce)
            .then(|| asked.answer_later::<wire::ProduceRequest>(&answer()))
    });
    let kafka = fake.connect(&[]);
    wait(kafka.topic(&place(0).topic)).unwrap();
    let mut sent = Vec::new();
    // Five requests are under way: what comes now has to wait.
    for partition in 0..5 {
        sent.push(kafka.produce(batch(partition)));
        let count = usize::try_from(partition).unwrap() + 1;
        fake.until("the batch leaves", || {
            fake.asked(ApiKey::Produce).len() == count
        });
    }
    for partition in (5..PARTITIONS).chain(5..PARTITIONS) {
        sent.push(kafka.produce(batch(partition)));
    }
    // Whatever was handed over before this is answered, waits in its outbox.
    wait(kafka.topics()).unwrap();
    assert_eq!(fake.asked(ApiKey::Produce).len(), 5);
    fake.open_gate();
    for sent in sent {
        wait(sent).unwrap();
    }
    let asked = fake.asked(ApiKey::Produce);
    let all: BTreeSet<i32> = (5..PARTITIONS).collect();
    assert_eq!(
        asked.len(),
        7,
        "two batches of each partition, in two requests"
    );
    assert_eq!(partitions_of(&asked[5]), all);
    assert_eq!(partitions_of(&asked[6]), all);
}

/// The controller knows a topic before the brokers do.
#[test]
fn k7_a_topic_that_exists_already_can_be_found_once_its_creation_was_refused() {
    let fake = Fake::new(|asked| {
        let refused = creations::CreateTopicsResponse {
            topics: vec![creations::CreatableTopicResult {
                name: "t".to_owned(),
                error_code: ErrorCode::TopicAlreadyExists.code(),
                ..creations::CreatableTopicResult::default()
            }],
            ..creations::CreateTopicsResponse::default()
        };
        (asked.api == ApiKey::CreateTopics)
            .then(|| asked.answer::<creations::CreateTopicsRequest>(&refused))
    });
    fake.change(|known| known.hidden_looks = 3);
    let kafka = fake.connect(&[]);
    assert!(wait(kafka.topic(&place(0).topic)).unwrap().is_none());
    let refused = wait(kafka.create_topic(NewTopic {
        name: place(0).topic,
        partitions_count: PARTITIONS,
        configs: BTreeMap::new(),
    }));
    let code = refused.unwrap_err().code();
    assert_eq!(code, Some(ErrorCode::TopicAlreadyExists));
    assert!(wait(kafka.topic(&place(0).topic)).unwrap().is_some());
}

#[test]
fn a_leader_that_a_refusal_names_is_asked_next_without_metadata() {
    let third = Arc::new(AtomicUsize::new(0));
    let port = Arc::clone(&third);
    let fake = Fake::new(move |asked| {
        if asked.api != ApiKey::Produce {
            return None;
        }
        let moved = wire::PartitionProduceResponse {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            current_leader: wire::LeaderIdAndEpoch {
                leader_id: 3,
                leader_epoch: 6,
            },
            ..wire::PartitionProduceResponse::default()
        };
        let answer = match asked.node {
            3 => produced(asked, &wire::PartitionProduceResponse::default()),
            _ => wire::ProduceResponse {
                // The metadata does not know this broker yet.
                node_endpoints: vec![wire::NodeEndpoint {
                    node_id: 3,
                    host: "127.0.0.1".to_owned(),
                    port: i32::try_from(port.load(Ordering::SeqCst)).unwrap(),
                    rack: None,
                }],
                ..produced(asked, &moved)
            },
        };
        Some(asked.answer::<wire::ProduceRequest>(&answer))
    });
    third.store(usize::from(fake.port(3)), Ordering::SeqCst);
    let kafka = fake.connect(&[]);
    let refused = wait(kafka.produce(batch(0))).unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotLeaderOrFollower));
    let questions = fake.asked(ApiKey::Metadata).len();
    wait(kafka.produce(batch(0))).unwrap();
    let nodes: Vec<i32> = fake.asked(ApiKey::Produce).iter().map(|a| a.node).collect();
    assert_eq!(nodes, [1, 3]);
    assert_eq!(fake.asked(ApiKey::Metadata).len(), questions);
}

#[test]
fn k1_a_batch_that_left_is_unanswered_and_one_that_did_not_was_never_sent() {
    let fake = Fake::new(|asked| match (asked.api, asked.node) {
        (ApiKey::Produce, 1) | (ApiKey::ApiVersions, 2) => Some(Heard::HangUp),
        _ => None,
    });
    let kafka = fake.connect(&[]);
    let told = wait(kafka.produce(batch(0))).unwrap_err();
    assert!(matches!(told, ClientError::Unanswered { .. }), "{told}");
    assert_eq!(told.kind(), ErrorKind::Retriable);
    // Nobody can log in at the next leader: none of these batches leaves, and each is told.
    fake.change(|known| known.leader = (2, 6));
    wait(kafka.topic(&place(0).topic)).unwrap();
    let sent: Vec<_> = (0..3)
        .map(|partition| kafka.produce(batch(partition)))
        .collect();
    for sent in sent {
        let told = wait(sent).unwrap_err();
        assert!(matches!(told, ClientError::Connect { .. }), "{told}");
        assert_eq!(told.kind(), ErrorKind::Retriable);
    }
    assert_eq!(fake.asked(ApiKey::Produce).len(), 1);
}

#[test]
fn k1_a_batch_that_met_an_error_of_the_broker_may_have_been_written() {
    let fake = Fake::new(|asked| {
        let part = wire::PartitionProduceResponse {
            error_code: ErrorCode::UnknownServerError.code(),
            ..wire::PartitionProduceResponse::default()
        };
        (asked.api == ApiKey::Produce)
            .then(|| asked.answer::<wire::ProduceRequest>(&produced(asked, &part)))
    });
    let kafka = fake.connect(&[]);
    let told = wait(kafka.produce(batch(0))).unwrap_err();
    assert!(told.is_outcome_unknown(), "{told}");
    // As Java's producer, which doesn't send it again either.
    assert_eq!(told.kind(), ErrorKind::Fatal, "{told}");
}

/// The answer to ListOffsets for partition 0: an error, or offset 9.
fn listed(asked: &Asked, code: Option<ErrorCode>, throttle_time_ms: i32) -> Heard {
    asked.answer::<offsets::ListOffsetsRequest>(&offsets::ListOffsetsResponse {
        throttle_time_ms,
        topics: vec![offsets::ListOffsetsTopicResponse {
            name: "t".to_owned(),
            partitions: vec![offsets::ListOffsetsPartitionResponse {
                error_code: code.map_or(0, ErrorCode::code),
                offset: 9,
                ..offsets::ListOffsetsPartitionResponse::default()
            }],
        }],
    })
}

fn end_of(kafka: &dyn Transport) -> Result<Offset, ClientError> {
    let listed = kafka.list_offset(&place(0), OffsetSpec::Latest, Isolation::ReadCommitted);
    wait(listed).map(|listed| listed.unwrap().offset)
}

#[test]
fn a_broker_that_asks_for_a_pause_gets_it() {
    const PAUSE_MS: i32 = 400;
    let fake = Fake::new(|asked| {
        (asked.api == ApiKey::ListOffsets).then(|| listed(asked, None, PAUSE_MS))
    });
    let kafka = fake.connect(&[]);
    for _ in 0..2 {
        assert_eq!(end_of(&kafka).unwrap(), Offset(9));
    }
    let asked = fake.asked(ApiKey::ListOffsets);
    let pause = asked[1].at.since(asked[0].at);
    let least = Duration::from_millis(PAUSE_MS.unsigned_abs().into());
    assert!(pause >= least, "{pause:?}");
}

#[test]
fn what_may_pass_is_asked_again_and_what_will_not_is_told_at_once() {
    for (code, times) in [
        (ErrorCode::NotLeaderOrFollower, 2),
        (ErrorCode::LeaderNotAvailable, 2),
        (ErrorCode::FencedLeaderEpoch, 2),
        (ErrorCode::UnknownLeaderEpoch, 2),
        (ErrorCode::OffsetNotAvailable, 2),
        (ErrorCode::ReplicaNotAvailable, 2),
        (ErrorCode::KafkaStorageError, 2),
        (ErrorCode::RequestTimedOut, 2),
        (ErrorCode::NetworkException, 2),
        (ErrorCode::UnknownTopicOrPartition, 2),
        (ErrorCode::TopicAuthorizationFailed, 1),
        (ErrorCode::UnsupportedVersion, 1),
        (ErrorCode::InvalidRequest, 1),
        (ErrorCode::UnknownServerError, 1),
    ] {
        let count = AtomicUsize::new(0);
        let fake = Fake::new(move |asked| {
            (asked.api == ApiKey::ListOffsets).then(|| {
                let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
                listed(asked, is_first.then_some(code), 0)
            })
        });
        let kafka = fake.connect(&[("retry.backoff.ms", "1")]);
        let outcome = end_of(&kafka);
        assert_eq!(fake.asked(ApiKey::ListOffsets).len(), times, "{code}");
        match times {
            1 => assert_eq!(outcome.unwrap_err().code(), Some(code)),
            _ => assert_eq!(outcome.unwrap(), Offset(9), "{code}"),
        }
    }
}

#[test]
fn k1_a_request_without_an_answer_is_sent_again_on_another_connection() {
    let count = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| {
        (asked.api == ApiKey::ListOffsets).then(|| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Heard::Nothing,
            _ => listed(asked, None, 0),
        })
    });
    let kafka = fake.connect(&[("request.timeout.ms", "300")]);
    let greetings = fake.asked(ApiKey::ApiVersions).len();
    assert_eq!(end_of(&kafka).unwrap(), Offset(9));
    assert_eq!(fake.asked(ApiKey::ListOffsets).len(), 2);
    // One connection to the leader that was found, and another one.
    assert!(fake.asked(ApiKey::ApiVersions).len() >= greetings + 2);
}

#[test]
fn a_request_that_never_succeeds_is_given_up_in_time() {
    let fake = Fake::new(|asked| {
        let code = Some(ErrorCode::LeaderNotAvailable);
        (asked.api == ApiKey::ListOffsets).then(|| listed(asked, code, 0))
    });
    let kafka = fake.connect(&[
        ("default.api.timeout.ms", "300"),
        ("retry.backoff.ms", "20"),
    ]);
    let told = end_of(&kafka).unwrap_err();
    assert_eq!(told.code(), Some(ErrorCode::LeaderNotAvailable));
    let tries = fake.asked(ApiKey::ListOffsets).len();
    assert!((2..=20).contains(&tries), "{tries}");
}

#[test]
fn a_coordinator_that_moved_is_found_again() {
    let fake = Fake::new(|asked| {
        (asked.api == ApiKey::OffsetFetch).then(|| {
            let error_code = match asked.node {
                1 => ErrorCode::NotCoordinator.code(),
                _ => 0,
            };
            asked.answer::<positions::OffsetFetchRequest>(&positions::OffsetFetchResponse {
                groups: vec![positions::OffsetFetchResponseGroup {
                    group_id: "g".to_owned(),
                    error_code,
                    ..positions::OffsetFetchResponseGroup::default()
                }],
                ..positions::OffsetFetchResponse::default()
            })
        })
    });
    let kafka = fake.connect(&[("retry.backoff.ms", "200")]);
    let asking = kafka.offset_fetch(OffsetFetchRequest {
        group: GroupId::new("g").unwrap(),
        partitions: None,
        require_stable: true,
    });
    fake.until("the old one is asked", || {
        !fake.asked(ApiKey::OffsetFetch).is_empty()
    });
    fake.change(|known| known.coordinator = 2);
    assert!(wait(asking).unwrap().is_empty());
    let nodes: Vec<i32> = fake
        .asked(ApiKey::OffsetFetch)
        .iter()
        .map(|a| a.node)
        .collect();
    assert_eq!(nodes.last(), Some(&2));
}

fn fetch(kafka: &dyn Transport, offset: i64) -> Result<Vec<FetchedPartition>, ClientError> {
    wait(kafka.fetch(FetchRequest {
        partitions: vec![FetchPartition {
            partition: place(0),
            offset: Offset(offset),
            max_bytes: 1 << 20,
        }],
        isolation: Isolation::ReadUncommitted,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_wait: Duration::from_millis(100),
    }))
}

/// One record at the offset that is asked for, written under leader epoch 5; or an error.
fn part(asked: &Asked, code: Option<ErrorCode>) -> fetches::FetchResponse {
    let request: fetches::FetchRequest = asked.request();
    let topic = &request.topics[0];
    let offset = topic.partitions[0].fetch_offset;
    let mut batch = records().to_vec();
    stamp(&mut batch, Offset(offset), 5);
    fetches::FetchResponse {
        responses: vec![fetches::FetchableTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: vec![fetches::PartitionData {
                error_code: code.map_or(0, ErrorCode::code),
                high_watermark: offset + 1,
                records: match code {
                    None => Bytes::from(batch).into(),
                    Some(_) => RecordBytes::default(),
                },
                ..fetches::PartitionData::default()
            }],
        }],
        ..fetches::FetchResponse::default()
    }
}

fn fetched(asked: &Asked, code: Option<ErrorCode>) -> Heard {
    asked.answer::<fetches::FetchRequest>(&part(asked, code))
}

fn topic_id(asked: &Asked) -> TopicId {
    let request: fetches::FetchRequest = asked.request();
    request.topics[0].topic_id
}

#[test]
fn records_are_fetched_by_topic_id_and_a_topic_made_anew_is_found() {
    let fake = Fake::new(|asked| {
        (asked.api == ApiKey::Fetch).then(|| {
            let is_known = topic_id(asked) == TopicId(8);
            fetched(asked, (!is_known).then_some(ErrorCode::UnknownTopicId))
        })
    });
    let kafka = fake.connect(&[("retry.backoff.ms", "1")]);
    wait(kafka.topic(&place(0).topic)).unwrap();
    fake.change(|known| (known.topic_id, known.leader) = (TopicId(8), (1, 0)));
    let read = fetch(&kafka, 3).unwrap();
    assert!(!read[0].result.as_ref().unwrap().records.is_empty());
    let asked = fake.asked(ApiKey::Fetch);
    assert!(asked[0].version() >= 13, "{}", asked[0].version());
    let ids: Vec<TopicId> = asked.iter().map(topic_id).collect();
    assert_eq!(ids, [TopicId(7), TopicId(8)]);
}

#[test]
fn a_leader_that_a_fetch_names_is_read_next_without_metadata() {
    let third = Arc::new(AtomicUsize::new(0));
    let port = Arc::clone(&third);
    let fake = Fake::new(move |asked| {
        if asked.api != ApiKey::Fetch || asked.node == 3 {
            return (asked.api == ApiKey::Fetch).then(|| fetched(asked, None));
        }
        let mut moved = part(asked, Some(ErrorCode::NotLeaderOrFollower));
        moved.responses[0].partitions[0].current_leader = fetches::LeaderIdAndEpoch {
            leader_id: 3,
            leader_epoch: 6,
        };
        moved.node_endpoints = vec![fetches::NodeEndpoint {
            node_id: 3,
            host: "127.0.0.1".to_owned(),
            port: i32::try_from(port.load(Ordering::SeqCst)).unwrap(),
            rack: None,
        }];
        Some(asked.answer::<fetches::FetchRequest>(&moved))
    });
    third.store(usize::from(fake.port(3)), Ordering::SeqCst);
    let kafka = fake.connect(&[("retry.backoff.ms", "1")]);
    wait(kafka.topic(&place(0).topic)).unwrap();
    let questions = fake.asked(ApiKey::Metadata).len();
    assert!(fetch(&kafka, 0).unwrap()[0].result.is_ok());
    let nodes: Vec<i32> = fake.asked(ApiKey::Fetch).iter().map(|a| a.node).collect();
    assert_eq!(nodes, [1, 3]);
    assert_eq!(fake.asked(ApiKey::Metadata).len(), questions);
}

#[test]
fn a_position_in_a_topic_that_was_made_anew_is_an_error_once() {
    let current = Arc::new(AtomicUsize::new(7));
    let id = Arc::clone(&current);
    let fake = Fake::new(move |asked| {
        (asked.api == ApiKey::Fetch).then(|| {
            let is_known = topic_id(asked).0 == id.load(Ordering::SeqCst) as u128;
            fetched(asked, (!is_known).then_some(ErrorCode::UnknownTopicId))
        })
    });
    let kafka = fake.connect(&[("retry.backoff.ms", "1")]);
    fetch(&kafka, 0).unwrap();
    current.store(8, Ordering::SeqCst);
    fake.change(|known| (known.topic_id, known.leader) = (TopicId(8), (1, 0)));
    let told = fetch(&kafka, 1).unwrap_err();
    assert!(matches!(told, ClientError::TopicRecreated { .. }), "{told}");
    // Whoever reads on there all the same means the new one.
    assert!(fetch(&kafka, 1).unwrap()[0].result.is_ok());
}

/// A leader of epoch 5 whose records are read up to offset 1, then one of epoch 6, which holds those of epoch 5 up to `end`.
fn after_an_election(end: i64) -> (Fake, Result<Vec<FetchedPartition>, ClientError>) {
    let fake = Fake::new(move |asked| match asked.api {
        ApiKey::Fetch => {
            let request: fetches::FetchRequest = asked.request();
            let partition = &request.topics[0].partitions[0];
            let is_over = asked.node == 1 && partition.fetch_offset > 0;
            Some(fetched(
                asked,
                is_over.then_some(ErrorCode::FencedLeaderEpoch),
            ))
        }
        ApiKey::OffsetForLeaderEpoch => {
            let request: ends::OffsetForLeaderEpochRequest = asked.request();
            let partition = &request.topics[0].partitions[0];
            assert_eq!(
                (partition.leader_epoch, partition.current_leader_epoch),
                (5, 6)
            );
            Some(asked.answer::<ends::OffsetForLeaderEpochRequest>(
                &ends::OffsetForLeaderEpochResponse {
                    topics: vec![ends::OffsetForLeaderTopicResult {
                        topic: "t".to_owned(),
                        partitions: vec![ends::EpochEndOffset {
                            leader_epoch: 5,
                            end_offset: end,
                            ..ends::EpochEndOffset::default()
                        }],
                    }],
                    ..ends::OffsetForLeaderEpochResponse::default()
                },
            ))
        }
        _ => None,
    });
    let kafka = fake.connect(&[("retry.backoff.ms", "1")]);
    let read = fetch(&kafka, 0).unwrap();
    assert!(read[0].result.is_ok());
    fake.change(|known| known.leader = (2, 6));
    let outcome = fetch(&kafka, 1);
    if outcome.is_ok() {
        fetch(&kafka, 1).unwrap();
    }
    (fake, outcome)
}

#[test]
fn a_reader_hears_that_a_new_leader_lacks_what_it_read() {
    let (_fake, outcome) = after_an_election(0);
    let told = outcome.unwrap_err();
    let ClientError::LogTruncated {
        position,
        end_offset,
        ..
    } = &told
    else {
        panic!("{told}");
    };
    assert_eq!((*position, *end_offset), (Offset(1), Some(Offset(0))));
    assert!(told.to_string().contains("unclean.leader.election.enable"));
}

#[test]
fn a_reader_goes_on_at_a_new_leader_that_has_what_it_read() {
    let (fake, outcome) = after_an_election(1);
    assert!(outcome.unwrap()[0].result.is_ok());
    assert_eq!(
        fake.asked(ApiKey::OffsetForLeaderEpoch).len(),
        1,
        "once an election"
    );
}
