//! The older rule: a transaction that keeps its producer's epoch, for clients that cannot learn a new one.
//!
//! Such a client says what it adds (AddPartitionsToTxn, AddOffsetsToTxn), and its batches are refused in partitions
//! that its open transaction does not hold. A request that comes so late that the next transaction holds the partition,
//! too, is taken for one of that: Kafka's rule, which only a new epoch can better (KIP-890).
//!
//! Without a new epoch, what a partition holds open after a crash does not show which transaction it belongs to.
//! Therefore a commit makes its markers durable, and then its completion, before it is answered and the next one can begin:
//!
//! | found open, of the owner's own epoch | journal says | therefore |
//! |---|---|---|
//! | in a partition of the decision | `PrepareCommit`, `PrepareAbort` | its marker is written |
//! | in another partition | `PrepareCommit`, `PrepareAbort` | an earlier abort's marker was lost: written again |
//! | anywhere | anything else | no decision: aborted, under a new epoch, unless its owner goes on (`recovery.rs`) |

use super::Effect;
use super::Reply;
use super::coordinator::{Owner, Pending, Stage, TransactionCoordinator};
use super::recovery::RollForward;
use super::state::{Standing, Successor};
use crate::coordinator::{Now, RequestId};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{EndTxnRequest, TransactionResult, TransactionState};
use crate::types::{EpochAtEnd, ProducerIdentity, TopicPartition, TransactionalId};

impl TransactionCoordinator {
    /// Whether the owner must renew its identity before it goes on, since it had it before a power loss.
    #[must_use]
    pub(crate) fn must_renew(&self, id: &TransactionalId, producer: ProducerIdentity) -> bool {
        self.entries.get(id).is_some_and(|entry| {
            entry.is_from_before && entry.record.standing(producer) == Standing::Current
        })
    }

    pub(super) fn end_keeping_epoch(
        &mut self,
        request: RequestId,
        message: &EndTxnRequest,
        now: Now,
    ) -> Result<Option<Reply>, ErrorCode> {
        let id = &message.transactional_id;
        let entry = self.settled(id)?;
        match entry.record.standing(message.producer) {
            Standing::Current => {}
            Standing::Last | Standing::Fenced => return Err(ErrorCode::ProducerFenced),
            Standing::Foreign => return Err(ErrorCode::InvalidProducerIdMapping),
        }
        let is_from_before = entry.is_from_before;
        match (entry.record.state, message.result) {
            // Its records from before the power loss may be lost: it is not for this request to call it committed.
            (_, TransactionResult::Commit) if is_from_before => {
                return Err(ErrorCode::TransactionAbortable);
            }
            (TransactionState::Ongoing, TransactionResult::Commit) => {
                self.begin_commit(id, request, EpochAtEnd::Kept);
            }
            (TransactionState::Ongoing, TransactionResult::Abort) => {
                self.begin_abort_keeping_epoch(id, request, now);
            }
            // Empty, or asked for again.
            (TransactionState::Empty, _)
            | (TransactionState::CompleteCommit, TransactionResult::Commit)
            | (TransactionState::CompleteAbort, TransactionResult::Abort) => {
                return Ok(Some(Reply::Producer(message.producer)));
            }
            // Nothing is open that could outlive a power loss.
            (_, TransactionResult::Abort) if is_from_before => {
                return Ok(Some(Reply::Producer(message.producer)));
            }
            _ => return Err(ErrorCode::InvalidTxnState),
        }
        Ok(None)
    }

    fn begin_abort_keeping_epoch(&mut self, id: &TransactionalId, request: RequestId, now: Now) {
        let Some(record) = self.entries.get(id).map(|entry| entry.record.clone()) else {
            return;
        };
        let successor = Successor::kept(record.producer);
        let next = record.decided_abort(successor, None, std::iter::empty(), now);
        self.journal(id, next, Some(request), true);
    }

    /// All markers are written. Those of a commit that keeps its epoch are made durable before it is complete.
    pub(super) fn after_markers(
        &mut self,
        id: &TransactionalId,
        waiter: Option<RequestId>,
        now: Now,
    ) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let is_kept = entry.record.epochs == EpochAtEnd::Kept
            && entry.record.state == TransactionState::PrepareCommit;
        if !is_kept {
            return self.complete(id, waiter, now);
        }
        let partitions = entry.record.partitions.iter().cloned().collect();
        entry.pending = Some(Pending {
            stage: Stage::SyncAfterMarkers,
            waiter,
        });
        let ticket = self.desk.ticket(Owner::Transaction(id.clone()));
        self.desk.emit(Effect::SyncData { ticket, partitions });
    }

    /// The outcome is decided all the same; the markers are written and synced again at a later tick.
    pub(super) fn sync_markers_later(&mut self, id: &TransactionalId, waiter: Option<RequestId>) {
        let partitions = self
            .entries
            .get(id)
            .map(|entry| entry.record.partitions.clone());
        let partitions = partitions.unwrap_or_default().into_iter().collect();
        self.retry_markers_later(id, partitions, waiter);
    }

    /// Decides on a transaction that recovery found open, of the owner's own epoch.
    pub(super) fn classify_kept(
        &mut self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partition: TopicPartition,
        roll_forward: &mut RollForward,
    ) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let is_decided = matches!(
            entry.record.state,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        );
        match is_decided {
            true if entry.record.partitions.contains(&partition) => {
                roll_forward.entry(id.clone()).or_default().push(partition);
            }
            true => {
                let kept = EpochAtEnd::Kept;
                self.repair_as(None, producer, kept, TransactionResult::Abort, partition);
            }
            false if entry.goes_on_in(&partition) => {}
            false => {
                entry.strays.insert(partition, producer.epoch);
            }
        }
    }
}
