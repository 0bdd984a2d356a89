//! Effects of a job on the world outside: each committed one is delivered under one key, in the order of its record's key.

mod answers; // Classes of answers, dead letters, pauses, bounds.
mod epochs; // A target that keeps the epoch beside its rows, as a sink of one's own: exactly once, killed on both sides.
#[cfg(feature = "http")]
mod http; // Requests of HTTP at a server that fails, delays, drops connections and goes away.
#[cfg(feature = "http")]
mod https; // Requests over TLS: certificates that are trusted, and those that are not.
mod keys; // Idempotency keys over restarts, hand-overs, new logs and savepoints.
mod killed; // A process that is killed at any moment and at every failpoint, and a target that writes down the keys.
mod many; // Ten thousand random cases.
#[cfg(feature = "kafka")]
mod on_kafka; // Processes that share the job on a real Kafka, and are killed.
mod power_loss; // A disk that loses power: no effect was told whose transaction is lost.
pub(crate) mod support; // A target that remembers what it was told, and the job that tells it.
