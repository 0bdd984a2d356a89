//! Jobs: topology, workers, cycles and their commit (design D8, D9, D11; invariants 1, 2, 7, 10).
//!
//! A job is built as a typed graph, and run by worker threads that share one transaction a cycle. Everything
//! in flight is drained before a cycle is committed, so results, state and positions change together.
//! It does not know what any operator does: those are in `operators/`, on the same [`Operator`] trait as a user's.
//!
//! ```text
//! Job ─► Topology ─► start ─► Driver ──Close/Open──► Worker (one a core)
//!                               ▲                      feeds ─► chains ─► exchanges ─► chains ─► sinks
//!                               └───────Drained────────┘
//! ```
//! Reading order: `operator.rs` (the contract), `stream.rs` (the builder), `cycle.rs` (the heart), `driver.rs`, `worker.rs`.

mod advice;
mod appender;
mod arguments;
mod changelog;
mod connectors;
mod context;
mod cycle;
mod description;
mod discard;
mod driver;
mod error;
mod exchange;
mod flusher;
mod fork;
mod inbox;
mod job;
#[cfg(feature = "server")]
mod listen;
mod log_handle;
mod operator;
mod pace;
mod poison;
mod positions;
mod pressure;
mod progress;
mod quarantine;
mod record;
mod report;
mod scale;
mod schemas;
mod signals;
mod sink;
mod source;
mod source_topics;
mod start;
mod stores;
mod stream;
mod surprises;
mod topics;
mod topology;
mod watching;
mod worker;

pub use arguments::{JobArguments, UsageError};
pub use connectors::{
    AtLeastOnce, Files, Formatted, KeyedTopic, LineFormat, Lines, Topic, TopicReader, ValueLines,
    Values, at_least_once, files, keyed_topic, lines, lines_of, stdin_lines, topic, values,
};
pub use context::{JobContext, OperatorContext};
pub use cycle::Commit;
pub use description::Description;
pub use error::{Failure, JobError, JobErrorKind};
pub use exchange::Exchange;
pub use fork::Route;
pub use job::{Job, Launch, Running, Stopper};
pub use log_handle::Log;
pub use operator::{Flow, Operator, Output, Signal};
pub use pace::Pace;
pub use poison::PoisonPolicy;
pub use progress::{JobProgress, ShareReport, Summary};
pub use record::{Key, Meta, Origin, Record, Unkeyed};
pub use scale::ScaleOut;
pub use sink::Sink;
pub use source::{Emit, Emitted, From, Position, Raw, Read, Source, Split, SplitReader};
pub use stores::KeyValueStore;
pub use stream::{Boxed, Keyed, Merged, Stream, Table, Then, Upstream};
pub use topics::{JobTopic, TopicRole};
