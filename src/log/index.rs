//! The offset index and the time index of one segment, in memory and as bytes.
//!
//! ```text
//! .index      0 relative_offset i32   4 position i32           the batch at `position` ends with that offset
//! .timeindex  0 timestamp i64         8 relative_offset i32    up to that offset, no record is younger
//! ```
//! Both are derived: they are written when a segment is sealed and at checkpoints, and rebuilt from the batches.

use bytes::{Buf, BufMut};

use super::segment::Density;
use crate::types::{Offset, Timestamp};

/// The size of an offset index entry.
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// The size of a time index entry.
pub(crate) const TIME_ENTRY_BYTES: usize = 12;

/// A place where a scan may begin: the batch at `position` ends with `last_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) last_offset: Offset,
    pub(crate) position: u32,
}

/// The sparse offset index of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    base_offset: Offset,
    /// Last offset relative to the base, and position of its batch; both increase.
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            base_offset,
            entries: Vec::new(),
        }
    }

    /// Adds the batch at `position`. The caller made sure that the relative offset fits 31 bits.
    pub(crate) fn push(&mut self, last_offset: Offset, position: u32) {
        let relative = u32::try_from(last_offset.since(self.base_offset));
        if let Ok(relative) = relative {
            self.entries.push((relative, position));
        }
    }

    /// Whether the batch at `position` is to be indexed. Depends on the bytes alone, so that a rebuilt index equals
    /// the first one.
    pub(crate) fn is_due(&self, position: u32, density: Density) -> bool {
        match density {
            Density::EveryBatch => true,
            Density::Interval(bytes) => {
                let last = self.last().map_or(0, |anchor| anchor.position);
                position - last > bytes
            }
        }
    }

    /// The last anchor at or before `offset`.
    pub(crate) fn floor(&self, offset: Offset) -> Option<Anchor> {
        let wanted = offset.since(self.base_offset);
        let count = self
            .entries
            .partition_point(|&(relative, _)| i64::from(relative) <= wanted);
        self.entries[..count]
            .last()
            .map(|&entry| self.anchor(entry))
    }

    /// The first anchor at or behind `position`.
    pub(crate) fn at_or_after_position(&self, position: u64) -> Option<Anchor> {
        let skipped = self
            .entries
            .partition_point(|&(_, at)| u64::from(at) < position);
        self.entries.get(skipped).map(|&entry| self.anchor(entry))
    }

    /// The last anchor that stands before `position` and before the batch of offset `to`.
    pub(crate) fn last_before(&self, position: u64, to: Offset) -> Option<Anchor> {
        let wanted = to.since(self.base_offset);
        let count = self.entries.partition_point(|&(relative, at)| {
            u64::from(at) < position && i64::from(relative) < wanted
        });
        self.entries[..count]
            .last()
            .map(|&entry| self.anchor(entry))
    }

    /// The anchors of `[from, to)`, in bytes.
    pub(crate) fn between(&self, from: u64, to: u64) -> Vec<Anchor> {
        let first = self
            .entries
            .partition_point(|&(_, at)| u64::from(at) < from);
        let entries = self.entries[first..].iter();
        entries
            .take_while(|&&(_, at)| u64::from(at) < to)
            .map(|&entry| self.anchor(entry))
            .collect()
    }

    /// The last anchor.
    pub(crate) fn last(&self) -> Option<Anchor> {
        self.entries.last().map(|&entry| self.anchor(entry))
    }

    fn anchor(&self, (relative, position): (u32, u32)) -> Anchor {
        Anchor {
            last_offset: self.base_offset.plus(i64::from(relative)),
            position,
        }
    }

    /// Bytes of the index as a file.
    pub(crate) fn size_bytes(&self) -> usize {
        self.entries.len() * OFFSET_ENTRY_BYTES
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size_bytes());
        for &(relative, position) in &self.entries {
            bytes.put_u32(relative);
            bytes.put_u32(position);
        }
        bytes
    }

    /// Reads a file's bytes; `None` if they cannot be an index.
    pub(crate) fn decode(base_offset: Offset, mut bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(OFFSET_ENTRY_BYTES) {
            return None;
        }
        let mut entries = Vec::with_capacity(bytes.len() / OFFSET_ENTRY_BYTES);
        while bytes.has_remaining() {
            entries.push((bytes.get_u32(), bytes.get_u32()));
        }
        let is_increasing = entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
        is_increasing.then_some(Self {
            base_offset,
            entries,
        })
    }
}

/// The sparse time index of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    base_offset: Offset,
    /// Largest timestamp so far, and last offset of the batch that has it, relative to the base; timestamps increase.
    entries: Vec<(Timestamp, u32)>,
}

impl TimeIndex {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            base_offset,
            entries: Vec::new(),
        }
    }

    /// Adds an entry if `timestamp` is above the last one's.
    pub(crate) fn push(&mut self, timestamp: Timestamp, offset: Offset) {
        let is_newer = self.entries.last().is_none_or(|last| last.0 < timestamp);
        if let (true, Ok(relative)) = (is_newer, u32::try_from(offset.since(self.base_offset))) {
            self.entries.push((timestamp, relative));
        }
    }

    /// An offset before which no record has a timestamp of at least `timestamp`.
    pub(crate) fn search_start(&self, timestamp: Timestamp) -> Offset {
        let count = self.entries.partition_point(|entry| entry.0 < timestamp);
        match self.entries[..count].last() {
            // The entry's batch and all before it are older than `timestamp`: the search may begin there.
            Some(&(_, relative)) => self.base_offset.plus(i64::from(relative)),
            None => self.base_offset,
        }
    }

    /// The newest of the batches that are indexed below `to`: its timestamp and its last offset.
    pub(crate) fn newest_before(&self, to: Offset) -> Option<(Timestamp, Offset)> {
        let wanted = to.since(self.base_offset);
        let count = self
            .entries
            .partition_point(|&(_, relative)| i64::from(relative) < wanted);
        let &(timestamp, relative) = self.entries[..count].last()?;
        Some((timestamp, self.base_offset.plus(i64::from(relative))))
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * TIME_ENTRY_BYTES);
        for &(timestamp, relative) in &self.entries {
            bytes.put_i64(timestamp.0);
            bytes.put_u32(relative);
        }
        bytes
    }

    /// Reads a file's bytes; `None` if they cannot be an index.
    pub(crate) fn decode(base_offset: Offset, mut bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(TIME_ENTRY_BYTES) {
            return None;
        }
        let mut entries = Vec::with_capacity(bytes.len() / TIME_ENTRY_BYTES);
        while bytes.has_remaining() {
            entries.push((Timestamp(bytes.get_i64()), bytes.get_u32()));
        }
        let is_increasing = entries.is_sorted_by(|a, b| a.0 < b.0);
        is_increasing.then_some(Self {
            base_offset,
            entries,
        })
    }
}
