//! The names that a job needs: `use onceflow::prelude::*;`.

pub use crate::codec::{Bincode, Codec, Datum, Json, Postcard, Raw, SortKey, Text};
pub use crate::operators::{
    CalendarWindows, Call, CallPolicy, Collector, CountWindows, Delivery, Effect, EffectPolicy,
    Every, Results, SessionWindows, SlidingWindows, Ttl,
};
pub use crate::runtime::{
    Commit, Failure, FixedWindows, Flow, Job, JobArguments, JobError, JobErrorKind, KeyValueStore,
    Keyed, Log, Operator, OperatorContext, OrderedStore, Output, PoisonPolicy, Record, ScaleOut,
    Stream, Table, TimedStore, TombstonePolicy, TwoInputOperator, Unkeyed, Watermarks, Window,
    Windowed, at_least_once, files, keyed_topic, lines, stdin_lines, topic, values,
};
