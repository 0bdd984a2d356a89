//! The states of a transactional id: which may follow which, and the records that lead from one to the next.

use std::time::Duration;

use crate::coordinator::Now;
use crate::coordinator::transaction_log::{Residence, TransactionRecord};
use crate::protocol::messages::{TransactionResult, TransactionState};
use crate::types::{
    EpochAtEnd, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicPartition,
};

use super::DurableEnd;

/// Whether a transactional id may go from `from` to `to` (Kafka's table for transactions of version 2).
pub(super) fn may_follow(to: TransactionState, from: TransactionState) -> bool {
    use TransactionState::{
        CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit,
        PrepareEpochFence,
    };
    let is_settled = matches!(from, Empty | CompleteCommit | CompleteAbort);
    match to {
        Empty | Dead => is_settled,
        Ongoing | PrepareAbort => is_settled || from == Ongoing,
        PrepareCommit => from == Ongoing,
        CompleteCommit => from == PrepareCommit,
        CompleteAbort => from == PrepareAbort,
        // Fencing is an abort like any other here, so nothing enters this state.
        PrepareEpochFence => false,
    }
}

/// Relation of a request's identity to the owner of the transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the owner's.
    Current,
    /// It is the one that the owner itself had before: a repeated or a late request of the owner.
    Last,
    /// It is an earlier one of the same producer id: somebody else took over (invariant 4).
    Fenced,
    /// Its producer id does not belong to the transactional id (any more).
    Foreign,
}

/// The identities that follow the one of a transaction's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Successor {
    /// That of the markers: one epoch above the data, unless the epoch is kept.
    pub(super) marker: ProducerIdentity,
    /// The producer id to change to once the markers are written, if this one's epochs are used up.
    pub(super) next: ProducerId,
    /// Whether this is another identity at all.
    pub(super) epochs: EpochAtEnd,
}

impl Successor {
    /// No other identity: the transaction keeps its epoch.
    pub(super) fn kept(producer: ProducerIdentity) -> Self {
        Self {
            marker: producer,
            next: ProducerId::NONE,
            epochs: EpochAtEnd::Kept,
        }
    }

    /// Who the producer is when all is done.
    pub(super) fn identity(self) -> ProducerIdentity {
        match self.next.is_some() {
            true => first_identity(self.next),
            false => self.marker,
        }
    }
}

/// The identity that a producer id begins with.
pub(super) fn first_identity(id: ProducerId) -> ProducerIdentity {
    ProducerIdentity {
        id,
        epoch: ProducerEpoch::ZERO,
    }
}

/// The identity whose epoch is one above; the highest one stays.
pub(super) fn bumped(producer: ProducerIdentity) -> ProducerIdentity {
    ProducerIdentity {
        id: producer.id,
        epoch: ProducerEpoch(producer.epoch.0.saturating_add(1)),
    }
}

impl TransactionRecord {
    /// The placeholder of an id that has no journal record yet.
    pub(super) fn unborn(producer_id: ProducerId) -> Self {
        Self {
            producer: ProducerIdentity {
                id: producer_id,
                epoch: ProducerEpoch::NONE,
            },
            last: None,
            next_producer_id: ProducerId::NONE,
            timeout_ms: 0,
            state: TransactionState::Empty,
            partitions: Default::default(),
            last_update: Timestamp::NONE,
            start: Timestamp::NONE,
            last_commit: None,
            durable_ends: Vec::new(),
            epochs: EpochAtEnd::Bumped,
            opening: 0,
            holder: Residence::Remote,
        }
    }

    /// Whether this is [`TransactionRecord::unborn`].
    pub(super) fn is_unborn(&self) -> bool {
        self.producer.epoch == ProducerEpoch::NONE
    }

    /// Whether `producer` is the owner of a transaction that was decided by the older rule, or of the one after it:
    /// its epoch does not tell which.
    pub(super) fn keeps_epoch_of(&self, producer: ProducerIdentity) -> bool {
        self.epochs == EpochAtEnd::Kept && producer == self.producer
    }

    /// Whether what the owner wrote under its identity may have been lost, or nobody is left to be the owner: power was lost
    /// before `whole_since`, or the broker's process ended, in which it lived.
    pub(super) fn is_doubtful_since(&self, whole_since: i32) -> bool {
        self.opening < whole_since || self.holder == Residence::Embedded
    }

    /// Returns the rest of an open transaction's timeout after a restart, by the wall clock: the other one began anew.
    pub(super) fn time_left(&self, wall: Timestamp) -> Duration {
        let timeout_ms = u64::try_from(self.timeout_ms).unwrap_or(0);
        // C24: a stored time that lies in the future counts as now.
        let passed_ms = u64::try_from(wall.0.saturating_sub(self.start.0)).unwrap_or(0);
        Duration::from_millis(timeout_ms.saturating_sub(passed_ms))
    }

    pub(super) fn standing(&self, producer: ProducerIdentity) -> Standing {
        match () {
            () if producer == self.producer => Standing::Current,
            () if Some(producer) == self.last => Standing::Last,
            () if producer.id == self.producer.id => Standing::Fenced,
            () => Standing::Foreign,
        }
    }

    fn updated(&self, state: TransactionState, now: Now) -> Self {
        Self {
            state,
            // C24: the wall clock may jump; what is stored never moves back.
            last_update: self.last_update.max(now.wall),
            ..self.clone()
        }
    }

    /// The next epoch without a transaction to end: a new owner, or the end of an empty transaction.
    pub(super) fn renewed(
        &self,
        producer: ProducerIdentity,
        last: Option<ProducerIdentity>,
        now: Now,
    ) -> Self {
        let mut next = self.updated(TransactionState::Empty, now);
        next.producer = producer;
        next.last = last;
        next.epochs = EpochAtEnd::Bumped;
        next.partitions.clear();
        next
    }

    /// The transaction with `partitions` joined to it.
    pub(super) fn joined(&self, partitions: Vec<TopicPartition>, now: Now) -> Self {
        let mut next = self.updated(TransactionState::Ongoing, now);
        if self.state != TransactionState::Ongoing {
            next.start = next.last_update;
        }
        next.partitions.extend(partitions);
        next
    }

    /// The decision to commit.
    pub(super) fn decided_commit(
        &self,
        successor: Successor,
        durable_ends: Vec<DurableEnd>,
        now: Now,
    ) -> Self {
        let mut next = self.updated(TransactionState::PrepareCommit, now);
        next.epochs = successor.epochs;
        next.last = Some(self.producer);
        next.last_commit = Some(self.producer);
        next.producer = successor.marker;
        next.next_producer_id = successor.next;
        next.durable_ends = durable_ends;
        next
    }

    /// The decision to abort.
    pub(super) fn decided_abort(
        &self,
        successor: Successor,
        last: Option<ProducerIdentity>,
        strays: impl Iterator<Item = TopicPartition>,
        now: Now,
    ) -> Self {
        let mut next = self.updated(TransactionState::PrepareAbort, now);
        if next.start == Timestamp::NONE {
            next.start = next.last_update;
        }
        next.last = last;
        next.epochs = successor.epochs;
        next.producer = successor.marker;
        next.next_producer_id = successor.next;
        next.partitions.extend(strays);
        next
    }

    /// The end of a decided transaction, once its markers are written.
    pub(super) fn completed(&self, now: Now) -> Self {
        let state = match self.result() {
            TransactionResult::Commit => TransactionState::CompleteCommit,
            TransactionResult::Abort => TransactionState::CompleteAbort,
        };
        let mut next = self.updated(state, now);
        if self.epochs == EpochAtEnd::Kept && state == TransactionState::CompleteCommit {
            // Its markers are durable. What recovery finds open of this identity later is the next transaction.
            next.last_commit = None;
        }
        next.producer = self.successor().identity();
        next.next_producer_id = ProducerId::NONE;
        next.partitions.clear();
        next.start = Timestamp::NONE;
        next.durable_ends.clear();
        next
    }

    /// Returns a decided transaction's end.
    ///
    /// # Panics
    /// If it is not decided.
    pub(super) fn result(&self) -> TransactionResult {
        match self.state {
            TransactionState::PrepareCommit => TransactionResult::Commit,
            TransactionState::PrepareAbort => TransactionResult::Abort,
            state => panic!("a transaction in state {state:?} is not decided"),
        }
    }

    /// The identities of a decided transaction.
    pub(super) fn successor(&self) -> Successor {
        Successor {
            marker: self.producer,
            next: self.next_producer_id,
            epochs: self.epochs,
        }
    }

    /// Checks, before memory changes, that `next` is a legal next record (invariants 3 and 4).
    ///
    /// # Panics
    /// If it is not: the coordinator itself is at fault, and going on could lose a transaction.
    pub(super) fn assert_leads_to(&self, next: &Self) {
        assert!(
            may_follow(next.state, self.state),
            "{:?} must not follow {:?}",
            next.state,
            self.state
        );
        let is_same_id = next.producer.id == self.producer.id;
        assert!(
            !is_same_id || next.producer.epoch >= self.producer.epoch,
            "the producer epoch went back from {} to {}",
            self.producer.epoch,
            next.producer.epoch
        );
        let is_same_transaction = matches!(
            (self.state, next.state),
            (
                TransactionState::Ongoing,
                TransactionState::Ongoing
                    | TransactionState::PrepareCommit
                    | TransactionState::PrepareAbort
            )
        );
        assert!(
            !is_same_transaction || next.partitions.is_superset(&self.partitions),
            "a partition left its transaction"
        );
    }
}
