//! The group coordinator: the committed positions of each group.
//!
//! A position committed inside a transaction is pending, per producer id, until the transaction's marker: a COMMIT marker
//! makes it the committed one, an ABORT marker drops it (invariant 8). Of two positions of a key, the one whose record
//! stands later in the journal wins, live and in replay alike.
//!
//! Does not know members yet: every commit is that of a reader that assigns its partitions itself (generation −1, no member id).
//!
//! # What the caller owes
//! Effects are executed in order, each ticket answered once. Synced records are answered in the order of the journal; a transactional
//! record is answered before the marker that ends its transaction is reported by [`Input::Marker`].

mod coordinator;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use coordinator::GroupCoordinator;

use super::{JournalRecord, RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    CommittedOffset, OffsetCommitRequest, TransactionResult, TxnOffsetCommitRequest,
};
use crate::types::{GroupId, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition};

/// Settings of the group coordinator.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// A position not renewed for so long is forgotten (`offsets.retention.minutes`); `None`, the default: never.
    pub offsets_retention: Option<Duration>,
}

/// What a coordinator is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// Positions outside any transaction.
    Commit {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: OffsetCommitRequest,
    },
    /// Positions inside a transaction, whose coordinator has already admitted the producer and the journal's partition.
    TxnCommit {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: TxnOffsetCommitRequest,
    },
    /// Forgets a group. Refused with `UnstableOffsetCommit` while an open transaction holds offsets of it.
    DeleteGroup {
        /// The caller's number.
        request: RequestId,
        /// Which.
        group: GroupId,
    },
    /// Forgets some positions of a group.
    DeleteOffsets {
        /// The caller's number.
        request: RequestId,
        /// Which group.
        group: GroupId,
        /// Which positions.
        partitions: Vec<TopicPartition>,
    },
    /// A topic was deleted: its positions are forgotten, the pending ones too.
    TopicDeleted {
        /// Which.
        topic: TopicName,
    },
    /// An [`Effect::AppendJournal`] is done; if it asked for `sync`, it is durable.
    JournalWritten {
        /// Which effect.
        ticket: Ticket,
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// An [`Effect::AppendJournal`] failed; the waiting request is told `error`.
    JournalFailed {
        /// Which effect.
        ticket: Ticket,
        /// Why.
        error: ErrorCode,
    },
    /// A transaction's marker was written to the journal.
    Marker {
        /// Whose transaction.
        producer_id: ProducerId,
        /// How it ended.
        result: TransactionResult,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Append these records as one batch to `__consumer_offsets`, then say [`Input::JournalWritten`].
    AppendJournal {
        /// To be answered.
        ticket: Ticket,
        /// The producer of a transactional batch (without sequence); `None`: a plain batch.
        producer: Option<ProducerIdentity>,
        /// The records.
        records: Vec<JournalRecord>,
        /// Whether they must be durable before the answer. A transactional batch becomes durable with its transaction's data.
        sync: bool,
    },
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With what.
        result: Result<(), ErrorCode>,
    },
}

/// One group, as `group describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group.
    pub group: GroupId,
    /// Its committed positions, by partition.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// Positions pending in open transactions.
    pub pending: Vec<(ProducerId, TopicPartition, CommittedOffset)>,
}
