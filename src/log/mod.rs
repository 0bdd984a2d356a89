//! One partition's log, as Kafka lays it out: segments, indexes, producer state, recovery, retention, compaction.
//!
//! Guarantees: an append is all or nothing; a duplicate batch is acknowledged and not written (I6); the last
//! stable offset never passes an open transaction and never moves back (I5); nothing below the durable mark is
//! ever cut (I9); every index and snapshot is derived and rebuilt when it is lost (I11).
//! Does not: know topics, decide transactions (the coordinator does), or choose when to sync (the broker does).
//!
//! Reading order: `partition.rs` (the log as its owner sees it), `append.rs`, `read.rs`, `stream.rs`, `times.rs`, `lookup.rs`, `sync.rs`;
//! `producer_state.rs`, `leader_epochs.rs` (pure); `segment.rs`, `cache.rs`, `index.rs`, `aborted.rs`, `snapshot.rs`, `derived.rs` (bytes);
//! `open.rs`, `recovery.rs`, `evidence.rs`, `leftovers.rs`, `retention.rs`, `compaction.rs`, `cleaner.rs`, `verify.rs`.

mod aborted;
mod append;
mod cache;
mod cleaner;
mod compaction;
mod config;
mod derived;
mod error;
mod evidence;
mod index;
mod leader_epochs;
mod leftovers;
mod lookup;
mod metadata;
mod names;
mod open;
mod partition;
mod producer_state;
mod read;
mod read_buffers;
mod recompress;
mod recovery;
mod retention;
mod rewrite;
mod scan;
mod segment;
mod snapshot;
mod stream;
mod sync;
#[cfg(test)]
mod tests;
mod times;
mod verify;

pub(crate) use cache::SegmentCache;
pub(crate) use config::CleanupPolicy;
pub use config::LogConfig;
pub use error::LogError;
pub(crate) use evidence::Evidence;
pub use open::RecoveryMarks;
pub(crate) use open::RecoveryReport;
pub(crate) use partition::Appended;
pub use partition::{AppendOrigin, PartitionLog};
pub(crate) use read::ReadPlan;
pub(crate) use stream::{RecordSource, RecordStream};
pub(crate) use verify::{
    DumpedBatch, Finding, FindingKind, SegmentReport, VerifyReport, dump, verify,
};
