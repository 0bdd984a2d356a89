//! Onceflow.
pub mod codec;
pub mod env;
pub mod protocol;
pub mod types;
