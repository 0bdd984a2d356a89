//! Brokers that say for a while that a topic is not there, as they do before they have heard of it.

use bytes::Bytes;
use onceflow::client::ErrorCode;
use onceflow::client::{CommitOutcome, wait};
use onceflow::internals::protocol::wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponseTopic,
};
use onceflow::internals::protocol::wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use onceflow::internals::protocol::wire::{Reader, RequestHeader, decode_request, encode_response};

use super::proxy::{METADATA, PRODUCE};
use super::stage::{World, batch, commit, stage};

/// Answers as a broker that has not heard of any topic; its cluster is one broker at `port`.
fn without_topics(request: &[u8], port: u16) -> Vec<u8> {
    let bytes = Bytes::copy_from_slice(request);
    let (api, version, correlation_id) = RequestHeader::peek(&bytes).unwrap();
    let mut reader = Reader::new(bytes);
    RequestHeader::decode(&mut reader).unwrap();
    let frame = match api {
        PRODUCE => {
            let request: ProduceRequest = decode_request(reader, version).unwrap();
            let response = ProduceResponse {
                responses: request.topic_data.iter().map(not_there).collect(),
                ..ProduceResponse::default()
            };
            encode_response::<ProduceRequest>(version, correlation_id, &response)
        }
        METADATA => {
            let request: MetadataRequest = decode_request(reader, version).unwrap();
            let topics = request.topics.unwrap_or_default();
            let response = MetadataResponse {
                brokers: vec![MetadataResponseBroker {
                    node_id: 1,
                    host: "127.0.0.1".to_owned(),
                    port: port.into(),
                    ..MetadataResponseBroker::default()
                }],
                controller_id: 1,
                topics: topics
                    .into_iter()
                    .map(|topic| MetadataResponseTopic {
                        error_code: ErrorCode::UnknownTopicOrPartition.code(),
                        name: topic.name,
                        ..MetadataResponseTopic::default()
                    })
                    .collect(),
                ..MetadataResponse::default()
            };
            encode_response::<MetadataRequest>(version, correlation_id, &response)
        }
        other => panic!("nothing was ordered for API {other}"),
    };
    frame.unwrap().to_bytes().to_vec()
}

fn not_there(topic: &TopicProduceData) -> TopicProduceResponse {
    let partitions = topic.partition_data.iter();
    TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: partitions
            .map(|partition| PartitionProduceResponse {
                index: partition.index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                base_offset: -1,
                ..PartitionProduceResponse::default()
            })
            .collect(),
    }
}

#[test]
fn k7_a_topic_that_is_said_to_be_missing_for_a_while_loses_and_doubles_nothing() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "missing", "v2");
    let (writer, port) = (world.writer(), world.proxy.port());
    let mut expected = Vec::new();
    for transaction in 0..4 {
        let met = world.proxy.met();
        // In the middle of what is under way, and right at the beginning.
        let apis = [PRODUCE, METADATA, METADATA, PRODUCE, METADATA];
        let mut partition = writer.partition(&world.partition());
        for number in 0..20 {
            if number == transaction * 5 {
                world
                    .proxy
                    .forge(apis, move |request| without_topics(request, port));
            }
            let value = format!("{transaction}-{number}");
            partition.hand_over(&mut batch(&value)).unwrap();
            if transaction % 2 == 0 {
                expected.push(value);
            }
        }
        match transaction % 2 {
            0 => commit(&writer),
            _ => assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted),
        }
        assert!(
            world.proxy.met() > met,
            "nobody was told that it is missing"
        );
        world.proxy.forget();
    }
    world.until_committed(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    world.until_nothing_is_open();
}
