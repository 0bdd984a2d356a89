//! Driving the transaction coordinator: its steps under one lock, its effects outside it where they may wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::Mutex;

use super::core::Core;
use super::journal::journal_batch;
use super::partition::{LockedLog, Partition};
use super::{Broker, BrokerError, Reply};
use crate::coordinator::transaction::{
    self, Effect, Found, Holder, Input, PartitionCheck, Residence, TransactionCoordinator,
};
use crate::coordinator::{RequestId, Ticket};
use crate::env::{Instant, failpoint};
use crate::log::{AppendOrigin, Appended, LogError};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchProducer, ControlRecord, ControlType};
use crate::protocol::messages::{
    EndMoments, EndTxnRequest, EndWatch, InitProducerIdRequest, TransactionDescription,
    TransactionResult,
};
use crate::types::{EpochAtEnd, ProducerId, ProducerIdentity, TopicPartition, TransactionalId};

/// The transaction coordinator of a broker.
pub(super) struct Transactions {
    state: Mutex<State>,
    journal: Arc<Partition>,
}

struct State {
    machine: TransactionCoordinator,
    senders: HashMap<RequestId, Sender>,
    requests_count: u64,
    is_recovered: bool,
}

enum Sender {
    Producer(
        oneshot::Sender<Result<ProducerIdentity, BrokerError>>,
        Option<EndWatch>,
    ),
    Done(oneshot::Sender<Result<(), BrokerError>>),
}

/// Work of a step for when the coordinator's lock is free (lock order: partition, then coordinator).
enum Deferred {
    SyncData {
        ticket: Ticket,
        partitions: Vec<TopicPartition>,
    },
    Markers(Markers),
    Reply {
        request: RequestId,
        result: Result<transaction::Reply, ErrorCode>,
    },
}

struct Markers {
    ticket: Ticket,
    producer: ProducerIdentity,
    epochs: EpochAtEnd,
    result: TransactionResult,
    partitions: Vec<TopicPartition>,
    coordinator_epoch: i32,
}

impl Transactions {
    pub(super) fn new(machine: TransactionCoordinator, journal: Arc<Partition>) -> Self {
        let state = State {
            machine,
            senders: HashMap::new(),
            requests_count: 0,
            is_recovered: false,
        };
        Self {
            state: Mutex::new(state),
            journal,
        }
    }

    /// Forgets who waits for a reply.
    pub(super) fn abandon(&self) {
        self.state.lock().senders.clear();
    }

    /// The journal's partition.
    pub(super) fn journal(&self) -> &Arc<Partition> {
        &self.journal
    }

    /// Whether every transaction that was found open is decided and its markers are written.
    pub(super) fn is_recovered(&self) -> bool {
        self.state.lock().is_recovered
    }

    /// Whether the producer may append to the partition, whose lock the caller holds.
    pub(super) fn check_append(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partition: &TopicPartition,
    ) -> Result<PartitionCheck, BrokerError> {
        let checked = self
            .state
            .lock()
            .machine
            .check_append(id, producer, partition);
        checked.map_err(|code| refused(code, id))
    }

    /// Who holds a transaction of the producer in the partition that has not ended.
    pub(super) fn holder(
        &self,
        producer: ProducerId,
        partition: &TopicPartition,
    ) -> Option<Holder> {
        self.state.lock().machine.holder(producer, partition)
    }

    /// Whether the owner had its identity before a restart, and must renew it.
    pub(super) fn must_renew(&self, id: &TransactionalId, producer: ProducerIdentity) -> bool {
        self.state.lock().machine.must_renew(id, producer)
    }

    pub(super) fn list(&self) -> Vec<TransactionDescription> {
        self.state.lock().machine.list().collect()
    }

    pub(super) fn describe(&self, id: &TransactionalId) -> Option<TransactionDescription> {
        self.state.lock().machine.describe(id)
    }
}

impl State {
    fn new_request(&mut self) -> RequestId {
        self.requests_count += 1;
        RequestId(self.requests_count)
    }
}

impl Broker {
    #[doc(hidden)]
    /// As [`Broker::init_producer_id`], for a producer that lives on when this process ends: after a restart its open
    /// transaction is still its own.
    pub fn init_remote_producer_id(
        &self,
        request: InitProducerIdRequest,
    ) -> Reply<ProducerIdentity> {
        self.core.init_producer_id(request, Residence::Remote)
    }
}

impl Core {
    pub(super) fn init_producer_id(
        &self,
        message: InitProducerIdRequest,
        holder: Residence,
    ) -> Reply<ProducerIdentity> {
        self.ask_for_producer(None, |request| Input::Init {
            request,
            message,
            holder,
        })
    }

    /// Ends a transaction, and notes in `watch` when what of it was done.
    pub(super) fn end_txn(
        &self,
        message: EndTxnRequest,
        watch: Option<EndWatch>,
    ) -> Reply<ProducerIdentity> {
        failpoint("commit.begin");
        self.ask_for_producer(watch, |request| Input::End { request, message })
    }

    pub(super) fn end_txn_keeping_epoch(&self, message: EndTxnRequest) -> Reply<ProducerIdentity> {
        failpoint("commit.begin");
        self.ask_for_producer(None, |request| Input::EndKeepingEpoch { request, message })
    }

    pub(super) fn add_partitions(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
    ) -> Reply<()> {
        let transactional_id = id.clone();
        let (sender, reply) = Reply::waiting();
        self.ask(Sender::Done(sender), |request| Input::AddPartitions {
            request,
            transactional_id,
            producer,
            partitions,
        });
        reply
    }

    pub(super) fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        let transactional_id = id.clone();
        let (sender, reply) = Reply::waiting();
        self.ask(Sender::Done(sender), |request| Input::Abort {
            request,
            transactional_id,
        });
        reply
    }

    fn ask_for_producer(
        &self,
        watch: Option<EndWatch>,
        input: impl FnOnce(RequestId) -> Input,
    ) -> Reply<ProducerIdentity> {
        let (sender, reply) = Reply::waiting();
        self.ask(Sender::Producer(sender, watch), input);
        reply
    }

    fn ask(&self, sender: Sender, input: impl FnOnce(RequestId) -> Input) {
        if let Err(error) = self.check_open() {
            return sender.fail(error);
        }
        let mut state = self.transactions.state.lock();
        let request = state.new_request();
        state.senders.insert(request, sender);
        let deferred = self.step(&mut state, input(request));
        drop(state);
        self.settle(deferred, None);
        self.sync_if_inline();
    }

    /// Tells the coordinator what happened, and does what it says. The caller holds no lock of a partition.
    pub(super) fn tell_transactions(&self, input: Input) {
        self.tell_transactions_of(input, None);
    }

    /// The same, of a transaction whose data was `synced` then.
    pub(super) fn tell_transactions_of(&self, input: Input, synced: Option<Instant>) {
        let deferred = self.step(&mut self.transactions.state.lock(), input);
        self.settle(deferred, synced);
    }

    /// Makes the partition part of the producer's transaction. The caller holds the partition's lock.
    pub(super) fn add_partition(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partition: &TopicPartition,
    ) -> Result<(), BrokerError> {
        let mut state = self.transactions.state.lock();
        let request = state.new_request();
        let input = Input::AddPartitions {
            request,
            transactional_id: id.clone(),
            producer,
            partitions: vec![partition.clone()],
        };
        let deferred = self.step(&mut state, input);
        drop(state);
        failpoint("txn.partition_added");
        // Its record needs no sync, so the answer is among what the step left.
        for effect in deferred {
            match effect {
                Deferred::Reply { request: r, result } if r == request => {
                    return result.map(drop).map_err(|code| refused(code, id));
                }
                Deferred::SyncData { .. } | Deferred::Markers(_) | Deferred::Reply { .. } => {}
            }
        }
        Err(refused(ErrorCode::ConcurrentTransactions, id))
    }

    /// One step and all that follows from it under the coordinator's lock: records that need no sync are appended
    /// and reported before anybody else can ask (I3).
    fn step(&self, state: &mut State, input: Input) -> Vec<Deferred> {
        let mut deferred = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in state.machine.step(input, self.now()) {
                match effect {
                    Effect::AppendJournal {
                        ticket,
                        key,
                        value,
                        sync,
                    } => inputs.extend(self.append_journal(ticket, &key, value.as_ref(), sync)),
                    Effect::SyncData { ticket, partitions } => {
                        deferred.push(Deferred::SyncData { ticket, partitions });
                    }
                    Effect::WriteMarkers {
                        ticket,
                        producer,
                        epochs,
                        result,
                        partitions,
                        coordinator_epoch,
                    } => deferred.push(Deferred::Markers(Markers {
                        ticket,
                        producer,
                        epochs,
                        result,
                        partitions,
                        coordinator_epoch,
                    })),
                    Effect::Reply { request, result } => {
                        deferred.push(Deferred::Reply { request, result });
                    }
                    Effect::Recovered => state.is_recovered = true,
                }
            }
        }
        deferred
    }

    /// Appends a record to the journal. Returns what the coordinator is to be told now; `None` if the record has
    /// still to be made durable.
    fn append_journal(
        &self,
        ticket: Ticket,
        key: &Bytes,
        value: Option<&Bytes>,
        sync: bool,
    ) -> Option<Input> {
        if sync {
            failpoint("commit.before_decision");
        }
        let journal = &self.transactions.journal;
        let appended = self.with_ballast(|| {
            let mut log = journal.lock()?;
            let record = (&key[..], value.map(|it| &it[..]));
            let wall = self.env.clock.wall();
            let batch = journal_batch(wall, [record], BatchProducer::Plain, log.synced_end());
            log.append(batch, AppendOrigin::Coordinator)
                .map_err(|e| Failure::of(e, log.poisoned().is_some()))
        });
        match appended {
            Ok(_) if sync && self.is_fsync() => {
                failpoint("commit.decision_written");
                self.syncs.sync_decision(ticket);
                None
            }
            Ok(_) => {
                if !self.is_fsync() {
                    journal.wake_all();
                }
                Some(Input::JournalWritten { ticket })
            }
            Err(failure) if failure.is_poisoned => {
                self.halt(&failure.error);
                Some(Input::JournalInDoubt { ticket })
            }
            Err(failure) => Some(Input::JournalFailed {
                ticket,
                error: failure.error.code,
            }),
        }
    }

    /// Does what steps left, and what follows from that; the data of their transaction was `synced` then, if that is done.
    fn settle(&self, deferred: Vec<Deferred>, mut synced: Option<Instant>) {
        let mut queue = VecDeque::from(deferred);
        let mut decided = None;
        while let Some(next) = queue.pop_front() {
            let input = match next {
                Deferred::Reply { request, result } => {
                    let moments = synced.zip(decided);
                    let moments = moments.map(|(synced, decided)| EndMoments { synced, decided });
                    self.answer(request, result, moments);
                    continue;
                }
                Deferred::SyncData { ticket, partitions } if self.is_fsync() => {
                    self.syncs.sync_transaction(ticket, partitions);
                    continue;
                }
                Deferred::SyncData { ticket, partitions } => {
                    let ends = self.durable_ends(&partitions);
                    synced = Some(self.env.clock.now());
                    Input::DataSynced { ticket, ends }
                }
                Deferred::Markers(markers) => {
                    decided.get_or_insert_with(|| self.env.clock.now());
                    self.write_markers(&markers)
                }
            };
            let is_complete = matches!(input, Input::MarkersWritten { .. });
            queue.extend(self.step(&mut self.transactions.state.lock(), input));
            if is_complete {
                failpoint("commit.after_complete");
            }
        }
    }

    fn write_markers(&self, markers: &Markers) -> Input {
        let ticket = markers.ticket;
        for name in &markers.partitions {
            failpoint("commit.before_marker");
            // A partition whose topic was deleted needs no marker any more.
            let Ok(partition) = self.partition(name) else {
                continue;
            };
            if let Err(failure) = self.write_marker(&partition, markers) {
                crate::env::warn!(partition = %name, error = failure.error.message, "a marker could not be written");
                if failure.is_poisoned {
                    self.halt(&failure.error);
                }
                return Input::MarkersFailed { ticket };
            }
            failpoint("commit.after_marker");
        }
        failpoint("commit.before_complete");
        Input::MarkersWritten { ticket }
    }

    fn write_marker(&self, partition: &Arc<Partition>, markers: &Markers) -> Result<(), Failure> {
        let record = ControlRecord {
            kind: match markers.result {
                TransactionResult::Commit => ControlType::Commit,
                TransactionResult::Abort => ControlType::Abort,
            },
            coordinator_epoch: markers.coordinator_epoch,
        };
        let is_offsets = partition.name == self.groups.journal().name;
        if is_offsets {
            self.write_offsets_marker(markers.producer, markers.epochs, markers.result, record)?;
        } else {
            self.with_ballast(|| {
                let mut log = partition.lock()?;
                append_marker(&mut log, markers.producer, markers.epochs, record)
                    .map_err(|e| Failure::of(e, log.poisoned().is_some()))
            })?;
        }
        // The last stable offset moved.
        partition.wake_all();
        if self.is_fsync() {
            self.flush_later(partition);
        }
        Ok(())
    }

    /// Runs a write that must not be lost to a full disk: on `StorageFull` the ballast is given up, and it is run again (F13).
    pub(super) fn with_ballast<T>(
        &self,
        mut write: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match write() {
            Err(failure) if failure.is_storage_full && self.ballast.release() => {
                crate::env::warn!(
                    "the disk is full: the reserved space was given up to finish transactions"
                );
                write()
            }
            result => result,
        }
    }

    fn answer(
        &self,
        request: RequestId,
        result: Result<transaction::Reply, ErrorCode>,
        moments: Option<EndMoments>,
    ) {
        let sender = self.transactions.state.lock().senders.remove(&request);
        failpoint("commit.before_reply");
        match (sender, result) {
            (Some(Sender::Producer(sender, watch)), Ok(transaction::Reply::Producer(producer))) => {
                if let (Some(watch), Some(moments)) = (watch, moments) {
                    watch.note(moments);
                }
                let _ = sender.send(Ok(producer));
            }
            (Some(Sender::Done(sender)), Ok(_)) => {
                let _ = sender.send(Ok(()));
            }
            (Some(sender), Err(code)) => sender.fail(self.explain(code)),
            (Some(sender), Ok(_)) => sender.fail(ErrorCode::UnknownServerError.into()),
            (None, _) => {}
        }
    }

    fn explain(&self, code: ErrorCode) -> BrokerError {
        match (code, self.refusal.get()) {
            (ErrorCode::UnknownServerError, _) => BrokerError::fatal(
                code,
                "the outcome of the transaction is unknown: its decision may or may not be durable; open the data directory again to settle it",
            ),
            (ErrorCode::KafkaStorageError, Some(refusal)) => refusal.clone(),
            (ErrorCode::KafkaStorageError, None) => storage_full(),
            _ => code.into(),
        }
    }

    /// Aborts what is over its time, expires ids, and tries again what failed.
    pub(super) fn tick_transactions(&self) {
        let mut state = self.transactions.state.lock();
        let is_due = state
            .machine
            .next_deadline()
            .is_some_and(|deadline| deadline <= self.env.clock.now());
        if !is_due || self.refusal.get().is_some() {
            return;
        }
        let deferred = self.step(&mut state, Input::Tick);
        drop(state);
        self.settle(deferred, None);
    }

    /// Rolls forward what was decided and back what nobody may go on with, and waits for it (I1). Only before the threads run.
    pub(super) fn finish_transactions(&self, found: Found) -> Result<(), BrokerError> {
        self.tell_transactions(Input::ReplayDone(found));
        self.sync_all_waiting();
        self.check_open()
    }
}

impl Sender {
    fn fail(self, error: BrokerError) {
        match self {
            Self::Producer(sender, _) => drop(sender.send(Err(error))),
            Self::Done(sender) => drop(sender.send(Err(error))),
        }
    }
}

/// Appends a marker by the rule of its transaction.
pub(super) fn append_marker(
    log: &mut LockedLog<'_>,
    producer: ProducerIdentity,
    epochs: EpochAtEnd,
    record: ControlRecord,
) -> Result<Appended, LogError> {
    match epochs {
        EpochAtEnd::Bumped => log.append_marker(producer, record),
        EpochAtEnd::Kept => log.append_marker_of_kept_epoch(producer, record),
    }
}

/// A failed write, and what it means for the log.
pub(super) struct Failure {
    pub(super) error: BrokerError,
    pub(super) is_storage_full: bool,
    pub(super) is_poisoned: bool,
}

impl Failure {
    pub(super) fn of(error: LogError, is_poisoned: bool) -> Self {
        Self {
            is_storage_full: matches!(error, LogError::StorageFull { .. }),
            error: error.into(),
            is_poisoned,
        }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self {
            error,
            is_storage_full: false,
            is_poisoned: false,
        }
    }
}

pub(super) fn storage_full() -> BrokerError {
    BrokerError::new(
        ErrorCode::KafkaStorageError,
        "nothing was written, because the disk is full or no file handle is left: free some of either and try again. Open transactions can still be aborted",
    )
}

fn refused(code: ErrorCode, id: &TransactionalId) -> BrokerError {
    BrokerError::new(code, format!("transactional id {id}: {code}"))
}
