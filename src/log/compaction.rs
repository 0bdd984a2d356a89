//! Compaction: keeps the latest record of each key, without ever changing what a transaction's outcome shows.
//!
//! Planned under the owner's lock, executed outside it, put in place under it again. Offsets and sequences never
//! change; gaps between batches are announced in `cleaner-offset-checkpoint` before there are any.
//!
//! Removed: records with a later one of the same key; records of aborted transactions; tombstones and markers
//! that outlived their delete horizon. Kept, if need be without records: a batch in a living producer's window
//! (I6), and the last batch of each new segment, so that it still ends where it did.
//! A marker stays while a data batch of its transaction was seen in the same pass.
//!
//! ```text
//! n × .log ──► .log.cleaned ──sync──► .log.swap ──sync dir──► (the n − 1 others removed) ──sync dir──► .log
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::aborted::AbortedEntry;
use super::cache::{SegmentCache, SegmentFile};
use super::cleaner::{Cleaner, LatestOffsets};
use super::error::LogError;
use super::partition::PartitionLog;
use super::scan::{ScanRange, Visit, scan};
use super::segment::Segment;
use super::sync::SyncPlan;
use super::{derived, leftovers, metadata, names};
use crate::env::{Dir, Env};
use crate::protocol::batch::Header;
use crate::types::{Offset, ProducerId, Timestamp};

/// After so many bytes of a segment a compaction asks whether it is still wanted: a closing log waits no longer.
const ASK_BYTES: u64 = 1 << 20;

/// Report of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionReport {
    /// Bytes of the segments before.
    pub before_bytes: u64,
    /// Bytes of the segments after.
    pub after_bytes: u64,
    /// Everything below has been compacted.
    pub cleaned_end: Offset,
}

/// A segment as it is to be read.
pub(super) struct Source {
    pub(super) base_offset: Offset,
    pub(super) next_offset: Offset,
    file: SegmentFile,
    pub(super) size_bytes: u64,
}

/// A compaction that was planned under the lock, to be executed outside it.
pub struct CompactionPlan {
    pub(super) env: Env,
    pub(super) cache: Arc<SegmentCache>,
    pub(super) dir: PathBuf,
    /// First sync: a marker must not be lost to a power loss after records of its transaction are gone.
    sync: Option<SyncPlan>,
    /// Segments that become one.
    groups: Vec<Vec<Source>>,
    /// Keys are collected from here on.
    dirty_from: Offset,
    gaps_below: Offset,
    pub(super) aborted: AbortedRanges,
    /// Last offsets of batches that stay, even empty.
    pub(super) kept_offsets: HashSet<Offset>,
    memory_bytes: usize,
    pub(super) now: Timestamp,
    /// Delete horizon for a tombstone or marker that is due.
    pub(super) horizon: Timestamp,
}

impl std::fmt::Debug for CompactionPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactionPlan")
            .field("dir", &self.dir)
            .field("dirty_from", &self.dirty_from)
            .finish_non_exhaustive()
    }
}

/// Compacted segments that are not in place yet.
#[derive(Debug)]
pub struct Compacted {
    env: Env,
    sync: Option<SyncPlan>,
    segments: Vec<CompactedSegment>,
    cleaned_end: Offset,
}

#[derive(Debug)]
pub(super) struct CompactedSegment {
    pub(super) segment: Segment,
    /// Base offsets of the segments that it replaces.
    pub(super) replaces: Vec<Offset>,
    pub(super) before_bytes: u64,
}

/// The aborted transactions of each producer, by first offset.
#[derive(Debug, Default)]
pub(super) struct AbortedRanges(HashMap<ProducerId, Vec<AbortedEntry>>);

impl AbortedRanges {
    pub(super) fn has(&self, header: &Header) -> bool {
        let entries = self.0.get(&header.producer.id);
        header.is_transactional()
            && entries.is_some_and(|entries| {
                let count =
                    entries.partition_point(|entry| entry.first_offset <= header.base_offset);
                let last = entries[..count].last();
                last.is_some_and(|entry| header.base_offset <= entry.last_offset)
            })
    }

    pub(super) fn ended_by(&self, marker: &Header) -> Option<AbortedEntry> {
        let entries = self.0.get(&marker.producer.id)?;
        let is_ended = |entry: &&AbortedEntry| entry.last_offset == marker.base_offset;
        entries.iter().find(is_ended).copied()
    }
}

impl PartitionLog {
    /// Compacts at once if enough is dirty; `None` if not. `now` is the wall clock.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Corrupt`], [`LogError::StorageFull`], [`LogError::InvalidBatch`]: the log
    /// stands as it was, unless the error poisoned it.
    pub fn compact(&mut self, now: Timestamp) -> Result<Option<CompactionReport>, LogError> {
        let Some(plan) = self.plan_compaction(now)? else {
            return Ok(None);
        };
        let compacted = plan.execute(&|| true)?;
        self.finish_compaction(compacted).map(Some)
    }

    /// Plans a compaction; `None` if the log is not compacted, poisoned, or not dirty enough. There must be one at a
    /// time, and no retention beside it.
    ///
    /// # Errors
    /// [`LogError::Io`] if the index of a sealed segment cannot be read.
    pub fn plan_compaction(&mut self, now: Timestamp) -> Result<Option<CompactionPlan>, LogError> {
        self.plan_compaction_below(Offset(i64::MAX), now)
    }

    /// Plans a compaction of segments that end at or below an offset: no record goes for the sake of one behind it.
    ///
    /// # Errors
    /// As [`plan_compaction`](Self::plan_compaction).
    pub fn plan_compaction_below(
        &mut self,
        end: Offset,
        now: Timestamp,
    ) -> Result<Option<CompactionPlan>, LogError> {
        if self.poisoned.is_some() || !self.config.cleanup.is_compacting() {
            return Ok(None);
        }
        let cleanable: Vec<_> = self.cleanable(end, now).collect();
        let total_bytes: u64 = cleanable.iter().map(|segment| segment.size_bytes).sum();
        let is_dirty = |segment: &&&Segment| segment.next_offset > self.cleaned_end;
        let dirty = cleanable.iter().filter(is_dirty);
        let dirty_bytes: u64 = dirty.map(|segment| segment.size_bytes).sum();
        #[allow(clippy::cast_precision_loss, reason = "a ratio needs no more")]
        let ratio = dirty_bytes as f64 / total_bytes.max(1) as f64;
        let is_dirty_enough = ratio >= self.config.min_cleanable_dirty_ratio;
        if dirty_bytes == 0 || !(is_dirty_enough || self.is_overdue(&cleanable, now)) {
            return Ok(None);
        }
        let entries = self.producers.entries();
        let kept_offsets = entries.flat_map(|(_, entry)| {
            let window = entry.window.iter().map(|batch| batch.last_offset);
            window.chain(entry.last_marker)
        });
        let kept_offsets = kept_offsets.collect();
        let groups = self.groups(&cleanable);
        let aborted = self.aborted_ranges()?;
        Ok(Some(CompactionPlan {
            env: self.env.clone(),
            cache: self.cache.clone(),
            dir: self.dir.clone(),
            sync: self.plan_sync(),
            groups,
            dirty_from: self.cleaned_end,
            gaps_below: self.cleaned_end,
            aborted,
            kept_offsets,
            memory_bytes: self.config.compaction_memory_bytes,
            now,
            horizon: now.plus_millis(self.config.delete_retention_ms),
        }))
    }

    /// The sealed segments from the first on that end at or below `end`, are decided (C26), and are old enough.
    fn cleanable(&self, end: Offset, now: Timestamp) -> impl Iterator<Item = &Segment> {
        let stable = self.last_stable_offset().min(end);
        let lag_ms = self.config.min_compaction_lag_ms;
        let sealed = &self.segments[..self.segments.len() - 1];
        sealed.iter().take_while(move |segment| {
            let newest = || self.ages_from(segment);
            let is_old = lag_ms == 0
                || newest().is_some_and(|newest| now.0.saturating_sub(newest.0) >= lag_ms);
            segment.next_offset <= stable && is_old
        })
    }

    /// Whether a record that was never compacted is older than `max_compaction_lag_ms`.
    fn is_overdue(&self, cleanable: &[&Segment], now: Timestamp) -> bool {
        let dirty = cleanable
            .iter()
            .filter(|segment| segment.next_offset > self.cleaned_end);
        let oldest = dirty.map(|segment| segment.range.first.0).min();
        oldest
            .is_some_and(|oldest| now.0.saturating_sub(oldest) > self.config.max_compaction_lag_ms)
    }

    fn groups(&self, cleanable: &[&Segment]) -> Vec<Vec<Source>> {
        let mut groups: Vec<Vec<Source>> = Vec::new();
        let mut group_bytes = 0;
        for segment in cleanable {
            let base = groups.last().and_then(|group| group.first());
            let fits = base.is_some_and(|base| {
                segment.next_offset.since(base.base_offset) < i64::from(i32::MAX)
                    && group_bytes + segment.size_bytes <= u64::from(self.config.segment_bytes)
            });
            if !fits {
                groups.push(Vec::new());
                group_bytes = 0;
            }
            group_bytes += segment.size_bytes;
            if let Some(group) = groups.last_mut() {
                group.push(Source {
                    base_offset: segment.base_offset,
                    next_offset: segment.next_offset,
                    file: segment.cached().clone(),
                    size_bytes: segment.size_bytes,
                });
            }
        }
        groups
    }

    fn aborted_ranges(&self) -> Result<AbortedRanges, LogError> {
        let mut ranges = AbortedRanges::default();
        for segment in self.segments.iter().filter(|segment| segment.has_aborted()) {
            self.with_index(segment, |index| {
                for entry in &index.aborted {
                    ranges.0.entry(entry.producer_id).or_default().push(*entry);
                }
            })?;
        }
        Ok(ranges)
    }

    /// Puts compacted segments in the place of those that they replace.
    ///
    /// # Errors
    /// [`LogError::Io`]; it poisons the log, and the next opening finishes what was begun.
    pub fn finish_compaction(
        &mut self,
        compacted: Compacted,
    ) -> Result<CompactionReport, LogError> {
        self.check_usable()?;
        if let Some(sync) = &compacted.sync {
            self.synced(sync);
        }
        let cleaned_end = self.cleaned_end.max(compacted.cleaned_end);
        // F14: what takes a file handle comes before the first change.
        let announced = self.open_dir().and_then(|dir| {
            metadata::write_cleaned_end(&self.env, &self.dir, cleaned_end).map(|()| dir)
        });
        let dir = match announced {
            Ok(dir) => dir,
            Err(error @ LogError::TooManyFiles { .. }) => {
                compacted.discard();
                return Err(error);
            }
            Err(error) => return self.fail(error),
        };
        self.cleaned_end = cleaned_end;
        let mut report = CompactionReport {
            cleaned_end: compacted.cleaned_end,
            ..CompactionReport::default()
        };
        for replacement in compacted.segments {
            let after_bytes = replacement.segment.size_bytes;
            let before_bytes = replacement.before_bytes;
            match self.replace(&*dir, replacement) {
                Ok(true) => {
                    report.before_bytes += before_bytes;
                    report.after_bytes += after_bytes;
                }
                Ok(false) => {}
                Err(error) => return self.fail(error),
            }
        }
        Ok(report)
    }

    /// `false` if retention deleted one of the replaced segments meanwhile.
    fn replace(&mut self, dir: &dyn Dir, replacement: CompactedSegment) -> Result<bool, LogError> {
        let CompactedSegment {
            mut segment,
            replaces,
            ..
        } = replacement;
        let base_offset = segment.base_offset;
        let first = self
            .segments
            .iter()
            .position(|known| known.base_offset == base_offset);
        let bases = |index: usize| {
            let known = self.segments[index..].iter();
            known
                .map(|segment| segment.base_offset)
                .take(replaces.len())
        };
        let Some(first) = first.filter(|&index| bases(index).eq(replaces.iter().copied())) else {
            derived::remove_file(&self.env, &segment.path)?;
            return Ok(false);
        };
        let swap = names::swap_path(&self.dir, base_offset);
        let files = &self.env.files;
        files
            .rename(&segment.path, &swap)
            .map_err(LogError::io("rename", &segment.path))?;
        dir.sync()
            .map_err(LogError::io("sync directory", &self.dir))?;
        leftovers::put_in_place(
            &self.env,
            (&self.dir, dir),
            base_offset,
            replaces.iter().copied().skip(1),
        )?;
        let path = names::path(&self.dir, names::FileKind::Log, base_offset);
        segment.move_to(&self.cache, path);
        let index = segment.index_in_memory();
        match derived::write_segment(&self.env, &self.dir, &segment, index) {
            Ok(written) => segment.leave_index_to_files(written),
            Err(error) => {
                crate::env::warn!(%error, "indexes were not written: they will be rebuilt");
            }
        }
        self.segments
            .splice(first..first + replaces.len(), [segment]);
        Ok(true)
    }
}

impl CompactionPlan {
    /// Reads the segments and writes the compacted ones beside them, for as long as `is_wanted`.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Corrupt`], [`LogError::StorageFull`], [`LogError::InvalidBatch`],
    /// [`LogError::Cancelled`]; no segment is changed. If it was the sync that failed, every later sync fails too
    /// (F11): see [`PartitionLog::notice_failed_sync`].
    pub fn execute(mut self, is_wanted: &dyn Fn() -> bool) -> Result<Compacted, LogError> {
        let sync = self.sync.take();
        sync.as_ref().map_or(Ok(()), SyncPlan::execute)?;
        let mut latest = LatestOffsets::new(self.memory_bytes);
        let cleaned_end = self.collect_keys(&mut latest, is_wanted)?;
        let mut cleaner = Cleaner::new(&self, is_wanted, latest, cleaned_end);
        let mut segments = Vec::new();
        for group in &self.groups {
            if group
                .first()
                .is_none_or(|first| first.base_offset >= cleaned_end)
            {
                break;
            }
            let result = cleaner.clean(group);
            if result.is_err() {
                self.remove_cleaned();
            }
            segments.extend(result?);
        }
        Ok(Compacted {
            env: self.env.clone(),
            sync,
            segments,
            cleaned_end,
        })
    }

    fn remove_cleaned(&self) {
        for first in self.groups.iter().filter_map(|group| group.first()) {
            // Whatever stays behind is removed at the next opening.
            let path = names::cleaned_path(&self.dir, first.base_offset);
            let _ = derived::remove_file(&self.env, &path);
        }
    }

    /// Fills the map from the dirty part; returns the offset up to which it had room.
    fn collect_keys(
        &self,
        latest: &mut LatestOffsets,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Offset, LogError> {
        let mut end = None;
        for source in self.groups.iter().flatten() {
            if source.next_offset <= self.dirty_from {
                continue;
            }
            self.scan(source, is_wanted, &mut |header, bytes, _| {
                if end.is_some() || header.is_control() || self.aborted.has(header) {
                    return Ok(());
                }
                if header.base_offset >= self.dirty_from && !latest.add(bytes)? {
                    end = Some(header.base_offset);
                }
                Ok(())
            })?;
        }
        let last = self.groups.last().and_then(|group| group.last());
        let whole = last.map_or(self.dirty_from, |source| source.next_offset);
        Ok(end.unwrap_or(whole))
    }

    /// Reads the batches of one segment; damage is an error here.
    pub(super) fn scan(
        &self,
        source: &Source,
        is_wanted: &dyn Fn() -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), LogError> {
        let range = ScanRange {
            position: 0,
            end_position: source.size_bytes,
            expected: source.base_offset,
            gaps_below: self.gaps_below,
            leader_epoch_max: i32::MAX,
        };
        let mut asked_at = None;
        let mut visit = |header: &Header, bytes: &[u8], position: u64| {
            if asked_at != Some(position / ASK_BYTES) {
                asked_at = Some(position / ASK_BYTES);
                self.check_wanted(is_wanted)?;
            }
            visit(header, bytes, position)
        };
        let path = source.file.path();
        let file = source.file.open().map_err(LogError::io("open", path))?;
        match scan(&*file, path, range, &mut visit)? {
            None => Ok(()),
            Some(damage) => Err(LogError::corrupt(path, damage.position, damage.why)),
        }
    }

    fn check_wanted(&self, is_wanted: &dyn Fn() -> bool) -> Result<(), LogError> {
        match is_wanted() {
            true => Ok(()),
            false => Err(LogError::Cancelled {
                dir: self.dir.clone(),
            }),
        }
    }
}

impl Compacted {
    /// Removes what was written for a log that is gone. Whatever stays behind is removed at the next opening.
    pub fn discard(self) {
        for replacement in &self.segments {
            let _ = derived::remove_file(&self.env, &replacement.segment.path);
        }
    }
}
