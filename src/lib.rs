//! Onceflow: stream-processing jobs whose results are exactly once.
//!
//! A job reads partitions of a source, runs operators with state in RocksDB, and writes its results through a
//! transactional producer. Results, state and source positions change together or not at all, through
//! `kill -9`, power loss and a full disk. The log is embedded: no server, nothing to start.
//!
//! ```no_run
//! use std::time::Duration;
//! use onceflow::prelude::*;
//!
//! fn words(line: &str) -> impl Iterator<Item = &str> {
//!     line.split_whitespace()
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let log = Log::embedded("./data")?;
//!     let job = Job::new("word-count");
//!     job.source(lines(["book.txt"]))
//!         .flat_map(words)
//!         .key_by_ref(|word: &str| word)
//!         .count("counts")
//!         .changes()
//!         .sink(topic("word-counts"));
//!     job.exactly_once(Commit::every(Duration::from_millis(100))).run(&log).await?;
//!     log.close()?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to begin
//!
//! | you want to | look at |
//! |---|---|
//! | write a job | [`prelude`], [`Job`](runtime::Job), [`Stream`](runtime::Stream), the table of [`operators`] |
//! | write an operator, a source or a sink | [`Operator`](runtime::Operator), [`Source`](runtime::Source), [`Sink`](runtime::Sink) |
//! | write and read topics yourself | [`Producer`](client::Producer), [`Consumer`](client::Consumer), [`Admin`](client::Admin), from [`Log::transport`](runtime::Log::transport) |
//! | choose what a commit survives | [`Durability`](types::Durability), [`BrokerConfig`](broker::BrokerConfig) |
//! | choose how values become bytes | [`codec`] |
//! | test against a disk that fails | [`testing`] |
//!
//! # The layers
//!
//! From the ground up; each knows those before it and none behind it: [`types`] · [`codec`] · `env` ·
//! `protocol` · `net` · `log` · `coordinator` · [`broker`] · `server` · [`client`] · [`state`] · [`runtime`] · [`operators`] (in the
//! folder `operators/` beside `src/`, attached below) · `cli` (feature `cli`: the command `onceflow`).
//! Public is what users need, item by item in `docs/public_items.txt`. [`testing`] stands beside the layers.
//! `docs/architecture.md` says what each does and must not know, `docs/guarantees.md` what is promised and where it ends.

#![cfg_attr(
    not(feature = "cli"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "much of the log and the broker is there for the server and the binary, which this build leaves out"
    )
)]

/// The chapters of the book whose examples are compiled and run as they stand there.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/first-job.md")]
    struct FirstJob;
    #[doc = include_str!("../docs/streams-and-tables.md")]
    struct StreamsAndTables;
    #[doc = include_str!("../docs/from-kafka-streams.md")]
    struct FromKafkaStreams;
    #[doc = include_str!("../docs/from-flink.md")]
    struct FromFlink;
}

pub mod broker;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod client;
pub mod codec;
mod coordinator;
mod env;
#[doc(hidden)]
pub mod internals;
mod log;
#[cfg(feature = "net")]
mod net;
#[path = "../operators/mod.rs"]
pub mod operators;
pub mod prelude;
mod protocol;
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
pub mod state;
pub mod testing;
pub mod types;

/// The chapter's examples, compiled and run.
#[cfg(all(doctest, feature = "avro", feature = "registry"))]
#[doc = include_str!("../docs/formats-at-topics.md")]
mod formats_chapter {}

/// The chapter's examples, compiled and run.
#[cfg(all(
    doctest,
    feature = "postgres",
    feature = "parquet",
    feature = "object-store"
))]
#[doc = include_str!("../docs/outside.md")]
mod outside_chapter {}
