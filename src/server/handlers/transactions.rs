//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn; DescribeTransactions, ListTransactions, DescribeProducers.

use std::time::Duration;

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{NONE, broker_code, group_by_topic, group_id, message};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    EndTxnRequest as End, InitProducerIdRequest as Init, ProducerDescription,
    TransactionDescription, TransactionResult, TransactionState,
};
use crate::protocol::wire::messages::add_offsets_to_txn::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse,
};
use crate::protocol::wire::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopicResult,
};
use crate::protocol::wire::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::protocol::wire::messages::init_producer_id::{
    InitProducerIdRequest, InitProducerIdResponse,
};
use crate::protocol::wire::messages::{
    describe_producers as dp, describe_transactions as dt, list_transactions as lt,
};
use crate::types::{
    ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicPartition, TransactionalId,
};

/// From these versions on clients know `ProducerFenced`; before, `InvalidProducerEpoch` means the same.
const INIT_FENCED_FROM: i16 = 4;
const TXN_FENCED_FROM: i16 = 2;
/// From these versions on clients know `TransactionAbortable`.
const END_ABORTABLE_FROM: i16 = 4;
/// From this version on the answer to EndTxn carries the next epoch (KIP-890 part 2).
const END_BUMPS_FROM: i16 = 5;

pub(in crate::server) async fn init_producer_id(
    call: &Call<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    match init(call, &request).await {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            ..InitProducerIdResponse::default()
        },
        Err(error) => InitProducerIdResponse {
            error_code: fenced_code(error.code, call.version(), INIT_FENCED_FROM).code(),
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}

async fn init(
    call: &Call<'_>,
    request: &InitProducerIdRequest,
) -> Result<ProducerIdentity, BrokerError> {
    let transactional_id = match &request.transactional_id {
        Some(id) => {
            call.allow_transactions(Operation::Write, id)?;
            Some(transactional_id(id)?)
        }
        None if call.session.may_write_idempotently() => None,
        None => return Err(ErrorCode::ClusterAuthorizationFailed.into()),
    };
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        let message = "a producer has both an id and an epoch, or neither".to_owned();
        return Err(BrokerError::new(ErrorCode::InvalidRequest, message));
    }
    let timeout = u64::try_from(request.transaction_timeout_ms).unwrap_or(0);
    let current = (request.producer_id >= 0).then_some(ProducerIdentity {
        id: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
    });
    let init = Init {
        // An idempotent producer without transactions takes a new id whatever it had.
        current: current.filter(|_| transactional_id.is_some()),
        transactional_id,
        transaction_timeout: Duration::from_millis(timeout),
    };
    call.broker().init_remote_producer_id(init).await
}

fn transactional_id(id: &str) -> Result<TransactionalId, BrokerError> {
    TransactionalId::new(id)
        .map_err(|error| BrokerError::new(ErrorCode::InvalidRequest, error.to_string()))
}

/// The code by which clients of the version know that they are fenced.
fn fenced_code(code: ErrorCode, version: i16, known_from: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if version < known_from => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

pub(in crate::server) async fn add_partitions(
    call: &Call<'_>,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let checked = check_partitions(call, &request);
    let has_error = checked
        .iter()
        .flat_map(|(_, partitions)| partitions)
        .any(|(_, p)| p.is_err());
    let all = checked.iter().flat_map(|(_, partitions)| partitions);
    let all: Vec<TopicPartition> = all.filter_map(|(_, p)| p.as_ref().ok().cloned()).collect();
    let producer = ProducerIdentity {
        id: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
    };
    // All or none: with one bad partition the others are not attempted.
    let added = match has_error {
        true => Err(ErrorCode::OperationNotAttempted.into()),
        false => add_all(call, &request.transactional_id, producer, all).await,
    };
    let whole = added.err().map_or(NONE, |error: BrokerError| {
        fenced_code(error.code, call.version(), TXN_FENCED_FROM).code()
    });
    let topics = checked.into_iter().map(|(name, partitions)| {
        let results = partitions.into_iter().map(|(partition_index, partition)| {
            AddPartitionsToTxnPartitionResult {
                partition_index,
                partition_error_code: partition.err().map_or(whole, ErrorCode::code),
            }
        });
        AddPartitionsToTxnTopicResult {
            name,
            results_by_partition: results.collect(),
        }
    });
    AddPartitionsToTxnResponse {
        results_by_topic: topics.collect(),
        ..AddPartitionsToTxnResponse::default()
    }
}

type Checked = Vec<(String, Vec<(i32, Result<TopicPartition, ErrorCode>)>)>;

fn check_partitions(call: &Call<'_>, request: &AddPartitionsToTxnRequest) -> Checked {
    let id = &request.transactional_id;
    let allowed = call
        .allow_transactions(Operation::Write, id)
        .map_err(|error| error.code);
    let topics = request.topics.iter().map(|topic| {
        let found = allowed
            .and_then(|()| {
                call.allow_topic(Operation::Write, &topic.name)
                    .map_err(|e| e.code)
            })
            .and_then(|()| {
                call.topic(&topic.name)
                    .map_err(|_| ErrorCode::UnknownTopicOrPartition)
            });
        let partitions = topic.partitions.iter().map(|index| {
            let partition = found.as_ref().map_err(|code| *code).and_then(|topic| {
                match (0..topic.partitions_count).contains(index) && !topic.is_internal {
                    true => Ok(TopicPartition::new(topic.name.clone(), *index)),
                    false => Err(ErrorCode::UnknownTopicOrPartition),
                }
            });
            (*index, partition)
        });
        (topic.name.clone(), partitions.collect())
    });
    topics.collect()
}

async fn add_all(
    call: &Call<'_>,
    id: &str,
    producer: ProducerIdentity,
    partitions: Vec<TopicPartition>,
) -> Result<(), BrokerError> {
    let id = transactional_id(id)?;
    call.broker()
        .add_partitions_to_txn(&id, producer, partitions)
        .await
}

pub(in crate::server) async fn add_offsets(
    call: &Call<'_>,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let error_code = match add_group(call, &request).await {
        Ok(()) => NONE,
        Err(error) => fenced_code(error.code, call.version(), TXN_FENCED_FROM).code(),
    };
    AddOffsetsToTxnResponse {
        error_code,
        ..AddOffsetsToTxnResponse::default()
    }
}

async fn add_group(call: &Call<'_>, request: &AddOffsetsToTxnRequest) -> Result<(), BrokerError> {
    call.allow_transactions(Operation::Write, &request.transactional_id)?;
    call.allow_group(Operation::Read, &request.group_id)?;
    group_id(&request.group_id)?;
    let id = transactional_id(&request.transactional_id)?;
    let producer = ProducerIdentity {
        id: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
    };
    call.broker().add_offsets_to_txn(&id, producer).await
}

pub(in crate::server) async fn end(call: &Call<'_>, request: EndTxnRequest) -> EndTxnResponse {
    match end_one(call, &request).await {
        Ok(producer) => EndTxnResponse {
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            ..EndTxnResponse::default()
        },
        Err(error) => EndTxnResponse {
            error_code: end_code(error.code, call.version()).code(),
            ..EndTxnResponse::default()
        },
    }
}

async fn end_one(
    call: &Call<'_>,
    request: &EndTxnRequest,
) -> Result<ProducerIdentity, BrokerError> {
    call.allow_transactions(Operation::Write, &request.transactional_id)?;
    let end = End {
        transactional_id: transactional_id(&request.transactional_id)?,
        producer: ProducerIdentity {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        result: match request.committed {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        },
    };
    let reply = match call.version() < END_BUMPS_FROM {
        true => call.broker().end_txn_keeping_epoch(end),
        false => call.broker().end_txn(end),
    };
    reply.await
}

fn end_code(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        // Older clients may abort after this one, and renew their identity, which is what they must do after a power loss.
        ErrorCode::TransactionAbortable if version < END_ABORTABLE_FROM => {
            ErrorCode::InvalidProducerIdMapping
        }
        code => fenced_code(code, version, TXN_FENCED_FROM),
    }
}

/// Kafka's name of a state.
fn state_name(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Empty => "Empty",
        TransactionState::Ongoing => "Ongoing",
        TransactionState::PrepareCommit => "PrepareCommit",
        TransactionState::PrepareAbort => "PrepareAbort",
        TransactionState::CompleteCommit => "CompleteCommit",
        TransactionState::CompleteAbort => "CompleteAbort",
        TransactionState::Dead => "Dead",
        TransactionState::PrepareEpochFence => "PrepareEpochFence",
    }
}

const STATES: [TransactionState; 8] = [
    TransactionState::Empty,
    TransactionState::Ongoing,
    TransactionState::PrepareCommit,
    TransactionState::PrepareAbort,
    TransactionState::CompleteCommit,
    TransactionState::CompleteAbort,
    TransactionState::Dead,
    TransactionState::PrepareEpochFence,
];

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: dt::DescribeTransactionsRequest,
) -> dt::DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|id| {
        let described = call
            .allow_transactions(Operation::Describe, &id)
            .and_then(|()| call.broker().describe_transaction(&transactional_id(&id)?));
        match described {
            Ok(described) => described_state(call, id, described),
            Err(error) => dt::TransactionState {
                error_code: error.code.code(),
                transactional_id: id,
                ..dt::TransactionState::default()
            },
        }
    });
    dt::DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..dt::DescribeTransactionsResponse::default()
    }
}

fn described_state(
    call: &Call<'_>,
    transactional_id: String,
    described: TransactionDescription,
) -> dt::TransactionState {
    let visible = described.partitions.into_iter().filter(|partition| {
        call.session
            .may_see(Resource::Topic(partition.topic.as_str()))
    });
    let topics = group_by_topic(visible.map(|partition| (partition, ())));
    let topics = topics.into_iter().map(|(topic, partitions)| dt::TopicData {
        topic: topic.as_str().to_owned(),
        partitions: partitions.into_iter().map(|(index, ())| index).collect(),
    });
    dt::TransactionState {
        error_code: NONE,
        transactional_id,
        transaction_state: state_name(described.state).to_owned(),
        transaction_timeout_ms: i32::try_from(described.timeout.as_millis()).unwrap_or(i32::MAX),
        transaction_start_time_ms: described.start.0,
        producer_id: described.producer_id.0,
        producer_epoch: described.producer_epoch.0,
        topics: topics.collect(),
    }
}

pub(in crate::server) fn list(
    call: &Call<'_>,
    request: lt::ListTransactionsRequest,
) -> lt::ListTransactionsResponse {
    let is_state = |name: &String| STATES.iter().any(|state| state_name(*state) == name);
    let (known, unknown): (Vec<String>, Vec<String>) =
        request.state_filters.into_iter().partition(is_state);
    let is_every_state = known.is_empty() && unknown.is_empty();
    let listed = match call.broker().list_transactions() {
        Ok(listed) => listed,
        Err(error) => {
            return lt::ListTransactionsResponse {
                error_code: error.code.code(),
                ..lt::ListTransactionsResponse::default()
            };
        }
    };
    let is_wanted = |listed: &TransactionDescription| {
        let by_state = is_every_state || known.iter().any(|name| name == state_name(listed.state));
        let by_producer = request.producer_id_filters.is_empty()
            || request.producer_id_filters.contains(&listed.producer_id.0);
        let by_age = request.duration_filter < 0 || is_older(call, listed, request.duration_filter);
        let by_name = request
            .transactional_id_pattern
            .as_ref()
            .is_none_or(|pattern| {
                pattern.is_empty() || *pattern == listed.transactional_id.as_str()
            });
        by_state && by_producer && by_age && by_name
    };
    let states = listed.into_iter().filter(|listed| {
        let id = Resource::TransactionalId(listed.transactional_id.as_str());
        is_wanted(listed) && call.session.may_see(id)
    });
    let states = states.map(|listed| lt::TransactionState {
        transactional_id: listed.transactional_id.as_str().to_owned(),
        producer_id: listed.producer_id.0,
        transaction_state: state_name(listed.state).to_owned(),
    });
    lt::ListTransactionsResponse {
        error_code: NONE,
        unknown_state_filters: unknown,
        transaction_states: states.collect(),
        ..lt::ListTransactionsResponse::default()
    }
}

/// Whether the transaction is open for more than `millis`.
fn is_older(call: &Call<'_>, listed: &TransactionDescription, millis: i64) -> bool {
    let now = call.dispatch.env.clock.wall();
    listed.start != Timestamp::NONE && now.0.saturating_sub(listed.start.0) > millis
}

pub(in crate::server) fn producers(
    call: &Call<'_>,
    request: dp::DescribeProducersRequest,
) -> dp::DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let described = call
                .partition(Operation::Read, &topic.name, *index)
                .and_then(|partition| call.broker().describe_producers(&partition));
            dp::PartitionResponse {
                partition_index: *index,
                error_code: broker_code(&described),
                error_message: message(&described),
                active_producers: described
                    .unwrap_or_default()
                    .into_iter()
                    .map(active)
                    .collect(),
            }
        });
        dp::TopicResponse {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    dp::DescribeProducersResponse {
        topics: topics.collect(),
        ..dp::DescribeProducersResponse::default()
    }
}

fn active(described: ProducerDescription) -> dp::ProducerState {
    dp::ProducerState {
        producer_id: described.producer.id.0,
        producer_epoch: i32::from(described.producer.epoch.0),
        last_sequence: described.last_sequence,
        last_timestamp: described.last_timestamp.0,
        coordinator_epoch: described.coordinator_epoch,
        current_txn_start_offset: described
            .current_transaction_start
            .map_or(-1, |start| start.0),
    }
}
