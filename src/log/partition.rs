//! One partition's log as its owner sees it: its marks, and the state that the other files work on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::LogConfig;
use super::cache::SegmentCache;
use super::derived;
use super::error::LogError;
use super::metadata;
use super::producer_state::ProducerState;
use super::segment::{Density, Segment};
use super::sync::Unsynced;
use crate::env::{Dir, Env};
use crate::protocol::messages::ProducerDescription;
use crate::types::{Durability, Offset, ProducerId, ProducerIdentity, Timestamp, TopicId};

/// Who appends, and so which checks apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: everything is checked.
    Client,
    /// A coordinator writing its journal: sequences are not checked.
    Coordinator,
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// The time stamped by the log, or [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// Whether it had been written before, so that nothing was written now (I6).
    pub is_duplicate: bool,
    /// Whether a new segment was begun for it.
    pub rolled: bool,
}

/// One partition's log.
///
/// It is not shared: its owner holds it under a lock. What takes long is planned under the lock and executed
/// outside it ([`PartitionLog::plan_read`], [`PartitionLog::plan_sync`], [`PartitionLog::plan_compaction`]).
pub struct PartitionLog {
    pub(super) env: Env,
    pub(super) cache: Arc<SegmentCache>,
    pub(super) dir: PathBuf,
    pub(super) topic_id: TopicId,
    pub(super) config: LogConfig,
    /// By base offset; never empty; the last one is active.
    pub(super) segments: Vec<Segment>,
    pub(super) producers: ProducerState,
    pub(super) log_start: Offset,
    /// Everything below is on the disk.
    pub(super) synced_end: Offset,
    /// Below it stands what writers were told is written, and maybe more ([`PartitionLog::acknowledge`]).
    pub(super) acknowledged_end: Offset,
    /// The last stable offset as it was last told, which it never falls behind (I5).
    pub(super) last_stable: Offset,
    /// Everything below was compacted, and may have gaps between batches.
    pub(super) cleaned_end: Offset,
    pub(super) unsynced: Unsynced,
    pub(super) poisoned: Option<String>,
    /// Whether a stream of records met damage: then nothing is streamed any more, so that readers are told.
    pub(super) has_damage: Arc<AtomicBool>,
}

impl std::fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionLog")
            .field("dir", &self.dir)
            .field("log_start", &self.log_start)
            .field("last_stable", &self.last_stable)
            .field("synced_end", &self.synced_end)
            .field("log_end", &self.log_end_offset())
            .finish_non_exhaustive()
    }
}

impl PartitionLog {
    /// Creates a log in `dir`, which must not exist yet. The directory and its parent are synced.
    ///
    /// # Errors
    /// [`LogError::Io`], also if something is at `dir`.
    pub fn create(
        env: &Env,
        dir: &Path,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        Self::create_with_cache(env, dir, topic_id, config, &SegmentCache::new(env))
    }

    /// As [`PartitionLog::create`], with the files of sealed segments in a cache that other logs use too.
    ///
    /// # Errors
    /// As [`PartitionLog::create`].
    pub fn create_with_cache(
        env: &Env,
        dir: &Path,
        topic_id: TopicId,
        config: LogConfig,
        cache: &Arc<SegmentCache>,
    ) -> Result<Self, LogError> {
        let files = &env.files;
        if files
            .exists(dir)
            .map_err(LogError::io("look for directory", dir))?
        {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(LogError::io("create directory", dir)(source));
        }
        files
            .create_dir(dir)
            .map_err(LogError::io("create directory", dir))?;
        metadata::write(env, dir, topic_id)?;
        let segment = Segment::create(cache, dir, Offset::ZERO)?;
        // F10: the names in the directory, then the directory's own name in its parent.
        files
            .sync_dir(dir)
            .map_err(LogError::io("sync directory", dir))?;
        if let Some(parent) = dir.parent() {
            files
                .sync_dir(parent)
                .map_err(LogError::io("sync directory", parent))?;
        }
        Ok(Self {
            env: env.clone(),
            cache: cache.clone(),
            dir: dir.to_owned(),
            topic_id,
            config,
            segments: vec![segment],
            producers: ProducerState::default(),
            log_start: Offset::ZERO,
            synced_end: Offset::ZERO,
            acknowledged_end: Offset::ZERO,
            last_stable: Offset::ZERO,
            cleaned_end: Offset::ZERO,
            unsynced: Unsynced::default(),
            poisoned: None,
            has_damage: Arc::default(),
        })
    }

    /// The first offset.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start
    }

    /// One past the last offset written.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.segments
            .last()
            .map_or(self.log_start, |active| active.next_offset)
    }

    /// One past the last offset that `read_uncommitted` readers may see. Under [`Durability::Fsync`] that is what was
    /// synced and what was acknowledged ([`PartitionLog::acknowledge`]), else the log end.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        match self.config.durability {
            Durability::Fsync => self.synced_end.max(self.acknowledged_end),
            Durability::Process => self.log_end_offset(),
        }
    }

    /// Shows all that was appended to `read_uncommitted` readers: its writers are told now that it is written. Under
    /// [`Durability::Fsync`] a power loss may still take it back, so the last stable offset does not move.
    pub fn acknowledge(&mut self) {
        self.acknowledged_end = self.log_end_offset();
    }

    /// The last stable offset if no transaction were open: `read_committed` readers never see what a power loss could
    /// take back under [`Durability::Fsync`].
    fn stable_end(&self) -> Offset {
        match self.config.durability {
            Durability::Fsync => self.synced_end,
            Durability::Process => self.log_end_offset(),
        }
    }

    /// One past the last offset that `read_committed` readers may see: it stands before the first open
    /// transaction, and never moves back (I5).
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.last_stable
    }

    /// One past the last offset that is known to be on the disk.
    #[must_use]
    pub fn synced_end(&self) -> Offset {
        self.synced_end
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// Counts the segments; at least 1.
    #[must_use]
    pub fn segments_count(&self) -> usize {
        self.segments.len()
    }

    /// The identity of the topic.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The partition's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Up to where it was compacted: below this records are missing that a later one below this superseded.
    #[must_use]
    pub fn cleaned_end(&self) -> Offset {
        self.cleaned_end
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; the durability and the leader epoch stay what they were when the log was opened.
    pub fn set_config(&mut self, config: LogConfig) {
        let (durability, leader_epoch) = (self.config.durability, self.config.leader_epoch);
        self.config = LogConfig {
            durability,
            leader_epoch,
            ..config
        };
    }

    /// The active producers, by id.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerDescription> {
        let describe = |(id, entry): (_, &super::producer_state::ProducerEntry)| {
            let last = entry.window.back();
            ProducerDescription {
                producer: ProducerIdentity {
                    id,
                    epoch: entry.producer_epoch,
                },
                last_sequence: last.map_or(-1, |batch| batch.last_sequence.0),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_transaction_start: entry.transaction_start,
            }
        };
        self.producers.entries().map(describe).collect()
    }

    /// Whether the partition remembers the producer.
    #[must_use]
    pub fn knows_producer(&self, id: ProducerId) -> bool {
        self.producers.entry(id).is_some()
    }

    /// The open transactions, by first offset, with the epoch of their data.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<(ProducerIdentity, Offset)> {
        self.producers.open_transactions().collect()
    }

    /// Where the oldest open transaction begins.
    #[must_use]
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers.first_open_offset()
    }

    /// Whether this producer id has an open transaction at exactly this epoch.
    #[must_use]
    pub fn has_open_transaction(&self, producer: ProducerIdentity) -> bool {
        self.producers.entry(producer.id).is_some_and(|entry| {
            entry.transaction_start.is_some() && entry.producer_epoch == producer.epoch
        })
    }

    /// The largest leader epoch up to `epoch` that wrote something, and one past its last offset that any reader may see.
    /// `None` if `epoch` is negative, or later than the one in force.
    #[must_use]
    pub fn leader_epoch_end(&self, epoch: i32) -> Option<(i32, Offset)> {
        let (current, end) = (self.config.leader_epoch, self.high_watermark());
        self.producers.epochs.end_of(epoch, current, end)
    }

    /// The leader epoch that wrote `offset`; at the end, the one in force; −1 if nobody remembers.
    #[must_use]
    pub fn leader_epoch_at(&self, offset: Offset) -> i32 {
        match offset >= self.log_end_offset() {
            true => self.config.leader_epoch,
            false => self.producers.epochs.at(offset).unwrap_or(-1),
        }
    }

    /// The failure that stopped the log, if one did.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Refuses every later append and sync, because a write or a sync failed (F11). The first reason stays.
    pub fn poison(&mut self, why: &str) {
        if self.poisoned.is_none() {
            crate::env::error!(dir = %self.dir.display(), why, "the partition stops");
            self.poisoned = Some(why.to_owned());
        }
    }

    /// Syncs everything, and writes the indexes and a producer snapshot.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Poisoned`]. Derived files that could not be written are no error: they are rebuilt.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.sync_now()?;
        self.write_checkpoint();
        Ok(())
    }

    /// The log's directory, whose names are about to change.
    pub(super) fn open_dir(&self) -> Result<Box<dyn Dir>, LogError> {
        self.cache
            .open_dir(&self.dir)
            .map_err(LogError::io("open directory", &self.dir))
    }

    pub(super) fn check_usable(&self) -> Result<(), LogError> {
        match &self.poisoned {
            None => Ok(()),
            Some(why) => Err(LogError::Poisoned {
                dir: self.dir.clone(),
                why: why.clone(),
            }),
        }
    }

    /// Poisons the log and passes the error on.
    pub(super) fn fail<T>(&mut self, error: LogError) -> Result<T, LogError> {
        self.poison(&error.to_string());
        Err(error)
    }

    pub(super) fn active(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    pub(super) fn active_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    pub(super) fn density(&self) -> Density {
        Density::Interval(self.config.index_interval_bytes)
    }

    /// Moves the last stable offset to where it now belongs.
    pub(super) fn advance_last_stable(&mut self) {
        let end = self.stable_end();
        let open = self.producers.first_open_offset();
        let stable = open.map_or(end, |open| open.min(end));
        // I5: a reader that went on from the old one would never learn what became of the records before it.
        assert!(
            stable >= self.last_stable,
            "the last stable offset moved back from {} to {stable}",
            self.last_stable
        );
        self.last_stable = stable;
    }

    /// Writes what makes the next opening short. Nothing depends on it, so a failure is only told.
    pub(super) fn write_checkpoint(&self) {
        let files = derived::Checkpoint::of(self.active(), &self.producers);
        if let Err(error) = files.write(&self.env, &self.dir) {
            crate::env::warn!(%error, "derived files were not written: they will be rebuilt");
        }
        self.write_leader_epochs();
    }

    /// Writes the file of leader epochs, if it does not hold them already.
    pub(super) fn write_leader_epochs(&self) {
        let epochs = &self.producers.epochs;
        if metadata::has_epochs(&self.env, &self.dir, epochs) {
            return;
        }
        if let Err(error) = metadata::write_epochs(&self.env, &self.dir, epochs) {
            crate::env::warn!(%error, "the leader epochs were not written: they will be at the next opening");
        }
    }
}
