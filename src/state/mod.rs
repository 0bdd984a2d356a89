//! Typed keyed stores: a write-back table in memory over RocksDB, with the changelog as the write-ahead log.
//!
//! Guarantees: RocksDB only ever receives values of committed cycles, in one atomic write with the changelog
//! position that they cover (invariant 7), and memory stays under one bound (invariant 10). What a cycle changes
//! lives in the [`Store`]'s table until the cycle is drained; an aborted cycle drops the store, which is opened and
//! restored again as after a crash. All of it is derived from the changelog (invariant 11): lost or damaged
//! files are wiped and restored, never an error.
//!
//! It does not know topics, transactions or operators: the runtime writes the changelog, decides when a cycle is
//! committed, and replays. RocksDB owns the input and output of its files; only `meta.json` goes through `Env`.
//!
//! ```text
//! update ─► table ──drain_cycle──► changelog records ──commit──► (durable)
//!             └──take_flush──► FlushBatch ──────after commit──► StateBackend::flush ─► RocksDB + position
//! ```
//! Reading order: `store.rs`, `table.rs` (on `index.rs`, `key.rs`), `flush.rs`, `backend.rs` (on `prepare.rs`, `rocks.rs`, `files.rs`,
//! `meta.rs`); ranges: `scan.rs`, and `ranges.rs` (on `order.rs`, `elsewhere.rs`) for stores
//! that keep their keys in order; state that moves: `handover.rs`, `replay.rs`; copies of it, and the state of a stopped job: `at_rest.rs`;
//! reads from outside: `view/`.

mod at_rest;
mod backend;
mod budget;
mod claims;
mod config;
mod cycle_store;
mod elsewhere;
mod error;
mod files;
mod flush;
mod flushing;
mod handover;
mod index;
mod key;
mod key_prefix;
mod meta;
mod order;
mod prefetch;
mod prepare;
mod ranges;
mod replay;
mod restore;
mod rocks;
mod scan;
mod size;
mod store;
mod table;
mod trace;
mod value;
mod view;

pub use error::StateError;
pub use size::StoreSize;

pub(crate) use at_rest::{StateAtRest, StoreAtRest};
pub(crate) use cycle_store::{BoxError, CycleStore};
pub(crate) use files::MemoryFiles;
pub(crate) use flush::{FlushBatch, FlushTicket};
pub(crate) use key_prefix::{ORDERED_KEY, key_of_row, put_prefix};
pub(crate) use ranges::{Direction, KeyRange};
pub(crate) use size::StoreReads;
pub(crate) use trace::Trace;
pub(crate) use view::{Found, Inside, RangeOf};

// For the benches: no part of the surface.
#[doc(hidden)]
pub use backend::StateBackend;
#[doc(hidden)]
pub use config::{StateConfig, StoreDeclaration};
#[doc(hidden)]
pub use files::RocksFiles;
#[doc(hidden)]
pub use flush::FlushUrgency;
#[doc(hidden)]
pub use key::{HashedKey, hash_key, state_partition};
/// The options of every database here, so that a benchmark's baseline has the same.
#[doc(hidden)]
pub use rocks::options as rocksdb_options;
#[doc(hidden)]
pub use store::Store;

#[cfg(test)]
mod tests;
