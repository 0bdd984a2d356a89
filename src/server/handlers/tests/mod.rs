//! The answers as a client gets them: requests and responses in bytes, at each version, from a broker on real files.

mod groups;
mod records;
mod security;
mod streams;
mod topics;
mod transactions;
mod versions;

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::{Broker, BrokerConfig};
use crate::env::Env;
use crate::net::Address;
use crate::protocol::batch::{
    BatchBuilder, BatchProducer, Batches, Compression, DecompressionLimit,
};
use crate::protocol::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use crate::protocol::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use crate::protocol::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use crate::protocol::wire::{RecordBytes, Request, decode_response, encode_request};
use crate::server::budget::Budget;
use crate::server::dispatch::Dispatch;
use crate::server::handler::{Frame, Handler, Malformed};
use crate::server::security::{Principal, Security};
use crate::server::session::Session;
use crate::server::{Limits, ServerConfig};
use crate::types::{Durability, Timestamp, TopicId};

/// A broker with a client.
struct Fixture {
    dispatch: Arc<Dispatch>,
    session: Arc<Session>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    /// The same data directory, closed and opened again.
    fn reopened(self) -> Self {
        self.dispatch.broker.close().unwrap();
        Self::on(self.dir)
    }

    fn on(dir: tempfile::TempDir) -> Self {
        let data = dir.path().join("data");
        let config = BrokerConfig {
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        let env = Env::real();
        let broker = Broker::open(env.clone(), &data, config).unwrap();
        let security = Security::open(&env, &data, false, Vec::new()).unwrap();
        let session = Session::new(
            1,
            Principal::anonymous(),
            "127.0.0.1:50000".parse().unwrap(),
            Address {
                host: "127.0.0.1".to_owned(),
                port: 9092,
            },
            security,
            Budget::new(&Limits::default()),
        );
        Self {
            dispatch: Arc::new(Dispatch::new(env, broker, &ServerConfig::default())),
            session: Arc::new(session),
            dir,
        }
    }

    /// Sends bytes; what comes back.
    async fn send(&self, frame: Bytes) -> Result<Option<Bytes>, Malformed> {
        let handler = Arc::clone(&self.dispatch);
        let answer = handler.handle(Arc::clone(&self.session), frame).await?;
        Ok(answer.map(whole))
    }

    /// Sends a request; its answer, if it has one.
    async fn try_ask<R: Request>(&self, version: i16, request: &R) -> Option<R::Response> {
        let frame = encode_request(version, 77, Some("client"), request).unwrap();
        let answer = self.send(frame.to_bytes()).await.unwrap()?;
        let (correlation_id, response) = decode_response::<R>(version, answer).unwrap();
        assert_eq!(correlation_id, 77);
        Some(response)
    }

    async fn ask<R: Request>(&self, version: i16, request: &R) -> R::Response {
        let answer = self.try_ask(version, request).await;
        answer.expect("the request is answered")
    }

    async fn create(&self, topic: &str, partitions_count: i32) -> TopicId {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.to_owned(),
                num_partitions: partitions_count,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let created = self.ask(7, &request).await;
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
        created.topics[0].topic_id
    }

    async fn produce(
        &self,
        version: i16,
        topic: &str,
        transactional_id: Option<&str>,
        records: Bytes,
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, transactional_id, records);
        let mut answer = self.ask(version, &request).await;
        answer.responses.remove(0).partition_responses.remove(0)
    }

    async fn fetch(&self, version: i16, request: &FetchRequest) -> FetchResponse {
        self.ask(version, request).await
    }
}

fn produce_request(topic: &str, transactional_id: Option<&str>, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        transactional_id: transactional_id.map(str::to_owned),
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
    }
}

/// A time that is neither too old for retention nor too new for a topic.
fn now() -> Timestamp {
    Env::real().clock.wall()
}

/// A batch of records with these values.
fn batch(values: &[&str], producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder.push(now(), None, Some(value.as_bytes()));
    }
    builder.finish(producer).freeze()
}

fn fetch_request(topic: &str, offset: i64, isolation_level: i8) -> FetchRequest {
    FetchRequest {
        max_bytes: 1 << 20,
        isolation_level,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn only(response: &FetchResponse) -> &PartitionData {
    &response.responses[0].partitions[0]
}

/// Joins what is sent.
fn whole(frame: Frame) -> Bytes {
    let mut bytes = Vec::new();
    let mut streams = frame.streams.into_iter().peekable();
    for index in 0..=frame.chunks.len() {
        while let Some((_, mut stream)) = streams.next_if(|(place, _)| *place == index) {
            while let Some(piece) = stream.next_piece().unwrap() {
                bytes.extend_from_slice(&piece);
            }
        }
        bytes.extend(frame.chunks.get(index).into_iter().flatten());
    }
    bytes.into()
}

/// The values of all data records.
fn values(records: &RecordBytes) -> Vec<String> {
    let mut values = Vec::new();
    for batch in Batches::new(records.clone().into_bytes()) {
        let batch = batch.unwrap();
        if batch.header().is_control() {
            continue;
        }
        let records = batch.records(&DecompressionLimit::default()).unwrap();
        for record in records.iter() {
            let value = record.unwrap().value.unwrap_or_default();
            values.push(String::from_utf8(value.to_vec()).unwrap());
        }
    }
    values
}
