//! For tests: [`TestBed`] runs a job under virtual time, [`crash_test`] through hundreds of crashes; simulated machines have storage that fails and power that goes.
//!
//! [`SimulatedWorld`] is such a machine; what runs in its [`Env`] sees its disk and its clock. A job on a log of
//! [`Log::in_env`](crate::runtime::Log::in_env) keeps its topics there; RocksDB's files are real ones.

pub use crate::env::Env;
pub use crate::env::simulated::{
    CACHE_PAGE_BYTES, Call, DataLoss, DiskContents, Fault, FaultEffect, NameLoss, PowerLoss,
    Recording, Replay, SECTOR_BYTES, SimulatedWorld,
};
pub use crate::runtime::{BedConfig, Chance, CrashTest, Row, TestBed, crash_test};
