//! The one binary of integration tests; a module a promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails, and it stands outside the doors of `env`"
)]

#[cfg(feature = "cli")]
mod bed; // Jobs in a test bed: what it promises to users, and its own exactness through kills and power loss.
mod cli; // The binary: exit codes, messages, what comes out of what went in.
#[cfg(feature = "kafka")]
mod clients; // Producers, consumers and administration: one suite, in-process and on a real Kafka (C11, C12, C16, C17, C22, C27, S14, S15).
#[cfg(feature = "dashboard")]
mod dashboard; // The dashboard over HTTP and in a browser: jobs that run, are held up, are killed.
mod docs; // The documentation names tests that exist, and every catalogued failure has one.
mod effects; // What jobs do outside: each committed effect is delivered, under one key, in order, whatever is killed (O1–O8, O11, O12).
#[cfg(feature = "cli")]
mod examples; // The examples' jobs through crash tests: what they write is right whatever happens.
#[cfg(feature = "file-tables")]
mod file_tables; // Data files with a manifest, here and in an object store, hold each row once, through kills (O1–O8).
#[cfg(all(feature = "avro", feature = "protobuf", feature = "registry"))]
mod formats; // Avro, Protobuf and JSON at topics, through kills and with a real schema registry (U9).
mod fuzz; // Mutated batches, requests, snapshots and journals: nothing panics, nothing changed is believed.
#[cfg(feature = "cli")]
mod hostile; // Hostile clients of the broker: frames, decoding, records, names, rights, load.
mod jobs; // Jobs end to end: every operator, restarts, poison, panics, bad input, back-pressure (C18, C22, C24, F17, S4, S10, S13, S15, S17).
mod kill9; // kill -9 at any moment and at every failpoint: the output stays exact (C1–C12, F1, F17, F26, S1–S3, S8, S17).
#[cfg(feature = "cli")]
mod nexmark; // The queries of Nexmark give what a database gives for their SQL, through kills.
#[cfg(feature = "kafka")]
mod on_kafka; // Jobs and transactions on a real Kafka through kills and a bad network (C13–C15, C23, C29, C30, I6, K1–K3, K5–K9, S6, S16, S17).
#[cfg(feature = "otel")]
mod otel; // Traces as a collector of OpenTelemetry gets them.
mod peers; // Foreign software as judge: Apache Kafka, its tools, and clients in five languages.
#[cfg(feature = "postgres")]
mod postgres; // Tables of a real PostgreSQL hold each row once, whatever is killed (O1–O6, O8, O10).
mod power_loss; // Power loss at every change of the disk loses nothing acknowledged (C1–C10, F1–F13).
mod public_items; // The public items of the crate are those of a committed list.
#[cfg(feature = "cli")]
mod secured; // TLS, logins and rights of the client, on our own server and on a real Kafka.
mod support; // What several modules share.
mod tables; // Tables, what is made of them, and streams that look values up in them (J6–J8, J17).
mod tidy;
mod time; // Event time and windows: the committed output is a function of the input alone (T1–T15, W1, W2, W12, W15, W17). // The source keeps its own rules: layers, heads, lengths, doors to the world.
