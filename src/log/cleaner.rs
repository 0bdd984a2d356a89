//! The pass of a compaction: decides about each batch, and writes what stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::append::is_storage_full;
use super::cache::SegmentCache;
use super::compaction::{CompactedSegment, CompactionPlan, Source};
use super::error::LogError;
use super::segment::{Density, Segment};
use super::{derived, names};
use crate::env::{File, OpenMode};
use crate::protocol::batch::{
    Batch, BatchError, DecompressionLimit, Header, Record, Records, emptied, rewrite,
};
use crate::types::{Offset, ProducerId};

/// Bytes of a key in the map besides its own: 16 of the allocator, and up to 57 in a table that has just grown.
const KEY_OVERHEAD_BYTES: usize = 73;

/// The latest offset of each key, in bounded memory.
pub(super) struct LatestOffsets {
    offsets: HashMap<Box<[u8]>, Offset>,
    used_bytes: usize,
    memory_bytes: usize,
}

impl LatestOffsets {
    pub(super) fn new(memory_bytes: usize) -> Self {
        Self {
            offsets: HashMap::new(),
            used_bytes: 0,
            memory_bytes,
        }
    }

    /// Takes note of a batch's keys; `false` if the memory was full before. One batch may overshoot.
    pub(super) fn add(&mut self, batch: &[u8]) -> Result<bool, LogError> {
        if self.used_bytes > self.memory_bytes {
            return Ok(false);
        }
        let batch = Batch::parse(Bytes::copy_from_slice(batch))?;
        // Nobody can read what an older release took unseen: such a batch supersedes nothing.
        if let Ok(records) = readable(&batch) {
            records.iter().flatten().for_each(|it| self.add_record(&it));
        }
        Ok(true)
    }

    fn add_record(&mut self, record: &Record<'_>) {
        let Some(key) = record.key else { return };
        match self.offsets.get_mut(key) {
            Some(offset) => *offset = record.offset,
            None => {
                self.used_bytes += key.len() + KEY_OVERHEAD_BYTES;
                self.offsets.insert(key.into(), record.offset);
            }
        }
    }

    fn has_later(&self, key: &[u8], offset: Offset) -> bool {
        self.offsets.get(key).is_some_and(|&latest| latest > offset)
    }
}

/// The records of a batch, if every one of them can be read.
fn readable(batch: &Batch) -> Result<Records, BatchError> {
    let records = batch.records(&DecompressionLimit::default())?;
    records.iter().try_for_each(|record| record.map(drop))?;
    Ok(records)
}

/// Fate of a batch.
enum Fate {
    Keep,
    Rewrite(Bytes),
    Discard,
}

/// One pass over the segments of a plan, in order.
pub(super) struct Cleaner<'a> {
    plan: &'a CompactionPlan,
    is_wanted: &'a dyn Fn() -> bool,
    latest: LatestOffsets,
    cleaned_end: Offset,
    /// Producers of whose open transaction a data batch was read in this pass.
    data_seen: HashSet<ProducerId>,
}

impl<'a> Cleaner<'a> {
    /// Keeps what `latest` knows no later record of; batches from `cleaned_end` on are copied as they are.
    pub(super) fn new(
        plan: &'a CompactionPlan,
        is_wanted: &'a dyn Fn() -> bool,
        latest: LatestOffsets,
        cleaned_end: Offset,
    ) -> Self {
        Self {
            plan,
            is_wanted,
            latest,
            cleaned_end,
            data_seen: HashSet::new(),
        }
    }

    /// Writes one segment in place of `group`; `None` if that would change nothing.
    pub(super) fn clean(&mut self, group: &[Source]) -> Result<Option<CompactedSegment>, LogError> {
        let Some(first) = group.first() else {
            return Ok(None);
        };
        let path = names::cleaned_path(&self.plan.dir, first.base_offset);
        derived::remove_file(&self.plan.env, &path)?;
        let mut writer = Writer::create(&self.plan.cache, path, first.base_offset)?;
        let mut discarded = Bytes::new();
        let mut is_changed = group.len() > 1;
        for source in group {
            let (plan, is_wanted) = (self.plan, self.is_wanted);
            plan.scan(source, is_wanted, &mut |header, bytes, _| {
                match self.fate(header, bytes)? {
                    Fate::Keep => writer.write(header, bytes, plan)?,
                    Fate::Rewrite(bytes) => {
                        is_changed = true;
                        writer.write(&Header::parse(&bytes)?, &bytes, plan)?;
                    }
                    Fate::Discard => {
                        is_changed = true;
                        discarded = Bytes::copy_from_slice(bytes);
                    }
                }
                Ok(())
            })?;
        }
        let end = group
            .last()
            .map_or(first.base_offset, |last| last.next_offset);
        if writer.segment.next_offset < end {
            let bytes = emptied(&Batch::parse(discarded)?);
            writer.write(&Header::parse(&bytes)?, &bytes, self.plan)?;
        }
        assert_eq!(
            writer.segment.next_offset, end,
            "a compacted segment ends where it did"
        );
        if !is_changed {
            derived::remove_file(&self.plan.env, &writer.segment.path)?;
            return Ok(None);
        }
        Ok(Some(CompactedSegment {
            segment: writer.finish()?,
            replaces: group.iter().map(|source| source.base_offset).collect(),
            before_bytes: group.iter().map(|source| source.size_bytes).sum(),
        }))
    }

    fn fate(&mut self, header: &Header, bytes: &[u8]) -> Result<Fate, LogError> {
        if header.base_offset >= self.cleaned_end {
            return Ok(Fate::Keep);
        }
        if header.is_control() {
            return self.fate_of_marker(header, bytes);
        }
        if header.is_transactional() {
            self.data_seen.insert(header.producer.id);
        }
        let is_kept_empty = self.plan.kept_offsets.contains(&header.last_offset());
        let is_aborted = self.plan.aborted.has(header);
        if is_aborted && !is_kept_empty {
            return Ok(Fate::Discard);
        }
        let batch = Batch::parse(Bytes::copy_from_slice(bytes))?;
        if is_aborted {
            return Ok(match header.records_count {
                0 => Fate::Keep,
                _ => Fate::Rewrite(emptied(&batch).freeze()),
            });
        }
        let (kept_count, has_tombstone) = match self.count_kept(&batch) {
            Ok(counted) => counted,
            Err(error) => {
                let dir = self.plan.dir.display();
                crate::env::warn!(%dir, offset = %header.base_offset, %error, "compaction keeps a batch that nobody can read");
                return Ok(Fate::Keep);
            }
        };
        if kept_count == 0 && !is_kept_empty {
            return Ok(Fate::Discard);
        }
        let is_whole = kept_count == header.records_count;
        let needs_horizon = has_tombstone && header.delete_horizon().is_none();
        if is_whole && !needs_horizon {
            return Ok(Fate::Keep);
        }
        let horizon = needs_horizon.then_some(self.plan.horizon);
        let bytes = rewrite(&batch, &DecompressionLimit::default(), horizon, |record| {
            self.is_kept(header, record.key, record.value, record.offset)
        })?;
        Ok(Fate::Rewrite(bytes.freeze()))
    }

    /// Counts the records that stay; tells whether one is a tombstone.
    fn count_kept(&self, batch: &Batch) -> Result<(i32, bool), BatchError> {
        let mut kept_count = 0;
        let mut has_tombstone = false;
        let mut records = batch.records(&DecompressionLimit::default())?;
        while let Some(record) = records.next() {
            let record = record?;
            if self.is_kept(batch.header(), record.key, record.value, record.offset) {
                kept_count += 1;
                has_tombstone |= record.value.is_none();
            }
        }
        Ok((kept_count, has_tombstone))
    }

    fn is_kept(
        &self,
        header: &Header,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        offset: Offset,
    ) -> bool {
        let is_latest = key.is_none_or(|key| !self.latest.has_later(key, offset));
        let is_dead = key.is_some() && value.is_none() && self.is_past_horizon(header);
        is_latest && !is_dead
    }

    fn is_past_horizon(&self, header: &Header) -> bool {
        header
            .delete_horizon()
            .is_some_and(|horizon| horizon <= self.plan.now)
    }

    fn fate_of_marker(&mut self, header: &Header, bytes: &[u8]) -> Result<Fate, LogError> {
        let is_needed = self.data_seen.remove(&header.producer.id)
            || self.plan.kept_offsets.contains(&header.last_offset());
        if is_needed {
            return Ok(Fate::Keep);
        }
        if self.is_past_horizon(header) {
            return Ok(Fate::Discard);
        }
        if header.delete_horizon().is_some() {
            return Ok(Fate::Keep);
        }
        let batch = Batch::parse(Bytes::copy_from_slice(bytes))?;
        let horizon = Some(self.plan.horizon);
        let bytes = rewrite(&batch, &DecompressionLimit::default(), horizon, |_| true)?;
        Ok(Fate::Rewrite(bytes.freeze()))
    }
}

/// Writes a compacted segment.
struct Writer {
    segment: Segment,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written_bytes: u64,
}

impl Writer {
    const BUFFER_BYTES: usize = 1 << 20;

    fn create(
        cache: &Arc<SegmentCache>,
        path: PathBuf,
        base_offset: Offset,
    ) -> Result<Self, LogError> {
        let file = cache
            .open(&path, OpenMode::CreateNew)
            .map_err(|error| storage_error("create segment", &path, error))?;
        Ok(Self {
            segment: Segment::at(cache, path, base_offset),
            file,
            buffer: Vec::with_capacity(Self::BUFFER_BYTES),
            written_bytes: 0,
        })
    }

    fn write(
        &mut self,
        header: &Header,
        bytes: &[u8],
        plan: &CompactionPlan,
    ) -> Result<(), LogError> {
        self.buffer.extend_from_slice(bytes);
        self.segment.note(header, Density::EveryBatch);
        if header.is_control() {
            let ended = plan.aborted.ended_by(header);
            ended
                .into_iter()
                .for_each(|entry| self.segment.note_aborted(entry));
        }
        match self.buffer.len() >= Self::BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.file
            .write_all_at(&self.buffer, self.written_bytes)
            .map_err(|error| storage_error("write", &self.segment.path, error))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Segment, LogError> {
        self.flush()?;
        assert_eq!(
            self.written_bytes, self.segment.size_bytes,
            "all that was noted is written"
        );
        self.file
            .sync_data()
            .map_err(LogError::io("sync", &self.segment.path))?;
        Ok(self.segment)
    }
}

fn storage_error(action: &'static str, path: &Path, error: std::io::Error) -> LogError {
    match is_storage_full(&error) {
        true => LogError::StorageFull {
            path: path.to_owned(),
        },
        false => LogError::io(action, path)(error),
    }
}
