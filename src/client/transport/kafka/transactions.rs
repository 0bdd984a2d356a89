//! Identities, the ends of transactions, and positions inside them; and the older protocol, where it is asked for.
//!
//! With transactions v2 a partition joins by its first batch, a group by its positions, and the end gives the next
//! epoch. The older protocol is made to look the same to those above: partitions and groups are added before they are
//! written to, and after each end the next epoch is asked for, so that no two transactions share one.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::cluster::{Cluster, CoordinatorKind, Plan, Target};
use super::judge::{hides_an_effect, refused};
use super::topics::by_topic;
use super::turns::Turn;
use super::versions::Versions;
use crate::client::ClientError;
use crate::protocol::messages::{
    EndTxnRequest, InitProducerIdRequest, TransactionResult, TxnOffsetCommitRequest,
};
use crate::protocol::wire::messages as wire;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, TopicPartition, TransactionalId};

/// Partitions in the open transaction of each id (older protocol only).
#[derive(Default)]
pub(super) struct Joined {
    partitions: Mutex<HashMap<TransactionalId, (ProducerIdentity, HashSet<TopicPartition>)>>,
}

impl Joined {
    fn has(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        place: &TopicPartition,
    ) -> bool {
        let partitions = self.partitions.lock();
        partitions
            .get(id)
            .is_some_and(|(owner, joined)| *owner == producer && joined.contains(place))
    }

    fn add(&self, id: &TransactionalId, producer: ProducerIdentity, place: &TopicPartition) {
        let mut partitions = self.partitions.lock();
        let entry = partitions
            .entry(id.clone())
            .or_insert_with(|| (producer, HashSet::new()));
        if entry.0 != producer {
            *entry = (producer, HashSet::new());
        }
        entry.1.insert(place.clone());
    }

    fn forget(&self, id: &TransactionalId) {
        self.partitions.lock().remove(id);
    }
}

/// Refuses a cluster whose transactions can be torn by a request that was delayed on the way (KAFKA-17754).
pub(super) fn check_protocol(versions: &Versions) -> Result<(), ClientError> {
    match versions.has_transactions_v2() {
        true => Ok(()),
        false => Err(ClientError::Refused {
            request: "InitProducerId",
            code: ErrorCode::UnsupportedVersion,
            message: "the cluster has no transactions v2 (its finalised transaction.version is below 2): \
                      raise it with `kafka-features.sh upgrade --feature transaction.version=2` (Kafka 4.0 or newer), \
                      or accept the weaker protocol with transaction.protocol=v1"
                .to_owned(),
            kind: ErrorKind::Fatal,
        }),
    }
}

fn coordinator(id: &TransactionalId) -> Plan {
    let target = Target::Coordinator(CoordinatorKind::Transaction, id.as_str().to_owned());
    Plan::new(target).about(format_args!("transactional id {}", id.as_str()))
}

impl Cluster {
    pub(super) async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
    ) -> Result<ProducerIdentity, ClientError> {
        let plan = match &request.transactional_id {
            Some(id) => coordinator(id),
            None => Plan::new(Target::Any),
        };
        if request.transactional_id.is_some() && !self.is_older_protocol() {
            check_protocol(self.any_channel().await?.versions())?;
        }
        let timeout_ms = request.transaction_timeout.as_millis();
        let message = wire::init_producer_id::InitProducerIdRequest {
            transactional_id: request
                .transactional_id
                .as_ref()
                .map(|id| id.as_str().to_owned()),
            transaction_timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
            producer_id: request.current.map_or(-1, |current| current.id.0),
            producer_epoch: request.current.map_or(-1, |current| current.epoch.0),
        };
        let answer = self.call(&plan, &message).await;
        let answer = answer.map_err(|error| as_busy(error, &request))?;
        Ok(ProducerIdentity {
            id: ProducerId(answer.producer_id),
            epoch: ProducerEpoch(answer.producer_epoch),
        })
    }

    /// Ends a transaction. An answer that is lost, or does not say what became of it, is `Unanswered`: with transactions
    /// v2 the same request may be sent again, because its epoch names this transaction and no other; with the older
    /// protocol it must not be.
    pub(super) async fn end_txn(
        &self,
        request: EndTxnRequest,
        mut turn: Turn<TransactionalId>,
        joined: &Joined,
    ) -> Result<ProducerIdentity, ClientError> {
        turn.wait().await;
        let id = &request.transactional_id;
        let message = wire::end_txn::EndTxnRequest {
            transactional_id: id.as_str().to_owned(),
            producer_id: request.producer.id.0,
            producer_epoch: request.producer.epoch.0,
            committed: request.result == TransactionResult::Commit,
        };
        let mut is_clear = true;
        let note = |code| is_clear &= !hides_an_effect(code);
        let plan = coordinator(id).once();
        let answer = self.call_noting(&plan, &message, note).await;
        let answer = answer.map_err(|error| match is_clear || is_timed_out(&error, &request) {
            true => error,
            false => as_unclear(error),
        });
        if !self.is_older_protocol() {
            let answer = answer.map_err(|error| as_abortable(error, &request))?;
            return Ok(ProducerIdentity {
                id: ProducerId(answer.producer_id),
                epoch: ProducerEpoch(answer.producer_epoch),
            });
        }
        joined.forget(id);
        match answer {
            Ok(_) => self.next_epoch(&request).await,
            Err(ClientError::Unanswered {
                request,
                why,
                kind: ErrorKind::Retriable,
            }) => Err(ClientError::Unanswered {
                request,
                why,
                kind: ErrorKind::Fatal,
            }),
            Err(error) => Err(error),
        }
    }

    /// The older protocol's next epoch. The transaction has ended; without the next epoch its holder must begin anew.
    async fn next_epoch(&self, ended: &EndTxnRequest) -> Result<ProducerIdentity, ClientError> {
        let timeout = std::time::Duration::from_secs(60);
        let request = InitProducerIdRequest {
            transactional_id: Some(ended.transactional_id.clone()),
            transaction_timeout: timeout,
            current: Some(ended.producer),
        };
        let mut backoff = self.backoff();
        let began = self.now();
        loop {
            match self.init_producer_id(request.clone()).await {
                Ok(identity) => return Ok(identity),
                Err(e)
                    if e.code() == Some(ErrorCode::ConcurrentTransactions)
                        && self.now().since(began) < self.settings.default_api_timeout =>
                {
                    self.pause(&mut backoff).await;
                }
                Err(e) => {
                    return Err(ClientError::Unanswered {
                        request: "EndTxn",
                        why: format!("it ended, but the next producer epoch is not known: {e}"),
                        kind: ErrorKind::Fatal,
                    });
                }
            }
        }
    }

    /// Adds the partition to the transaction before its first batch (older protocol).
    pub(super) async fn join(
        &self,
        joined: &Joined,
        id: &TransactionalId,
        producer: ProducerIdentity,
        place: &TopicPartition,
    ) -> Result<(), ClientError> {
        if joined.has(id, producer, place) {
            return Ok(());
        }
        let message = wire::add_partitions_to_txn::AddPartitionsToTxnRequest {
            transactional_id: id.as_str().to_owned(),
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            topics: vec![wire::add_partitions_to_txn::AddPartitionsToTxnTopic {
                name: place.topic.to_string(),
                partitions: vec![place.partition],
            }],
        };
        self.call_when_idle(&coordinator(id), &message).await?;
        joined.add(id, producer, place);
        Ok(())
    }

    /// The coordinator may still write the last transaction's markers: then it is asked again.
    async fn call_when_idle<R: crate::protocol::wire::Request>(
        &self,
        plan: &Plan,
        message: &R,
    ) -> Result<R::Response, ClientError>
    where
        R::Response: super::answers::Answer,
    {
        let (began, mut backoff) = (self.now(), self.backoff());
        loop {
            let answer = self.call(plan, message).await;
            let is_busy = answer
                .as_ref()
                .is_err_and(|e| e.code() == Some(ErrorCode::ConcurrentTransactions));
            if !is_busy || self.now().since(began) >= self.settings.default_api_timeout {
                return answer;
            }
            self.pause(&mut backoff).await;
        }
    }

    pub(super) async fn txn_offset_commit(
        &self,
        request: TxnOffsetCommitRequest,
        mut turn: Turn<TransactionalId>,
    ) -> Result<(), ClientError> {
        turn.wait().await;
        let id = request.transactional_id.as_str().to_owned();
        let group = request.group.as_str().to_owned();
        if self.is_older_protocol() {
            let message = wire::add_offsets_to_txn::AddOffsetsToTxnRequest {
                transactional_id: id.clone(),
                producer_id: request.producer.id.0,
                producer_epoch: request.producer.epoch.0,
                group_id: group.clone(),
            };
            self.call_when_idle(&coordinator(&request.transactional_id), &message)
                .await?;
        }
        let message = wire::txn_offset_commit::TxnOffsetCommitRequest {
            transactional_id: id,
            group_id: group.clone(),
            producer_id: request.producer.id.0,
            producer_epoch: request.producer.epoch.0,
            generation_id: request.member.generation,
            member_id: request.member.member_id,
            group_instance_id: request.member.group_instance_id,
            topics: offset_topics(&request.offsets),
        };
        // The same positions again change nothing: the request may be repeated.
        let plan = Plan::new(Target::Coordinator(CoordinatorKind::Group, group.clone()))
            .about(format_args!("group {group}"));
        // An epoch that is over may be one that the coordinator ended by its timeout: who owns the id, the end says (C22).
        self.call(&plan, &message).await.map(drop)
    }
}

fn offset_topics(
    offsets: &[(TopicPartition, crate::protocol::messages::CommittedOffset)],
) -> Vec<wire::txn_offset_commit::TxnOffsetCommitRequestTopic> {
    use wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    let topics = by_topic(offsets.iter().map(|(place, committed)| (place, committed)));
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| TxnOffsetCommitRequestTopic {
            name: topic.to_string(),
            partitions: partitions
                .into_iter()
                .map(|(partition, committed)| TxnOffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: committed.offset.0,
                    committed_leader_epoch: committed.leader_epoch,
                    committed_metadata: Some(committed.metadata.clone()),
                })
                .collect(),
        });
    topics.collect()
}

/// Who takes an id over names no epoch that could be too old. Kafka refuses it as fenced all the same if the former owner
/// aborts just while it is being fenced (`TransactionCoordinator.endTransaction` of Kafka 4): asked again, it takes over.
fn as_busy(error: ClientError, asked: &InitProducerIdRequest) -> ClientError {
    let is_overtaken = asked.current.is_none() && error.code() == Some(ErrorCode::ProducerFenced);
    match is_overtaken {
        true => refused(
            "InitProducerId",
            ErrorCode::ConcurrentTransactions,
            "",
            Some(error.to_string()),
        ),
        false => error,
    }
}

/// C22: a commit of a transaction that the coordinator aborted by itself is refused as one that the state does not
/// allow. No attempt can have committed it then.
fn is_timed_out(error: &ClientError, asked: &EndTxnRequest) -> bool {
    asked.result == TransactionResult::Commit && error.code() == Some(ErrorCode::InvalidTxnState)
}

/// Asking for the abort that the coordinator began gives the next epoch.
fn as_abortable(error: ClientError, asked: &EndTxnRequest) -> ClientError {
    match is_timed_out(&error, asked) {
        true => refused(
            "EndTxn",
            ErrorCode::TransactionAbortable,
            "",
            Some(error.to_string()),
        ),
        false => error,
    }
}

/// The failure of an EndTxn of which one attempt may have had its effect although it was refused.
fn as_unclear(error: ClientError) -> ClientError {
    match error.code() {
        Some(code) if hides_an_effect(code) => ClientError::Unanswered {
            request: "EndTxn",
            why: error.to_string(),
            kind: match code {
                // A disk that failed for so long needs people.
                ErrorCode::KafkaStorageError => ErrorKind::Fatal,
                _ => ErrorKind::Retriable,
            },
        },
        _ => error.into_unanswered("EndTxn"),
    }
}
