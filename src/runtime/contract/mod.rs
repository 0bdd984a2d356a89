//! The contracts that operators, and readers and writers of sources and sinks, are written against. Users' own are written against
//! the same.
//!
//! A source and a sink themselves open their readers and writers in a job's context: `graph/source.rs`, `graph/sink.rs`.
//!
//! Reading order: `record.rs`, `operator.rs`, `two_inputs.rs`, `time.rs` (watermarks), `alignment.rs` (which splits wait for others), `senders.rs` (watermarks between processes), `window.rs`, `source.rs`, `sink.rs`, `error.rs`.

pub(in crate::runtime) mod alignment;
pub(in crate::runtime) mod change;
pub(in crate::runtime) mod error;
pub(in crate::runtime) mod letter;
pub(in crate::runtime) mod operator;
pub(in crate::runtime) mod record;
pub(in crate::runtime) mod senders;
pub(in crate::runtime) mod sink;
pub(in crate::runtime) mod source;
pub(in crate::runtime) mod time;
pub(in crate::runtime) mod two_inputs;
pub(in crate::runtime) mod window;
