//! Steps after an effect is done, failed, or in doubt: memory changes here, and only after the journal (I3).

use super::coordinator::{Owner, Pending, Phase, Stage, TransactionCoordinator};
use super::recovery::OVERDUE;
use super::state::Successor;
use super::{DurableEnd, Effect, Input, Reply};
use crate::coordinator::transaction_log::TransactionRecord;
use crate::coordinator::{Now, RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::TransactionState;
use crate::types::{EpochAtEnd, TopicPartition, TransactionalId};

impl TransactionCoordinator {
    fn owner(&mut self, ticket: Ticket) -> Owner {
        let owner = self.desk.tickets.remove(&ticket);
        assert!(
            owner.is_some(),
            "{ticket:?} was answered before, or never given"
        );
        owner.unwrap_or(Owner::ProducerIds)
    }

    /// The transition that waited for `ticket`.
    fn settle(&mut self, ticket: Ticket) -> (TransactionalId, Pending) {
        let Owner::Transaction(id) = self.owner(ticket) else {
            panic!("{ticket:?} is not of a transaction");
        };
        let pending = self
            .entries
            .get_mut(&id)
            .and_then(|entry| entry.pending.take());
        match pending {
            Some(pending) => (id, pending),
            None => panic!("nothing is pending for {id}"),
        }
    }

    pub(super) fn journal_written(&mut self, ticket: Ticket, now: Now) {
        if matches!(self.desk.tickets.get(&ticket), Some(Owner::ProducerIds)) {
            self.owner(ticket);
            return self.producer_ids_written(now);
        }
        let (id, pending) = self.settle(ticket);
        match pending.stage {
            Stage::Journal(next) => self.install(&id, *next, pending.waiter, now),
            Stage::Tombstone => self.forget(&id, now),
            stage => panic!("{stage:?} does not wait for the journal"),
        }
    }

    fn producer_ids_written(&mut self, now: Now) {
        self.producer_ids.block_written();
        for input in std::mem::take(&mut self.waiting_for_ids) {
            self.request(input, now);
        }
        self.abort_due(now);
    }

    /// I3: the record is in the journal; now it is the truth.
    fn install(
        &mut self,
        id: &TransactionalId,
        next: TransactionRecord,
        waiter: Option<RequestId>,
        now: Now,
    ) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.record.assert_leads_to(&next);
        let before = std::mem::replace(&mut entry.record, next);
        entry.idle_since = now.instant;
        entry.idle_before = std::time::Duration::ZERO;
        let producer = entry.record.producer;
        match entry.record.state {
            TransactionState::Ongoing => {
                if before.state != TransactionState::Ongoing {
                    let timeout_ms = u64::try_from(entry.record.timeout_ms).unwrap_or(0);
                    let timeout = std::time::Duration::from_millis(timeout_ms);
                    entry.deadline = Some(now.instant.plus(timeout));
                }
                self.desk.reply_to(waiter, Ok(Reply::Done));
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                entry.deadline = None;
                entry.is_from_before = false;
                if entry.record.state == TransactionState::PrepareAbort {
                    entry.strays.clear();
                }
                entry.record.durable_ends = Vec::new();
                let partitions = entry.record.partitions.iter().cloned().collect();
                return self.write_markers(id, partitions, waiter, now);
            }
            state => {
                if state == TransactionState::CompleteCommit {
                    entry.unsynced_markers = match entry.record.epochs {
                        EpochAtEnd::Bumped => before.partitions,
                        EpochAtEnd::Kept => Default::default(),
                    };
                }
                entry.is_from_before &= state != TransactionState::Empty;
                // Recovery found data of the next transaction behind this one: it goes back.
                entry.deadline = (!entry.strays.is_empty()).then_some(OVERDUE);
                self.desk.reply_to(waiter, Ok(Reply::Producer(producer)));
            }
        }
        self.abort_if_due(id, now);
        self.unpark(id, now);
    }

    /// The id expired: its tombstone is in the journal.
    fn forget(&mut self, id: &TransactionalId, now: Now) {
        if let Some(entry) = self.entries.remove(id) {
            for input in entry.parked {
                self.request(input, now);
            }
        }
    }

    pub(super) fn data_synced(&mut self, ticket: Ticket, ends: Vec<DurableEnd>, now: Now) {
        let (id, pending) = self.settle(ticket);
        match pending.stage {
            Stage::SyncBeforeCommit(epochs) => {
                self.decide_commit(&id, ends, epochs, pending.waiter, now);
            }
            Stage::SyncAfterMarkers => self.complete(&id, pending.waiter, now),
            Stage::SyncBeforeExpiry => self.journal_tombstone(&id),
            stage => panic!("{stage:?} does not wait for data"),
        }
    }

    /// D4: all of the transaction is durable; this record, once durable, commits it.
    fn decide_commit(
        &mut self,
        id: &TransactionalId,
        ends: Vec<DurableEnd>,
        epochs: EpochAtEnd,
        waiter: Option<RequestId>,
        now: Now,
    ) {
        let Some(record) = self.entries.get(id).map(|entry| entry.record.clone()) else {
            return;
        };
        let successor = match epochs {
            EpochAtEnd::Bumped => self.successor(record.producer),
            EpochAtEnd::Kept => Some(Successor::kept(record.producer)),
        };
        match successor {
            Some(successor) => {
                let next = record.decided_commit(successor, ends, now);
                self.journal(id, next, waiter, true);
            }
            None => {
                let error = Err(ErrorCode::CoordinatorNotAvailable);
                self.desk.reply_to(waiter, error);
                self.unpark(id, now);
            }
        }
    }

    pub(super) fn data_sync_failed(&mut self, ticket: Ticket, error: ErrorCode, now: Now) {
        let (id, pending) = self.settle(ticket);
        if matches!(pending.stage, Stage::SyncAfterMarkers) {
            return self.sync_markers_later(&id, pending.waiter);
        }
        self.desk.reply_to(pending.waiter, Err(error));
        self.unpark(&id, now);
    }

    pub(super) fn journal_tombstone(&mut self, id: &TransactionalId) {
        self.desk.journal(id, None, false);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.pending = Some(Pending {
                stage: Stage::Tombstone,
                waiter: None,
            });
        }
    }

    /// Writes the markers of a decided transaction to `partitions`; there may be none left to write.
    pub(super) fn write_markers(
        &mut self,
        id: &TransactionalId,
        partitions: Vec<TopicPartition>,
        waiter: Option<RequestId>,
        now: Now,
    ) {
        if partitions.is_empty() {
            return self.after_markers(id, waiter, now);
        }
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let ticket = self.desk.ticket(Owner::Transaction(id.clone()));
        self.desk.emit(Effect::WriteMarkers {
            ticket,
            producer: entry.record.producer,
            epochs: entry.record.epochs,
            result: entry.record.result(),
            partitions: partitions.clone(),
            coordinator_epoch: self.config.coordinator_epoch,
        });
        entry.pending = Some(Pending {
            stage: Stage::Markers(partitions),
            waiter,
        });
    }

    /// Not synced: should it be lost, the decision is rolled forward again, which changes nothing. Unless the epoch
    /// is kept: then the next transaction must not begin before this one is durably complete (`older.rs`).
    pub(super) fn complete(&mut self, id: &TransactionalId, waiter: Option<RequestId>, now: Now) {
        if let Some(entry) = self.entries.get(id) {
            let next = entry.record.completed(now);
            let sync = next.epochs == EpochAtEnd::Kept;
            self.journal(id, next, waiter, sync);
        }
    }

    pub(super) fn markers_written(&mut self, ticket: Ticket, now: Now) {
        if let Some(&Owner::Repair(number)) = self.desk.tickets.get(&ticket) {
            self.owner(ticket);
            return self.repair_done(number);
        }
        let (id, pending) = self.settle(ticket);
        let Stage::Markers(_) = pending.stage else {
            panic!("{:?} does not wait for markers", pending.stage);
        };
        self.after_markers(&id, pending.waiter, now);
    }

    /// The outcome is decided all the same, so the request is answered with it; the markers follow.
    pub(super) fn markers_failed(&mut self, ticket: Ticket) {
        if let Some(&Owner::Repair(number)) = self.desk.tickets.get(&ticket) {
            self.owner(ticket);
            return self.repair_failed(number);
        }
        let (id, pending) = self.settle(ticket);
        let Stage::Markers(partitions) = pending.stage else {
            panic!("{:?} does not wait for markers", pending.stage);
        };
        self.retry_markers_later(&id, partitions, pending.waiter);
    }

    pub(super) fn retry_markers_later(
        &mut self,
        id: &TransactionalId,
        partitions: Vec<TopicPartition>,
        waiter: Option<RequestId>,
    ) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let identity = entry.record.successor().identity();
        self.desk.reply_to(waiter, Ok(Reply::Producer(identity)));
        entry.pending = Some(Pending {
            stage: Stage::MarkersFailed(partitions),
            waiter: None,
        });
        self.refuse_parked(id, ErrorCode::ConcurrentTransactions);
    }

    fn refuse_parked(&mut self, id: &TransactionalId, error: ErrorCode) {
        let parked = self
            .entries
            .get_mut(id)
            .map(|entry| std::mem::take(&mut entry.parked));
        for input in parked.unwrap_or_default() {
            self.refuse(&input, error);
        }
    }

    fn refuse(&mut self, input: &Input, error: ErrorCode) {
        if let Input::Init { request, .. } = input {
            self.desk.reply(*request, Err(error));
        }
    }

    fn refuse_waiting_for_ids(&mut self, error: ErrorCode) {
        for input in std::mem::take(&mut self.waiting_for_ids) {
            self.refuse(&input, error);
        }
    }

    pub(super) fn journal_failed(&mut self, ticket: Ticket, error: ErrorCode, now: Now) {
        if matches!(self.desk.tickets.get(&ticket), Some(Owner::ProducerIds)) {
            self.owner(ticket);
            self.producer_ids.block_failed();
            return self.refuse_waiting_for_ids(error);
        }
        let (id, pending) = self.settle(ticket);
        match pending.stage {
            Stage::Journal(next) if is_completion(&next) => {
                // Markers are written; writing them again changes nothing, and leads here again.
                self.retry_markers_later(&id, Vec::new(), pending.waiter);
            }
            Stage::Journal(_) => {
                self.desk.reply_to(pending.waiter, Err(error));
                self.refuse_parked(&id, error);
                self.entries
                    .retain(|other, entry| *other != id || !entry.record.is_unborn());
            }
            Stage::Tombstone => self.unpark(&id, now),
            stage => panic!("{stage:?} does not wait for the journal"),
        }
    }

    /// D5: whether the record is durable, only a restart can tell. Nothing more is decided.
    pub(super) fn journal_in_doubt(&mut self, ticket: Ticket) {
        self.phase = Phase::Stopped;
        if let Owner::Transaction(id) = self.owner(ticket)
            && let Some(entry) = self.entries.get_mut(&id)
        {
            let waiter = entry
                .pending
                .as_mut()
                .and_then(|pending| pending.waiter.take());
            let result = match entry.pending.as_ref().map(|pending| &pending.stage) {
                // Decided before, durably: this much is known.
                Some(Stage::Journal(next)) if is_completion(next) => {
                    Ok(Reply::Producer(next.producer))
                }
                _ => Err(ErrorCode::UnknownServerError),
            };
            self.desk.reply_to(waiter, result);
        }
        let ids: Vec<TransactionalId> = self.entries.keys().cloned().collect();
        for id in ids {
            self.refuse_parked(&id, ErrorCode::KafkaStorageError);
        }
        self.refuse_waiting_for_ids(ErrorCode::KafkaStorageError);
    }
}

pub(super) fn is_completion(record: &TransactionRecord) -> bool {
    matches!(
        record.state,
        TransactionState::CompleteCommit | TransactionState::CompleteAbort
    )
}
