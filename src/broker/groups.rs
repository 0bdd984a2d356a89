//! Driving the group coordinator: committed positions, and those pending in a transaction.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::core::Core;
use super::journal::journal_batch;
use super::older_transactions::Joining;
use super::partition::{LockedLog, Partition};
use super::sync::Waiter;
use super::transactions::{Failure, append_marker};
use super::{BrokerError, Reply};
use crate::coordinator::group::{Effect, GroupCoordinator, GroupDescription, Input, Response};
use crate::coordinator::{JournalRecord, RequestId, Ticket};
use crate::env::failpoint;
use crate::log::{AppendOrigin, Appended};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchProducer, ControlRecord};
use crate::protocol::messages::groups::{
    ConsumerGroupDescription, DescribedGroup, ListGroupsRequest, ListedGroup,
};
use crate::protocol::messages::{
    CommittedOffset, OffsetCommitRequest, OffsetFetchRequest, TransactionResult,
    TxnOffsetCommitRequest,
};
use crate::types::{
    EpochAtEnd, GroupId, Offset, ProducerIdentity, Sequence, TopicName, TopicPartition,
};

/// Passes an answer on to whoever waits for it.
type Answer = Box<dyn FnOnce(Result<Response, BrokerError>) + Send>;

/// The group coordinator of a broker.
pub(super) struct Groups {
    state: Mutex<State>,
    journal: Arc<Partition>,
}

struct State {
    machine: GroupCoordinator,
    answers: HashMap<RequestId, Answer>,
    requests_count: u64,
}

impl Groups {
    pub(super) fn new(machine: GroupCoordinator, journal: Arc<Partition>) -> Self {
        let state = State {
            machine,
            answers: HashMap::new(),
            requests_count: 0,
        };
        Self {
            state: Mutex::new(state),
            journal,
        }
    }

    /// Forgets who waits for a reply.
    pub(super) fn abandon(&self) {
        self.state.lock().answers.clear();
    }

    /// The journal's partition.
    pub(super) fn journal(&self) -> &Arc<Partition> {
        &self.journal
    }

    #[allow(clippy::type_complexity)]
    pub(super) fn fetch(
        &self,
        message: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, BrokerError> {
        Ok(self.state.lock().machine.fetch(message)?)
    }

    pub(super) fn has_expressions(&self, group: &GroupId) -> bool {
        self.state.lock().machine.has_expressions(group)
    }

    pub(super) fn check_reader(
        &self,
        group: &GroupId,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> Result<(), BrokerError> {
        let state = self.state.lock();
        Ok(state.machine.check_reader(group, member_id, member_epoch)?)
    }

    pub(super) fn list(&self) -> Vec<GroupId> {
        self.state.lock().machine.list().cloned().collect()
    }

    pub(super) fn list_with(&self, message: &ListGroupsRequest) -> Vec<ListedGroup> {
        self.state.lock().machine.list_with(message)
    }

    pub(super) fn describe_classic(&self, group: &GroupId) -> DescribedGroup {
        self.state.lock().machine.describe_classic(group)
    }

    pub(super) fn describe_consumer(&self, group: &GroupId) -> Option<ConsumerGroupDescription> {
        self.state.lock().machine.describe_consumer(group)
    }

    pub(super) fn needs_ticks(&self) -> bool {
        self.state.lock().machine.needs_ticks()
    }

    pub(super) fn describe(&self, group: &GroupId) -> Option<GroupDescription> {
        self.state.lock().machine.describe(group)
    }
}

impl State {
    /// A request whose answer is of the kind that `unpack` knows.
    fn new_request<T: Send + 'static>(
        &mut self,
        unpack: fn(Response) -> Option<T>,
    ) -> (RequestId, Reply<T>) {
        self.requests_count += 1;
        let request = RequestId(self.requests_count);
        let (sender, reply) = Reply::waiting();
        let answer = move |result: Result<Response, BrokerError>| {
            let unpack = |it| unpack(it).ok_or_else(misunderstood);
            // Whoever asked may have gone (C17).
            let _ = sender.send(result.and_then(unpack));
        };
        self.answers.insert(request, Box::new(answer));
        (request, reply)
    }
}

impl Core {
    pub(super) fn offset_commit(&self, message: OffsetCommitRequest) -> Reply<()> {
        self.ask_groups(done, |request| Input::Commit { request, message })
    }

    pub(super) fn delete_group(&self, group: GroupId) -> Reply<()> {
        self.ask_groups(done, |request| Input::DeleteGroup { request, group })
    }

    /// The positions join the transaction: they are pending until its marker (I8).
    pub(super) fn txn_offset_commit(
        &self,
        message: TxnOffsetCommitRequest,
        joining: Joining,
    ) -> Reply<()> {
        self.check_open()
            .and_then(|()| self.try_txn_offset_commit(message, joining))
            .unwrap_or_else(|error| Reply::ready(Err(error)))
    }

    fn try_txn_offset_commit(
        &self,
        message: TxnOffsetCommitRequest,
        joining: Joining,
    ) -> Result<Reply<()>, BrokerError> {
        let mut state = self.groups.state.lock();
        let mut log = self.groups.journal.lock()?;
        // Under the journal's lock, as in `produce`: nothing joins a transaction that is ending.
        self.join_or_check(
            &message.transactional_id,
            message.producer,
            &self.groups.journal,
            joining,
        )?;
        let (request, reply) = state.new_request(done);
        self.step_groups(&mut state, &mut log, Input::TxnCommit { request, message });
        failpoint("txn.offsets_pending");
        Ok(reply)
    }

    pub(super) fn ask_groups<T: Send + 'static>(
        &self,
        unpack: fn(Response) -> Option<T>,
        input: impl FnOnce(RequestId) -> Input,
    ) -> Reply<T> {
        let asked = self.check_open().and_then(|()| {
            let mut state = self.groups.state.lock();
            let mut log = self.groups.journal.lock()?;
            let (request, reply) = state.new_request(unpack);
            self.step_groups(&mut state, &mut log, input(request));
            Ok(reply)
        });
        self.sync_if_inline();
        asked.unwrap_or_else(|error| Reply::ready(Err(error)))
    }

    fn tell_groups(&self, input: Input) {
        let mut state = self.groups.state.lock();
        // A journal that is gone was closed: those who wait are told so when their senders are dropped.
        if let Ok(mut log) = self.groups.journal.lock() {
            self.step_groups(&mut state, &mut log, input);
        }
    }

    /// The journal's records that a ticket stands for are durable.
    pub(super) fn offsets_written(&self, ticket: Ticket, base_offset: Offset) {
        self.tell_groups(Input::JournalWritten {
            ticket,
            base_offset,
        });
    }

    /// The journal's records that a ticket stands for may not be durable.
    pub(super) fn offsets_failed(&self, ticket: Ticket, error: ErrorCode) {
        self.tell_groups(Input::JournalFailed { ticket, error });
    }

    /// A topic was deleted: its positions go with it.
    pub(super) fn forget_offsets(&self, topic: &TopicName) {
        let topic = topic.clone();
        self.tell_groups(Input::TopicDeleted { topic });
        self.sync_if_inline();
    }

    /// Topics have changed: groups of the consumer protocol assign their partitions.
    pub(super) fn tell_groups_of_topics(&self) {
        let mut state = self.groups.state.lock();
        // Read under the lock, so that of two changes the later one is told last.
        let topics = self.topics.all().iter().map(|it| it.metadata()).collect();
        if let Ok(mut log) = self.groups.journal.lock() {
            self.step_groups(&mut state, &mut log, Input::TopicsChanged { topics });
        }
    }

    pub(super) fn tick_groups(&self) {
        self.tell_groups(Input::Tick);
        self.sync_if_inline();
    }

    /// Writes a transaction's marker to the journal, and lets the positions pending there take effect or vanish (I8).
    pub(super) fn write_offsets_marker(
        &self,
        producer: ProducerIdentity,
        epochs: EpochAtEnd,
        result: TransactionResult,
        record: ControlRecord,
    ) -> Result<(), Failure> {
        let mut state = self.groups.state.lock();
        let mut log = self.groups.journal.lock()?;
        self.with_ballast(|| {
            append_marker(&mut log, producer, epochs, record)
                .map_err(|e| Failure::of(e, log.poisoned().is_some()))
        })?;
        let producer_id = producer.id;
        self.step_groups(
            &mut state,
            &mut log,
            Input::Marker {
                producer_id,
                result,
            },
        );
        Ok(())
    }

    fn step_groups(&self, state: &mut State, log: &mut LockedLog<'_>, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in state.machine.step(input, self.now()) {
                match effect {
                    Effect::AppendJournal {
                        ticket,
                        producer,
                        records,
                        sync,
                    } => inputs.extend(self.append_offsets(log, ticket, producer, &records, sync)),
                    Effect::Reply { request, result } => {
                        if let Some(answer) = state.answers.remove(&request) {
                            answer(result.map_err(|code| self.explain_offsets(code)));
                        }
                    }
                }
            }
        }
    }

    fn append_offsets(
        &self,
        log: &mut LockedLog<'_>,
        ticket: Ticket,
        producer: Option<ProducerIdentity>,
        records: &[JournalRecord],
        sync: bool,
    ) -> Option<Input> {
        let producer = match producer {
            Some(producer) => BatchProducer::Transactional(producer, Sequence::NONE),
            None => BatchProducer::Plain,
        };
        let wall = self.env.clock.wall();
        let entries = records.iter().map(|it| (&it.key[..], it.value.as_deref()));
        let batch = journal_batch(wall, entries, producer, log.synced_end());
        match log.append(batch, AppendOrigin::Coordinator) {
            Ok(Appended { base_offset, .. }) if sync && self.is_fsync() => {
                let waiter = Waiter::Offsets {
                    ticket,
                    base_offset,
                };
                self.syncs.wait_for(self.groups.journal.clone(), waiter);
                None
            }
            Ok(Appended { base_offset, .. }) => {
                log.acknowledge();
                Some(Input::JournalWritten {
                    ticket,
                    base_offset,
                })
            }
            Err(error) => {
                let error = self.append_failed(error, log.poisoned().is_some()).code;
                Some(Input::JournalFailed { ticket, error })
            }
        }
    }

    fn explain_offsets(&self, code: ErrorCode) -> BrokerError {
        match (code, self.refusal.get()) {
            (ErrorCode::KafkaStorageError, Some(refusal)) => refusal.clone(),
            (ErrorCode::KafkaStorageError, None) => super::transactions::storage_full(),
            _ => code.into(),
        }
    }
}

pub(super) fn done(response: Response) -> Option<()> {
    (response == Response::Done).then_some(())
}

/// The coordinator gave an answer of another kind than the request's: a bug, not to be guessed around (I12).
fn misunderstood() -> BrokerError {
    let why = "the group coordinator gave an answer to another request; this is a bug";
    BrokerError::fatal(ErrorCode::UnknownServerError, why)
}
