//! The four requests: Init, AddPartitions, End, and the operator's Abort.

use std::time::Duration;

use super::coordinator::{Entry, Owner, Pending, Stage, TransactionCoordinator};
use super::outcomes::is_completion;
use super::state::{Standing, first_identity};
use super::{Effect, Input, Reply, Residence};
use crate::coordinator::transaction_log::TransactionRecord;
use crate::coordinator::{Now, RequestId};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    EndTxnRequest, InitProducerIdRequest, TransactionResult, TransactionState,
};
use crate::types::{EpochAtEnd, ProducerIdentity, TopicPartition, TransactionalId};

/// A request for an identity.
struct Ask {
    request: RequestId,
    message: InitProducerIdRequest,
    holder: Residence,
}

impl From<Ask> for Input {
    fn from(ask: Ask) -> Self {
        Self::Init {
            request: ask.request,
            message: ask.message,
            holder: ask.holder,
        }
    }
}

impl TransactionCoordinator {
    pub(super) fn request(&mut self, input: Input, now: Now) {
        let serving = self.check_serving();
        let (request, handled) = match input {
            Input::Init {
                request,
                message,
                holder,
            } => (
                request,
                serving.and_then(|()| self.init(request, message, holder, now)),
            ),
            Input::AddPartitions {
                request,
                transactional_id,
                producer,
                partitions,
            } => {
                let add = |()| self.add(request, &transactional_id, producer, partitions, now);
                (request, serving.and_then(add))
            }
            Input::End { request, message } => (
                request,
                serving.and_then(|()| self.end(request, &message, now)),
            ),
            Input::EndKeepingEpoch { request, message } => (
                request,
                serving.and_then(|()| self.end_keeping_epoch(request, &message, now)),
            ),
            Input::Abort {
                request,
                transactional_id,
            } => {
                let abort = |()| self.abort_by_operator(request, &transactional_id, now);
                (request, serving.and_then(abort))
            }
            other => unreachable!("{other:?} is not a request"),
        };
        match handled {
            Ok(Some(reply)) => self.desk.reply(request, Ok(reply)),
            Ok(None) => {}
            Err(error) => self.desk.reply(request, Err(error)),
        }
    }

    /// `Ok(None)` in this and the other requests: the reply comes later.
    fn init(
        &mut self,
        request: RequestId,
        message: InitProducerIdRequest,
        holder: Residence,
        now: Now,
    ) -> Result<Option<Reply>, ErrorCode> {
        let Some(id) = message.transactional_id.clone() else {
            return Ok(self.init_idempotent(request, message, holder));
        };
        let timeout_ms = self.check_timeout(message.transaction_timeout)?;
        let ask = Ask {
            request,
            message,
            holder,
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            self.init_unknown(&id, ask, timeout_ms, now);
            return Ok(None);
        };
        if entry.pending.is_some() {
            self.park(&id, request, ask.into());
            return Ok(None);
        }
        let record = entry.record.clone();
        let is_open = record.state == TransactionState::Ongoing;
        match ask.message.current.map(|current| record.standing(current)) {
            None | Some(Standing::Current) => {}
            // A repeated request of the owner, whose first reply was lost: the epoch is not bumped again.
            Some(Standing::Last) if !is_open => return Ok(Some(Reply::Producer(record.producer))),
            Some(_) => return Err(ErrorCode::ProducerFenced),
        }
        match is_open {
            true => self.init_over_open(&id, ask, now),
            false => self.init_settled(&id, ask, timeout_ms, now),
        }
        Ok(None)
    }

    fn init_idempotent(
        &mut self,
        request: RequestId,
        message: InitProducerIdRequest,
        holder: Residence,
    ) -> Option<Reply> {
        match self.producer_id() {
            Some(id) => Some(Reply::Producer(first_identity(id))),
            None => {
                let ask = Ask {
                    request,
                    message,
                    holder,
                };
                self.waiting_for_ids.push(ask.into());
                None
            }
        }
    }

    fn init_unknown(&mut self, id: &TransactionalId, ask: Ask, timeout_ms: i32, now: Now) {
        let Some(producer_id) = self.producer_id() else {
            return self.waiting_for_ids.push(ask.into());
        };
        let record = TransactionRecord::unborn(producer_id);
        let mut next = record.renewed(first_identity(producer_id), None, now);
        next.timeout_ms = timeout_ms;
        next.holder = ask.holder;
        self.entries.insert(id.clone(), Entry::new(record, now));
        self.journal(id, next, Some(ask.request), true);
    }

    /// I4: the open transaction is aborted under a higher epoch first; this request is answered after that.
    fn init_over_open(&mut self, id: &TransactionalId, mut ask: Ask, now: Now) {
        // The identity was checked just now; when the abort is complete, it will be a past one.
        ask.message.current = None;
        match self.begin_abort(id, None, None, now) {
            Ok(()) => self.park(id, ask.request, ask.into()),
            Err(_) => self.waiting_for_ids.push(ask.into()),
        }
    }

    fn init_settled(&mut self, id: &TransactionalId, ask: Ask, timeout_ms: i32, now: Now) {
        let Some(record) = self.entries.get(id).map(|entry| entry.record.clone()) else {
            return;
        };
        let Some(successor) = self.successor(record.producer) else {
            return self.waiting_for_ids.push(ask.into());
        };
        let mut next = record.renewed(successor.identity(), ask.message.current, now);
        next.timeout_ms = timeout_ms;
        next.holder = ask.holder;
        // I4: durable before the reply, or a crash could bring the earlier holder's epoch back.
        self.journal(id, next, Some(ask.request), true);
    }

    fn check_timeout(&self, timeout: Duration) -> Result<i32, ErrorCode> {
        let millis = i32::try_from(timeout.as_millis());
        match millis {
            Ok(millis @ 1..) if timeout <= self.config.transaction_max_timeout => Ok(millis),
            _ => Err(ErrorCode::InvalidTransactionTimeout),
        }
    }

    fn add(
        &mut self,
        request: RequestId,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
        now: Now,
    ) -> Result<Option<Reply>, ErrorCode> {
        let entry = self.settled(id)?;
        entry.check_current(producer)?;
        let record = &entry.record;
        let is_open = record.state == TransactionState::Ongoing;
        if partitions.is_empty()
            || is_open && partitions.iter().all(|new| record.partitions.contains(new))
        {
            return Ok(Some(Reply::Done));
        }
        let next = record.joined(partitions, now);
        // Not synced: without a decision the transaction is rolled back, known or not.
        self.journal(id, next, Some(request), false);
        Ok(None)
    }

    fn end(
        &mut self,
        request: RequestId,
        message: &EndTxnRequest,
        now: Now,
    ) -> Result<Option<Reply>, ErrorCode> {
        let id = &message.transactional_id;
        let entry = self.settled(id)?;
        let record = entry.record.clone();
        match record.standing(message.producer) {
            // Its records under this identity from before the power loss may be lost: it is not for this request to call it committed.
            Standing::Current
                if entry.is_from_before && message.result == TransactionResult::Commit =>
            {
                return Err(ErrorCode::TransactionAbortable);
            }
            Standing::Current => {}
            Standing::Last => return end_again(&record, message.result).map(Some),
            Standing::Fenced => return Err(ErrorCode::ProducerFenced),
            Standing::Foreign => return Err(ErrorCode::InvalidProducerIdMapping),
        }
        match (record.state, message.result) {
            (TransactionState::Ongoing, TransactionResult::Commit) => {
                self.begin_commit(id, request, EpochAtEnd::Bumped);
            }
            (TransactionState::Ongoing, TransactionResult::Abort) => {
                self.begin_abort(id, Some(record.producer), Some(request), now)?;
            }
            // C14, C28: the epoch is bumped here, too, or a late copy of this very request could end the next transaction.
            _ => self.end_empty(id, &record, request, now)?,
        }
        Ok(None)
    }

    fn end_empty(
        &mut self,
        id: &TransactionalId,
        record: &TransactionRecord,
        request: RequestId,
        now: Now,
    ) -> Result<(), ErrorCode> {
        let successor = self
            .successor(record.producer)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let next = record.renewed(successor.identity(), Some(record.producer), now);
        self.journal(id, next, Some(request), true);
        Ok(())
    }

    fn abort_by_operator(
        &mut self,
        request: RequestId,
        id: &TransactionalId,
        now: Now,
    ) -> Result<Option<Reply>, ErrorCode> {
        if !self.entries.contains_key(id) {
            return Err(ErrorCode::TransactionalIdNotFound);
        }
        let record = &self.settled(id)?.record;
        if record.state != TransactionState::Ongoing {
            return Err(ErrorCode::InvalidTxnState);
        }
        let last = Some(record.producer);
        self.begin_abort(id, last, Some(request), now)?;
        Ok(None)
    }

    /// The entry of `id`, if nothing is pending there.
    pub(super) fn settled(&self, id: &TransactionalId) -> Result<&Entry, ErrorCode> {
        let entry = self
            .entries
            .get(id)
            .ok_or(ErrorCode::InvalidProducerIdMapping)?;
        // Before the identity is looked at: while a transition is pending, nobody knows yet which one will hold.
        match entry.pending {
            Some(_) => Err(ErrorCode::ConcurrentTransactions),
            None => Ok(entry),
        }
    }

    /// Journals `next`; memory changes when it is written (I3).
    pub(super) fn journal(
        &mut self,
        id: &TransactionalId,
        mut next: TransactionRecord,
        waiter: Option<RequestId>,
        sync: bool,
    ) {
        if !is_completion(&next) {
            // Of an opening that recovered from a power loss, a completion may hold an identity that was given out before.
            next.opening = self.config.opening;
        }
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        assert!(
            entry.pending.is_none(),
            "one pending transition per id (I3)"
        );
        entry.record.assert_leads_to(&next);
        self.desk.journal(id, Some(next.encode()), sync);
        entry.pending = Some(Pending {
            stage: Stage::Journal(Box::new(next)),
            waiter,
        });
    }

    /// D4, first half: the data of the transaction, and what may not be durable of the one before, goes to the disk.
    pub(super) fn begin_commit(
        &mut self,
        id: &TransactionalId,
        request: RequestId,
        epochs: EpochAtEnd,
    ) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let partitions = entry.record.partitions.union(&entry.unsynced_markers);
        let partitions = partitions.cloned().collect();
        entry.pending = Some(Pending {
            stage: Stage::SyncBeforeCommit(epochs),
            waiter: Some(request),
        });
        let ticket = self.desk.ticket(Owner::Transaction(id.clone()));
        self.desk.emit(Effect::SyncData { ticket, partitions });
    }

    /// Journals the decision to abort. `last` is the identity that may still ask how the transaction ended; none if it is fenced.
    ///
    /// # Errors
    /// `CoordinatorNotAvailable` if a producer id is needed first (it is asked for): try again.
    pub(super) fn begin_abort(
        &mut self,
        id: &TransactionalId,
        last: Option<ProducerIdentity>,
        waiter: Option<RequestId>,
        now: Now,
    ) -> Result<(), ErrorCode> {
        let Some(entry) = self.entries.get(id) else {
            return Ok(());
        };
        let mut data = entry.record.producer;
        // After a power loss without fsync a partition may know a higher epoch than the journal.
        data.epoch = entry.strays.values().copied().fold(data.epoch, Ord::max);
        let strays: Vec<TopicPartition> = entry.strays.keys().cloned().collect();
        let successor = self
            .successor(data)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        if let Some(entry) = self.entries.get(id) {
            let next = entry
                .record
                .decided_abort(successor, last, strays.into_iter(), now);
            self.journal(id, next, waiter, true);
        }
        Ok(())
    }
}

/// The answer to an end that was asked for before (C16): the same again, or what became of the transaction instead (C15).
fn end_again(record: &TransactionRecord, result: TransactionResult) -> Result<Reply, ErrorCode> {
    match (record.state, result) {
        (TransactionState::CompleteCommit, TransactionResult::Commit)
        | (TransactionState::CompleteAbort, TransactionResult::Abort)
        // The transaction was empty: either answer is true.
        | (TransactionState::Empty, _) => Ok(Reply::Producer(record.producer)),
        (TransactionState::CompleteAbort, TransactionResult::Commit) => {
            Err(ErrorCode::TransactionAbortable)
        }
        (TransactionState::CompleteCommit, TransactionResult::Abort) => {
            Err(ErrorCode::InvalidTxnState)
        }
        // The owner has begun its next transaction: this is a late copy (C14).
        _ => Err(ErrorCode::InvalidProducerEpoch),
    }
}
