//! What a job does to the world outside: each committed effect is delivered under one key, in the order of its record's key.

mod answers; // Classes of answers, dead letters, pauses, bounds.
mod keys; // Idempotency keys over restarts, hand-overs, new logs and savepoints.
mod killed; // A process that is killed at any moment and at every failpoint, and a target that writes down the keys.
mod support; // A target that remembers what it was told, and the job that tells it.
