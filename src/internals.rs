//! No part of the library: the inner items that its own tests and benches need. They change without notice.

pub mod env {
    //! The door to the world.
    pub use crate::env::*;
}

pub mod protocol {
    //! Kafka's protocol as types.
    pub use crate::protocol::*;
}

pub use crate::log::{AppendOrigin, LogConfig, LogError, PartitionLog, RecoveryMarks};
