//! Fetch: reads record batches, waiting for more where too few are there. Large reads become streams, which the
//! connection reads while it sends the answer.

use std::time::Duration;

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::fetch_session::TopicKey;
use super::topic_name;
use crate::broker::{BrokerError, RecordSource, RecordStream};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{Batch, Batches, Compression};
use crate::protocol::messages::{
    FetchPartition as Read, FetchRequest as ReadRequest, FetchedPartition, FetchedRecords,
};
use crate::protocol::wire::RecordBytes;
use crate::protocol::wire::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchRequest, FetchResponse,
    FetchableTopicResponse, PartitionData,
};
use crate::types::{Isolation, Offset, TopicId, TopicName, TopicPartition};

/// The longest that a client may have a fetch wait, so that a connection that is gone is noticed some time.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// From this version on clients read zstd.
const ZSTD_FROM: i16 = 10;
/// From this version on topics are named by their ids.
const TOPIC_IDS_FROM: i16 = 13;
/// The most bytes of records in one answer (Kafka's broker has the same, as `fetch.max.bytes`).
const ANSWER_BYTES_MAX: usize = 55 << 20;

type Answers = Vec<(TopicKey, PartitionData)>;

/// The response, and the streams that belong where it says [`RecordBytes::Later`], in order.
pub(in crate::server) async fn fetch(
    call: &Call<'_>,
    request: FetchRequest,
) -> (FetchResponse, Vec<RecordStream>) {
    let sessions = &call.dispatch.fetch_sessions;
    let connection = call.session.id();
    let plan = match sessions.begin(connection, &request) {
        Ok(plan) => plan,
        Err(code) => {
            let refused = FetchResponse {
                error_code: code.code(),
                ..FetchResponse::default()
            };
            return (refused, Vec::new());
        }
    };
    let mut streams = Vec::new();
    let mut answers = read(call, &request, &plan.partitions, &mut streams).await;
    // What has records is told in any case, so that every stream keeps its place.
    let session_id = sessions.finish(connection, plan, &mut answers);
    let response = FetchResponse {
        session_id,
        responses: by_topic(answers),
        ..FetchResponse::default()
    };
    (response, streams)
}

/// Reads all partitions at once: those that can be read, while the others are answered with what is wrong with them.
async fn read(
    call: &Call<'_>,
    request: &FetchRequest,
    asked: &[(TopicKey, FetchPartition)],
    streams: &mut Vec<RecordStream>,
) -> Answers {
    let isolation = match request.isolation_level {
        1 => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    let names = resolve(call, asked);
    let mut refused = Answers::new();
    let mut keys = Vec::with_capacity(asked.len());
    let mut partitions = Vec::with_capacity(asked.len());
    for ((key, partition), name) in asked.iter().zip(names) {
        match readable(call, name, partition) {
            Ok(read) => {
                keys.push(key);
                partitions.push(read);
            }
            Err(refusal) => refused.push((key.clone(), *refusal)),
        }
    }
    let has_refusal = !refused.is_empty();
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let request = ReadRequest {
        partitions,
        isolation,
        // An error is told at once.
        min_bytes: if has_refusal { 0 } else { min_bytes },
        max_bytes: max_bytes.min(ANSWER_BYTES_MAX),
        max_wait: if has_refusal {
            Duration::ZERO
        } else {
            max_wait.min(WAIT_MAX)
        },
    };
    let mut answers = match fetch_for(call, request, max_bytes).await {
        Ok(fetched) => fetched
            .into_iter()
            .zip(&keys)
            .map(|(partition, key)| ((*key).clone(), answer(partition, isolation, streams)))
            .collect(),
        Err(error) => {
            let failed = |(key, partition): &(TopicKey, FetchPartition)| {
                (key.clone(), failed(partition.partition, error.code))
            };
            return asked.iter().map(failed).collect();
        }
    };
    refused.append(&mut answers);
    refused
}

/// Reads what a client of the call's version can read.
async fn fetch_for(
    call: &Call<'_>,
    mut request: ReadRequest,
    max_bytes: usize,
) -> Result<Vec<FetchedPartition<RecordSource>>, BrokerError> {
    let held_bytes_max = call.session.fetch_bytes_max(max_bytes);
    if call.version() >= ZSTD_FROM {
        let fetched = call.broker().fetch_streams(request, held_bytes_max);
        return fetched.await;
    }
    request.max_bytes = request.max_bytes.min(held_bytes_max);
    let fetched = call.broker().fetch(request).await?;
    Ok(fetched.into_iter().map(without_zstd).collect())
}

/// The batches before the first one that is compressed with zstd; an error if that comes first.
fn without_zstd(fetched: FetchedPartition) -> FetchedPartition<RecordSource> {
    let result = fetched.result.and_then(|read| {
        let is_readable = |batch: &Batch| batch.header().compression() != Compression::Zstd;
        let batches = Batches::new(read.records.clone()).map_while(Result::ok);
        let readable = batches.take_while(is_readable);
        let length: usize = readable.map(|batch| batch.bytes().len()).sum();
        match length == 0 && !read.records.is_empty() {
            true => Err(ErrorCode::UnsupportedCompressionType),
            false => Ok(FetchedRecords {
                records: RecordSource::Read(read.records.slice(..length)),
                aborted_transactions: read.aborted_transactions,
                high_watermark: read.high_watermark,
                last_stable_offset: read.last_stable_offset,
                log_start_offset: read.log_start_offset,
            }),
        }
    });
    FetchedPartition {
        partition: fetched.partition,
        result,
    }
}

/// The topics' names, each looked up and permitted once.
fn resolve(
    call: &Call<'_>,
    asked: &[(TopicKey, FetchPartition)],
) -> Vec<Result<TopicName, ErrorCode>> {
    let mut names: Vec<Result<TopicName, ErrorCode>> = Vec::with_capacity(asked.len());
    let mut last: Option<&TopicKey> = None;
    for (key, _) in asked {
        let name = match names.last() {
            Some(name) if last == Some(key) => name.clone(),
            _ => permitted(call, key),
        };
        last = Some(key);
        names.push(name);
    }
    names
}

fn permitted(call: &Call<'_>, key: &TopicKey) -> Result<TopicName, ErrorCode> {
    if call.version() < TOPIC_IDS_FROM {
        call.allow_topic(Operation::Read, &key.name)
            .map_err(|error| error.code)?;
        return topic_name(&key.name).map_err(|_| ErrorCode::UnknownTopicOrPartition);
    }
    if key.id == TopicId::default() {
        return Err(ErrorCode::UnknownTopicId);
    }
    let topic = call.topic_by_id(key.id).map_err(|error| error.code)?;
    let may = |operation| {
        let topic = Resource::Topic(topic.name.as_str());
        call.session.is_allowed(operation, topic)
    };
    match (may(Operation::Read), may(Operation::Describe)) {
        (true, _) => Ok(topic.name),
        // Who may know of the topic is told what is missing.
        (false, true) => Err(ErrorCode::TopicAuthorizationFailed),
        (false, false) => Err(ErrorCode::UnknownTopicId),
    }
}

/// Finds what to read, or why nothing.
fn readable(
    call: &Call<'_>,
    name: Result<TopicName, ErrorCode>,
    partition: &FetchPartition,
) -> Result<Read, Box<PartitionData>> {
    let refused = |code| Box::new(failed(partition.partition, code));
    let name = name.map_err(refused)?;
    let name = TopicPartition::new(name, partition.partition);
    call.check_leader_epoch(&name, partition.current_leader_epoch)
        .map_err(refused)?;
    match diverging(call, &name, partition).map_err(refused)? {
        None => {}
        Some(diverging_epoch) => {
            return Err(Box::new(PartitionData {
                diverging_epoch,
                ..empty(partition.partition)
            }));
        }
    }
    Ok(Read {
        partition: name,
        offset: Offset(partition.fetch_offset),
        max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
    })
}

/// Where the log parted from what a reader has that names the epoch of its last record; `None` if it did not.
fn diverging(
    call: &Call<'_>,
    name: &TopicPartition,
    asked: &FetchPartition,
) -> Result<Option<EpochEndOffset>, ErrorCode> {
    if asked.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let end = call
        .broker()
        .leader_epoch_end(name, asked.last_fetched_epoch)
        .map_err(|error| error.code)?;
    let Some((epoch, end)) = end else {
        return Err(ErrorCode::OffsetOutOfRange);
    };
    let is_diverging = epoch < asked.last_fetched_epoch || end.0 < asked.fetch_offset;
    Ok(is_diverging.then_some(EpochEndOffset {
        epoch,
        end_offset: end.0,
    }))
}

fn answer(
    fetched: FetchedPartition<RecordSource>,
    isolation: Isolation,
    streams: &mut Vec<RecordStream>,
) -> PartitionData {
    let index = fetched.partition.partition;
    match fetched.result {
        Ok(records) => read_data(index, records, isolation, streams),
        Err(code) => failed(index, code),
    }
}

fn read_data(
    index: i32,
    read: FetchedRecords<RecordSource>,
    isolation: Isolation,
    streams: &mut Vec<RecordStream>,
) -> PartitionData {
    let is_committed = isolation == Isolation::ReadCommitted;
    // Only `read_committed` readers are given the list (some clients drop records on any list); it is sorted by offset.
    let aborted = is_committed.then(|| {
        let aborted = read.aborted_transactions.iter();
        aborted
            .map(|transaction| AbortedTransaction {
                producer_id: transaction.producer_id.0,
                first_offset: transaction.first_offset.0,
            })
            .collect()
    });
    PartitionData {
        partition_index: index,
        high_watermark: read.high_watermark.0,
        last_stable_offset: read.last_stable_offset.0,
        log_start_offset: read.log_start_offset.0,
        aborted_transactions: aborted,
        records: match read.records {
            RecordSource::Read(records) => RecordBytes::Here(records),
            RecordSource::Stream(stream) => {
                let length_bytes = stream.left_bytes();
                streams.push(stream);
                RecordBytes::Later(length_bytes)
            }
        },
        ..PartitionData::default()
    }
}

fn failed(index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        error_code: code.code(),
        ..empty(index)
    }
}

fn empty(index: i32) -> PartitionData {
    PartitionData {
        partition_index: index,
        high_watermark: -1,
        ..PartitionData::default()
    }
}

/// Partitions of one topic that follow each other share its name.
fn by_topic(answers: Answers) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for (key, data) in answers {
        match topics.last_mut() {
            Some(topic) if topic.topic == key.name && topic.topic_id == key.id => {
                topic.partitions.push(data);
            }
            _ => topics.push(FetchableTopicResponse {
                topic: key.name,
                topic_id: key.id,
                partitions: vec![data],
            }),
        }
    }
    topics
}
