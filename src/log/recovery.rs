//! Opening: finishes what a crash left, cuts a torn tail, refuses rot, rebuilds what is derived.
//!
//! Every step can be repeated: a crash in the middle leaves a directory that opens the same way (C9).
//!
//! 1. Leftovers go; a compaction that had been decided is finished (`leftovers.rs`).
//! 2. Each segment's indexes are taken if their manifest vouches for them. Those of sealed segments are only read
//!    when somebody needs them (`lookup.rs`), so that opening takes little, however many there are (I10).
//! 3. The rest is scanned from the newest trustworthy point. Damage above the durable end is the torn tail of
//!    the last writes and is cut (F1, F3, F4); damage below it, or in a sealed segment, is refused (F2). So is all
//!    damage in a log that was closed in order, but for what stands exactly behind its recorded end (F4).
//! 4. Producers are those of the newest snapshot at or before that point, and of the batches behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::aborted::AbortedEntry;
use super::cache::SegmentCache;
use super::derived::{self, Manifest};
use super::error::LogError;
use super::evidence::{Evidence, attested_end};
use super::leftovers::Listing;
use super::names::{self, FileKind};
use super::partition::PartitionLog;
use super::producer_state::ProducerState;
use super::scan::{Damage, ScanRange, scan};
use super::segment::{Density, IndexPlace, Segment};
use super::sync::Unsynced;
use super::{LogConfig, RecoveryMarks, RecoveryReport, metadata, rewrite};
use crate::env::Env;
use crate::protocol::batch::{Batch, ControlType, Header};
use crate::types::{Durability, Offset, Timestamp, TopicId};

/// Having scanned more than this, opening writes a checkpoint, so that the next opening need not.
const CHECKPOINT_AFTER_BYTES: u64 = 4 << 20;

/// Part of a segment that its derived files vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trust {
    bytes: u64,
    next_offset: Offset,
    /// The file's bytes.
    length_bytes: u64,
}

pub(super) struct Recovery<'a> {
    env: &'a Env,
    cache: &'a Arc<SegmentCache>,
    evidence: Option<&'a Evidence<'a>>,
    dir: &'a Path,
    config: LogConfig,
    durable_end: Offset,
    marks: RecoveryMarks,
    cleaned_end: Offset,
    segments: Vec<Segment>,
    trusts: Vec<Trust>,
    snapshots: Vec<Offset>,
    producers: ProducerState,
    report: RecoveryReport,
    now: Timestamp,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(
        (env, cache, evidence): (&'a Env, &'a Arc<SegmentCache>, Option<&'a Evidence<'a>>),
        dir: &'a Path,
        config: LogConfig,
        marks: RecoveryMarks,
        listing: &Listing,
    ) -> Result<Self, LogError> {
        let cleaned_end = metadata::read_cleaned_end(env, dir).unwrap_or_else(|| {
            // Nobody knows: a log that may have been compacted may have gaps in every sealed segment.
            let newest = listing.segments.last().copied().unwrap_or_default();
            match config.cleanup.is_compacting() {
                true => newest,
                false => Offset::ZERO,
            }
        });
        let mut recovery = Self {
            env,
            cache,
            evidence,
            dir,
            config,
            durable_end: marks.durable_end,
            marks,
            cleaned_end,
            segments: Vec::with_capacity(listing.segments.len().max(1)),
            trusts: Vec::with_capacity(listing.segments.len().max(1)),
            snapshots: listing.snapshots.clone(),
            producers: ProducerState::default(),
            report: RecoveryReport::default(),
            now: env.clock.wall(),
        };
        if let Some((&last, sealed)) = listing.segments.split_last() {
            for (index, &base_offset) in sealed.iter().enumerate() {
                recovery.load_sealed(listing, base_offset, listing.segments[index + 1]);
            }
            recovery.load_active(last)?;
        }
        Ok(recovery)
    }

    /// Takes a sealed segment, and its indexes if they can be trusted. Neither is opened: there may be very many (I10).
    fn load_sealed(&mut self, listing: &Listing, base_offset: Offset, next_base: Offset) {
        let path = names::path(self.dir, FileKind::Log, base_offset);
        let mut segment = Segment::at(self.cache, path, base_offset);
        let length_bytes = listing.length_bytes(FileKind::Log, base_offset);
        let length_bytes = length_bytes.unwrap_or_default();
        let manifest = Manifest::read(self.env, self.dir, base_offset).filter(|manifest| {
            manifest.covered_bytes == length_bytes
                && manifest.next_offset == next_base
                && self.is_synced(manifest)
                && manifest.indexes.fits(listing, base_offset)
        });
        match manifest {
            Some(manifest) => {
                manifest.vouch_for(&mut segment);
                segment.index = IndexPlace::Files(Mutex::new(manifest.indexes));
            }
            None => self.report.rebuilt_segments_count += 1,
        }
        self.push(segment, length_bytes);
    }

    /// Opens the last segment, with as much of its indexes as can be trusted.
    fn load_active(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let path = names::path(self.dir, FileKind::Log, base_offset);
        let mut segment = Segment::at(self.cache, path, base_offset);
        segment.pin()?;
        let length_bytes = segment
            .file()?
            .length_bytes()
            .map_err(LogError::io("read the size of", &segment.path))?;
        let manifest = Manifest::read(self.env, self.dir, base_offset);
        if let (Some(manifest), Durability::Fsync) = (manifest, self.config.durability) {
            // Under `Fsync` whatever is vouched for was synced before, and so was every sealed segment.
            self.durable_end = self.durable_end.max(manifest.next_offset);
        }
        let manifest = manifest
            .filter(|manifest| manifest.covered_bytes <= length_bytes && self.is_synced(manifest));
        let index = manifest.and_then(|manifest| {
            let index = manifest.indexes.read(self.env, self.dir, base_offset)?;
            Some((manifest, index))
        });
        if let Some((manifest, index)) = index {
            manifest.vouch_for(&mut segment);
            segment.index = IndexPlace::Memory(Box::new(index));
        }
        self.push(segment, length_bytes);
        Ok(())
    }

    fn push(&mut self, segment: Segment, length_bytes: u64) {
        self.trusts.push(Trust {
            bytes: segment.size_bytes,
            next_offset: segment.next_offset,
            length_bytes,
        });
        self.segments.push(segment);
    }

    /// Under `Process` a segment may have been sealed without a sync: after a power loss its manifest can be there
    /// without the bytes it vouches for. Only what the owner knows to be durable is taken without a look.
    fn is_synced(&self, manifest: &Manifest) -> bool {
        self.config.durability == Durability::Fsync
            || self.marks.clean_shutdown
            || manifest.next_offset <= self.marks.durable_end
    }

    pub(super) fn run(
        mut self,
        topic_id: TopicId,
    ) -> Result<(PartitionLog, RecoveryReport), LogError> {
        if self.segments.is_empty() {
            self.begin_empty()?;
        }
        let replay_from = self.load_producers();
        self.scan_all(replay_from)?;
        self.check_end()?;
        self.finish(topic_id)
    }

    /// There is no segment: allowed only if nothing durable can be missing.
    fn begin_empty(&mut self) -> Result<(), LogError> {
        if self.durable_end > self.marks.log_start || self.marks.clean_shutdown {
            let first = names::path(self.dir, FileKind::Log, self.marks.log_start);
            return Err(LogError::corrupt(
                &first,
                0,
                format!(
                    "there is no segment, but the log holds offsets {} up to {}",
                    self.marks.log_start, self.durable_end
                ),
            ));
        }
        let segment = Segment::create(self.cache, self.dir, self.marks.log_start)?;
        self.env
            .files
            .sync_dir(self.dir)
            .map_err(LogError::io("sync directory", self.dir))?;
        self.push(segment, 0);
        Ok(())
    }

    /// Takes the newest snapshot that is not behind anything to be rebuilt; returns the offset from which on
    /// batches must be replayed into it.
    fn load_producers(&mut self) -> Offset {
        let limit = self.vouched_end();
        // An older snapshot could hold transactions that ended in segments which retention has deleted since.
        let first = self.segments[0].base_offset;
        let usable: Vec<_> = self
            .snapshots
            .iter()
            .copied()
            .filter(|&offset| offset >= first)
            .collect();
        match derived::newest_snapshot(self.env, self.dir, &usable, limit) {
            Some((offset, state)) => {
                self.producers = state;
                offset
            }
            None => first,
        }
    }

    /// Up to where the derived files vouch for the log without a gap.
    fn vouched_end(&self) -> Offset {
        let is_open = |index: &usize| {
            let trust = self.trusts[*index];
            let next = self.segments.get(index + 1);
            trust.bytes < trust.length_bytes
                || next.is_none_or(|next| next.base_offset != trust.next_offset)
        };
        let first_open = (0..self.trusts.len()).find(is_open);
        first_open.map_or(Offset::ZERO, |index| self.trusts[index].next_offset)
    }

    /// Scans every segment that holds something at or behind `replay_from`, or that nothing vouches for.
    fn scan_all(&mut self, replay_from: Offset) -> Result<(), LogError> {
        for index in 0..self.segments.len() {
            let trust = self.trusts[index];
            let is_known = trust.bytes == trust.length_bytes && trust.next_offset <= replay_from;
            let damage = match is_known {
                true => None,
                false => self.scan_segment(index, replay_from)?,
            };
            if let Some(damage) = damage.or_else(|| self.hole_behind(index)) {
                self.cut(index, &damage)?;
                break;
            }
            if !is_known {
                self.write_snapshot_behind(index);
                self.write_rebuilt(index);
            }
        }
        Ok(())
    }

    /// Retention relies on a snapshot where each segment begins; the one that is there may be damaged.
    fn write_snapshot_behind(&self, index: usize) {
        let Some(next) = self.segments.get(index + 1) else {
            return;
        };
        let written =
            derived::write_snapshot(self.env, self.dir, next.base_offset, &self.producers);
        if let Err(error) = written {
            crate::env::warn!(%error, "a producer snapshot was not written");
        }
    }

    fn scan_segment(
        &mut self,
        index: usize,
        replay_from: Offset,
    ) -> Result<Option<Damage>, LogError> {
        let trust = self.trusts[index];
        let segment = &mut self.segments[index];
        let (position, expected) = match replay_from < trust.next_offset {
            true => (0, segment.base_offset),
            false => (trust.bytes, trust.next_offset),
        };
        let range = ScanRange {
            position,
            end_position: trust.length_bytes,
            expected,
            gaps_below: self.cleaned_end,
            leader_epoch_max: self.config.leader_epoch,
        };
        self.report.scanned_bytes += trust.length_bytes - position;
        let (file, path) = (segment.file()?, segment.path.clone());
        let density = match segment.base_offset < self.cleaned_end {
            true => Density::EveryBatch,
            false => Density::Interval(self.config.index_interval_bytes),
        };
        let (producers, now) = (&mut self.producers, self.now);
        scan(&*file, &path, range, &mut |header, batch, position| {
            let mut ended = None;
            if header.base_offset >= replay_from {
                ended = replay(producers, header, batch, now)
                    .map_err(|e| LogError::corrupt(&path, position, e.to_string()))?;
            }
            if position >= trust.bytes {
                segment.note(header, density);
                ended
                    .into_iter()
                    .for_each(|entry| segment.note_aborted(entry));
            }
            Ok(())
        })
    }

    /// A segment must end where the next one begins.
    fn hole_behind(&self, index: usize) -> Option<Damage> {
        let segment = &self.segments[index];
        let next = self.segments.get(index + 1)?;
        (segment.next_offset != next.base_offset).then(|| Damage {
            position: segment.size_bytes,
            expected: segment.next_offset,
            why: format!(
                "the segment ends before offset {}, but the next one begins with {}",
                segment.next_offset, next.base_offset
            ),
            is_unfinished: false,
        })
    }

    /// Cuts everything from `damage` on, if nothing durable is lost by it.
    fn cut(&mut self, index: usize, damage: &Damage) -> Result<(), LogError> {
        let is_sealed = index + 1 < self.segments.len();
        let attested_end = self.attested_end(index, damage)?;
        let is_foreign = !is_sealed && self.marks.clean_end == Some(damage.expected);
        let is_rot = (self.marks.clean_shutdown && !is_foreign)
            || damage.expected < self.durable_end.max(attested_end)
            || (is_sealed && self.config.durability == Durability::Fsync);
        let segment = &self.segments[index];
        // What was vouched for is durable, so it is never cut; besides, its index is not at hand.
        let is_vouched_for = matches!(segment.index, IndexPlace::Files(_));
        if is_rot || is_vouched_for {
            return Err(LogError::corrupt(
                &segment.path,
                damage.position,
                damage.why.clone(),
            ));
        }
        let lost_bytes = self.trusts[index].length_bytes - damage.position;
        crate::env::warn!(path = %segment.path.display(), position = damage.position, lost_bytes, why = damage.why, "a torn tail is cut");
        self.report.has_lost_batches |= is_sealed || !(is_foreign || damage.is_unfinished);
        self.report.cut_bytes += lost_bytes;
        // From the end to the front: a crash in between leaves a shorter torn tail.
        let lengths = self.trusts[index + 1..].iter();
        self.report.cut_bytes += lengths.map(|trust| trust.length_bytes).sum::<u64>();
        for later in self.segments.drain(index + 1..).rev() {
            derived::remove(self.env, self.dir, later.base_offset)?;
            derived::remove_file(self.env, &later.path)?;
        }
        self.trusts.truncate(index + 1);
        let segment = &mut self.segments[index];
        segment.pin()?;
        let file = segment.file()?;
        file.set_length(damage.position)
            .and_then(|()| file.sync_data())
            .map_err(LogError::io("cut the torn tail of", &segment.path))?;
        // What was cut must not come back behind what is written next.
        self.env
            .files
            .sync_dir(self.dir)
            .map_err(LogError::io("sync directory", self.dir))
    }

    /// Finds the durable end to which the whole batches behind the damage attest.
    fn attested_end(&self, index: usize, damage: &Damage) -> Result<Offset, LogError> {
        let mut attested = Offset::ZERO;
        let Some(evidence) = self.evidence else {
            return Ok(attested);
        };
        for later in index..self.segments.len() {
            let segment = &self.segments[later];
            let from = if later == index { damage.position } else { 0 };
            let range = (from, self.trusts[later].length_bytes);
            let file = segment.file()?;
            let found = attested_end(&*file, &segment.path, range, damage.expected, evidence);
            attested = attested.max(found?);
        }
        Ok(attested)
    }

    fn end(&self) -> Offset {
        self.segments
            .last()
            .map_or(self.marks.log_start, |segment| segment.next_offset)
    }

    /// The log must hold everything that is known to be durable.
    fn check_end(&mut self) -> Result<(), LogError> {
        let end = self.end();
        let Some(active) = self.segments.last() else {
            return Ok(());
        };
        let required = self.durable_end.max(self.marks.log_start);
        if end < required && self.config.durability == Durability::Fsync || end < self.durable_end {
            return Err(LogError::corrupt(
                &active.path,
                active.size_bytes,
                format!(
                    "the log ends before offset {end}, but everything up to {required} was on the disk"
                ),
            ));
        }
        if end < self.marks.log_start {
            return self.restart_at_log_start();
        }
        Ok(())
    }

    /// Under `Process`, a power loss took records back that had been deleted anyway: go on where the owner knows the log to begin.
    fn restart_at_log_start(&mut self) -> Result<(), LogError> {
        crate::env::warn!(dir = %self.dir.display(), log_start = %self.marks.log_start, "the log begins anew behind its end");
        self.report.has_lost_batches = true;
        for segment in self.segments.drain(..).rev() {
            derived::remove(self.env, self.dir, segment.base_offset)?;
            derived::remove_file(self.env, &segment.path)?;
        }
        self.trusts.clear();
        self.producers = ProducerState::default();
        self.begin_empty()
    }

    /// Writes the indexes of a sealed segment that were rebuilt, and leaves them to their files.
    fn write_rebuilt(&mut self, index: usize) {
        let is_sealed = index + 1 < self.segments.len();
        let segment = &mut self.segments[index];
        let IndexPlace::Memory(rebuilt) = &segment.index else {
            return;
        };
        if !is_sealed {
            return;
        }
        match derived::write_segment(self.env, self.dir, segment, rebuilt) {
            Ok(written) => segment.leave_index_to_files(written),
            Err(error) => {
                crate::env::warn!(%error, "rebuilt indexes were not written: they will be rebuilt again");
            }
        }
    }

    fn finish(self, topic_id: TopicId) -> Result<(PartitionLog, RecoveryReport), LogError> {
        let end = self.end();
        self.remove_newer_snapshots(end)?;
        let mut unsynced = Unsynced::default();
        unsynced.has_new_snapshots = true;
        let synced_end = match self.config.durability {
            Durability::Process => {
                self.not_known_durable()
                    .for_each(|segment| unsynced.note_roll(segment));
                self.durable_end
            }
            Durability::Fsync => {
                if self.marks.is_cache_suspect {
                    self.rewrite_tail()?;
                }
                self.sync_tail()?;
                end
            }
        };
        let first = self.segments[0].base_offset;
        let mut log = PartitionLog {
            env: self.env.clone(),
            cache: self.cache.clone(),
            dir: self.dir.to_owned(),
            topic_id,
            config: self.config,
            segments: self.segments,
            producers: self.producers,
            log_start: self.marks.log_start.max(first),
            synced_end,
            acknowledged_end: Offset::ZERO,
            last_stable: Offset::ZERO,
            cleaned_end: self.cleaned_end,
            unsynced,
            poisoned: None,
            has_damage: Arc::default(),
        };
        log.advance_last_stable();
        log.producers.begin_epochs_at(log.log_start);
        log.write_leader_epochs();
        if self.report.scanned_bytes > CHECKPOINT_AFTER_BYTES && synced_end == end {
            log.write_checkpoint();
        }
        Ok((log, self.report))
    }

    /// Syncs what a killed process left, maybe in memory only: readers must not see it before it is on the disk.
    fn sync_tail(&self) -> Result<(), LogError> {
        for segment in self.not_known_durable() {
            segment
                .file()?
                .sync_data()
                .map_err(LogError::io("sync", &segment.path))?;
        }
        self.env
            .files
            .sync_dir(self.dir)
            .map_err(LogError::io("sync directory", self.dir))
    }

    /// Writes what a failed sync may have left in memory once more: the last segment, and sealed ones that nothing vouches for.
    fn rewrite_tail(&self) -> Result<(), LogError> {
        let last = self.segments.len().saturating_sub(1);
        for (index, (segment, trust)) in self.segments.iter().zip(&self.trusts).enumerate() {
            let is_vouched_for = index < last && trust.bytes == trust.length_bytes;
            if is_vouched_for || segment.next_offset < self.marks.durable_end {
                continue;
            }
            let anchor = match &segment.index {
                IndexPlace::Memory(index) => index.offsets.floor(self.marks.durable_end),
                IndexPlace::Files(_) => None,
            };
            let position = anchor.map_or(0, |anchor| u64::from(anchor.position));
            let range = (position, segment.size_bytes);
            rewrite::bytes(&*segment.file()?, &segment.path, range)?;
            rewrite::name(self.env, self.dir, segment.base_offset)?;
        }
        Ok(())
    }

    fn not_known_durable(&self) -> impl Iterator<Item = &Segment> {
        let durable_end = self.marks.durable_end;
        let is_behind = move |segment: &&Segment| segment.next_offset > durable_end;
        self.segments.iter().filter(is_behind)
    }

    /// A snapshot of a tail that was cut must never be taken for one of what is written there next.
    fn remove_newer_snapshots(&self, end: Offset) -> Result<(), LogError> {
        let newer: Vec<PathBuf> = self
            .snapshots
            .iter()
            .filter(|&&offset| offset > end)
            .map(|&offset| names::path(self.dir, FileKind::Snapshot, offset))
            .collect();
        for path in &newer {
            derived::remove_file(self.env, path)?;
        }
        match newer.is_empty() {
            true => Ok(()),
            false => self
                .env
                .files
                .sync_dir(self.dir)
                .map_err(LogError::io("sync directory", self.dir)),
        }
    }
}

/// Applies a batch that stands in the log to the producers; returns the aborted transaction that it ended.
pub(super) fn replay(
    producers: &mut ProducerState,
    header: &Header,
    batch: &[u8],
    now: Timestamp,
) -> Result<Option<AbortedEntry>, crate::protocol::batch::BatchError> {
    if !header.is_control() {
        producers.apply(header, now);
        return Ok(None);
    }
    producers.note_epoch(header);
    let Some(marker) = Batch::parse(Bytes::copy_from_slice(batch))?.control()? else {
        return Ok(None);
    };
    let ended = producers.apply_marker(
        header.producer,
        marker.kind,
        marker.coordinator_epoch,
        (header.base_offset, header.max_timestamp),
        now,
    );
    Ok(ended
        .filter(|ended| ended.kind == ControlType::Abort)
        .map(AbortedEntry::from))
}
