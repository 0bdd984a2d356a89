//! Messages of workers to the driver.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::changelog::Flush;
use crate::env::Instant;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::sink::MarkChanges;
use crate::runtime::contract::source::Position;
use crate::state::StateError;

/// A worker's part of a drained cycle.
pub(crate) struct Drained {
    pub(crate) worker: usize,
    /// Where each of its splits stands.
    pub(crate) positions: Vec<(u32, Position)>,
    /// Time to write changelogs and prepare sinks.
    pub(crate) flushed_in: Duration,
    /// The changes of its sinks' marks, by the sink's name.
    pub(crate) marks: Vec<(String, MarkChanges)>,
    /// Flushes for RocksDB once the cycle is committed.
    pub(crate) flushes: Vec<Flush>,
}

/// A message to the driver.
pub(crate) enum Report {
    /// The worker processed the first records of its cycle at this moment.
    Dirty(Instant),
    /// The worker changed more state than the cycle's budget.
    OverBudget,
    /// The next record of this split is to have a cycle of its own.
    Held(u32),
    /// The worker's splits have ended.
    Exhausted,
    /// The worker let everything of the closing cycle run out.
    Drained(Drained),
    /// The worker waits until RocksDB has these values. The cycle that they are of is the one drained last, whose
    /// commit the driver finishes before it reads on.
    Flush(usize, Flush),
    /// The worker of this number stopped.
    Ended(usize, Result<(), JobError>),
    /// RocksDB refused committed values.
    StateFailed(StateError),
    /// Somebody wants to read the state.
    Query,
    /// Somebody wants the job to end well.
    Stop,
    /// There are tasks to be let go of, or some that are ready to be taken on, once the open cycle is committed.
    Reassigned,
    /// The worker let its tasks go and took the new ones on.
    TasksChanged,
    /// Somebody wants a savepoint.
    Savepoint,
    /// All handed over for RocksDB until then is on its disk.
    Durable,
    /// The worker handed over all that its stores have.
    StateFlushed,
    /// The processes of the job went on without this one: what it has open is rolled back.
    Lost,
}

/// The sending end.
#[derive(Clone)]
pub(crate) struct Reports(Sender<Report>);

impl Reports {
    pub(crate) fn channel() -> (Self, Receiver<Report>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), receiver)
    }

    /// Tells the driver. A driver that is gone has stopped the workers already.
    pub(crate) fn send(&self, report: Report) {
        let _ = self.0.send(report);
    }
}
