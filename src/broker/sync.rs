//! Group commit: one sync of each touched file for everybody who waits for it.
//!
//! ```text
//! waiting:   data of T1, T2, T3 · plain records · offset commits
//! round:     1 sync every touched partition once     → plain records and offset commits are answered
//!            2 append the decisions of T1, T2, T3      (D4: only now, after their data)
//!            3 sync the journal once                 → T1, T2, T3 are committed: markers, answers
//! ```
//! A failed sync is never retried: the broker stops (F11).

use std::sync::Arc;

use futures::channel::oneshot;
use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::partition::Partition;
use super::{BrokerError, SyncMode};
use crate::coordinator::Ticket;
use crate::coordinator::transaction::{DurableEnd, Input};
use crate::env::{Instant, failpoint};
use crate::log::LogError;
use crate::protocol::messages::ProduceResponse;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Offset, TopicPartition};

/// Who waits for what to be durable.
#[derive(Default)]
pub(super) struct SyncQueue {
    work: Mutex<Work>,
    arrived: Condvar,
    /// Held during a round: rounds follow one another.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Work {
    partitions: Vec<Arc<Partition>>,
    waiters: Vec<Waiter>,
    transactions: Vec<TransactionData>,
    /// Records of the transaction coordinator's journal that were appended and must be durable.
    decisions: Vec<Ticket>,
    is_stopped: bool,
}

/// Work to be done once the partition it was queued with is durable.
pub(super) enum Waiter {
    /// Answer a produce request.
    Produce {
        sender: oneshot::Sender<Result<ProduceResponse, BrokerError>>,
        response: ProduceResponse,
    },
    /// Tell the group coordinator.
    Offsets { ticket: Ticket, base_offset: Offset },
}

/// A transaction's partitions, to be durable before its decision.
struct TransactionData {
    ticket: Ticket,
    partitions: Vec<TopicPartition>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.partitions.is_empty()
            && self.waiters.is_empty()
            && self.transactions.is_empty()
            && self.decisions.is_empty()
    }
}

impl SyncQueue {
    /// Syncs the partition in the next round.
    pub(super) fn request(&self, partition: Arc<Partition>) {
        self.work.lock().partitions.push(partition);
        self.arrived.notify_one();
    }

    /// Syncs the partition in the next round, and serves `waiter` then.
    pub(super) fn wait_for(&self, partition: Arc<Partition>, waiter: Waiter) {
        let mut work = self.work.lock();
        work.partitions.push(partition);
        work.waiters.push(waiter);
        drop(work);
        self.arrived.notify_one();
    }

    /// Syncs a transaction's partitions in the next round.
    pub(super) fn sync_transaction(&self, ticket: Ticket, partitions: Vec<TopicPartition>) {
        self.work
            .lock()
            .transactions
            .push(TransactionData { ticket, partitions });
        self.arrived.notify_one();
    }

    /// Syncs the journal, to which this ticket's record was appended, at the end of this round or in the next.
    pub(super) fn sync_decision(&self, ticket: Ticket) {
        self.work.lock().decisions.push(ticket);
        self.arrived.notify_one();
    }

    /// Blocks until something waits; false once the queue is stopped and empty.
    fn wait(&self) -> bool {
        let mut work = self.work.lock();
        while work.is_empty() && !work.is_stopped {
            self.arrived.wait(&mut work);
        }
        !work.is_empty()
    }

    /// Ends the sync thread once everything that waits is served.
    pub(super) fn stop(&self) {
        self.work.lock().is_stopped = true;
        self.arrived.notify_all();
    }

    /// Forgets all that waits.
    pub(super) fn abandon(&self) {
        drop(self.take());
    }

    fn take(&self) -> Work {
        let mut work = self.work.lock();
        let is_stopped = work.is_stopped;
        std::mem::replace(
            &mut *work,
            Work {
                is_stopped,
                ..Work::default()
            },
        )
    }

    fn take_decisions(&self) -> Vec<Ticket> {
        std::mem::take(&mut self.work.lock().decisions)
    }
}

impl Core {
    /// The sync thread's life.
    pub(super) fn run_sync_thread(&self) {
        while self.syncs.wait() {
            self.sync_round();
        }
    }

    /// In [`SyncMode::Inline`], does what a thread would do, before the caller goes on. The caller holds no lock.
    pub(super) fn sync_if_inline(&self) {
        if self.config.sync_mode == SyncMode::Inline {
            self.sync_all_waiting();
            if self.refusal.get().is_some() {
                self.abandon();
            }
        }
    }

    /// Runs rounds until nothing waits.
    pub(super) fn sync_all_waiting(&self) {
        while !self.syncs.work.lock().is_empty() {
            self.sync_round();
        }
    }

    /// One round: see the file's head.
    fn sync_round(&self) {
        let _turn = self.syncs.turn.lock();
        let work = self.syncs.take();
        if let Some(error) = self.refusal.get() {
            return self.fail(work, error);
        }
        let has_transactions = !work.transactions.is_empty();
        if has_transactions {
            failpoint("commit.before_data_sync");
        }
        if let Err(error) = self.sync_data(&work) {
            if error.kind() == ErrorKind::Retriable {
                // F14: a file handle was missing, no sync has failed; the next flush tries again.
                self.unflushed
                    .lock()
                    .extend(work.partitions.iter().cloned());
                return self.fail(work, &error);
            }
            let error = self.halt(&error);
            return self.fail(work, &error);
        }
        if has_transactions {
            failpoint("commit.after_data_sync");
        }
        let synced = has_transactions.then(|| self.env.clock.now());
        for waiter in work.waiters {
            self.serve(waiter);
        }
        let mut decisions = work.decisions;
        for data in work.transactions {
            let ends = self.durable_ends(&data.partitions);
            let ticket = data.ticket;
            self.tell_transactions(Input::DataSynced { ticket, ends });
        }
        decisions.extend(self.syncs.take_decisions());
        if !decisions.is_empty() {
            self.sync_decisions(&decisions, synced);
        }
    }

    fn sync_data(&self, work: &Work) -> Result<(), BrokerError> {
        let names = work.transactions.iter().flat_map(|data| &data.partitions);
        // A partition of a topic that was deleted meanwhile has nothing left to lose.
        let of_transactions = names.filter_map(|name| self.partition(name).ok());
        let mut partitions: Vec<_> = of_transactions
            .chain(work.partitions.iter().cloned())
            .collect();
        // By name, and not by place in memory: a simulated run repeats from its seed.
        partitions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        partitions.dedup_by(|a, b| Arc::ptr_eq(a, b));
        self.sync_partitions(&partitions)
    }

    /// Makes what was appended to the partition until now durable, and shows it to readers.
    pub(super) fn sync_partition(&self, partition: &Partition) -> Result<(), BrokerError> {
        partition.begin_flush();
        let Ok(mut log) = partition.lock() else {
            // Offline or deleted: whoever wrote to it was told.
            return Ok(());
        };
        let Some(plan) = log.plan_sync() else {
            return Ok(());
        };
        drop(log);
        let result = plan.execute();
        let Ok(mut log) = partition.lock() else {
            return Ok(());
        };
        match result {
            Ok(()) => log.synced(&plan),
            Err(error @ LogError::TooManyFiles { .. }) => return Err(error.into()),
            Err(error) => {
                let error = BrokerError::from(error);
                log.poison(&error.message);
                return Err(error);
            }
        }
        drop(log);
        partition.wake_all();
        Ok(())
    }

    /// The durable end of each partition that is there, for the decision record.
    pub(super) fn durable_ends(&self, partitions: &[TopicPartition]) -> Vec<DurableEnd> {
        let journal = std::iter::once(&self.transactions.journal().name);
        let end_of = |name: &TopicPartition| {
            let partition = self.partition(name).ok()?;
            let log = partition.lock().ok()?;
            Some(DurableEnd {
                partition: name.clone(),
                topic_id: log.topic_id(),
                offset: log.synced_end(),
            })
        };
        partitions
            .iter()
            .chain(journal)
            .filter_map(end_of)
            .collect()
    }

    /// Makes decisions durable; the data of those of this round was `synced` then.
    fn sync_decisions(&self, decisions: &[Ticket], synced: Option<Instant>) {
        let journal = self.transactions.journal().clone();
        if let Err(error) = self.sync_partition(&journal) {
            self.halt(&error);
            for &ticket in decisions {
                self.tell_transactions(Input::JournalInDoubt { ticket });
            }
            return;
        }
        failpoint("commit.after_decision");
        for &ticket in decisions {
            self.tell_transactions_of(Input::JournalWritten { ticket }, synced);
        }
    }

    fn serve(&self, waiter: Waiter) {
        match waiter {
            Waiter::Produce { sender, response } => {
                // Nobody may be listening any more: the records are written all the same.
                let _ = sender.send(Ok(response));
            }
            Waiter::Offsets {
                ticket,
                base_offset,
            } => self.offsets_written(ticket, base_offset),
        }
    }

    fn fail(&self, work: Work, error: &BrokerError) {
        for waiter in work.waiters {
            match waiter {
                Waiter::Produce { sender, .. } => {
                    let _ = sender.send(Err(error.clone()));
                }
                Waiter::Offsets { ticket, .. } => self.offsets_failed(ticket, error.code),
            }
        }
        for data in work.transactions {
            let ticket = data.ticket;
            let error = ErrorCode::KafkaStorageError;
            self.tell_transactions(Input::DataSyncFailed { ticket, error });
        }
        for ticket in work.decisions {
            self.tell_transactions(Input::JournalInDoubt { ticket });
        }
    }
}
