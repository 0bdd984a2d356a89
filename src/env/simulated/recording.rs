//! A run's changes of the disk, to lose power at every one of them.

use std::sync::Arc;

use super::SimulatedWorld;
use super::power_loss::PowerLoss;
use super::random::mix;
use super::storage::{Change, Storage};
use super::world::World;
use crate::types::Timestamp;

/// History of the disk since [`SimulatedWorld::start_recording`].
#[derive(Clone)]
pub struct Recording {
    start: Storage,
    changes: Vec<Change>,
    seed: u64,
    boot: Option<u64>,
    wall: Timestamp,
}

impl Recording {
    pub(super) fn new(start: Storage, seed: u64, boot: Option<u64>, wall: Timestamp) -> Self {
        Self {
            start,
            changes: Vec::new(),
            seed,
            boot,
            wall,
        }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Counts the changes.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        self.changes.len()
    }

    /// The run once more, standing before its first change.
    #[must_use]
    pub fn replay(&self) -> Replay<'_> {
        Replay {
            recording: self,
            storage: self.start.clone(),
            done_count: 0,
        }
    }
}

/// A recorded run that stands between two changes.
pub struct Replay<'a> {
    recording: &'a Recording,
    storage: Storage,
    done_count: usize,
}

impl Replay<'_> {
    /// Counts the changes so far; compare with [`SimulatedWorld::changes_count`] noted in the run.
    #[must_use]
    pub fn done_count(&self) -> usize {
        self.done_count
    }

    /// Makes the next change; `false` at the end of the run.
    pub fn step(&mut self) -> bool {
        let Some(change) = self.recording.changes.get(self.done_count) else {
            return false;
        };
        self.storage.apply(change);
        self.done_count += 1;
        true
    }

    /// The world if power was lost here.
    #[must_use]
    pub fn after_power_loss(&self, loss: PowerLoss) -> SimulatedWorld {
        let seed = self.seed(loss.seed);
        self.world(loss.apply(&self.storage), seed, Some(seed))
    }

    /// The loss that leaves the same here and says it more simply: where no byte is pending, it does not matter what
    /// becomes of bytes; the same with names.
    #[must_use]
    pub fn simplified(&self, loss: PowerLoss) -> PowerLoss {
        loss.simplified(&self.storage)
    }

    /// The world if the process was killed here and the machine lived on.
    #[must_use]
    pub fn after_kill(&self) -> SimulatedWorld {
        self.world(self.storage.clone(), self.seed(0), self.recording.boot)
    }

    fn seed(&self, seed: u64) -> u64 {
        mix(self.recording.seed ^ mix(seed ^ self.done_count as u64))
    }

    fn world(&self, storage: Storage, seed: u64, boot: Option<u64>) -> SimulatedWorld {
        let world: Arc<World> = World::new(seed, boot, false, storage, self.recording.wall);
        SimulatedWorld { world }
    }
}
