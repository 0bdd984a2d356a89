//! Deletion of old records: by time, by size, by request; and the explicit cut of a damaged end.

use super::RecoveryMarks;
use super::derived;
use super::error::LogError;
use super::leftovers::Listing;
use super::names::{self, FileKind};
use super::partition::PartitionLog;
use super::scan::{ScanRange, scan};
use super::segment::Segment;
use crate::env::{Dir, OpenMode};
use crate::types::{Offset, Timestamp};

/// Besides those where segments begin, so many of the newest producer snapshots are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// A segment that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    /// Its base offset.
    pub base_offset: Offset,
    /// Its size.
    pub size_bytes: u64,
}

impl PartitionLog {
    /// Deletes all records before `before`, and returns the new log start offset. Readers see it at once; the owner
    /// makes it last ([`RecoveryMarks::log_start`]); the space is freed by [`PartitionLog::apply_retention`].
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] past the last stable offset: an open transaction is never cut (C26); and for a
    /// negative offset.
    pub fn delete_records(&mut self, before: Offset) -> Result<Offset, LogError> {
        self.check_usable()?;
        if before < Offset::ZERO || before > self.last_stable_offset() {
            return Err(LogError::OffsetOutOfRange {
                offset: before,
                start: self.log_start,
                end: self.last_stable_offset(),
            });
        }
        self.log_start = self.log_start.max(before);
        self.producers.begin_epochs_at(self.log_start);
        Ok(self.log_start)
    }

    /// Deletes segments by time, size and log start offset, and forgets idle producers. `now` is the wall clock.
    ///
    /// Never deletes at or behind the last stable offset, and so no record of an open transaction (C26).
    ///
    /// # Errors
    /// [`LogError::Io`]; if names could not be synced, the log is poisoned.
    pub fn apply_retention(&mut self, now: Timestamp) -> Result<Vec<DeletedSegment>, LogError> {
        self.begin_retention(now)?;
        let mut deleted = Vec::new();
        while let Some(segment) = self.delete_expired(now)? {
            deleted.push(segment);
        }
        self.end_retention()?;
        Ok(deleted)
    }

    /// The first step of [`PartitionLog::apply_retention`], for an owner that lets others in between the steps.
    ///
    /// # Errors
    /// As [`PartitionLog::apply_retention`].
    pub fn begin_retention(&mut self, now: Timestamp) -> Result<(), LogError> {
        self.check_usable()?;
        let expiration = self.config.producer_id_expiration.as_millis();
        self.producers
            .expire(now, i64::try_from(expiration).unwrap_or(i64::MAX));
        self.roll_expired(now)
    }

    /// The next step: deletes one segment; `None` if there is none to be deleted.
    ///
    /// # Errors
    /// As [`PartitionLog::apply_retention`].
    pub fn delete_expired(&mut self, now: Timestamp) -> Result<Option<DeletedSegment>, LogError> {
        self.check_usable()?;
        if !self.is_first_deletable(now) {
            return Ok(None);
        }
        // A marker must not be lost to a power loss after records of its transaction are gone.
        self.sync_now()?;
        self.delete_first().map(Some)
    }

    /// The last step: removes producer snapshots that nobody will look for.
    ///
    /// # Errors
    /// As [`PartitionLog::apply_retention`].
    pub fn end_retention(&mut self) -> Result<(), LogError> {
        if std::mem::take(&mut self.unsynced.has_new_snapshots) {
            self.remove_old_snapshots()?;
        }
        Ok(())
    }

    /// Seals an active segment whose records are all too old, so that it can be deleted.
    fn roll_expired(&mut self, now: Timestamp) -> Result<(), LogError> {
        let active = self.active();
        let is_settled = self.last_stable_offset() == self.log_end_offset();
        if active.size_bytes > 0 && is_settled && self.is_expired(active, now) {
            self.roll()?;
        }
        Ok(())
    }

    fn is_expired(&self, segment: &Segment, now: Timestamp) -> bool {
        let Some(retention_ms) = self.config.retention_ms else {
            return false;
        };
        self.config.cleanup.is_deleting()
            && self
                .ages_from(segment)
                .is_some_and(|newest| now.0.saturating_sub(newest.0) > retention_ms)
    }

    /// The time from which a segment ages: its largest timestamp, or when its file was last changed if no record has one.
    /// `None` if that cannot be told.
    pub(super) fn ages_from(&self, segment: &Segment) -> Option<Timestamp> {
        if segment.range.largest > Timestamp::NONE {
            return Some(segment.range.largest);
        }
        let modified = self.env.files.modified(&segment.path);
        modified
            .inspect_err(|error| {
                let path = segment.path.display();
                crate::env::warn!(%path, %error, "a segment's age is not known: it is kept");
            })
            .ok()
    }

    fn is_first_deletable(&self, now: Timestamp) -> bool {
        let [first, second, ..] = &self.segments[..] else {
            return false;
        };
        let is_free = second.base_offset <= self.last_stable_offset();
        let is_surplus = self.config.cleanup.is_deleting()
            && self.config.retention_bytes.is_some_and(|retention_bytes| {
                let kept = self.size_bytes() - first.size_bytes;
                i64::try_from(kept).unwrap_or(i64::MAX) >= retention_bytes
            });
        is_free
            && (second.base_offset <= self.log_start || is_surplus || self.is_expired(first, now))
    }

    fn delete_first(&mut self) -> Result<DeletedSegment, LogError> {
        // F14: what takes a file handle comes before the first change.
        let dir = self.open_dir()?;
        self.keep_producers(&*dir, self.segments[1].base_offset)?;
        derived::remove_file(&self.env, &self.segments[0].path)?;
        let first = self.segments.remove(0);
        self.log_start = self.log_start.max(self.segments[0].base_offset);
        self.producers.begin_epochs_at(self.log_start);
        // I9: one name is gone for good before the next one goes, so that a power loss leaves no hole between segments.
        if let Err(error) = dir.sync() {
            let error = LogError::io("sync directory", &self.dir)(error);
            return self.fail(error);
        }
        derived::remove(&self.env, &self.dir, first.base_offset)?;
        Ok(DeletedSegment {
            base_offset: first.base_offset,
            size_bytes: first.size_bytes,
        })
    }

    /// Makes the producer snapshot at `base_offset` durable: once the batches before it are gone, nothing else
    /// tells what their producers wrote last (I6, C26).
    fn keep_producers(&mut self, dir: &dyn Dir, base_offset: Offset) -> Result<(), LogError> {
        let path = names::path(&self.dir, FileKind::Snapshot, base_offset);
        let files = &self.env.files;
        if !files
            .exists(&path)
            .map_err(LogError::io("look for", &path))?
        {
            crate::env::warn!(path = %path.display(), "no producer snapshot: producers without later records will be forgotten");
            return Ok(());
        }
        let file = self.cache.open(&path, OpenMode::Write);
        let file = file.map_err(LogError::io("open", &path))?;
        match file.sync_data().and_then(|()| dir.sync()) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(LogError::io("sync", &path)(error)),
        }
    }

    /// Removes the snapshots that no recovery will look for: those before the log, and those within segments but the newest.
    fn remove_old_snapshots(&self) -> Result<(), LogError> {
        let snapshots = Listing::read(&self.env, &self.dir)?.snapshots;
        let newest = snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        for &offset in &snapshots[..newest] {
            let is_base = self
                .segments
                .binary_search_by_key(&offset, |segment| segment.base_offset)
                .is_ok();
            if !is_base {
                let path = names::path(&self.dir, FileKind::Snapshot, offset);
                derived::remove_file(&self.env, &path)?;
            }
        }
        Ok(())
    }

    /// Cuts the batch that holds `to` and everything behind it, acknowledged or not, durably. For tests and explicit repair only.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] outside the log; [`LogError::Io`]; [`LogError::Corrupt`] if what remains is damaged.
    pub fn truncate(&mut self, to: Offset) -> Result<(), LogError> {
        if to < self.log_start || to > self.log_end_offset() {
            return Err(LogError::OffsetOutOfRange {
                offset: to,
                start: self.log_start,
                end: self.log_end_offset(),
            });
        }
        let index = self.segment_of(to);
        let position = self.position_of(index, to)?;
        // What vouches for the end goes first: a crash in between must not look like damage.
        for segment in &self.segments[index..] {
            derived::remove(&self.env, &self.dir, segment.base_offset)?;
        }
        for offset in Listing::read(&self.env, &self.dir)?.snapshots {
            if offset > to {
                let path = names::path(&self.dir, FileKind::Snapshot, offset);
                derived::remove_file(&self.env, &path)?;
            }
        }
        self.sync_names()?;
        for segment in self.segments[index + 1..].iter().rev() {
            derived::remove_file(&self.env, &segment.path)?;
        }
        let segment = &self.segments[index];
        let file = segment.file()?;
        file.set_length(position)
            .and_then(|()| file.sync_data())
            .map_err(LogError::io("cut", &segment.path))?;
        self.sync_names()?;
        let marks = RecoveryMarks {
            log_start: self.log_start,
            ..RecoveryMarks::default()
        };
        let config = self.config.clone();
        (*self, _) = Self::open_with_cache(&self.env, &self.dir, config, marks, &self.cache)?;
        Ok(())
    }

    fn sync_names(&self) -> Result<(), LogError> {
        self.env
            .files
            .sync_dir(&self.dir)
            .map_err(LogError::io("sync directory", &self.dir))
    }

    /// Where in its segment the batch that holds `offset` begins.
    fn position_of(&self, index: usize, offset: Offset) -> Result<u64, LogError> {
        let segment = &self.segments[index];
        let range = ScanRange {
            position: 0,
            end_position: segment.size_bytes,
            expected: segment.base_offset,
            gaps_below: self.cleaned_end,
            leader_epoch_max: self.config.leader_epoch,
        };
        let mut found = None;
        let damage = scan(
            &*segment.file()?,
            &segment.path,
            range,
            &mut |header, _, position| {
                if header.last_offset() >= offset && found.is_none() {
                    found = Some(position);
                }
                Ok(())
            },
        )?;
        match (found, damage) {
            (Some(position), _) => Ok(position),
            (None, Some(damage)) => Err(LogError::corrupt(
                &segment.path,
                damage.position,
                damage.why,
            )),
            (None, None) => Ok(segment.size_bytes),
        }
    }
}
