//! WriteTxnMarkers: an operator ends a transaction that hangs in a partition.

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::{broker_code, topic_name};
use crate::broker::{BrokerError, OperatorMarker};
use crate::protocol::messages::TransactionResult;
use crate::protocol::wire::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, TopicPartition};

pub(in crate::server) async fn write(
    call: &Call<'_>,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let allowed = allowed(call);
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        markers.push(write_one(call, marker, &allowed).await);
    }
    WriteTxnMarkersResponse { markers }
}

/// The requests of brokers among themselves are for who may act as one, or may alter the cluster.
fn allowed(call: &Call<'_>) -> Result<(), BrokerError> {
    call.allow_cluster(Operation::Alter)
        .or_else(|_| call.allow_cluster(Operation::ClusterAction))
}

async fn write_one(
    call: &Call<'_>,
    wanted: WritableTxnMarker,
    allowed: &Result<(), BrokerError>,
) -> WritableTxnMarkerResult {
    let marker = OperatorMarker {
        producer: ProducerIdentity {
            id: ProducerId(wanted.producer_id),
            epoch: ProducerEpoch(wanted.producer_epoch),
        },
        coordinator_epoch: wanted.coordinator_epoch,
        result: match wanted.transaction_result {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        },
    };
    let mut topics = Vec::with_capacity(wanted.topics.len());
    for topic in wanted.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            let written = match (allowed, topic_name(&topic.name)) {
                (Err(error), _) => Err(error.clone()),
                (_, Err(error)) => Err(error),
                (Ok(()), Ok(name)) => {
                    let partition = TopicPartition::new(name, partition_index);
                    call.broker().write_marker(&partition, marker).await
                }
            };
            partitions.push(WritableTxnMarkerPartitionResult {
                partition_index,
                error_code: broker_code(&written),
            });
        }
        topics.push(WritableTxnMarkerTopicResult {
            name: topic.name,
            partitions,
        });
    }
    WritableTxnMarkerResult {
        producer_id: wanted.producer_id,
        topics,
    }
}
