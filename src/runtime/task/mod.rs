//! The task: the work of each worker of a running job on its share of the records.
//!
//! A worker reads its splits, runs the chains, and owns its part of the state. All workers close a cycle together.
//!
//! Reading order: `cycle.rs` (the heart: when a cycle opens and closes), `worker.rs`, `feed.rs` (reads), `exchange.rs` (the shuffle), `inbox.rs`,
//! `context.rs` (what the parts share), `changelog.rs`, `pace.rs`, `quarantine.rs`,
//! `source_time.rs` (how far a source has come), `alignment.rs`, `timed_store.rs` (windows and timers as state).

pub(in crate::runtime) mod alignment;
pub(in crate::runtime) mod appender;
pub(in crate::runtime) mod call_runtime;
pub(in crate::runtime) mod calls;
pub(in crate::runtime) mod chains;
pub(in crate::runtime) mod changelog;
pub(in crate::runtime) mod committed;
pub(in crate::runtime) mod context;
pub(in crate::runtime) mod continuation;
pub(in crate::runtime) mod cycle;
pub(in crate::runtime) mod desk;
pub(in crate::runtime) mod discard;
pub(in crate::runtime) mod exchange;
pub(in crate::runtime) mod feed;
pub(in crate::runtime) mod fetched;
mod floors;
mod header_column;
pub(in crate::runtime) mod inbox;
pub(in crate::runtime) mod late;
mod letter_reasons;
pub(in crate::runtime) mod marks;
pub(in crate::runtime) mod meter;
pub(in crate::runtime) mod open_sink;
pub(in crate::runtime) mod ordered_store;
pub(in crate::runtime) mod pace;
pub(in crate::runtime) mod poison;
pub(in crate::runtime) mod pressure;
pub(in crate::runtime) mod progress;
pub(in crate::runtime) mod quarantine;
pub(in crate::runtime) mod read_ahead;
pub(in crate::runtime) mod recovery;
pub(in crate::runtime) mod repartition;
pub(in crate::runtime) mod replay;
pub(in crate::runtime) mod report;
pub(in crate::runtime) mod shared_node;
pub(in crate::runtime) mod side;
pub(in crate::runtime) mod source_changelog;
pub(in crate::runtime) mod source_time;
pub(in crate::runtime) mod splits;
pub(in crate::runtime) mod stores;
pub(in crate::runtime) mod table_store;
pub(in crate::runtime) mod time_index;
mod time_line;
pub(in crate::runtime) mod timed_row;
pub(in crate::runtime) mod timed_store;
pub(in crate::runtime) mod worker;
