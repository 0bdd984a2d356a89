//! Tests of the broker on real and simulated files.

#![allow(clippy::large_futures)]

mod directory;
mod faults;
mod group_commit;
mod records;
mod support;
mod topics;
mod transactions;
