//! Tests of the broker on real and simulated files.

#![allow(
    clippy::disallowed_methods,
    reason = "tests damage files and use threads on their own"
)]

mod directory;
mod failpoints;
mod faults;
mod few_files;
mod group_commit;
mod housekeeping;
mod journal;
mod older_transactions;
mod operator_markers;
mod positions_journal;
mod records;
mod restarts;
mod support;
mod topics;
mod transactions;
mod visible;
