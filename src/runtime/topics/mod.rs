//! The topics of a job: those that it creates and keeps for itself, and those that it reads.
//!
//! Reading order: `job_topics.rs`, `source_topics.rs`, `positions.rs`, `schemas.rs`.

pub(in crate::runtime) mod job_topics;
pub(in crate::runtime) mod positions;
pub(in crate::runtime) mod schemas;
pub(in crate::runtime) mod source_topics;
