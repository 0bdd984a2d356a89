//! The operators, one a file. Each uses only what a user's own operator can use.
//!
//! | operator | on | gives | state |
//! |---|---|---|---|
//! | [`map`](crate::runtime::Stream::map) | stream, keyed | one record for each | – |
//! | [`try_map`](crate::runtime::Stream::try_map) | stream, keyed | one for each, or a poison record | – |
//! | [`filter`](crate::runtime::Stream::filter) | stream, keyed | the records for which a predicate holds | – |
//! | [`filter_map`](crate::runtime::Stream::filter_map) | stream, keyed | at most one for each | – |
//! | [`flat_map`](crate::runtime::Stream::flat_map) | stream, keyed | any number for each | – |
//! | [`inspect`](crate::runtime::Stream::inspect) | stream, keyed | the same records | – |
//! | [`branch`](crate::runtime::Stream::branch), [`tee`](crate::runtime::Stream::tee) | stream, keyed | two streams | – |
//! | [`merge`](crate::runtime::Stream::merge) | stream, keyed | one stream of two | – |
//! | [`key_by`](crate::runtime::Stream::key_by), [`key_by_ref`](crate::runtime::Stream::key_by_ref) | stream | a keyed stream | – |
//! | [`count`](crate::runtime::Keyed::count) | keyed | how many records each key had | one store |
//! | [`reduce`](crate::runtime::Keyed::reduce) | keyed | the values of each key, combined | one store |
//! | [`aggregate`](crate::runtime::Keyed::aggregate) | keyed | anything folded from each key's values | one store |
//! | [`update`](crate::runtime::Keyed::update) | keyed | a value for each key that may be deleted again | one store |
//! | [`to_table`](crate::runtime::Keyed::to_table), [`Job::table`](crate::runtime::Job::table) | keyed values or deletions, a topic | the last value of each key | one store |
//! | [`to_table_by_time`](crate::runtime::Keyed::to_table_by_time) | keyed values or deletions | the newest value of each key by its time | one store |
//! | [`filter`](crate::runtime::Table::filter), [`map_values`](crate::runtime::Table::map_values), [`tee`](crate::runtime::Table::tee) | table | other tables | – |
//! | [`group_by`](crate::runtime::Table::group_by) … `aggregate`, `count`, `min`, `max`, `top_n`, `bottom_n` | table | an aggregate of its values by another key, the first ones in order | one store; two for all but `aggregate` and `count` |
//! | [`versioned`](crate::runtime::Keyed::versioned) | keyed values or deletions | the same, with a history that can be asked | two stores |
//! | [`join_as_of`](crate::runtime::Keyed::join_as_of) … `inner`, `left` | keyed, keyed versions | each record with the version of its time; the late ones | three stores |
//! | [`join_table`](crate::runtime::Keyed::join_table), [`left_join_table`](crate::runtime::Keyed::left_join_table) | keyed, table | each record with the table's value for its key | – |
//! | [`join`](crate::runtime::Table::join), [`left_join`](crate::runtime::Table::left_join), [`outer_join`](crate::runtime::Table::outer_join) | two tables, also one twice | a table of both | one store, of times |
//! | [`join_broadcast`](crate::runtime::Keyed::join_broadcast), [`left_join_broadcast`](crate::runtime::Keyed::left_join_broadcast) | stream, keyed, a topic that each process has whole ([`Job::broadcast`](crate::runtime::Job::broadcast)) | each record with the value for a key of its own | – |
//! | [`join_on`](crate::runtime::Table::join_on), [`left_join_on`](crate::runtime::Table::left_join_on) | two tables | a table of both, by a foreign key | two stores |
//! | [`changes_per_commit`](crate::runtime::Table::changes_per_commit) | table | the last change of each key in a cycle | – |
//! | [`stateful`](crate::runtime::Keyed::stateful) | keyed | any number for each, with a value of state for the key | one store |
//! | [`event_time`](crate::runtime::Stream::event_time), [`watermarks`](crate::runtime::Stream::watermarks) | stream, keyed | the same records, with their time | – |
//! | [`window`](crate::runtime::Keyed::window) … `count`, `reduce`, `aggregate`, `sum`, `avg`, `min`, `max`, `top_n`, `distinct`, `approx_distinct` | keyed | one result for each key and window, when it closes | one store |
//! | [`sorted_by_time`](crate::runtime::Keyed::sorted_by_time) | keyed | the records of each key in the order of their times; the late ones | one store |
//! | [`map_async`](crate::runtime::Keyed::map_async) | keyed | an answer of the world outside for each; those that failed | one store |
//! | [`effect`](crate::runtime::Keyed::effect) | keyed | something done outside for each; those that can never be done | one store |
//! | [`dedupe`](crate::runtime::Keyed::dedupe) | keyed | of records with one id, the first; the late ones | one store |
//! | [`ttl`](crate::runtime::Keyed::ttl) … `stateful`, `count`, `reduce`, `aggregate`, `update`, `to_table` | keyed | the same, with state that expires | two stores |
//! | [`entries`](crate::runtime::Keyed::entries) | keyed | a stream of what a function makes of key and value | – |
//! | [`join`](crate::runtime::Keyed::join) … [`within`](crate::operators::Join::within), [`after`](crate::operators::Join::after), [`before`](crate::operators::Join::before) or [`window`](crate::operators::Join::window) … `inner`, `left`, `right`, `outer` | two keyed streams | matches within an interval of time or in a window, and what has none; the late ones | one store a side, one of times |
//! | [`cogroup`](crate::runtime::Keyed::cogroup) … `aggregate`, `window_aggregate` | any number of keyed streams | an aggregate of the values of all, by key or by key and window | one store |
//! | [`process`](crate::runtime::Keyed::process) | keyed | what your own [`Operator`](crate::runtime::Operator) gives | your stores |
//! | [`connect`](crate::runtime::Keyed::connect) … [`process`](crate::runtime::Connected::process) | two keyed streams | what your own [`TwoInputOperator`](crate::runtime::TwoInputOperator) gives | your stores |

mod aggregate;
mod branch;
mod cogroup;
mod count;
mod dedupe;
mod effect;
mod entries;
mod event_time;
mod filter;
mod filter_map;
mod flat_map;
mod inspect;
mod join;
mod key_by;
mod map;
mod map_async;
mod per_commit;
mod process;
mod reduce;
mod sorted;
mod stateful;
mod table;
mod try_map;
mod ttl;
mod update;
mod window;

pub use cogroup::{Cogroup, Either};
pub use dedupe::Dedupe;
#[cfg(feature = "http")]
pub use effect::HttpTarget;
pub use effect::{Delivery, Effect, EffectPolicy, EffectTarget};
pub use flat_map::{Collector, Expand};
pub use join::{AsOfJoin, IntervalJoin, Join, JoinWindows};
pub use map_async::{Call, CallPolicy};
pub use stateful::Results;
pub use table::Regrouped;
pub use ttl::{Expiring, Ttl, TtlStore};
pub use window::{
    CalendarWindows, Clock, CountWindows, Counted, Emission, EventClock, Every, Filling,
    FillingCodec, LateRecords, Number, OnClose, OnUpdate, SessionWindows, SlidingWindows,
    TimeWindows, WallClock, WindowFold, WindowedBy, Windows,
};
