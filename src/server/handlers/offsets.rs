//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use super::super::dispatch::Call;
use super::super::security::Operation;
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{ListedOffset, OffsetSpec};
use crate::protocol::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::protocol::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::protocol::wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::types::{Isolation, Offset, Timestamp};

/// Timestamps with a meaning of their own.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(in crate::server) fn list(call: &Call<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = match request.isolation_level {
        1 => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|asked| list_one(call, &topic.name, asked, isolation));
        ListOffsetsTopicResponse {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..ListOffsetsResponse::default()
    }
}

fn list_one(
    call: &Call<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        ..ListOffsetsPartitionResponse::default()
    };
    match find(call, topic, asked, isolation) {
        Ok(Some((found, leader_epoch))) => {
            answer.timestamp = found.timestamp.0;
            answer.offset = found.offset.0;
            answer.leader_epoch = leader_epoch;
        }
        Ok(None) => {}
        Err(error) => answer.error_code = error.code.code(),
    }
    answer
}

fn find(
    call: &Call<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Option<(ListedOffset, i32)>, BrokerError> {
    let partition = call.partition(Operation::Describe, topic, asked.partition_index)?;
    call.check_leader_epoch(&partition, asked.current_leader_epoch)?;
    let known_from = match asked.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => 0,
    };
    if call.version() < known_from {
        return Err(ErrorCode::UnsupportedVersion.into());
    }
    let spec = match asked.timestamp {
        LATEST => OffsetSpec::Latest,
        EARLIEST | EARLIEST_LOCAL => OffsetSpec::Earliest,
        MAX_TIMESTAMP => OffsetSpec::MaxTimestamp,
        // Nothing was ever moved to remote storage.
        LATEST_TIERED => return Ok(None),
        timestamp @ 0.. => OffsetSpec::Timestamp(Timestamp(timestamp)),
        _ => return Err(ErrorCode::UnsupportedVersion.into()),
    };
    let Some(found) = call.broker().list_offset(&partition, spec, isolation)? else {
        return Ok(None);
    };
    let leader_epoch = call.broker().leader_epoch_at(&partition, found.offset)?;
    Ok(Some((found, leader_epoch)))
}

pub(in crate::server) fn for_epoch(
    call: &Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|asked| epoch_end(call, &topic.topic, asked));
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic,
        }
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}

/// Where an epoch ended: a client that read further has read what a power loss took since (KIP-320).
fn epoch_end(call: &Call<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let mut answer = EpochEndOffset {
        partition: asked.partition,
        ..EpochEndOffset::default()
    };
    let end = call
        .partition(Operation::Describe, topic, asked.partition)
        .and_then(|partition| {
            call.check_leader_epoch(&partition, asked.current_leader_epoch)?;
            call.broker()
                .leader_epoch_end(&partition, asked.leader_epoch)
        });
    match end {
        Ok(Some((leader_epoch, end))) => {
            answer.leader_epoch = leader_epoch;
            answer.end_offset = end.0;
        }
        Ok(None) => {}
        Err(error) => answer.error_code = error.code.code(),
    }
    answer
}

pub(in crate::server) fn delete_records(
    call: &Call<'_>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|asked| delete_before(call, &topic.name, asked));
        DeleteRecordsTopicResult {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    DeleteRecordsResponse {
        topics: topics.collect(),
        ..DeleteRecordsResponse::default()
    }
}

fn delete_before(
    call: &Call<'_>,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let deleted = call
        .partition(Operation::Delete, topic, asked.partition_index)
        .and_then(|partition| {
            if partition.topic.is_internal() {
                return Err(ErrorCode::InvalidTopicException.into());
            }
            call.broker()
                .delete_records(&partition, Offset(asked.offset))
        });
    DeleteRecordsPartitionResult {
        partition_index: asked.partition_index,
        low_watermark: deleted.as_ref().map_or(-1, |start| start.0),
        error_code: super::broker_code(&deleted),
    }
}
