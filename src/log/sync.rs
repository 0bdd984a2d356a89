//! Syncs: planned under the owner's lock, executed outside it, and then taken note of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::SegmentFile;
use super::derived::Checkpoint;
use super::error::LogError;
use super::partition::PartitionLog;
use super::segment::Segment;
use crate::env::{Env, File};
use crate::types::Offset;

/// After so many synced bytes the derived files are written, which bounds what is read again after a crash.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// State perhaps not on the disk, besides the active segment's tail.
#[derive(Default)]
pub(super) struct Unsynced {
    /// Sealed segments, each with one past its last offset.
    sealed: Vec<(Offset, SegmentFile)>,
    /// Changes of the directory, and how many of them were synced.
    dir_changes: u64,
    dir_synced: u64,
    /// The active segment's base offset and the bytes of it that the last checkpoint covered.
    checkpointed: (Offset, u64),
    /// Whether producer snapshots were written since old ones were last removed.
    pub(super) has_new_snapshots: bool,
    /// Whether a sync failed. Held during a sync, so that no sync that began later can succeed on pages that the
    /// failed one left marked as clean (F11).
    has_failed: Arc<Mutex<bool>>,
}

impl Unsynced {
    /// The active segment was sealed, and the name of the next one is new.
    pub(super) fn note_roll(&mut self, sealed: &Segment) {
        self.sealed
            .push((sealed.next_offset, sealed.cached().clone()));
        self.dir_changes += 1;
        self.has_new_snapshots = true;
    }

    /// All is on the disk.
    pub(super) fn clear(&mut self) {
        self.sealed.clear();
        self.dir_synced = self.dir_changes;
    }

    fn is_checkpoint_due(&self, active: &Segment) -> bool {
        let covered = match self.checkpointed {
            (base_offset, bytes) if base_offset == active.base_offset => bytes,
            _ => 0,
        };
        active.size_bytes.saturating_sub(covered) >= CHECKPOINT_BYTES
    }
}

/// A sync that was planned under the lock, to be executed outside it.
pub struct SyncPlan {
    /// The log end that the sync makes durable.
    pub up_to: Offset,
    env: Env,
    dir: PathBuf,
    /// Those that were sealed without a sync ([`crate::types::Durability::Process`]).
    sealed: Vec<SegmentFile>,
    active: (Arc<Path>, Arc<dyn File>),
    /// The directory's changes that are to be synced; `None` if there are none.
    dir_changes: Option<u64>,
    checkpoint: Option<Checkpoint>,
    has_failed: Arc<Mutex<bool>>,
}

impl std::fmt::Debug for SyncPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncPlan")
            .field("dir", &self.dir)
            .field("up_to", &self.up_to)
            .finish_non_exhaustive()
    }
}

impl SyncPlan {
    /// Makes everything below `up_to` durable.
    ///
    /// # Errors
    /// [`LogError::Io`]; the owner must then call [`PartitionLog::poison`] and never sync again (F11).
    /// [`LogError::TooManyFiles`]: nothing counts as synced, and the owner may plan another one.
    pub fn execute(&self) -> Result<(), LogError> {
        let mut has_failed = self.has_failed.lock();
        if *has_failed {
            return Err(LogError::Poisoned {
                dir: self.dir.clone(),
                why: "an earlier sync failed".to_owned(),
            });
        }
        let result = self.sync();
        // F14: where a file handle was missing no sync has failed, and what was synced is synced again.
        *has_failed = result
            .as_ref()
            .is_err_and(|error| !matches!(error, LogError::TooManyFiles { .. }));
        drop(has_failed);
        result?;
        if let Some(checkpoint) = &self.checkpoint {
            // Only now: a checkpoint vouches for bytes that are on the disk.
            if let Err(error) = checkpoint.write(&self.env, &self.dir) {
                crate::env::warn!(%error, "derived files were not written: they will be rebuilt");
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        for sealed in &self.sealed {
            match sealed.open() {
                // Retention deleted it meanwhile: nothing of it is left to lose.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok(file) => file.sync_data(),
            }
            .map_err(LogError::io("sync", sealed.path()))?;
        }
        let (path, file) = &self.active;
        file.sync_data().map_err(LogError::io("sync", path))?;
        if self.dir_changes.is_some() {
            self.env
                .files
                .sync_dir(&self.dir)
                .map_err(LogError::io("sync directory", &self.dir))?;
        }
        Ok(())
    }
}

impl PartitionLog {
    /// Plans a sync of what was appended; `None` if all is synced, or the log is poisoned.
    pub fn plan_sync(&mut self) -> Option<SyncPlan> {
        let up_to = self.log_end_offset();
        let unsynced = &self.unsynced;
        let dir_changes =
            (unsynced.dir_synced < unsynced.dir_changes).then_some(unsynced.dir_changes);
        if self.poisoned.is_some() || (self.synced_end == up_to && dir_changes.is_none()) {
            return None;
        }
        let sealed = unsynced.sealed.iter();
        let sealed = sealed.map(|(_, file)| file.clone()).collect();
        let active = self.active();
        let Some(file) = active.pinned.clone() else {
            unreachable!("the active segment's file is always open");
        };
        let active_file = (active.path.clone(), file);
        let checkpoint = self.unsynced.is_checkpoint_due(active).then(|| {
            // Taken now, under the lock, so that it covers exactly what this sync makes durable.
            Checkpoint::of(active, &self.producers)
        });
        if checkpoint.is_some() {
            self.unsynced.has_new_snapshots = true;
            self.unsynced.checkpointed = (self.active().base_offset, self.active().size_bytes);
        }
        Some(SyncPlan {
            up_to,
            env: self.env.clone(),
            dir: self.dir.clone(),
            sealed,
            active: active_file,
            dir_changes,
            checkpoint,
            has_failed: self.unsynced.has_failed.clone(),
        })
    }

    /// Syncs everything at once, under the owner's lock; a failure poisons the log.
    pub(super) fn sync_now(&mut self) -> Result<(), LogError> {
        let Some(plan) = self.plan_sync() else {
            return Ok(());
        };
        match plan.execute() {
            Ok(()) => {
                self.synced(&plan);
                Ok(())
            }
            Err(error @ LogError::TooManyFiles { .. }) => Err(error),
            Err(error) => self.fail(error),
        }
    }

    /// Poisons the log if a sync of it failed of which its owner was not told: one that was a part of something else.
    pub fn notice_failed_sync(&mut self) {
        let has_failed = *self.unsynced.has_failed.lock();
        if has_failed {
            self.poison("a sync failed");
        }
    }

    /// Records that `plan` was executed: the synced end and the high watermark advance.
    pub fn synced(&mut self, plan: &SyncPlan) {
        self.synced_end = self.synced_end.max(plan.up_to.min(self.log_end_offset()));
        self.unsynced
            .sealed
            .retain(|(next_offset, _)| *next_offset > plan.up_to);
        self.unsynced.dir_synced = self
            .unsynced
            .dir_synced
            .max(plan.dir_changes.unwrap_or_default());
        self.advance_last_stable();
    }
}
