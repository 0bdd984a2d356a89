//! A job's life: its start, its driver, its restarts and its end.
//!
//! Reading order: `job.rs` (what users call), `supervision.rs`, `start.rs`, `opened.rs`, `kept.rs` (its transactional ids), `driver.rs`, `participation.rs` (a job that is spread), `flusher.rs`, `savepoint/`, `status/` (what all that shows a job draws from), `traces/`.

pub(in crate::runtime) mod arguments;
pub(in crate::runtime) mod driver;
mod epochs;
pub(in crate::runtime) mod flusher;
pub(in crate::runtime) mod job;
pub(in crate::runtime) mod kept;
pub(in crate::runtime) mod letters;
#[cfg(feature = "server")]
pub(in crate::runtime) mod listen;
pub(in crate::runtime) mod lock;
pub(in crate::runtime) mod log_handle;
pub(in crate::runtime) mod opened;
pub(in crate::runtime) mod participation;
pub(in crate::runtime) mod query;
pub(in crate::runtime) mod savepoint;
pub(in crate::runtime) mod signals;
mod source_tables;
pub(in crate::runtime) mod start;
pub(in crate::runtime) mod status;
pub(in crate::runtime) mod stopper;
pub(in crate::runtime) mod supervision;
pub(in crate::runtime) mod surprises;
#[cfg(feature = "otel")]
pub(in crate::runtime) mod traces;
pub(in crate::runtime) mod watching;
