//! The transaction coordinator and the group coordinator: pure state machines, each with its journal topic.
//!
//! A coordinator is told what happened ([`transaction::Input`], [`group::Input`]) and answers with what is to be
//! done (effects); it never touches a file, a clock or a lock, so that tests drive the very code that production runs (design D12).
//!
//! Guarantees: invariants 3 (append, then mutate), 4 (fenced), 8 (positions are pending until the marker).
//! Does not: store anything, order concurrent calls, know how a request arrived. The broker does.
//!
//! Reading order: `transaction/mod.rs`, `transaction/state.rs`, `transaction_log.rs`, `group/mod.rs`, `offsets_log.rs`, `membership_log.rs`, `consumer_log.rs`.

pub(crate) mod consumer_log;
mod error;
pub(crate) mod group;
pub(crate) mod membership_log;
pub(crate) mod offsets_log;
pub(crate) mod transaction;
pub(crate) mod transaction_log;
mod wire;

use bytes::Bytes;

pub(crate) use error::CoordinatorError;

use crate::env::Instant;
use crate::types::Timestamp;

/// The topic of the transaction coordinator's journal; it has one partition, 0.
pub(crate) const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// The topic of the group coordinator's journal; it has one partition, 0.
pub(crate) const CONSUMER_OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The time of a step: monotonic for timers, wall for what is stored and shown (C24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

/// The caller's number of a request; it comes back in the reply and means nothing to a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub u64);

/// A coordinator's number of an effect whose end it wants to be told. Never used twice by one coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub u64);

/// One record for a journal: `None` as value deletes the key (a tombstone).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct JournalRecord {
    /// The key, by which the journal is compacted.
    pub key: Bytes,
    /// The value, or `None` for a tombstone.
    pub value: Option<Bytes>,
}
