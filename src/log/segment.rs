//! One segment: a file of record batches, with what is known of them in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::aborted::{self, AbortedEntry};
use super::cache::{SegmentCache, SegmentFile};
use super::derived::Fingerprint;
use super::error::LogError;
use super::index::{OffsetIndex, TimeIndex};
use super::names::{self, FileKind};
use crate::env::{File, OpenMode};
use crate::protocol::batch::Header;
use crate::types::{Offset, Timestamp};

/// One segment. The last one of a log is active, the others are sealed.
///
/// The active one keeps its file open and its index in memory. Of a sealed one, both are in the [`SegmentCache`].
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) path: Arc<Path>,
    file: SegmentFile,
    /// The file of an active segment, or of one that is being written.
    pub(super) pinned: Option<Arc<dyn File>>,
    /// Bytes of whole batches; the next one is written here.
    pub(crate) size_bytes: u64,
    /// One past the last offset.
    pub(crate) next_offset: Offset,
    pub(super) index: IndexPlace,
    pub(crate) range: TimeRange,
    newest: Mutex<Newest>,
}

/// Where a segment's index is.
pub(super) enum IndexPlace {
    /// In memory: the segment is active, or its index could not be written.
    Memory(Box<SegmentIndex>),
    /// In the index files, which must be these.
    Files(Mutex<Fingerprint>),
}

/// The indexes of one segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// By offset of the marker.
    pub(crate) aborted: Vec<AbortedEntry>,
}

impl SegmentIndex {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            aborted: Vec::new(),
        }
    }

    /// About what it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        // The time index has at most as many entries as the offset index, of twice the size.
        3 * self.offsets.size_bytes() + self.aborted.len() * aborted::ENTRY_BYTES
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

/// Where to look for a segment's newest record. Retention and rolling go by [`TimeRange`], in which markers count; a
/// reader sees records only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    /// No record has a larger timestamp; [`Timestamp::NONE`] if none has any.
    pub(crate) timestamp: Timestamp,
    /// An offset of the batch that is said to have it.
    pub(crate) offset: Offset,
}

impl Newest {
    pub(crate) fn none(base_offset: Offset) -> Self {
        Self {
            timestamp: Timestamp::NONE,
            offset: base_offset,
        }
    }
}

/// The timestamps of a segment's batches, markers among them.
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

/// Density of the index.
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
    pub(super) fn create(
        cache: &Arc<SegmentCache>,
        dir: &Path,
        base_offset: Offset,
    ) -> Result<Self, LogError> {
        let path = names::path(dir, FileKind::Log, base_offset);
        let file = cache
            .open(&path, OpenMode::CreateNew)
            .map_err(LogError::io("create segment", &path))?;
        Ok(Self::with_file(cache, base_offset, path, file))
    }

    /// A segment, as if it had no batches: recovery fills in what is there. Its file is not opened.
    pub(super) fn at(cache: &Arc<SegmentCache>, path: PathBuf, base_offset: Offset) -> Self {
        let path: Arc<Path> = path.into();
        Self {
            base_offset,
            file: SegmentFile::new(cache, path.clone()),
            path,
            pinned: None,
            size_bytes: 0,
            next_offset: base_offset,
            index: IndexPlace::Memory(Box::new(SegmentIndex::new(base_offset))),
            range: TimeRange::new(base_offset),
            newest: Mutex::new(Newest::none(base_offset)),
        }
    }

    /// A segment that is being written, of which no batch is known yet.
    pub(super) fn with_file(
        cache: &Arc<SegmentCache>,
        base_offset: Offset,
        path: PathBuf,
        file: Arc<dyn File>,
    ) -> Self {
        Self {
            pinned: Some(file),
            ..Self::at(cache, path, base_offset)
        }
    }

    /// The file, opened if it is not.
    pub(super) fn file(&self) -> Result<Arc<dyn File>, LogError> {
        match &self.pinned {
            Some(file) => Ok(file.clone()),
            None => self
                .file
                .open()
                .map_err(LogError::io("open segment", &self.path)),
        }
    }

    /// Its place in the cache.
    pub(super) fn cached(&self) -> &SegmentFile {
        &self.file
    }

    /// Keeps the file open from now on.
    pub(super) fn pin(&mut self) -> Result<(), LogError> {
        self.pinned = Some(self.file()?);
        Ok(())
    }

    /// Leaves the file to the cache: the segment is sealed.
    pub(super) fn unpin(&mut self) {
        if let Some(file) = self.pinned.take() {
            self.file.keep(file);
        }
    }

    /// The file has another name from now on.
    pub(super) fn move_to(&mut self, cache: &Arc<SegmentCache>, path: PathBuf) {
        self.pinned = None;
        self.path = path.into();
        self.file = SegmentFile::new(cache, self.path.clone());
    }

    /// The index has been written to files: from now on it is read from them when it is asked for.
    pub(super) fn leave_index_to_files(&mut self, written: Fingerprint) {
        let files = IndexPlace::Files(Mutex::new(written));
        if let IndexPlace::Memory(index) = std::mem::replace(&mut self.index, files) {
            self.file.keep_index(Arc::new(*index));
        }
    }

    /// The index of a segment that is being written.
    pub(super) fn index_in_memory(&self) -> &SegmentIndex {
        match &self.index {
            IndexPlace::Memory(index) => index,
            IndexPlace::Files(_) => unreachable!("only sealed segments leave their index to files"),
        }
    }

    fn index_mut(&mut self) -> &mut SegmentIndex {
        match &mut self.index {
            IndexPlace::Memory(index) => index,
            IndexPlace::Files(_) => unreachable!("only sealed segments leave their index to files"),
        }
    }

    /// The timestamps, as its files tell them, in which markers count.
    pub(super) fn set_range(&mut self, range: TimeRange) {
        self.range = range;
        *self.newest.get_mut() = Newest {
            timestamp: range.largest,
            offset: range.offset_of_largest,
        };
    }

    /// Where to look for the newest record.
    pub(super) fn newest(&self) -> Newest {
        *self.newest.lock()
    }

    /// Takes note of the newest record that there is.
    pub(super) fn set_newest(&self, newest: Newest) {
        *self.newest.lock() = newest;
    }

    /// Whether a transaction was aborted by a marker in this segment.
    pub(super) fn has_aborted(&self) -> bool {
        match &self.index {
            IndexPlace::Memory(index) => !index.aborted.is_empty(),
            IndexPlace::Files(files) => files.lock().has_aborted(),
        }
    }

    /// Takes note of an aborted transaction whose marker is the last batch.
    pub(super) fn note_aborted(&mut self, entry: AbortedEntry) {
        self.index_mut().aborted.push(entry);
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
        let newest = self.newest.get_mut();
        if header.max_timestamp > newest.timestamp && !header.is_control() {
            *newest = Newest {
                timestamp: header.max_timestamp,
                offset: last_offset,
            };
        }
        let newest = *newest;
        let index = self.index_mut();
        if index.offsets.is_due(position, density) {
            index.offsets.push(last_offset, position);
            index.times.push(newest.timestamp, newest.offset);
        }
        self.size_bytes += header.total_bytes() as u64;
        self.next_offset = last_offset.plus(1);
    }
}
