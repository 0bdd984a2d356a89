//! The group coordinator: who is a member of which group, and the committed positions of each group.
//!
//! A position committed inside a transaction is pending, per producer id, until the transaction's marker: a COMMIT marker
//! makes it the committed one, an ABORT marker drops it (invariant 8). Of two positions of a key, the one whose record
//! stands later in the journal wins, live and in replay alike.
//!
//! A commit names its member and generation, and is refused if the group has moved on; so is one inside a transaction
//! (KIP-447). A reader that assigns its partitions itself names none (generation −1, no member id), and may commit while
//! the group has no members.
//!
//! # What the caller owes
//! Effects are executed in order, each ticket answered once. Synced records are answered in the order of the journal; a transactional
//! record is answered before the marker that ends its transaction is reported by [`Input::Marker`]. [`Input::Tick`] comes
//! every 100 ms or so: sessions end and rebalances are cut off by it alone.
//!
//! Reading order: this file, `coordinator.rs` (commits and deletions), `positions.rs`, `membership.rs` (which group a
//! request is for), `outbox.rs`, `classic/mod.rs`, `consumer/mod.rs`, `topics.rs`, `description.rs`.

mod classic;
mod consumer;
mod coordinator;
mod description;
mod membership;
mod outbox;
mod positions;
#[cfg(test)]
mod tests;
mod topics;

use std::time::Duration;

pub(in crate::coordinator) use consumer::{Assignment, MemberState};
pub(crate) use coordinator::GroupCoordinator;
pub use description::{GroupDescription, MemberDescription};

use super::{JournalRecord, RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeletedOffsets,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use crate::protocol::messages::{
    OffsetCommitRequest, TopicMetadata, TransactionResult, TxnOffsetCommitRequest,
};
use crate::types::{GroupId, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition};

/// Settings of the group coordinator.
#[derive(Debug, Clone)]
pub struct Config {
    /// A position not renewed for so long is forgotten (`offsets.retention.minutes`); `None`, the default: never.
    pub offsets_retention: Option<Duration>,
    /// The first members of an empty group wait so long for others (`group.initial.rebalance.delay.ms`). Zero by default,
    /// as Kafka's own configuration for one machine has it: a job begins at once.
    pub initial_rebalance_delay: Duration,
    /// The shortest session timeout that a classic member may ask for (`group.min.session.timeout.ms`).
    pub session_timeout_min: Duration,
    /// The longest session timeout that a classic member may ask for (`group.max.session.timeout.ms`).
    pub session_timeout_max: Duration,
    /// Most members of a group (`group.max.size`).
    pub group_max_size: usize,
    /// Without a heartbeat for so long, a member of the consumer protocol is removed (`group.consumer.session.timeout.ms`).
    pub consumer_session_timeout: Duration,
    /// Heartbeat interval of members of the consumer protocol (`group.consumer.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            offsets_retention: None,
            initial_rebalance_delay: Duration::ZERO,
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            group_max_size: 10_000,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
        }
    }
}

/// Input of a coordinator.
#[derive(Debug, Clone)]
pub(crate) enum Input {
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
    /// A member joins a classic group.
    Join {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: JoinGroupRequest,
        /// A random number, for the id of a new member.
        unique: u128,
    },
    /// A member of a classic group asks for its assignment.
    Sync {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: SyncGroupRequest,
    },
    /// A member of a classic group is alive.
    Heartbeat {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: HeartbeatRequest,
    },
    /// Members leave.
    Leave {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: LeaveGroupRequest,
    },
    /// A member of the consumer protocol joins, stays or leaves.
    ConsumerHeartbeat {
        /// The caller's number.
        request: RequestId,
        /// The request.
        message: ConsumerGroupHeartbeatRequest,
        /// A random number, for the id of a member that has none.
        unique: u128,
    },
    /// All topics, as they are now: at the start, and whenever one is created, deleted or grows.
    TopicsChanged {
        /// The topics.
        topics: Vec<TopicMetadata>,
    },
    /// Forgets a group without members. Refused with `UnstableOffsetCommit` while an open transaction holds offsets of it.
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
        /// The error.
        error: ErrorCode,
    },
    /// A transaction's marker was written to the journal.
    Marker {
        /// Whose transaction.
        producer_id: ProducerId,
        /// Its end.
        result: TransactionResult,
    },
    /// Time has passed.
    Tick,
}

/// Work to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
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
        result: Result<Response, ErrorCode>,
    },
}

/// The answer to a request; which one it is follows from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response {
    /// It is done.
    Done,
    /// To a join.
    Joined(JoinGroupResponse),
    /// To a sync.
    Synced(SyncGroupResponse),
    /// To a leave.
    Left(LeaveGroupResponse),
    /// To a heartbeat of the consumer protocol.
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    /// To the deletion of positions.
    Deleted(DeletedOffsets),
}
