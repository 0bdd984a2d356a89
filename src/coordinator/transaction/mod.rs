//! The transaction coordinator: who owns a transactional id, and how each of its transactions ends.
//!
//! ```text
//!            Init                 AddPartitions            End(commit)
//!   (new) ────────► Empty ───────────────────► Ongoing ───────────────► PrepareCommit ──► CompleteCommit
//!                     ▲                           │  End(abort), timeout,       markers        │
//!                     │                           │  fence, power loss                         │ AddPartitions: Ongoing
//!                     │ Init, empty End           └────────────────────► PrepareAbort ──► CompleteAbort
//! ```
//! The epoch is bumped at every end (D3): `PrepareX` carries it to the markers, the reply to the client.
//! A transaction is committed once `PrepareCommit` is durable, and not before (D4).
//!
//! # What the caller owes
//! 1. Effects are executed in order; each ticket is answered once. `AppendJournal` records go to the journal in the order
//!    of the effects; with `sync` they are durable before [`Input::JournalWritten`]. Unsynced appends are best executed,
//!    and answered, under the same lock as the step, so that no request meets a half-made one.
//! 2. A transactional append calls [`TransactionCoordinator::check_append`] under its partition's lock (lock order: partition,
//!    then coordinator). `SyncData` takes each partition's lock after the step: so whatever passed the check is in what is synced,
//!    and nothing is appended to a transaction that is ending.
//! 3. Markers go to partitions that exist; a deleted partition is skipped. Rewriting a marker changes nothing (log's promise),
//!    and a marker whose epoch is not above that of the partition's open transaction is refused (KIP-1228).
//! 4. Before [`Input::ReplayDone`] the recovered end of every partition has been synced: what the
//!    journal says of earlier markers must not be undone by a second crash.

mod coordinator;
mod older;
mod outcomes;
mod producer_ids;
mod recovery;
mod requests;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use super::transaction_log::Residence;
pub(crate) use coordinator::TransactionCoordinator;

use super::{RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{EndTxnRequest, InitProducerIdRequest, TransactionResult};
use crate::types::{
    EpochAtEnd, Offset, ProducerEpoch, ProducerIdentity, TopicId, TopicPartition, TransactionalId,
};

/// Settings of the transaction coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The longest timeout that a producer may ask for (`transaction.max.timeout.ms`).
    pub transaction_max_timeout: Duration,
    /// An id without transactions for so long is forgotten (`transactional.id.expiration.ms`).
    pub transactional_id_expiration: Duration,
    /// The last epoch that a producer is given; then its producer id is replaced. Lower only in tests.
    pub producer_epoch_max: ProducerEpoch,
    /// Producer ids reserved by one journal record.
    pub producer_id_block_size: i64,
    /// Stamped into every marker; must never decrease over the life of a data directory.
    pub coordinator_epoch: i32,
    /// The number of this opening of the data directory; higher than that of every earlier one.
    pub opening: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            transaction_max_timeout: Duration::from_mins(15),
            transactional_id_expiration: Duration::from_hours(7 * 24),
            producer_epoch_max: ProducerEpoch::MAX_USABLE,
            producer_id_block_size: 1000,
            coordinator_epoch: 0,
            opening: 0,
        }
    }
}

/// An end of a partition that is durable, as a decision record carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DurableEnd {
    /// The partition.
    pub partition: TopicPartition,
    /// The incarnation of its topic; the mark of another incarnation means nothing.
    pub topic_id: TopicId,
    /// One past the last offset that is durable.
    pub offset: Offset,
}

/// A transaction that a partition's log holds open after its recovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OpenTransaction {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer, with the epoch of its data.
    pub producer: ProducerIdentity,
}

/// The findings of a recovery.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Every open transaction of every partition, the offsets journal's included.
    pub open: Vec<OpenTransaction>,
    /// Partitions that are damaged: nobody knows what they hold.
    pub unreadable: BTreeSet<TopicPartition>,
    /// The first opening since which nothing is lost that had been written, synced or not.
    pub whole_since: i32,
}

/// Input of a coordinator.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A producer asks for its identity. Replies [`Reply::Producer`].
    Init {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: InitProducerIdRequest,
        /// Where the producer lives.
        holder: Residence,
    },
    /// Partitions are about to get their first data of the transaction. Replies [`Reply::Done`]; only then may the data be appended.
    AddPartitions {
        /// The caller's number.
        request: RequestId,
        /// Whose transaction.
        transactional_id: TransactionalId,
        /// The producer, as its batch says.
        producer: ProducerIdentity,
        /// Which partitions.
        partitions: Vec<TopicPartition>,
    },
    /// A producer ends its transaction. Replies [`Reply::Producer`] with the identity of the next one.
    End {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: EndTxnRequest,
    },
    /// As [`Input::End`], from a client that cannot learn a new epoch: it stays, and the reply holds the same identity.
    EndKeepingEpoch {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: EndTxnRequest,
    },
    /// An operator aborts whatever transaction is open. Replies [`Reply::Producer`] with the identity of the next one.
    Abort {
        /// The caller's number.
        request: RequestId,
        /// Whose transaction.
        transactional_id: TransactionalId,
    },
    /// An [`Effect::AppendJournal`] is done; if it asked for `sync`, it is durable.
    JournalWritten {
        /// Which effect.
        ticket: Ticket,
    },
    /// An [`Effect::AppendJournal`] left nothing in the journal (as when the disk is full).
    JournalFailed {
        /// Which effect.
        ticket: Ticket,
        /// Answer to the waiting request.
        error: ErrorCode,
    },
    /// An [`Effect::AppendJournal`] may or may not be in the journal (as after a failed sync).
    /// The coordinator stops for good: only a restart can tell the outcome.
    JournalInDoubt {
        /// Which effect.
        ticket: Ticket,
    },
    /// An [`Effect::SyncData`] is done.
    DataSynced {
        /// Which effect.
        ticket: Ticket,
        /// The durable end of each partition asked for that exists, and of the journal itself.
        ends: Vec<DurableEnd>,
    },
    /// An [`Effect::SyncData`] failed: nothing was decided, the transaction is still open.
    DataSyncFailed {
        /// Which effect.
        ticket: Ticket,
        /// Answer to the waiting request.
        error: ErrorCode,
    },
    /// Every marker of an [`Effect::WriteMarkers`] is in its partition (not necessarily durable).
    MarkersWritten {
        /// Which effect.
        ticket: Ticket,
    },
    /// Some marker of an [`Effect::WriteMarkers`] could not be written; it is tried again at a later tick.
    MarkersFailed {
        /// Which effect.
        ticket: Ticket,
    },
    /// The journal has been replayed, and this was found in the recovered partitions. What is open is rolled forward or back,
    /// unless its producer may go on with it; then comes [`Effect::Recovered`].
    ReplayDone(Found),
    /// Time has passed; see [`TransactionCoordinator::next_deadline`].
    Tick,
}

/// Work to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Make what these partitions hold durable, then say [`Input::DataSynced`].
    SyncData {
        /// To be answered.
        ticket: Ticket,
        /// Which partitions; one that was deleted is skipped.
        partitions: Vec<TopicPartition>,
    },
    /// Append one record to `__transaction_state`, then say [`Input::JournalWritten`].
    AppendJournal {
        /// To be answered.
        ticket: Ticket,
        /// The record's key.
        key: Bytes,
        /// The record's value; `None` is a tombstone.
        value: Option<Bytes>,
        /// Whether it must be durable before the answer.
        sync: bool,
    },
    /// Write a marker to each of these partitions, then say [`Input::MarkersWritten`].
    WriteMarkers {
        /// To be answered.
        ticket: Ticket,
        /// Whose transaction; the epoch is above that of its data, unless `epochs` says that it is kept.
        producer: ProducerIdentity,
        /// Its effect on the epoch.
        epochs: EpochAtEnd,
        /// Its end.
        result: TransactionResult,
        /// Which partitions; one that was deleted is skipped.
        partitions: Vec<TopicPartition>,
        /// For the marker's value.
        coordinator_epoch: i32,
    },
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With what. For an end, [`ErrorCode::UnknownServerError`] means that the outcome is unknown until the log is reopened.
        result: Result<Reply, ErrorCode>,
    },
    /// Recovery is complete: every transaction found open that its producer cannot go on with is decided and its markers are
    /// written. Requests are served from here on.
    Recovered,
}

/// The answer to a request that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// The producer's identity from now on; sequences restart at 0.
    Producer(ProducerIdentity),
    /// Nothing to tell.
    Done,
}

/// Who holds a transaction that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Whose it is.
    pub transactional_id: TransactionalId,
    /// Under which identity.
    pub producer: ProducerIdentity,
    /// Whether its end is decided, or being decided.
    pub is_ending: bool,
}

/// Whether a transactional append may go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionCheck {
    /// The partition is part of the producer's open transaction: append.
    Joined,
    /// The partition must join first: [`Input::AddPartitions`].
    MustJoin,
}
