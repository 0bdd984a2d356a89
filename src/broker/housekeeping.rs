//! Work of every now and then: timeouts, flushes, retention, compaction, checkpoints.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::BrokerError;
use super::checkpoints::Offsets;
use super::core::Core;
use super::partition::Partition;
use crate::env::{Instant, failpoint};
use crate::log::{LogError, PartitionLog};
use crate::types::{Offset, Timestamp, TopicName};

/// Interval of looks at timeouts of transactions and of group members: a timeout is late by at most so much.
const TICK: Duration = Duration::from_millis(100);

/// Lets a thread sleep until it is told to stop.
#[derive(Default)]
pub(super) struct Stop {
    is_stopped: Mutex<bool>,
    stopped: Condvar,
}

impl Stop {
    /// Blocks for `duration`, or until stopped; false once stopped.
    fn wait(&self, duration: Duration) -> bool {
        let mut is_stopped = self.is_stopped.lock();
        if !*is_stopped {
            self.stopped.wait_for(&mut is_stopped, duration);
        }
        !*is_stopped
    }

    /// Ends every later wait at once.
    pub(super) fn stop(&self) {
        *self.is_stopped.lock() = true;
        self.stopped.notify_all();
    }
}

impl Core {
    /// The timer thread's life: deadlines of reads, timeouts of transactions, flushes.
    pub(super) fn run_timer_thread(&self) {
        let mut flushed = self.env.clock.now();
        let mut ticked = flushed;
        loop {
            let now = self.env.clock.now();
            let wait = TICK.saturating_sub(now.since(ticked));
            if !self.timer.wait(now, wait) {
                return;
            }
            let now = self.env.clock.now();
            self.timer.fire(now);
            if now.since(ticked) >= TICK {
                ticked = now;
                self.tick();
                self.flush_due(now);
            }
            if now.since(flushed) >= self.config.flush_interval {
                flushed = now;
                self.flush();
            }
        }
    }

    /// The housekeeping thread's life.
    pub(super) fn run_housekeeping_thread(&self) {
        while self.house.wait(self.config.housekeeping_interval) {
            self.housekeep();
        }
    }

    /// Aborts transactions and ends sessions that are over their time, and tells whoever waits when the broker has stopped.
    pub(super) fn tick(&self) {
        if self.refusal.get().is_some() {
            return self.abandon();
        }
        self.tick_transactions();
        if self.groups.needs_ticks() {
            self.tick_groups();
        }
        self.sync_if_inline();
    }

    /// Has everything synced that was written and that nobody waits for.
    pub(super) fn flush(&self) {
        let unflushed = std::mem::take(&mut *self.unflushed.lock());
        for partition in unflushed {
            self.syncs.request(partition);
        }
        self.sync_if_inline();
    }

    /// Has those partitions synced whose own interval (`flush.ms`) is over.
    pub(super) fn flush_due(&self, now: Instant) {
        let mut waiting = self.unflushed_until.lock();
        let due: Vec<_> = waiting.extract_if(.., |(due, _)| *due <= now).collect();
        drop(waiting);
        for (_, partition) in due {
            self.syncs.request(partition);
        }
        self.sync_if_inline();
    }

    /// Retention, compaction, checkpoints, and the ballast.
    pub(super) fn housekeep(&self) {
        let _turn = self.housekeeping.lock();
        if self.check_open().is_err() {
            return;
        }
        let now = self.env.clock.wall();
        if let Err(error) = self.release_gone_groups() {
            crate::env::warn!(
                error = error.message,
                "the holds on compaction could not be written"
            );
        }
        for partition in self.topics.partitions() {
            let tidied = self
                .retain(&partition, now)
                .and_then(|()| self.compact(&partition, now));
            if self.check_open().is_err() {
                return;
            }
            if let Err(error) = tidied {
                crate::env::warn!(partition = %partition.name, error = error.message, "housekeeping failed");
            }
        }
        if let Err(error) = self.finish_deletions() {
            crate::env::warn!(
                error = error.message,
                "the files of a deleted topic could not be removed"
            );
        }
        self.checkpoint();
        self.ballast.hold();
    }

    fn checkpoint(&self) {
        if let Err(error) = self.write_checkpoints() {
            crate::env::warn!(
                error = error.message,
                "the checkpoints could not be written"
            );
        }
    }

    /// Deletes what is too old or too much: one segment at a time, so that others get at the log in between.
    fn retain(&self, partition: &Partition, now: Timestamp) -> Result<(), BrokerError> {
        self.tidy(partition, |log| log.begin_retention(now))?;
        let mut count = 0;
        while self
            .tidy(partition, |log| log.delete_expired(now))?
            .is_some()
        {
            count += 1;
        }
        if count > 0 {
            tracing::debug!(partition = %partition.name, count, "segments deleted");
        }
        self.tidy(partition, PartitionLog::end_retention)
    }

    /// Compacts, if the topic is compacted and dirty enough. The log is locked only while this is planned and while
    /// the new segments are put in place: appends and reads go on in between.
    fn compact(&self, partition: &Partition, now: Timestamp) -> Result<(), BrokerError> {
        let end = self.compaction_end(partition).unwrap_or(Offset(i64::MAX));
        let Some(plan) = self.tidy(partition, |log| log.plan_compaction_below(end, now))? else {
            return Ok(());
        };
        let is_wanted = || self.check_open().is_ok() && partition.offline().is_none();
        let executed = plan.execute(&is_wanted);
        let Ok(mut log) = partition.lock() else {
            // Its topic was deleted meanwhile, and may have been made anew: nothing of the old one may be put in place.
            if let Ok(compacted) = executed {
                compacted.discard();
            }
            return Ok(());
        };
        let finished = match executed {
            Ok(compacted) => log.finish_compaction(compacted).map(drop),
            Err(error) => {
                log.notice_failed_sync();
                Err(error)
            }
        };
        let finished =
            finished.map_err(|error| self.append_failed(error, log.poisoned().is_some()));
        drop(log);
        // A compaction begins with a sync, which may have moved what readers see.
        partition.wake_all();
        finished
    }

    fn tidy<T>(
        &self,
        partition: &Partition,
        step: impl FnOnce(&mut PartitionLog) -> Result<T, LogError>,
    ) -> Result<T, BrokerError> {
        let mut log = partition.lock()?;
        step(&mut log).map_err(|error| self.append_failed(error, log.poisoned().is_some()))
    }

    /// Writes how far each partition is durable and where it begins.
    pub(super) fn write_checkpoints(&self) -> Result<(), BrokerError> {
        failpoint("housekeeping.before_checkpoint");
        let mut checkpointed = self.checkpointed.lock();
        let mut recovery_points = Offsets::new();
        let mut log_starts = Offsets::new();
        for partition in self.topics.partitions() {
            let name = &partition.name;
            let (recovery_point, log_start) = match partition.lock() {
                Ok(log) => (Some(log.synced_end()), Some(log.log_start_offset())),
                // A partition that is offline keeps the marks that it had.
                Err(_) => (
                    checkpointed.recovery_points.get(name).copied(),
                    checkpointed.log_starts.get(name).copied(),
                ),
            };
            recovery_points.extend(recovery_point.map(|offset| (name.clone(), offset)));
            log_starts.extend(log_start.map(|offset| (name.clone(), offset)));
        }
        if recovery_points != checkpointed.recovery_points {
            self.checkpoints.write_recovery_points(&recovery_points)?;
            checkpointed.recovery_points = recovery_points;
        }
        if log_starts != checkpointed.log_starts {
            self.checkpoints.write_log_starts(&log_starts)?;
            checkpointed.log_starts = log_starts;
        }
        failpoint("housekeeping.after_checkpoint");
        Ok(())
    }

    /// Makes sure that the marks of a deleted topic are not taken for those of a new one of the same name.
    pub(super) fn forget_checkpoints(&self, topic: &TopicName) -> Result<(), BrokerError> {
        let checkpointed = self.checkpointed.lock();
        let is_of_topic = |offsets: &Offsets| offsets.keys().any(|name| name.topic == *topic);
        let is_known =
            is_of_topic(&checkpointed.recovery_points) || is_of_topic(&checkpointed.log_starts);
        drop(checkpointed);
        match is_known {
            true => self.write_checkpoints(),
            false => Ok(()),
        }
    }
}

/// The checkpoints as they stand on disk.
#[derive(Default)]
pub(super) struct Checkpointed {
    pub(super) recovery_points: Offsets,
    pub(super) log_starts: Offsets,
}
