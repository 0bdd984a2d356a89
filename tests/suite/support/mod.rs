//! Support of several test modules.

#[cfg(feature = "cli")]
pub(crate) mod broker;
pub(crate) mod files;
pub(crate) mod kafka;
pub(crate) mod peers;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod transfers;
