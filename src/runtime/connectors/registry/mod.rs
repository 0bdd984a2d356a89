//! A client of a schema registry, and codecs whose schemas it keeps.
//!
//! The ids that a job writes, and whether it can read the newest values, are found out where it starts: a registry that is down keeps it from
//! starting. Afterwards it is asked only for an id that was never seen, by a thread of the client's own; the partition waits at the record
//! meanwhile, and nothing else does.
//!
//! Reading order: `client.rs` (requests), `codec.rs` (at topics), `known.rs` (what is kept), `asked.rs` (decides what is asked for).

mod asked;
mod client;
mod codec;
mod known;
mod wire;

pub use client::{Registry, Schema};
pub use codec::Registered;

#[cfg(test)]
mod tests;
