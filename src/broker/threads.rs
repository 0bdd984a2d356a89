//! The broker's threads: syncs and their helpers, deadlines, housekeeping.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoints::Offsets;
use super::core::Core;
use super::housekeeping::Checkpointed;
use super::{BrokerError, SyncMode, sync_helpers};
use crate::env::{JoinHandle, failpoint};
use crate::protocol::ErrorCode;

thread_local! {
    /// Whether this thread is a broker's: it must not wait for its own end.
    static IS_BROKER_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// The threads of an open broker. Dropped with the last [`super::Broker`].
pub(super) struct Threads {
    core: Arc<Core>,
    handles: Mutex<Vec<Box<dyn JoinHandle>>>,
    helpers: Mutex<Vec<Box<dyn JoinHandle>>>,
}

impl Threads {
    /// Starts them; none in [`SyncMode::Inline`].
    pub(super) fn start(core: &Arc<Core>) -> Result<Self, BrokerError> {
        let threads = Self {
            core: core.clone(),
            handles: Mutex::default(),
            helpers: Mutex::default(),
        };
        if core.config.sync_mode == SyncMode::Thread {
            let handles = &threads.handles;
            threads.spawn(handles, "of-sync", Core::run_sync_thread)?;
            threads.spawn(handles, "of-timer", Core::run_timer_thread)?;
            threads.spawn(handles, "of-house", Core::run_housekeeping_thread)?;
            for _ in 0..sync_helpers::COUNT {
                threads.spawn(&threads.helpers, "of-sync-help", Core::run_sync_helper)?;
            }
        }
        Ok(threads)
    }

    fn spawn(
        &self,
        handles: &Mutex<Vec<Box<dyn JoinHandle>>>,
        name: &str,
        body: fn(&Core),
    ) -> Result<(), BrokerError> {
        let core = self.core.clone();
        let run = move || {
            IS_BROKER_THREAD.set(true);
            let guard = PanicGuard(core);
            body(&guard.0);
        };
        let spawned = self.core.env.spawn.spawn(name, Box::new(run));
        let handle = spawned.map_err(|e| {
            BrokerError::fatal(
                ErrorCode::UnknownServerError,
                format!("cannot start the thread {name}: {e}; raise the limit of threads"),
            )
        })?;
        handles.lock().push(handle);
        Ok(())
    }

    /// Serves what waits, then ends the threads.
    pub(super) fn stop(&self) {
        self.core.syncs.stop();
        self.core.timer.stop();
        self.core.house.stop();
        join(&self.handles);
        // Only now: the sync thread needs its helpers to serve what waits.
        self.core.sync_helpers.stop();
        join(&self.helpers);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.core.refuse_calls();
        self.stop();
        self.core.abandon();
        self.core.directory.unlock();
    }
}

fn join(handles: &Mutex<Vec<Box<dyn JoinHandle>>>) {
    let handles = std::mem::take(&mut *handles.lock());
    if IS_BROKER_THREAD.get() {
        // The last handle was dropped by a reply's receiver, on one of the threads themselves.
        return;
    }
    for handle in handles {
        if let Err(panic) = handle.join() {
            crate::env::error!(panic, "a thread of the broker panicked");
        }
    }
}

/// A panic in a thread is a broken invariant: nothing more may be acknowledged, and nobody may wait for ever.
struct PanicGuard(Arc<Core>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "a thread of the broker panicked; this is a bug";
            self.0
                .halt(&BrokerError::fatal(ErrorCode::UnknownServerError, why));
            self.0.abandon();
        }
    }
}

impl Core {
    /// Refuses every call from now on; what is in flight is still served.
    pub(super) fn refuse_calls(&self) {
        let why = BrokerError::fatal(
            ErrorCode::KafkaStorageError,
            "the log is closed: open the data directory again",
        );
        let _ = self.closed.set(why);
        self.topics.wake_all();
    }

    /// Closes all partitions, and says on disk that this was done in order. The threads have ended.
    pub(super) fn close_files(&self) -> Result<(), BrokerError> {
        if !self.directory.is_locked() {
            // Closed before: the directory may have another owner by now.
            return Ok(());
        }
        // A round that somebody else asked for gives up soon, and must not write into the next owner's directory.
        let _no_housekeeping = self.housekeeping.lock();
        // In `SyncMode::Inline` no thread has served what waits.
        self.sync_all_waiting();
        self.abandon();
        let closed = match self.refusal.get() {
            Some(refusal) => Err(refusal.clone()),
            None => self.close_partitions(),
        };
        self.directory.unlock();
        closed
    }

    fn close_partitions(&self) -> Result<(), BrokerError> {
        let mut closed = Checkpointed::default();
        let mut failure = None;
        for partition in self.topics.partitions() {
            let name = partition.name.clone();
            let why = BrokerError::fatal(ErrorCode::KafkaStorageError, "the log is closed");
            let Some(log) = partition.take(why) else {
                // A damaged partition keeps its marks.
                let before = self.checkpointed.lock();
                keep(&before.recovery_points, &mut closed.recovery_points, &name);
                keep(&before.log_starts, &mut closed.log_starts, &name);
                continue;
            };
            let (start, end) = (log.log_start_offset(), log.log_end_offset());
            match log.close() {
                Ok(()) => {
                    closed.recovery_points.insert(name.clone(), end);
                    closed.log_starts.insert(name, start);
                }
                Err(error) => failure = Some(BrokerError::from(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => self.mark_clean(&closed),
        }
    }

    fn mark_clean(&self, closed: &Checkpointed) -> Result<(), BrokerError> {
        self.checkpoints
            .write_recovery_points(&closed.recovery_points)?;
        self.checkpoints.write_log_starts(&closed.log_starts)?;
        failpoint("close.before_clean_mark");
        self.checkpoints.write_clean()
    }
}

fn keep(before: &Offsets, after: &mut Offsets, name: &crate::types::TopicPartition) {
    if let Some(offset) = before.get(name) {
        after.insert(name.clone(), *offset);
    }
}
