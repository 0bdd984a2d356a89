//! Nexmark: the queries of the benchmark for streams, as jobs, on events of a generator.
//!
//! One file a query, in `queries/`; docs/nexmark.md says what each means where the published SQL leaves it open. Tests run them beside a
//! database that runs the SQL on the same events; `onceflow bench nexmark` measures them.

mod events;
mod generator;
mod job;
mod load;
mod queries;
mod random;

pub use events::{Auction, Bid, Event, Format, Person};
pub use generator::{Generator, Pace, ROUND};
pub(super) use job::{QueryJobArguments, run_job};
pub use load::load;
pub use queries::{EVENTS, Inputs, Policy, Query, RESULTS, SIDE_INPUT, SIDE_INPUT_ROWS};
