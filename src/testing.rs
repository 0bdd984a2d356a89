//! Simulated machines, to test a log and what runs on it against storage that fails and power that goes.
//!
//! [`SimulatedWorld`] is such a machine; what runs in its [`Env`] sees its disk and its clock. A job on a log of
//! [`Log::in_env`](crate::runtime::Log::in_env) keeps its topics there; RocksDB's files are real ones.

pub use crate::env::Env;
pub use crate::env::simulated::{
    CACHE_PAGE_BYTES, Call, DataLoss, DiskContents, Fault, FaultEffect, NameLoss, PowerLoss,
    Recording, Replay, SECTOR_BYTES, SimulatedWorld,
};
