//! Onceflow.
pub mod broker;
pub mod client;
pub mod codec;
pub mod coordinator;
pub mod env;
pub mod log;
pub mod protocol;
pub mod state;
pub mod types;
