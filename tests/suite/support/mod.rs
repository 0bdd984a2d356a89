//! What several test modules share.

pub(crate) mod kafka;
pub(crate) mod peers;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod transfers;
