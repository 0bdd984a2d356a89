//! No part of the library: the inner items that its own tests and benches need. They change without notice.

pub use crate::log::{AppendOrigin, LogConfig, LogError, PartitionLog, RecoveryMarks};
