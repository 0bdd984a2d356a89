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
mod scan;
mod segment;
mod snapshot;
mod stream;
mod sync;
#[cfg(test)]
mod tests;
mod times;
mod verify;

pub use cache::SegmentCache;
pub use compaction::{Compacted, CompactionPlan, CompactionReport};
pub use config::{CleanupPolicy, LogConfig};
pub use error::LogError;
pub use evidence::Evidence;
pub use open::{RecoveryMarks, RecoveryReport};
pub use partition::{AppendOrigin, Appended, PartitionLog};
pub use read::ReadPlan;
pub use retention::DeletedSegment;
pub use stream::{RecordSource, RecordStream};
pub use sync::SyncPlan;
pub use verify::{DumpedBatch, Finding, FindingKind, SegmentReport, VerifyReport, dump, verify};
