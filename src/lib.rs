//! Onceflow.
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod codec;
pub mod coordinator;
pub mod env;
pub mod log;
pub mod protocol;
pub mod state;
pub mod types;
