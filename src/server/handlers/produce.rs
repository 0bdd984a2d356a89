//! Produce: appends record batches. What is appended is appended in the first poll, before anything is waited for.

use bytes::Bytes;

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::{NODE_ID, topic_name};
use crate::broker::{BrokerError, Reply};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BadRecord, Compression, HEADER_BYTES, Header};
use crate::protocol::messages::{Acks, ProduceRequest as Append, ProduceResponse as Appended};
use crate::protocol::wire::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceData, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use crate::types::{TopicName, TopicPartition, TransactionalId};

/// From this version on a batch joins its partition to the transaction (KIP-890 part 2); before, AddPartitionsToTxn does.
const JOINS_FROM: i16 = 12;
/// From this version on clients know `TransactionAbortable`.
const ABORTABLE_FROM: i16 = 11;
/// From this version on batches may be compressed with zstd.
const ZSTD_FROM: i16 = 7;

/// Terms of a whole request.
struct Terms {
    version: i16,
    acks: Acks,
    transactional_id: Option<TransactionalId>,
}

/// `None`: nobody waits for an answer (`acks=0`).
pub(in crate::server) async fn produce(
    call: &Call<'_>,
    request: ProduceRequest,
) -> Option<ProduceResponse> {
    let is_answered = request.acks != 0;
    let terms = terms(call, &request);
    let repeated = repeated(&request);
    // All appends are begun before the first answer is waited for: one sync covers them.
    let mut begun = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let name = terms.as_ref().map_err(Clone::clone).and_then(|terms| {
            call.allow_topic(Operation::Write, &topic.name)?;
            Ok((terms, topic_name(&topic.name)?))
        });
        let partitions = topic.partition_data.into_iter().map(|data| {
            let index = data.index;
            let reply = name.as_ref().map_err(Clone::clone);
            let reply = reply.and_then(|(terms, name)| {
                check_once(&repeated, name, index)?;
                append(call, terms, name, data)
            });
            (index, reply)
        });
        begun.push((topic.name, partitions.collect::<Vec<_>>()));
    }
    let mut responses = Vec::with_capacity(begun.len());
    for (name, partitions) in begun {
        let mut partition_responses = Vec::with_capacity(partitions.len());
        for (index, reply) in partitions {
            let result = match reply {
                Ok(reply) => reply.await,
                Err(error) => Err(error),
            };
            partition_responses.push(answer(call, index, result));
        }
        responses.push(TopicProduceResponse {
            name,
            partition_responses,
            ..TopicProduceResponse::default()
        });
    }
    is_answered.then(|| ProduceResponse {
        responses,
        ..ProduceResponse::default()
    })
}

/// The partitions that a request names more than once.
fn repeated(request: &ProduceRequest) -> Vec<(String, i32)> {
    let topics = request.topic_data.iter();
    let places = topics.flat_map(|topic| {
        let partitions = topic.partition_data.iter();
        partitions.map(|data| (topic.name.as_str(), data.index))
    });
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    let twice = places.windows(2).filter(|pair| pair[0] == pair[1]);
    twice
        .map(|pair| (pair[0].0.to_owned(), pair[0].1))
        .collect()
}

/// Refuses a partition that has several batches in one request: which of them comes first, nobody said.
fn check_once(
    repeated: &[(String, i32)],
    topic: &TopicName,
    index: i32,
) -> Result<(), BrokerError> {
    let is_repeated = |place: &(String, i32)| place.0 == topic.as_str() && place.1 == index;
    match repeated.iter().any(is_repeated) {
        true => Err(BrokerError::new(
            ErrorCode::InvalidRequest,
            format!(
                "a produce request named {topic}-{index} more than once: send one batch a partition, this is an error of the client"
            ),
        )),
        false => Ok(()),
    }
}

fn terms(call: &Call<'_>, request: &ProduceRequest) -> Result<Terms, BrokerError> {
    if request.transactional_id.is_none() && has_transactional_batch(request) {
        return Err(BrokerError::new(
            ErrorCode::TransactionalIdAuthorizationFailed,
            "a produce request held a batch of a transaction and no transactional id: this is an error of the client",
        ));
    }
    let acks = match request.acks {
        -1 => Acks::All,
        0 => Acks::None,
        1 => Acks::Leader,
        _ => return Err(ErrorCode::InvalidRequiredAcks.into()),
    };
    let transactional_id = match &request.transactional_id {
        Some(id) => {
            call.allow_transactions(Operation::Write, id)?;
            let invalid = |error| BrokerError::new(ErrorCode::InvalidRequest, format!("{error}"));
            Some(TransactionalId::new(id).map_err(invalid)?)
        }
        None => None,
    };
    Ok(Terms {
        version: call.version(),
        acks,
        transactional_id,
    })
}

/// Whether one of the batches says that it is part of a transaction. Unreadable ones are refused later, by the log.
fn has_transactional_batch(request: &ProduceRequest) -> bool {
    let topics = request.topic_data.iter();
    let records = topics.flat_map(|topic| topic.partition_data.iter());
    let mut headers = records
        .filter_map(|data| data.records.as_ref())
        .filter_map(|records| Header::parse(records).ok());
    headers.any(|header| header.is_transactional())
}

fn append(
    call: &Call<'_>,
    terms: &Terms,
    topic: &TopicName,
    data: PartitionProduceData,
) -> Result<Reply<Appended>, BrokerError> {
    let records = data.records.unwrap_or_default();
    check_records(&records, terms.version)?;
    let append = Append {
        partition: TopicPartition::new(topic.clone(), data.index),
        records: records.into(),
        acks: terms.acks,
        transactional_id: terms.transactional_id.clone(),
    };
    // Outside of transactions nothing joins; but a client that was idle may have been forgotten, and cannot bear to be
    // refused for it.
    let is_joining = append.transactional_id.is_some() && terms.version >= JOINS_FROM;
    Ok(match is_joining {
        true => call.broker().produce(append),
        false => call.broker().produce_to_joined(append),
    })
}

/// Refuses what the version does not allow; what the bytes say besides is checked by the log.
fn check_records(records: &Bytes, version: i16) -> Result<(), BrokerError> {
    let invalid = |message: &str| Err(BrokerError::new(ErrorCode::InvalidRecord, message));
    if records.is_empty() {
        return invalid("a produce request held no record batch: this is an error of the client");
    }
    // Bytes that are no batch at all are refused by the log.
    let Ok(header) = Header::parse(records) else {
        return Ok(());
    };
    if header.compression() == Compression::Zstd && version < ZSTD_FROM {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    match records.len() >= header.total_bytes() + HEADER_BYTES {
        true => invalid(
            "a produce request held several record batches for one partition: send one, this is an error of the client",
        ),
        false => Ok(()),
    }
}

fn answer(
    call: &Call<'_>,
    index: i32,
    result: Result<Appended, BrokerError>,
) -> PartitionProduceResponse {
    match result {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset.0,
            log_append_time_ms: appended.log_append_time.0,
            log_start_offset: appended.log_start_offset.0,
            ..PartitionProduceResponse::default()
        },
        Err(error) => {
            tracing::debug!(%error, "append refused");
            PartitionProduceResponse {
                index,
                error_code: code_for(error.code, call.version()).code(),
                base_offset: -1,
                error_message: Some(error.message),
                record_errors: error.bad_records.iter().map(record_error).collect(),
                current_leader: LeaderIdAndEpoch {
                    leader_id: match error.code {
                        ErrorCode::NotLeaderOrFollower => NODE_ID,
                        _ => -1,
                    },
                    leader_epoch: match error.code {
                        ErrorCode::NotLeaderOrFollower => call.broker().leader_epoch(),
                        _ => -1,
                    },
                },
                ..PartitionProduceResponse::default()
            }
        }
    }
}

/// A bad record as a client is told of it: it fails that record with this reason, and the others of the batch with another
/// (KIP-467).
fn record_error(bad: &BadRecord) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage {
        batch_index: bad.index,
        batch_index_error_message: Some(bad.fault.to_string()),
    }
}

/// The code that clients of the version understand as it is meant.
fn code_for(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        // A producer hears of its fencing here by this code only.
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
        // Older clients retry on this one, and give up on the others.
        ErrorCode::ConcurrentTransactions
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator
            if version < JOINS_FROM =>
        {
            ErrorCode::NotEnoughReplicas
        }
        code => code,
    }
}
