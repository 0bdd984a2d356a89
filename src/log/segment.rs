//! One segment: a file of record batches, with what is known of them in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::aborted::AbortedEntry;
use super::error::LogError;
use super::index::{OffsetIndex, TimeIndex};
use super::names::{self, FileKind};
use crate::env::{Env, File, OpenMode};
use crate::protocol::batch::Header;
use crate::types::{Offset, Timestamp};

/// The only leader epoch: an embedded log has one leader, for ever. A batch with another one was damaged (F7).
pub(crate) const LEADER_EPOCH: i32 = 0;

/// One segment. The last one of a log is active, the others are sealed.
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) path: Arc<Path>,
    pub(crate) file: Arc<dyn File>,
    /// Bytes of whole batches; the next one is written here.
    pub(crate) size_bytes: u64,
    /// One past the last offset.
    pub(crate) next_offset: Offset,
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// By offset of the marker.
    pub(crate) aborted: Vec<AbortedEntry>,
    pub(crate) range: TimeRange,
}

/// The timestamps of a segment's batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// The largest timestamp of the first batch; [`Timestamp::NONE`] if there is none.
    pub(crate) first: Timestamp,
    /// The largest of all.
    pub(crate) largest: Timestamp,
    /// The last offset of the batch that has it.
    pub(crate) offset_of_largest: Offset,
}

impl TimeRange {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            first: Timestamp::NONE,
            largest: Timestamp::NONE,
            offset_of_largest: base_offset,
        }
    }
}

/// How densely batches are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Density {
    /// One entry for every so many bytes.
    Interval(u32),
    /// Every batch, because offsets may be missing between batches and only the index can then prove a batch's place.
    EveryBatch,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("size_bytes", &self.size_bytes)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

impl Segment {
    /// Creates an empty segment file. Its name is durable only after a sync of the directory (F10).
    pub(crate) fn create(env: &Env, dir: &Path, base_offset: Offset) -> Result<Self, LogError> {
        let path = names::path(dir, FileKind::Log, base_offset);
        let file = env
            .files
            .open(&path, OpenMode::CreateNew)
            .map_err(LogError::io("create segment", &path))?;
        Ok(Self::with_file(base_offset, path, file.into()))
    }

    /// Opens a segment file, as if it had no batches: recovery fills in what is there.
    pub(crate) fn open(env: &Env, path: PathBuf, base_offset: Offset) -> Result<Self, LogError> {
        let file = env
            .files
            .open(&path, OpenMode::Write)
            .map_err(LogError::io("open segment", &path))?;
        Ok(Self::with_file(base_offset, path, file.into()))
    }

    /// A segment of which no batch is known yet.
    pub(crate) fn with_file(base_offset: Offset, path: PathBuf, file: Arc<dyn File>) -> Self {
        Self {
            base_offset,
            path: path.into(),
            file,
            size_bytes: 0,
            next_offset: base_offset,
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            aborted: Vec::new(),
            range: TimeRange::new(base_offset),
        }
    }

    /// Takes note of a batch that stands at the end of what was known so far.
    pub(crate) fn note(&mut self, header: &Header, density: Density) {
        let position = u32::try_from(self.size_bytes).unwrap_or(u32::MAX);
        let last_offset = header.last_offset();
        if self.range.first == Timestamp::NONE {
            self.range.first = header.max_timestamp;
        }
        if header.max_timestamp > self.range.largest {
            self.range.largest = header.max_timestamp;
            self.range.offset_of_largest = last_offset;
        }
        if self.is_index_due(position, density) {
            self.offsets.push(last_offset, position);
            self.times
                .push(self.range.largest, self.range.offset_of_largest);
        }
        self.size_bytes += header.total_bytes() as u64;
        self.next_offset = last_offset.plus(1);
    }

    /// Depends on the bytes alone, so that a rebuilt index equals the first one.
    fn is_index_due(&self, position: u32, density: Density) -> bool {
        match density {
            Density::EveryBatch => true,
            Density::Interval(bytes) => {
                let last = self.offsets.last().map_or(0, |anchor| anchor.position);
                position - last > bytes
            }
        }
    }

    /// The aborted transactions that a reader of `[from, to)` may meet whose markers stand in this segment; `true`
    /// with them if no later segment can have more.
    pub(crate) fn aborted_in(
        &self,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedEntry>,
    ) -> bool {
        let skipped = self
            .aborted
            .partition_point(|entry| entry.last_offset < from);
        for entry in &self.aborted[skipped..] {
            if entry.first_offset < to {
                found.push(*entry);
            }
            if entry.last_stable_offset >= to {
                return true;
            }
        }
        false
    }
}
