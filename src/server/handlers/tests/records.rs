//! Records: written, read, waited for; sessions; offsets.

use std::time::Duration;

use bytes::Bytes;

use super::{Fixture, batch, fetch_request, only, produce_request, values};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use crate::protocol::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::protocol::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::protocol::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::protocol::wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp, TopicName};

#[tokio::test]
async fn records_are_written_and_read_back_at_every_version() {
    let fixture = Fixture::new();
    let id = fixture.create("t", 1).await;
    for (offset, version) in (0..).zip(3..=12) {
        let answer = fixture
            .produce(version, "t", None, batch(&["v"], BatchProducer::Plain))
            .await;
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (0, offset),
            "version {version}"
        );
    }
    for version in 4..=16 {
        let mut request = fetch_request("t", 0, 0);
        if version >= 13 {
            request.topics[0].topic = String::new();
            request.topics[0].topic_id = id;
        }
        let answer = fixture.fetch(version, &request).await;
        let read = only(&answer);
        assert_eq!(
            (read.error_code, read.high_watermark),
            (0, 10),
            "version {version}"
        );
        assert_eq!(values(&read.records).len(), 10);
        // Only readers of committed records are told of aborted ones; the last stable offset everybody.
        assert_eq!(
            (read.last_stable_offset, &read.aborted_transactions),
            (10, &None)
        );
    }
}

#[tokio::test]
async fn a_fetch_gives_whole_batches_and_at_least_one() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    fixture
        .produce(9, "t", None, batch(&["a", "b", "c"], BatchProducer::Plain))
        .await;
    let mut request = fetch_request("t", 2, 0);
    request.max_bytes = 1;
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let answer = fixture.fetch(12, &request).await;
    // The batch that holds offset 2, from its first record on; the client leaves out what it did not ask for.
    assert_eq!(values(&only(&answer).records), ["a", "b", "c"]);
}

#[tokio::test]
async fn nobody_answers_a_produce_without_acks() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let mut request = produce_request("t", None, batch(&["v"], BatchProducer::Plain));
    request.acks = 0;
    assert_eq!(fixture.try_ask(7, &request).await, None);
    // Not even if it is refused.
    request.topic_data[0].name = "missing".to_owned();
    assert_eq!(fixture.try_ask(7, &request).await, None);
    let read = fixture.fetch(9, &fetch_request("t", 0, 0)).await;
    assert_eq!(values(&only(&read).records), ["v"]);
}

#[tokio::test]
async fn what_cannot_be_appended_is_refused_by_its_code() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let good = batch(&["v"], BatchProducer::Plain);
    let mut damaged = good.to_vec();
    let end = damaged.len() - 1;
    damaged[end] ^= 1;
    let mut zstd = BatchBuilder::new(Compression::Zstd, None);
    zstd.push(Timestamp(1), None, Some(&[7; 1000]));
    let zstd = zstd.finish(BatchProducer::Plain).freeze();
    for (version, topic, records, code) in [
        (
            9,
            "missing",
            good.clone(),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (9, "..", good.clone(), ErrorCode::InvalidTopicException),
        (
            9,
            "__consumer_offsets",
            good.clone(),
            ErrorCode::InvalidTopicException,
        ),
        (9, "t", Bytes::new(), ErrorCode::InvalidRecord),
        (9, "t", Bytes::from(damaged), ErrorCode::CorruptMessage),
        (6, "t", zstd, ErrorCode::UnsupportedCompressionType),
    ] {
        let answer = fixture.produce(version, topic, None, records).await;
        assert_eq!(answer.error_code, code.code(), "{topic} {code:?}");
    }
    let mut request = produce_request("t", None, good);
    request.acks = 2;
    let answer = fixture.ask(9, &request).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::InvalidRequiredAcks.code());
}

#[tokio::test]
async fn x16_a_batch_of_a_transaction_without_a_transactional_id_is_refused_as_by_kafka() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let identity = ProducerIdentity {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
    };
    let producer = BatchProducer::Transactional(identity, Sequence(0));
    let answer = fixture.produce(9, "t", None, batch(&["v"], producer)).await;
    let code = ErrorCode::TransactionalIdAuthorizationFailed.code();
    assert_eq!(answer.error_code, code);
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_not_for_errors() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let mut request = fetch_request("t", 0, 0);
    request.min_bytes = 1;
    request.max_wait_ms = 600_000;
    let reading = async { fixture.fetch(12, &request).await };
    let writing = async {
        // Once the reader waits: what wakes it is the append.
        tokio::task::yield_now().await;
        fixture
            .produce(9, "t", None, batch(&["v"], BatchProducer::Plain))
            .await
    };
    let (read, _) = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(reading, writing)
    })
    .await
    .expect("the reader is woken");
    assert_eq!(values(&only(&read).records), ["v"]);

    request.topics[0].partitions.push(FetchPartition {
        partition: 7,
        ..FetchPartition::default()
    });
    request.topics[0].partitions[0].fetch_offset = 1;
    let answer = tokio::time::timeout(Duration::from_secs(60), fixture.fetch(12, &request))
        .await
        .expect("an error is told at once");
    let code = answer.responses[0]
        .partitions
        .iter()
        .find(|p| p.partition_index == 7)
        .unwrap();
    assert_eq!(code.error_code, ErrorCode::UnknownTopicOrPartition.code());
}

/// The request that goes on with a session.
fn next(session_id: i32, session_epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest {
        max_bytes: 1 << 20,
        session_id,
        session_epoch,
        topics,
        ..FetchRequest::default()
    }
}

#[tokio::test]
async fn a_session_is_told_of_changes_only() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    fixture.create("u", 1).await;
    let mut first = fetch_request("t", 0, 0);
    first.topics.push(fetch_request("u", 0, 0).topics.remove(0));
    first.session_epoch = 0;
    let begun = fixture.fetch(12, &first).await;
    assert!(begun.session_id > 0);
    assert_eq!(begun.responses.len(), 2, "at first all partitions are told");
    let id = begun.session_id;

    let nothing = fixture.fetch(12, &next(id, 1, Vec::new())).await;
    assert_eq!((nothing.session_id, nothing.responses.len()), (id, 0));

    fixture
        .produce(9, "u", None, batch(&["v"], BatchProducer::Plain))
        .await;
    let news = fixture.fetch(12, &next(id, 2, Vec::new())).await;
    assert_eq!(news.responses.len(), 1);
    assert_eq!(news.responses[0].topic, "u");
    assert_eq!(values(&only(&news).records), ["v"]);

    // The client goes on behind what it read; then there is nothing new again.
    let onward = fixture
        .fetch(12, &next(id, 3, fetch_request("u", 1, 0).topics))
        .await;
    assert_eq!(onward.responses.len(), 0);

    for (id, epoch, code) in [
        (id, 9, ErrorCode::InvalidFetchSessionEpoch),
        (id ^ 1, 4, ErrorCode::FetchSessionIdNotFound),
    ] {
        let refused = fixture.fetch(12, &next(id, epoch, Vec::new())).await;
        assert_eq!(
            (refused.error_code, refused.responses.len()),
            (code.code(), 0)
        );
    }
    // A session that ends is unknown from then on.
    fixture.fetch(12, &next(id, -1, Vec::new())).await;
    let ended = fixture.fetch(12, &next(id, 4, Vec::new())).await;
    assert_eq!(ended.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn a_leader_epoch_that_never_was_is_refused_and_the_one_there_is_ends_at_the_end() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    fixture
        .produce(9, "t", None, batch(&["a", "b"], BatchProducer::Plain))
        .await;
    let mut request = fetch_request("t", 0, 0);
    for (epoch, code) in [(-1, 0), (0, 0), (1, ErrorCode::UnknownLeaderEpoch.code())] {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = fixture.fetch(12, &request).await;
        assert_eq!(only(&answer).error_code, code);
    }
    let ends = |leader_epoch| OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: "t".to_owned(),
            partitions: vec![OffsetForLeaderPartition {
                leader_epoch,
                ..OffsetForLeaderPartition::default()
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    for (epoch, expected) in [(0, (0, 2)), (5, (-1, -1))] {
        let answer = fixture.ask(4, &ends(epoch)).await;
        let end = &answer.topics[0].partitions[0];
        assert_eq!((end.leader_epoch, end.end_offset), expected);
    }
}

#[tokio::test]
async fn a_client_from_before_a_restart_is_fenced_and_told_where_its_epoch_ended() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let plain = || batch(&["a", "b"], BatchProducer::Plain);
    fixture.produce(9, "t", None, plain()).await;
    let fixture = fixture.reopened();
    let mut request = fetch_request("t", 0, 0);
    for (epoch, code) in [
        (-1, 0),
        (0, ErrorCode::FencedLeaderEpoch.code()),
        (1, 0),
        (2, ErrorCode::UnknownLeaderEpoch.code()),
    ] {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = fixture.fetch(12, &request).await;
        assert_eq!(only(&answer).error_code, code, "epoch {epoch}");
    }
    fixture.produce(9, "t", None, plain()).await;
    let ends = OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: "t".to_owned(),
            partitions: [0, 1, 2]
                .map(|leader_epoch| OffsetForLeaderPartition {
                    current_leader_epoch: 1,
                    leader_epoch,
                    ..OffsetForLeaderPartition::default()
                })
                .to_vec(),
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    let answer = fixture.ask(4, &ends).await;
    let ends = answer.topics[0].partitions.iter();
    let ends: Vec<_> = ends.map(|end| (end.leader_epoch, end.end_offset)).collect();
    assert_eq!(ends, [(0, 2), (1, 4), (-1, -1)]);
    // A reader that says which epoch its last record had, and claims more of it than there is, has read what is gone.
    let read = &mut request.topics[0].partitions[0];
    (read.current_leader_epoch, read.last_fetched_epoch) = (1, 0);
    for (offset, expected) in [(2, (-1, -1)), (3, (0, 2))] {
        request.topics[0].partitions[0].fetch_offset = offset;
        let answer = fixture.fetch(12, &request).await;
        let answer = only(&answer);
        let diverging = (
            answer.diverging_epoch.epoch,
            answer.diverging_epoch.end_offset,
        );
        assert_eq!((answer.error_code, diverging), (0, expected));
        assert_eq!(answer.records.is_empty(), expected.0 >= 0);
    }
    let asked = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let metadata = fixture.ask(9, &asked).await;
    assert_eq!(metadata.topics[0].partitions[0].leader_epoch, 1);
}

#[tokio::test]
async fn a_session_reads_topics_by_their_ids_and_a_topic_made_anew_is_another_one() {
    let fixture = Fixture::new();
    let first = fixture.create("t", 1).await;
    fixture
        .produce(9, "t", None, batch(&["a"], BatchProducer::Plain))
        .await;
    let mut request = fetch_request("t", 0, 0);
    request.session_epoch = 0;
    request.topics[0].topic_id = first;
    let begun = fixture.fetch(16, &request).await;
    assert_eq!((begun.error_code, begun.responses[0].topic_id), (0, first));
    assert!(!only(&begun).records.is_empty());
    let name = TopicName::new("t").unwrap();
    fixture.dispatch.broker.delete_topic(&name).unwrap();
    let second = fixture.create("t", 1).await;
    assert_ne!(first, second);
    let next = fixture
        .fetch(16, &next(begun.session_id, 1, Vec::new()))
        .await;
    let gone = only(&next).error_code;
    assert_eq!(
        gone,
        ErrorCode::UnknownTopicId.code(),
        "its records are not those of the new topic"
    );
    // A session names its topics in one way.
    let mut named = fetch_request("t", 0, 0);
    named.session_id = begun.session_id;
    named.session_epoch = 2;
    let mixed = fixture.fetch(12, &named).await;
    assert_eq!(mixed.error_code, ErrorCode::FetchSessionTopicIdError.code());
}

#[tokio::test]
async fn x16_bad_records_of_a_batch_are_named_and_the_good_ones_are_not() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let now = super::now().0;
    let mut builder = BatchBuilder::new(Compression::Lz4, None);
    for (value, time) in [("a", now), ("b", now + 7_200_000), ("c", now)] {
        builder.push(Timestamp(time), None, Some(value.as_bytes()));
    }
    let records = builder.finish(BatchProducer::Plain).freeze();
    let answer = fixture.produce(9, "t", None, records).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidTimestamp.code());
    let [bad] = &answer.record_errors[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(bad.batch_index, 1);
    let why = bad.batch_index_error_message.as_deref().unwrap();
    assert!(why.contains("message.timestamp.after.max.ms"), "{why}");
}

#[tokio::test]
async fn x16_two_batches_for_one_partition_in_one_request_are_refused() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let one = batch(&["a"], BatchProducer::Plain);
    let two = Bytes::from([&one[..], &one[..]].concat());
    let answer = fixture.produce(9, "t", None, two).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
    let mut twice = produce_request("t", None, one.clone());
    let again = twice.topic_data[0].partition_data[0].clone();
    twice.topic_data[0].partition_data.push(again);
    let answer = fixture.ask(9, &twice).await;
    let codes = answer.responses[0].partition_responses.iter();
    let codes: Vec<_> = codes.map(|part| part.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest.code(); 2]);
    let answer = fixture.produce(9, "t", None, one).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
}

#[tokio::test]
async fn x13_a_fetch_that_cannot_read_zstd_is_told_so_where_zstd_begins() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let plain = batch(&["a"], BatchProducer::Plain);
    let mut zstd = BatchBuilder::new(Compression::Zstd, None);
    zstd.push(super::now(), None, Some(b"b"));
    let zstd = zstd.finish(BatchProducer::Plain).freeze();
    for records in [plain, zstd] {
        assert_eq!(fixture.produce(9, "t", None, records).await.error_code, 0);
    }
    for (version, offset, code, seen) in [
        (9, 0, 0, 1),
        (9, 1, ErrorCode::UnsupportedCompressionType.code(), 0),
        (10, 0, 0, 2),
        (10, 1, 0, 1),
    ] {
        let read = fixture.fetch(version, &fetch_request("t", offset, 0)).await;
        let read = only(&read);
        assert_eq!(read.error_code, code, "{version}, {offset}");
        assert_eq!(values(&read.records).len(), seen, "{version}, {offset}");
    }
}

#[tokio::test]
async fn offsets_are_found_by_time_and_at_both_ends() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let first = super::now().0;
    for time in [first, first + 500] {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(Timestamp(time), None, Some(b"v"));
        let records = builder.finish(BatchProducer::Plain).freeze();
        assert_eq!(fixture.produce(9, "t", None, records).await.error_code, 0);
    }
    let list = |timestamp| ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    for (timestamp, offset, found) in [
        (-1, 2, -1),
        (-2, 0, -1),
        (-3, 1, first + 500),
        (first + 1, 1, first + 500),
        (first + 501, -1, -1),
    ] {
        for version in 1..=10 {
            let answer = fixture.ask(version, &list(timestamp)).await;
            let listed = &answer.topics[0].partitions[0];
            // The largest timestamp can be asked for since version 7.
            let expected = match timestamp == -3 && version < 7 {
                true => (35, -1, -1),
                false => (0, offset, found),
            };
            assert_eq!(
                (listed.error_code, listed.offset, listed.timestamp),
                expected,
                "timestamp {timestamp}, version {version}"
            );
        }
    }
}
