//! The transaction coordinator itself: its memory, the dispatch of a step, and what can be asked of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::producer_ids::ProducerIds;
use super::state::{Standing, Successor, bumped};
use super::{Config, Effect, Holder, Input, PartitionCheck, Reply};
use crate::coordinator::transaction_log::{
    Key, TransactionRecord, decode_producer_ids, encode_producer_ids,
};
use crate::coordinator::{CoordinatorError, Now, RequestId, Ticket};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{TransactionDescription, TransactionResult, TransactionState};
use crate::types::{
    EpochAtEnd, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicPartition,
    TransactionalId,
};

/// Most requests that wait for one transactional id's pending transition; more are told to retry.
const PARKED_REQUESTS_MAX: usize = 64;

/// The transaction coordinator. See the module's documentation for what its caller owes.
#[derive(Debug, Clone)]
pub(crate) struct TransactionCoordinator {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) entries: BTreeMap<TransactionalId, Entry>,
    pub(super) producer_ids: ProducerIds,
    /// Requests that wait for producer ids.
    pub(super) waiting_for_ids: Vec<Input>,
    /// Markers that recovery writes again, of transactions that need no new decision.
    pub(super) repairs: BTreeMap<u64, Repair>,
    pub(super) desk: Desk,
}

/// Phase of the coordinator's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Replaying,
    Recovering,
    Serving,
    /// A journal record is in doubt: nothing is decided until a restart has read the journal again.
    Stopped,
}

/// One transactional id.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Last record of the journal (I3: nothing else decides).
    pub(super) record: TransactionRecord,
    /// The one transition under way.
    pub(super) pending: Option<Pending>,
    /// When the open transaction is aborted.
    pub(super) deadline: Option<Instant>,
    /// Idle time of the id before this process took it up.
    pub(super) idle_before: Duration,
    pub(super) idle_since: Instant,
    /// Partitions of the last commit, whose markers may not be durable: the next commit syncs them, too, because
    /// its decision replaces the record that says how this one ended.
    pub(super) unsynced_markers: BTreeSet<TopicPartition>,
    /// Open transactions of the current epoch found by recovery and unknown to the journal, with their epochs.
    pub(super) strays: BTreeMap<TopicPartition, ProducerEpoch>,
    /// Whether the owner may have had its identity before a power loss, which may have taken back what it wrote under it:
    /// it must abort before it goes on.
    pub(super) is_from_before: bool,
    /// Requests that are handled when nothing is pending.
    pub(super) parked: VecDeque<Input>,
}

impl Entry {
    pub(super) fn new(record: TransactionRecord, now: Now) -> Self {
        let idle_ms = now.wall.0.saturating_sub(record.last_update.0);
        Self {
            record,
            pending: None,
            deadline: None,
            // C24: a stored time that lies in the future counts as now.
            idle_before: Duration::from_millis(u64::try_from(idle_ms).unwrap_or(0)),
            idle_since: now.instant,
            unsynced_markers: BTreeSet::new(),
            strays: BTreeMap::new(),
            is_from_before: false,
            parked: VecDeque::new(),
        }
    }

    fn describe(&self, id: &TransactionalId) -> TransactionDescription {
        TransactionDescription {
            transactional_id: id.clone(),
            producer_id: self.record.producer.id,
            producer_epoch: self.record.producer.epoch,
            state: self.record.state,
            timeout: Duration::from_millis(u64::try_from(self.record.timeout_ms).unwrap_or(0)),
            start: match self.record.partitions.is_empty() {
                true => Timestamp::NONE,
                false => self.record.start,
            },
            partitions: self.record.partitions.iter().cloned().collect(),
        }
    }
}

/// A transition under way, and who waits for it.
#[derive(Debug, Clone, Hash)]
pub(super) struct Pending {
    pub(super) stage: Stage,
    pub(super) waiter: Option<RequestId>,
}

/// Stage of a transition.
#[derive(Debug, Clone, Hash)]
pub(super) enum Stage {
    /// The transaction's data is being synced, before the decision to commit.
    SyncBeforeCommit(EpochAtEnd),
    /// The markers of a commit that keeps its epoch are being synced, before it is complete.
    SyncAfterMarkers,
    /// The last markers are being synced, before the id is forgotten.
    SyncBeforeExpiry,
    /// This record is being journalled.
    Journal(Box<TransactionRecord>),
    /// The tombstone is being journalled.
    Tombstone,
    /// Markers are being written.
    Markers(Vec<TopicPartition>),
    /// Markers, or the completion after them, failed: again at the next tick.
    MarkersFailed(Vec<TopicPartition>),
}

/// Markers of a transaction that was decided long ago.
#[derive(Debug, Clone, Hash)]
pub(super) struct Repair {
    pub(super) transactional_id: Option<TransactionalId>,
    pub(super) producer: ProducerIdentity,
    pub(super) result: TransactionResult,
    pub(super) epochs: EpochAtEnd,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) is_outstanding: bool,
}

/// Whose a ticket is.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    Transaction(TransactionalId),
    ProducerIds,
    Repair(u64),
}

/// Way out: effects, and the tickets that will come back.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk {
    next_ticket: u64,
    pub(super) tickets: BTreeMap<Ticket, Owner>,
    effects: Vec<Effect>,
}

impl Desk {
    pub(super) fn ticket(&mut self, owner: Owner) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, owner);
        ticket
    }

    pub(super) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn reply(&mut self, request: RequestId, result: Result<Reply, ErrorCode>) {
        self.emit(Effect::Reply { request, result });
    }

    pub(super) fn reply_to(&mut self, waiter: Option<RequestId>, result: Result<Reply, ErrorCode>) {
        if let Some(request) = waiter {
            self.reply(request, result);
        }
    }

    /// Journals one record of `id`; a tombstone if there is no `value`.
    pub(super) fn journal(&mut self, id: &TransactionalId, value: Option<Bytes>, sync: bool) {
        let ticket = self.ticket(Owner::Transaction(id.clone()));
        self.emit(Effect::AppendJournal {
            ticket,
            key: Key::Transaction(id.clone()).encode(),
            value,
            sync,
        });
    }
}

impl TransactionCoordinator {
    /// A coordinator that knows nothing yet: replay the journal, then say [`Input::ReplayDone`].
    #[must_use]
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Replaying,
            entries: BTreeMap::new(),
            producer_ids: ProducerIds::default(),
            waiting_for_ids: Vec::new(),
            repairs: BTreeMap::new(),
            desk: Desk::default(),
        }
    }

    /// Takes in one record of the journal, in the order of the journal, before [`Input::ReplayDone`].
    ///
    /// # Errors
    /// If the record is damaged or of a newer version.
    pub(crate) fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now: Now,
    ) -> Result<(), CoordinatorError> {
        assert_eq!(
            self.phase,
            Phase::Replaying,
            "replay comes before all requests"
        );
        match (Key::decode(key)?, value) {
            (Key::ProducerIds, Some(value)) => {
                self.producer_ids.replay_block(decode_producer_ids(value)?);
            }
            (Key::ProducerIds, None) => {}
            (Key::Transaction(id), Some(value)) => {
                let record = TransactionRecord::decode(value)?;
                self.producer_ids.replay_used(record.producer.id);
                self.producer_ids.replay_used(record.next_producer_id);
                self.entries.insert(id, Entry::new(record, now));
            }
            (Key::Transaction(id), None) => {
                self.entries.remove(&id);
            }
        }
        Ok(())
    }

    /// Takes in what happened and says what is to be done, in this order.
    ///
    /// # Panics
    /// If a ticket is answered twice, or by an answer that does not belong to its effect.
    pub(crate) fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Init { .. }
            | Input::AddPartitions { .. }
            | Input::End { .. }
            | Input::EndKeepingEpoch { .. }
            | Input::Abort { .. } => self.request(input, now),
            Input::JournalWritten { ticket } => self.journal_written(ticket, now),
            Input::JournalFailed { ticket, error } => self.journal_failed(ticket, error, now),
            Input::JournalInDoubt { ticket } => self.journal_in_doubt(ticket),
            Input::DataSynced { ticket, ends } => self.data_synced(ticket, ends, now),
            Input::DataSyncFailed { ticket, error } => self.data_sync_failed(ticket, error, now),
            Input::MarkersWritten { ticket } => self.markers_written(ticket, now),
            Input::MarkersFailed { ticket } => self.markers_failed(ticket),
            Input::ReplayDone(found) => self.recover(found, now),
            Input::Tick => self.tick(now),
        }
        self.finish_recovery();
        std::mem::take(&mut self.desk.effects)
    }

    /// Whether `producer` may append to `partition` within its transaction. Cheap; call it under the partition's lock.
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`, `InvalidProducerEpoch`, `ConcurrentTransactions`, `CoordinatorLoadInProgress`
    /// or `KafkaStorageError`, as Kafka has them.
    pub(crate) fn check_append(
        &self,
        transactional_id: &TransactionalId,
        producer: ProducerIdentity,
        partition: &TopicPartition,
    ) -> Result<PartitionCheck, ErrorCode> {
        self.check_serving()?;
        let entry = self
            .entries
            .get(transactional_id)
            .ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if entry.is_changing_hands() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        entry.check_current(producer)?;
        let is_joined = entry.record.state == TransactionState::Ongoing
            && entry.record.partitions.contains(partition);
        Ok(match is_joined {
            true => PartitionCheck::Joined,
            false => PartitionCheck::MustJoin,
        })
    }

    /// Who holds a transaction of the producer in `partition` that has not ended yet.
    #[must_use]
    pub(crate) fn holder(
        &self,
        producer: ProducerId,
        partition: &TopicPartition,
    ) -> Option<Holder> {
        let mut entries = self.entries.iter().filter(|(_, entry)| {
            entry.record.producer.id == producer && entry.record.partitions.contains(partition)
        });
        let (id, entry) = entries.next()?;
        let state = entry.record.state;
        Some(Holder {
            transactional_id: id.clone(),
            producer: entry.record.producer,
            is_ending: entry.pending.is_some() || state != TransactionState::Ongoing,
        })
    }

    /// When the next [`Input::Tick`] has something to do; `None` if nothing waits for time.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let has_repair = self.repairs.values().any(|repair| !repair.is_outstanding);
        let now = has_repair.then_some(Instant::default());
        let entries = self.entries.values().filter_map(|entry| {
            match entry.pending.as_ref().map(|pending| &pending.stage) {
                Some(Stage::MarkersFailed(_)) => Some(Instant::default()),
                Some(_) => None,
                None => Some(entry.deadline.unwrap_or_else(|| self.expiry(entry))),
            }
        });
        entries.chain(now).min()
    }

    /// When an idle id is forgotten.
    pub(super) fn expiry(&self, entry: &Entry) -> Instant {
        let left = self.config.transactional_id_expiration;
        entry
            .idle_since
            .plus(left.saturating_sub(entry.idle_before))
    }

    /// Whether [`Effect::Recovered`] is still to come.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn is_recovering(&self) -> bool {
        matches!(self.phase, Phase::Replaying | Phase::Recovering)
    }

    /// Every transactional id, in order.
    pub(crate) fn list(&self) -> impl Iterator<Item = TransactionDescription> + '_ {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.record.is_unborn())
            .map(|(id, entry)| entry.describe(id))
    }

    /// One transactional id.
    #[must_use]
    pub(crate) fn describe(
        &self,
        transactional_id: &TransactionalId,
    ) -> Option<TransactionDescription> {
        let entry = self.entries.get(transactional_id)?;
        (!entry.record.is_unborn()).then(|| entry.describe(transactional_id))
    }

    pub(super) fn check_serving(&self) -> Result<(), ErrorCode> {
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Stopped => Err(ErrorCode::KafkaStorageError),
            Phase::Replaying | Phase::Recovering => Err(ErrorCode::CoordinatorLoadInProgress),
        }
    }

    /// The identities that follow `producer`; `None` if they need a producer id and none is reserved yet (one is asked for).
    pub(super) fn successor(&mut self, producer: ProducerIdentity) -> Option<Successor> {
        let marker = bumped(producer);
        if producer.epoch < self.config.producer_epoch_max {
            return Some(Successor {
                marker,
                next: ProducerId::NONE,
                epochs: EpochAtEnd::Bumped,
            });
        }
        let next = self.producer_id()?;
        Some(Successor {
            marker,
            next,
            epochs: EpochAtEnd::Bumped,
        })
    }

    /// A new producer id; `None` if none is reserved yet (a block is asked for).
    pub(super) fn producer_id(&mut self) -> Option<ProducerId> {
        let allotted = self.producer_ids.allot();
        if allotted.is_none() {
            self.request_producer_ids();
        }
        allotted
    }

    pub(super) fn request_producer_ids(&mut self) {
        let size = self.config.producer_id_block_size;
        if let Some(end) = self.producer_ids.request_block(size) {
            let ticket = self.desk.ticket(Owner::ProducerIds);
            self.desk.emit(Effect::AppendJournal {
                ticket,
                key: Key::ProducerIds.encode(),
                value: Some(encode_producer_ids(end)),
                sync: true,
            });
        }
    }

    /// Handles what waited for `id`, as long as nothing is pending again.
    pub(super) fn unpark(&mut self, id: &TransactionalId, now: Now) {
        while let Some(entry) = self.entries.get_mut(id)
            && entry.pending.is_none()
            && let Some(input) = entry.parked.pop_front()
        {
            self.request(input, now);
        }
    }

    /// Keeps a request until nothing is pending; if too many wait already, it is told to retry.
    pub(super) fn park(&mut self, id: &TransactionalId, request: RequestId, input: Input) {
        match self.entries.get_mut(id) {
            Some(entry) if entry.parked.len() < PARKED_REQUESTS_MAX => {
                entry.parked.push_back(input)
            }
            _ => self
                .desk
                .reply(request, Err(ErrorCode::ConcurrentTransactions)),
        }
    }
}

impl Entry {
    /// Whether the owner's epoch is about to change; a partition that joins does not count.
    fn is_changing_hands(&self) -> bool {
        match self.pending.as_ref().map(|pending| &pending.stage) {
            None => false,
            Some(Stage::Journal(next)) => next.state != TransactionState::Ongoing,
            Some(_) => true,
        }
    }

    /// Whether `producer` owns the id, and may go on with its transaction.
    pub(super) fn check_current(&self, producer: ProducerIdentity) -> Result<(), ErrorCode> {
        match self.record.standing(producer) {
            Standing::Current if !self.is_from_before => Ok(()),
            // Its transaction ended (C12, C13, C22), or began before a power loss: aborting tells it the epoch to go on with.
            Standing::Current | Standing::Last => Err(ErrorCode::InvalidProducerEpoch),
            Standing::Fenced => Err(ErrorCode::ProducerFenced),
            Standing::Foreign => Err(ErrorCode::InvalidProducerIdMapping),
        }
    }
}
