//! Settings of a job's state, before it is opened.

use std::time::Duration;

use super::files::RocksFiles;
use crate::codec::Schema;
use crate::types::TopicId;

/// A store that a job has: declared before the backend is opened, so that a changed topology is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDeclaration {
    /// The stable name of the step that owns it. No NUL.
    pub name: String,
    /// The codec of its values, and the types of its keys and values.
    pub schema: Schema,
    /// The incarnation of its changelog: the state of another topic is wiped and restored.
    pub changelog: TopicId,
}

/// State settings.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// The bound of all memory: tables, blocks, memtables, flushes on their way. RocksDB takes 8 MiB even if this is less than 16.
    pub memory_bytes: usize,
    /// Number of state partitions; fixed when the job is first run. At least 1.
    pub state_partitions: u16,
    /// A fingerprint of the topology, noted in `meta.json`.
    pub topology: String,
    /// All stores of the job.
    pub stores: Vec<StoreDeclaration>,
    /// Stores that the job had and that are to be forgotten with what they hold.
    pub dropped_stores: Vec<String>,
    /// Stores whose types have changed and whose bytes are what the new types would have written.
    pub retyped_stores: Vec<String>,
    /// Most changelog that a restart has to replay, about: it bounds the time that a restart takes.
    pub changelog_tail_bytes_max: u64,
    /// Longest time that RocksDB's disk lacks a committed change, about.
    pub flush_interval: Duration,
    /// Where RocksDB keeps its files.
    pub rocks_files: RocksFiles,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            state_partitions: 64,
            topology: String::new(),
            stores: Vec::new(),
            dropped_stores: Vec::new(),
            retyped_stores: Vec::new(),
            changelog_tail_bytes_max: 256 << 20,
            flush_interval: Duration::from_secs(30),
            rocks_files: RocksFiles::Disk,
        }
    }
}
