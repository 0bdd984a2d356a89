//! Opening a log: what its owner knows before, and what was found.

use std::path::Path;
use std::sync::Arc;

use super::cache::SegmentCache;
use super::error::LogError;
use super::evidence::Evidence;
use super::partition::PartitionLog;
use super::recovery::Recovery;
use super::{LogConfig, leftovers, metadata};
use crate::env::Env;
use crate::types::Offset;

/// Marks that the owner has of the log before it opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryMarks {
    /// Everything below was synced: damage there is refused, never cut (I9).
    pub durable_end: Offset,
    /// Records below were deleted by their owner.
    pub log_start: Offset,
    /// The log was closed in order, so that it has no tail that may be torn: all damage is refused.
    pub clean_shutdown: bool,
    /// Where the log ended when it was closed in order, if that was written down. What stands there now and is no
    /// batch, nobody was ever told of: it is somebody else's and is cut (F4).
    pub clean_end: Option<Offset>,
    /// A write or sync failed before: what is read behind `durable_end` may not be on the disk, though a later sync
    /// succeeded. It is written once more (F11).
    pub is_cache_suspect: bool,
}

/// Report of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Whether more was cut than the one write that a process leaves unfinished when it is killed: something took back what
    /// had been written, as a power loss does.
    pub has_lost_batches: bool,
    /// Bytes whose batches were read and checked.
    pub scanned_bytes: u64,
    /// Segments whose indexes were rebuilt from their first batch.
    pub rebuilt_segments_count: usize,
}

impl PartitionLog {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if something below `marks.durable_end` or in a sealed segment is damaged; then no
    /// segment was changed. [`LogError::NewerFormat`], [`LogError::Io`].
    pub fn open(
        env: &Env,
        dir: &Path,
        config: LogConfig,
        marks: RecoveryMarks,
    ) -> Result<(Self, RecoveryReport), LogError> {
        Self::open_with_cache(env, dir, config, marks, &SegmentCache::new(env))
    }

    /// As [`PartitionLog::open`], with the files and indexes of sealed segments in a cache that other logs use too.
    ///
    /// # Errors
    /// As [`PartitionLog::open`].
    pub fn open_with_cache(
        env: &Env,
        dir: &Path,
        config: LogConfig,
        marks: RecoveryMarks,
        cache: &Arc<SegmentCache>,
    ) -> Result<(Self, RecoveryReport), LogError> {
        Self::open_with_evidence(env, dir, config, marks, cache, None)
    }

    /// As [`PartitionLog::open_with_cache`], for a log whose batches say up to where it was durable before them:
    /// before a tail is cut, what stands whole behind it is asked.
    ///
    /// # Errors
    /// As [`PartitionLog::open`]; [`LogError::Corrupt`] also for damage below an end that `evidence` gives.
    pub fn open_with_evidence(
        env: &Env,
        dir: &Path,
        config: LogConfig,
        marks: RecoveryMarks,
        cache: &Arc<SegmentCache>,
        evidence: Option<&Evidence<'_>>,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let topic_id = metadata::read(env, dir)?;
        let listing = leftovers::finish(env, dir)?;
        let recovery = Recovery::new((env, cache, evidence), dir, config, marks, &listing)?;
        let (log, report) = recovery.run(topic_id)?;
        tracing::debug!(dir = %dir.display(), ?log, ?report, "log opened");
        Ok((log, report))
    }
}
