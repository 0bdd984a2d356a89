//! The contracts that operators, sources and sinks are written against. Users' own are written against the same.
//!
//! Reading order: `record.rs`, `operator.rs`, `time.rs` (watermarks), `window.rs`, `source.rs`, `sink.rs`, `error.rs`.

pub(in crate::runtime) mod error;
pub(in crate::runtime) mod operator;
pub(in crate::runtime) mod record;
pub(in crate::runtime) mod sink;
pub(in crate::runtime) mod source;
pub(in crate::runtime) mod time;
pub(in crate::runtime) mod window;
