//! After a restart: decided transactions are rolled forward, lost ones back, before anything is read (D4, C1–C9).
//!
//! If only the process ended, nothing is lost that was written, journal and partitions: a producer that outlived it goes on
//! with its identity, and with its open transaction, for what is left of the timeout. One that lived in the process is gone, and its
//! transaction is aborted.
//!
//! An open transaction of a partition is one of these, `e` being the epoch of its data and `E` the journal's:
//!
//! | found open | journal says | therefore |
//! |---|---|---|
//! | the identity of the last commit | `PrepareCommit` | the rest of its markers is written, then it is complete |
//! | the identity of the last commit | anything later | its marker was lost with the page cache: written again |
//! | `e < E` | `PrepareAbort` | as above, with ABORT |
//! | `e < E` | anything else | aborted long ago, the marker was lost: written again |
//! | `e = E` | `Ongoing`, with this partition; nothing was lost since the owner got `E`, and it lives | it stays open |
//! | `e = E` | `Ongoing`, or nothing of it | no decision: aborted under `E + 1`, journalled first |
//! | an unknown producer id | – | no decision: aborted |
//! | `e = E`, of a decided transaction that keeps its epoch | | `older.rs` |
//!
//! The last writes of a client before a power loss may be lost without a trace, partition and journal record alike. Therefore an
//! identity given out before one is good for nothing but learning the outcome of a transaction, and aborting, however often
//! the process ends in between: each record says in which opening its identity was good.
//!
//! Commits before the last one need no care: their markers were synced before the last one was decided.

use std::collections::BTreeMap;
use std::time::Duration;

use super::coordinator::{Entry, Owner, Pending, Phase, Repair, Stage, TransactionCoordinator};
use super::state::bumped;
use super::{Effect, Found, OpenTransaction};
use crate::coordinator::Now;
use crate::env::Instant;
use crate::protocol::messages::{TransactionResult, TransactionState};
use crate::types::{EpochAtEnd, ProducerId, ProducerIdentity, TopicPartition, TransactionalId};

/// Partitions whose markers complete a decision found in the journal.
pub(super) type RollForward = BTreeMap<TransactionalId, Vec<TopicPartition>>;

/// The deadline of a transaction that recovery must abort before anything is served.
pub(super) const OVERDUE: Instant = Instant(Duration::ZERO);

impl Entry {
    /// Whether the owner goes on with its open transaction, which the partition is part of.
    pub(super) fn goes_on_in(&self, partition: &TopicPartition) -> bool {
        !self.is_from_before
            && self.record.state == TransactionState::Ongoing
            && self.record.partitions.contains(partition)
    }
}

impl TransactionCoordinator {
    pub(super) fn recover(&mut self, found: Found, now: Now) {
        assert_eq!(self.phase, Phase::Replaying, "recovery runs once");
        self.phase = Phase::Recovering;
        let Found {
            open,
            unreadable,
            whole_since,
        } = found;
        for entry in self.entries.values_mut() {
            // The records of an open transaction in a damaged partition are lost, too.
            let has_unreadable = !entry.record.partitions.is_disjoint(&unreadable);
            entry.is_from_before = entry.record.is_doubtful_since(whole_since) || has_unreadable;
        }
        let owners = self.owners();
        let mut roll_forward = RollForward::new();
        for transaction in open {
            self.producer_ids.replay_used(transaction.producer.id);
            let owner = owners.get(&transaction.producer.id);
            self.classify(transaction, owner, &mut roll_forward);
        }
        self.start_repairs();
        self.start_roll_forward(roll_forward, now);
        self.abort_due(now);
    }

    fn owners(&self) -> BTreeMap<ProducerId, TransactionalId> {
        let ids = self.entries.iter().flat_map(|(id, entry)| {
            let record = &entry.record;
            let earlier = [record.last, record.last_commit].into_iter().flatten();
            earlier
                .chain([record.producer])
                .map(move |producer| (producer.id, id.clone()))
        });
        ids.collect()
    }

    fn classify(
        &mut self,
        open: OpenTransaction,
        owner: Option<&TransactionalId>,
        roll_forward: &mut RollForward,
    ) {
        let OpenTransaction {
            partition,
            producer,
        } = open;
        let Some((id, entry)) =
            owner.and_then(|id| self.entries.get_mut(id).map(|entry| (id, entry)))
        else {
            return self.repair(None, producer, TransactionResult::Abort, partition);
        };
        if entry.record.keeps_epoch_of(producer) {
            return self.classify_kept(&id.clone(), producer, partition, roll_forward);
        }
        let record = &entry.record;
        let is_last_commit = record.last_commit == Some(producer);
        let is_earlier =
            producer.id != record.producer.id || producer.epoch < record.producer.epoch;
        match record.state {
            TransactionState::PrepareCommit
                if is_last_commit && record.partitions.contains(&partition) =>
            {
                roll_forward.entry(id.clone()).or_default().push(partition);
            }
            TransactionState::PrepareAbort if is_earlier && !is_last_commit => {
                roll_forward.entry(id.clone()).or_default().push(partition);
            }
            TransactionState::PrepareCommit if is_earlier => {
                self.repair(None, producer, TransactionResult::Abort, partition);
            }
            _ if is_last_commit => {
                let id = Some(id.clone());
                self.repair(id, producer, TransactionResult::Commit, partition);
            }
            _ if is_earlier => self.repair(None, producer, TransactionResult::Abort, partition),
            _ if entry.goes_on_in(&partition) && producer.epoch == entry.record.producer.epoch => {}
            _ => {
                entry.strays.insert(partition, producer.epoch);
            }
        }
    }

    /// Takes note of a marker to write again, for data that `producer` wrote.
    fn repair(
        &mut self,
        transactional_id: Option<TransactionalId>,
        producer: ProducerIdentity,
        result: TransactionResult,
        partition: TopicPartition,
    ) {
        let producer = bumped(producer);
        self.repair_as(
            transactional_id,
            producer,
            EpochAtEnd::Bumped,
            result,
            partition,
        );
    }

    pub(super) fn repair_as(
        &mut self,
        transactional_id: Option<TransactionalId>,
        producer: ProducerIdentity,
        epochs: EpochAtEnd,
        result: TransactionResult,
        partition: TopicPartition,
    ) {
        let same = self
            .repairs
            .values_mut()
            .find(|repair| repair.producer == producer && repair.result == result);
        match same {
            Some(repair) => repair.partitions.push(partition),
            None => {
                let number = self.repairs.len() as u64;
                let repair = Repair {
                    transactional_id,
                    producer,
                    result,
                    epochs,
                    partitions: vec![partition],
                    is_outstanding: false,
                };
                self.repairs.insert(number, repair);
            }
        }
    }

    /// Writes the markers of every repair that is not under way.
    pub(super) fn start_repairs(&mut self) {
        for (number, repair) in &mut self.repairs {
            if !std::mem::replace(&mut repair.is_outstanding, true) {
                let ticket = self.desk.ticket(Owner::Repair(*number));
                self.desk.emit(Effect::WriteMarkers {
                    ticket,
                    producer: repair.producer,
                    epochs: repair.epochs,
                    result: repair.result,
                    partitions: repair.partitions.clone(),
                    coordinator_epoch: self.config.coordinator_epoch,
                });
            }
        }
    }

    pub(super) fn repair_done(&mut self, number: u64) {
        let Some(repair) = self.repairs.remove(&number) else {
            return;
        };
        let owner = repair
            .transactional_id
            .filter(|_| repair.result == TransactionResult::Commit);
        if let Some(entry) = owner.and_then(|id| self.entries.get_mut(&id)) {
            entry.unsynced_markers.extend(repair.partitions);
        }
    }

    pub(super) fn repair_failed(&mut self, number: u64) {
        if let Some(repair) = self.repairs.get_mut(&number) {
            repair.is_outstanding = false;
        }
    }

    fn start_roll_forward(&mut self, mut roll_forward: RollForward, now: Now) {
        let ids: Vec<TransactionalId> = self.entries.keys().cloned().collect();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            match entry.record.state {
                TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                    // A partition of the list that is not open has its marker already (C6).
                    let partitions = roll_forward.remove(&id).unwrap_or_default();
                    self.write_markers(&id, partitions, None, now);
                }
                TransactionState::Ongoing if !entry.is_from_before && entry.strays.is_empty() => {
                    let left = entry.record.time_left(now.wall);
                    entry.deadline = Some(now.instant.plus(left));
                }
                TransactionState::Ongoing => entry.deadline = Some(OVERDUE),
                _ if !entry.strays.is_empty() => entry.deadline = Some(OVERDUE),
                _ => {}
            }
        }
    }

    /// Serves requests once nothing is left to roll forward or back.
    pub(super) fn finish_recovery(&mut self) {
        let is_done = self.phase == Phase::Recovering
            && self.desk.tickets.is_empty()
            && self.repairs.is_empty()
            && self
                .entries
                .values()
                .all(|entry| entry.pending.is_none() && entry.deadline != Some(OVERDUE));
        if is_done {
            self.phase = Phase::Serving;
            self.desk.emit(Effect::Recovered);
        }
    }

    pub(super) fn tick(&mut self, now: Now) {
        match self.phase {
            Phase::Recovering | Phase::Serving => {}
            Phase::Replaying | Phase::Stopped => return,
        }
        self.start_repairs();
        self.retry_markers(now);
        self.abort_due(now);
        if !self.waiting_for_ids.is_empty() {
            self.request_producer_ids();
        }
        if self.phase == Phase::Serving {
            self.expire_idle(now);
        }
    }

    fn retry_markers(&mut self, now: Now) {
        let failed: Vec<(TransactionalId, Vec<TopicPartition>)> = self
            .entries
            .iter_mut()
            .filter_map(|(id, entry)| match &mut entry.pending.as_mut()?.stage {
                Stage::MarkersFailed(partitions) => Some((id.clone(), std::mem::take(partitions))),
                _ => None,
            })
            .collect();
        for (id, partitions) in failed {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.pending = None;
            }
            self.write_markers(&id, partitions, None, now);
        }
    }

    /// Aborts every open transaction whose time is up (C22), and what recovery found open.
    pub(super) fn abort_due(&mut self, now: Now) {
        let due: Vec<TransactionalId> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                entry
                    .deadline
                    .is_some_and(|deadline| deadline <= now.instant)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.abort_if_due(&id, now);
        }
    }

    /// C15: an end that is under way wins over the deadline.
    pub(super) fn abort_if_due(&mut self, id: &TransactionalId, now: Now) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let is_due = entry
            .deadline
            .is_some_and(|deadline| deadline <= now.instant);
        if is_due && entry.pending.is_none() {
            let last = Some(entry.record.producer);
            // Without a producer id to go on with, it is tried again when one is reserved.
            let _ = self.begin_abort(id, last, None, now);
        }
    }

    fn expire_idle(&mut self, now: Now) {
        let idle: Vec<TransactionalId> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                entry.pending.is_none()
                    && entry.record.state != TransactionState::Ongoing
                    && self.expiry(entry) <= now.instant
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in idle {
            self.expire(&id);
        }
    }

    /// The tombstone removes the record of how the last commit ended, so its markers are made durable first.
    fn expire(&mut self, id: &TransactionalId) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.unsynced_markers.is_empty() {
            return self.journal_tombstone(id);
        }
        let partitions = entry.unsynced_markers.iter().cloned().collect();
        entry.pending = Some(Pending {
            stage: Stage::SyncBeforeExpiry,
            waiter: None,
        });
        let ticket = self.desk.ticket(Owner::Transaction(id.clone()));
        self.desk.emit(Effect::SyncData { ticket, partitions });
    }
}
