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
//! Rooms from the ground up, none of which knows those behind it: `contract/` (operators, readers and writers are written against
//! it), `task/` (the workers; `task/cycle.rs` is the heart), `graph/` (the builder; sources and sinks), `topics/` (the job's own and
//! those it reads), `connectors/` (sources and sinks of ours), `scale/` (several processes), `life/` (start, driver, end), `bed/` (the same under virtual
//! time, for tests).

mod bed;
mod connectors;
mod contract;
mod graph;
mod life;
mod scale;
mod task;
mod topics;

/// Data files with a manifest as sinks, with the feature `file-tables`.
#[cfg(feature = "file-tables")]
pub mod file_table {
    #[cfg(feature = "object-store")]
    pub use super::connectors::file_table::{Bucket, object_table};
    pub use super::connectors::file_table::{
        Csv, FileTable, FileTableWriter, JsonLines, PublishedFile, RowEncoder, RowFormat,
        file_table, published,
    };
    #[cfg(feature = "parquet")]
    pub use super::connectors::file_table::{Parquet, ParquetValue};
}

/// Tables of PostgreSQL as sinks and as sources, with the feature `postgres`.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use super::connectors::postgres::{
        ChangesReader, Postgres, PostgresChanges, PostgresWriter, RowChange, RowChangeKind, ToSql,
        postgres, postgres_changes,
    };
}

/// Schemas of topics at a registry, with the feature `registry`.
#[cfg(feature = "registry")]
pub mod registry {
    pub use super::connectors::registry::{Registered, Registry, Schema};
}

#[cfg(any(feature = "http", feature = "postgres"))]
pub use crate::net::Pem;
pub use crate::protocol::batch::{HeaderList, Headers};
pub use bed::{BedConfig, Chance, CrashTest, Row, TestBed, crash_test};
pub use connectors::{
    AtLeastOnce, Files, Formatted, KeyedTopic, LineFormat, Lines, TombstonePolicy, Topic,
    TopicReader, ValueLines, Values, at_least_once, files, keyed_topic, lines, lines_of,
    stdin_lines, topic, values,
};
#[cfg(feature = "http")]
pub use connectors::{HttpAnswer, HttpClient, HttpFailure, HttpRequest};
pub use contract::change::Change;
pub use contract::error::{Failure, JobError, JobErrorKind};
pub use contract::letter::{ReadLetter, TakeRecord};
pub use contract::operator::{Flow, Operator, Output, Signal};
pub use contract::record::{Key, Meta, Origin, Record, Unkeyed};
pub use contract::sink::{MarkChanges, Marks, SinkWriter};
pub use contract::source::{Emit, Emitted, Pace, Position, Raw, Read, Split, SplitReader};
pub use contract::time::{Missed, Watermarks};
pub use contract::two_inputs::TwoInputOperator;
pub use contract::window::{FixedWindows, Window, Windowed};
pub use graph::broadcast::{Broadcast, BroadcastReader, BroadcastView};
pub use graph::connect::Connected;
pub use graph::description::Description;
pub use graph::exchange::Exchange;
pub use graph::fork::Route;
pub use graph::sink::Sink;
pub use graph::source::{From, Replayed, Source};
pub use graph::stream::{Boxed, Keyed, Merged, Stream, Then, Upstream};
pub use graph::table::{Deletes, Deletions, Grows, Table};
pub use life::arguments::{JobArguments, UsageError};
pub use life::job::{Job, Launch, Running};
pub use life::letters::{
    AskedLetters, Letter, LetterChoice, LetterKind, LetterState, LetterTime, Letters,
};
#[cfg(feature = "cli")]
pub(crate) use life::lock::{LookedAt, look_into};
pub use life::log_handle::Log;
#[cfg(feature = "http")]
pub use life::query::http::{HttpConfig, HttpError, HttpServer};
#[cfg(feature = "cli")]
pub(crate) use life::query::subject::serve_log;
pub use life::query::{
    Answer, OrderedQuery, Queries, StoreQuery, TimedQuery, VersionsQuery, WindowsQuery,
};
pub use life::savepoint::{Restored, Savepoint};
#[cfg(feature = "cli")]
pub(crate) use life::savepoint::{ask_for_savepoint, begin_anew};
#[cfg(feature = "cli")]
pub(crate) use life::start::read_kept;
pub use life::status::{
    ChainStatus, JobPhase, OpenTransaction, SplitStatus, Status, StoreStatus, Totals, WorkerStatus,
};
pub use life::stopper::Stopper;
#[cfg(feature = "otel")]
pub use life::traces::{Otlp, OtlpError, Traces};
pub use scale::ScaleOut;
pub use task::call_runtime::CallClock;
pub use task::calls::{Answers, CallId, Calls};
pub use task::committed::{Epoch, QueryError, TimedRows, View};
pub use task::context::{JobContext, OperatorContext};
pub use task::cycle::Commit;
pub use task::late::{Late, LateReason};
pub use task::meter::{CloseReason, CycleStatus, LifeStatus, SplitState};
pub use task::ordered_store::OrderedStore;
pub use task::poison::PoisonPolicy;
pub use task::progress::{JobProgress, ShareReport, Summary};
pub use task::recovery::RecoveryStatus;
pub use task::side::{Side, SideOutput};
pub use task::source_time::SourceTime;
pub use task::stores::KeyValueStore;
pub use task::table_store::{TableReader, TableStore, TableView};
pub(crate) use task::timed_row::{TimedKey, time_of_row, timed_key, value_of_row};
pub(crate) use task::timed_store::timed_key_type;
pub use task::timed_store::{Came, Due, TimedStore};
pub use topics::job_topics::{JobTopic, TopicRole};
