//! OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete: a group's positions.

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{broker_code, code, group_by_topic, group_id, topic_name};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetCommitRequest as Commit, OffsetFetchRequest as Fetch,
    TxnOffsetCommitRequest as TxnCommit,
};
use crate::protocol::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::protocol::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use crate::protocol::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};
use crate::types::{
    Offset, ProducerEpoch, ProducerId, ProducerIdentity, TopicPartition, TransactionalId,
};

/// The longest words that a committer may leave with a position, in bytes (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;
/// From this version on a request asks for several groups.
const BATCHED_FROM: i16 = 8;
/// From this version on TxnOffsetCommit adds the group to the transaction by itself (KIP-890 part 2).
const JOINS_FROM: i16 = 5;
/// From this version on clients know `TransactionAbortable`.
const ABORTABLE_FROM: i16 = 4;

/// A position as the request has it, and whether it may be committed.
type Asked = (
    String,
    Vec<(i32, Result<(TopicPartition, CommittedOffset), ErrorCode>)>,
);

/// The positions that may be committed; the others keep their errors.
fn committable(asked: &[Asked]) -> Vec<(TopicPartition, CommittedOffset)> {
    let positions = asked.iter().flat_map(|(_, partitions)| partitions);
    positions
        .filter_map(|(_, position)| position.as_ref().ok().cloned())
        .collect()
}

fn position(
    call: &Call<'_>,
    topic: &str,
    partition: i32,
    offset: CommittedOffset,
) -> Result<(TopicPartition, CommittedOffset), ErrorCode> {
    call.allow_topic(Operation::Read, topic)
        .map_err(|error| error.code)?;
    let found = call
        .topic(topic)
        .map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    if !(0..found.partitions_count).contains(&partition) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    match offset.metadata.len() {
        ..=METADATA_BYTES_MAX => Ok((TopicPartition::new(found.name, partition), offset)),
        _ => Err(ErrorCode::OffsetMetadataTooLarge),
    }
}

/// Answers for each partition: its own error, or the outcome of the whole.
fn outcomes<T, P>(
    asked: Vec<Asked>,
    whole: i16,
    partition: impl Fn(i32, i16) -> P,
    topic: impl Fn(String, Vec<P>) -> T,
) -> Vec<T> {
    let topics = asked.into_iter().map(|(name, partitions)| {
        let partitions = partitions
            .into_iter()
            .map(|(index, position)| match position {
                Ok(_) => partition(index, whole),
                // As in Kafka, whose member's right to commit comes first.
                Err(ErrorCode::OffsetMetadataTooLarge) if whole != 0 => partition(index, whole),
                Err(error) => partition(index, error.code()),
            });
        topic(name, partitions.collect())
    });
    topics.collect()
}

pub(in crate::server) async fn commit(
    call: &Call<'_>,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let asked: Vec<Asked> = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic.partitions.into_iter().map(|asked| {
                let offset = CommittedOffset {
                    offset: Offset(asked.committed_offset),
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: asked.committed_metadata.unwrap_or_default(),
                };
                let index = asked.partition_index;
                (index, position(call, &topic.name, index, offset))
            });
            let partitions = partitions.collect();
            (topic.name, partitions)
        })
        .collect();
    let member = GroupMember {
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
    };
    let committed = commit_all(call, &request.group_id, member, committable(&asked)).await;
    OffsetCommitResponse {
        topics: outcomes(
            asked,
            broker_code(&committed),
            |partition_index, error_code| OffsetCommitResponsePartition {
                partition_index,
                error_code,
            },
            |name, partitions| OffsetCommitResponseTopic { name, partitions },
        ),
        ..OffsetCommitResponse::default()
    }
}

async fn commit_all(
    call: &Call<'_>,
    group: &str,
    member: GroupMember,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
) -> Result<(), BrokerError> {
    call.allow_group(Operation::Read, group)?;
    let group = group_id(group)?;
    let commit = Commit {
        group,
        member,
        offsets,
    };
    call.broker().offset_commit(commit).await
}

pub(in crate::server) async fn txn_commit(
    call: &Call<'_>,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let asked: Vec<Asked> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let offset = CommittedOffset {
                    offset: Offset(asked.committed_offset),
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: asked.committed_metadata.clone().unwrap_or_default(),
                };
                let index = asked.partition_index;
                (index, position(call, &topic.name, index, offset))
            });
            (topic.name.clone(), partitions.collect())
        })
        .collect();
    let committed = txn_commit_all(call, &request, committable(&asked)).await;
    let whole = match &committed {
        Ok(()) => 0,
        Err(error) => txn_code(error.code, call.version()).code(),
    };
    TxnOffsetCommitResponse {
        topics: outcomes(
            asked,
            whole,
            |partition_index, error_code| TxnOffsetCommitResponsePartition {
                partition_index,
                error_code,
            },
            |name, partitions| TxnOffsetCommitResponseTopic { name, partitions },
        ),
        ..TxnOffsetCommitResponse::default()
    }
}

async fn txn_commit_all(
    call: &Call<'_>,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
) -> Result<(), BrokerError> {
    call.allow_transactions(Operation::Write, &request.transactional_id)?;
    call.allow_group(Operation::Read, &request.group_id)?;
    let invalid = |error| BrokerError::new(ErrorCode::InvalidRequest, format!("{error}"));
    let commit = TxnCommit {
        transactional_id: TransactionalId::new(&request.transactional_id).map_err(invalid)?,
        producer: ProducerIdentity {
            id: ProducerId(request.producer_id),
            epoch: ProducerEpoch(request.producer_epoch),
        },
        group: group_id(&request.group_id)?,
        member: GroupMember {
            generation: request.generation_id,
            member_id: request.member_id.clone(),
            group_instance_id: request.group_instance_id.clone(),
        },
        offsets,
    };
    let reply = match call.version() < JOINS_FROM {
        true => call.broker().txn_offset_commit_to_joined(commit),
        false => call.broker().txn_offset_commit(commit),
    };
    reply.await
}

/// The code that clients of the version understand as it is meant.
fn txn_code(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        // The transaction was ended, but nobody replaced the producer. Clients take the code for a fencing, which is final.
        // Those of earlier versions know no other that makes them abort, and get this one as from Kafka.
        ErrorCode::InvalidProducerEpoch if version >= ABORTABLE_FROM => {
            ErrorCode::TransactionAbortable
        }
        // librdkafka takes only this one for a fencing here.
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if version < JOINS_FROM => {
            ErrorCode::CoordinatorLoadInProgress
        }
        code => code,
    }
}

pub(in crate::server) fn fetch(
    call: &Call<'_>,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if call.version() >= BATCHED_FROM {
        let groups = request.groups.into_iter();
        let groups = groups.map(|group| fetch_group(call, group, request.require_stable));
        return OffsetFetchResponse {
            groups: groups.collect(),
            ..OffsetFetchResponse::default()
        };
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    };
    let found = fetch_group(call, group, request.require_stable);
    OffsetFetchResponse {
        error_code: found.error_code,
        topics: found.topics.into_iter().map(older).collect(),
        ..OffsetFetchResponse::default()
    }
}

/// The shape that topics had before groups came in batches.
fn older(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter();
    let partitions = partitions.map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    });
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: partitions.collect(),
    }
}

fn fetch_group(
    call: &Call<'_>,
    asked: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let allowed = call.allow_group(Operation::Describe, &asked.group_id);
    let found = allowed.and_then(|()| positions(call, &asked, require_stable));
    OffsetFetchResponseGroup {
        error_code: broker_code(&found),
        topics: found.unwrap_or_default(),
        group_id: asked.group_id,
    }
}

fn positions(
    call: &Call<'_>,
    asked: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> Result<Vec<OffsetFetchResponseTopics>, BrokerError> {
    let group = group_id(&asked.group_id)?;
    // Before version 9 nobody says who asks.
    let member_id = asked.member_id.as_deref();
    call.broker()
        .check_reader(&group, member_id, asked.member_epoch)?;
    let Some(topics) = &asked.topics else {
        let all = fetch_stable(call, group, None, require_stable)?;
        let visible = all.into_iter().filter(|(partition, _)| {
            call.session
                .may_see(Resource::Topic(partition.topic.as_str()))
        });
        let topics = group_by_topic(visible)
            .into_iter()
            .map(|(name, partitions)| OffsetFetchResponseTopics {
                name: name.as_str().to_owned(),
                partitions: partitions
                    .into_iter()
                    .map(|(index, found)| told(index, found))
                    .collect(),
            });
        return Ok(topics.collect());
    };
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let indexes = topic.partition_indexes.iter().copied();
        let name = call
            .allow_topic(Operation::Describe, &topic.name)
            .and_then(|()| topic_name(&topic.name));
        let partitions = match name {
            Ok(name) => {
                let partitions = indexes.map(|index| TopicPartition::new(name.clone(), index));
                let partitions = Some(partitions.collect());
                let found = fetch_stable(call, group.clone(), partitions, require_stable)?;
                let found = found.into_iter();
                found
                    .map(|(partition, found)| told(partition.partition, found))
                    .collect()
            }
            // A name that no topic can have has no position either.
            Err(error) if error.code == ErrorCode::InvalidTopicException => {
                indexes.map(|index| told(index, Ok(None))).collect()
            }
            Err(error) => indexes.map(|index| told(index, Err(error.code))).collect(),
        };
        answers.push(OffsetFetchResponseTopics {
            name: topic.name.clone(),
            partitions,
        });
    }
    Ok(answers)
}

type Found = (TopicPartition, Result<Option<CommittedOffset>, ErrorCode>);

/// The positions; where an open transaction holds one and only stable ones are wanted, the code that makes clients
/// come again (C27).
fn fetch_stable(
    call: &Call<'_>,
    group: crate::types::GroupId,
    partitions: Option<Vec<TopicPartition>>,
    require_stable: bool,
) -> Result<Vec<Found>, BrokerError> {
    let mut fetch = Fetch {
        group,
        partitions,
        require_stable,
    };
    match call.broker().offset_fetch(&fetch) {
        Ok(found) => Ok(found
            .into_iter()
            .map(|(partition, found)| (partition, Ok(found)))
            .collect()),
        Err(error) if error.code == ErrorCode::UnstableOffsetCommit => {
            fetch.require_stable = false;
            let found = call.broker().offset_fetch(&fetch)?;
            let unstable = found
                .into_iter()
                .map(|(partition, _)| (partition, Err(error.code)));
            Ok(unstable.collect())
        }
        Err(error) => Err(error),
    }
}

fn told(
    partition_index: i32,
    found: Result<Option<CommittedOffset>, ErrorCode>,
) -> OffsetFetchResponsePartitions {
    let error_code = code(&found);
    match found.ok().flatten() {
        Some(committed) => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: committed.offset.0,
            committed_leader_epoch: committed.leader_epoch,
            metadata: Some(committed.metadata),
            error_code,
        },
        None => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: -1,
            metadata: Some(String::new()),
            error_code,
            ..OffsetFetchResponsePartitions::default()
        },
    }
}

pub(in crate::server) async fn delete(
    call: &Call<'_>,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    match delete_all(call, &request).await {
        Ok(topics) => OffsetDeleteResponse {
            topics,
            ..OffsetDeleteResponse::default()
        },
        Err(error) => OffsetDeleteResponse {
            error_code: error.code.code(),
            ..OffsetDeleteResponse::default()
        },
    }
}

async fn delete_all(
    call: &Call<'_>,
    request: &OffsetDeleteRequest,
) -> Result<Vec<OffsetDeleteResponseTopic>, BrokerError> {
    call.allow_group(Operation::Delete, &request.group_id)?;
    let group = group_id(&request.group_id)?;
    let mut answers = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let indexes = topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index);
        let name = call
            .allow_topic(Operation::Read, &topic.name)
            .and_then(|()| topic_name(&topic.name));
        let told = |partition_index, error_code| OffsetDeleteResponsePartition {
            partition_index,
            error_code,
        };
        let partitions = match name {
            Ok(name) => {
                let count = call.topic(&topic.name).map_or(0, |it| it.partitions_count);
                let (present, missing): (Vec<i32>, Vec<i32>) =
                    indexes.partition(|index| (0..count).contains(index));
                let partitions = present
                    .into_iter()
                    .map(|index| TopicPartition::new(name.clone(), index));
                let deleted = call
                    .broker()
                    .delete_offsets(&group, partitions.collect())
                    .await?;
                let deleted = deleted
                    .into_iter()
                    .map(|(partition, result)| told(partition.partition, code(&result)));
                let unknown = ErrorCode::UnknownTopicOrPartition.code();
                let missing = missing.into_iter().map(|index| told(index, unknown));
                deleted.chain(missing).collect()
            }
            Err(error) => indexes
                .map(|index| told(index, error.code.code()))
                .collect(),
        };
        answers.push(OffsetDeleteResponseTopic {
            name: topic.name.clone(),
            partitions,
        });
    }
    Ok(answers)
}
