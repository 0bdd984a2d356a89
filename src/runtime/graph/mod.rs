//! The job as a graph: the builder that users chain, and all that was declared before anything runs.
//!
//! Reading order: `stream.rs` (the builder), `topology.rs` (what was declared), `source.rs`, `sink.rs` (the contracts of
//! both ends), `exchange.rs`, `fork.rs`, `connect.rs`, `history.rs`, `description.rs` (what people see of it), `migrate.rs`.

pub(in crate::runtime) mod advice;
mod beside;
pub(in crate::runtime) mod broadcast;
pub(in crate::runtime) mod connect;
pub(in crate::runtime) mod description;
pub(in crate::runtime) mod exchange;
pub(in crate::runtime) mod fork;
mod history;
mod migrate;
pub(in crate::runtime) mod sink;
pub(in crate::runtime) mod source;
pub(in crate::runtime) mod stream;
pub(in crate::runtime) mod table;
pub(in crate::runtime) mod topology;
