//! Producers, consumers and administration, over any [`Transport`] to a broker (design D1).
//!
//! Guarantees: a record is written once however often its request is sent (I6); a transaction's records and
//! positions become visible together or never (I1, I8); memory is bounded in bytes and a full accumulator
//! makes senders wait (I10); an outcome that cannot be known is called unknown, never guessed (I12).
//! Knows nothing of operators and state.
//!
//! Reading order: `transport/mod.rs`, `writer.rs` (the runtime's door), `producer/mod.rs`, `consumer/mod.rs`, `admin.rs`, `records/mod.rs` (looks into topics).

mod admin;
pub mod consumer;
mod error;
pub mod producer;
#[cfg(feature = "http")]
pub(crate) mod records;
mod retry;
mod settings;
#[cfg(test)]
mod tests;
mod topics;
pub mod transport;
mod wait;
mod writer;

pub use admin::Admin;
pub use consumer::{Consumer, ConsumerConfig};
pub use error::ClientError;
pub use producer::{Producer, ProducerConfig, ProducerRecord};
pub(crate) use settings::{nearest_of, setting_names};
pub use transport::{InProcess, Transport};
pub use wait::wait;
pub(crate) use writer::Offered;
pub use writer::{PartitionWriter, TransactionalWriter};

pub use crate::broker::{GroupDescription, MemberDescription};
pub use crate::protocol::messages::groups::GroupState;
pub use crate::protocol::messages::{
    AbortedTransaction, Acks, CommittedOffset, ConfigEntry, FetchedRecords, GroupMember,
    ListedOffset, NewTopic, OffsetSpec, PartitionDescription, ProducerDescription, TopicMetadata,
    TransactionDescription, TransactionState,
};
pub use crate::protocol::{Compression, ErrorCode, ErrorKind, Headers, partition_for_key};

use crate::protocol::messages::TransactionResult;

/// End of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "only `Committed` says that the effects are visible"]
pub enum CommitOutcome {
    /// Its effects are durable and visible.
    Committed,
    /// Its effects never become visible.
    Aborted,
    /// No answer said what became of it. If later calls fail with
    /// [`ErrorKind::Fenced`], somebody else has the transactional id and has settled
    /// the transaction: stop. Otherwise initialise the id anew, which settles it, and read the committed positions before
    /// anything is processed.
    Unknown,
}

impl CommitOutcome {
    /// The outcome of an end that the coordinator confirmed.
    fn confirmed(result: TransactionResult) -> Self {
        match result {
            TransactionResult::Commit => Self::Committed,
            TransactionResult::Abort => Self::Aborted,
        }
    }
}
