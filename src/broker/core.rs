//! `Core`: what all requests and threads of one broker share.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::ballast::Ballast;
use super::checkpoints::Checkpoints;
use super::directory::Directory;
use super::groups::Groups;
use super::holds::Holds;
use super::housekeeping::{Checkpointed, Stop};
use super::partition::Partition;
use super::sync::SyncQueue;
use super::sync_helpers::SyncHelpers;
use super::timer::Timer;
use super::topics::Topics;
use super::transactions::Transactions;
use super::{BrokerConfig, BrokerError};
use crate::coordinator::Now;
use crate::env::{Env, Instant};
use crate::log::SegmentCache;
use crate::protocol::ErrorCode;
use crate::types::{Durability, TopicPartition};

/// The shared part of a broker. Each request's code stands in the file of its name, as methods of this type.
pub(super) struct Core {
    pub(super) env: Env,
    /// The files and indexes of sealed segments, of all partitions.
    pub(super) segments: Arc<SegmentCache>,
    pub(super) config: BrokerConfig,
    pub(super) directory: Directory,
    pub(super) topics: Topics,
    pub(super) transactions: Transactions,
    pub(super) groups: Groups,
    pub(super) syncs: SyncQueue,
    pub(super) sync_helpers: SyncHelpers,
    pub(super) timer: Timer,
    pub(super) house: Stop,
    /// Held during a round of housekeeping: rounds follow one another, and none outlives the broker's files.
    pub(super) housekeeping: Mutex<()>,
    pub(super) ballast: Ballast,
    pub(super) holds: Holds,
    pub(super) checkpoints: Checkpoints,
    pub(super) checkpointed: Mutex<Checkpointed>,
    /// Partitions with records that nobody waits for, to be synced at the next flush interval.
    pub(super) unflushed: Mutex<Vec<Arc<Partition>>>,
    /// Those of topics with an interval of their own, each with the time at which it is to be synced.
    pub(super) unflushed_until: Mutex<Vec<(Instant, Arc<Partition>)>>,
    /// Reason for no more acknowledgements, once there is one. Never cleared (F11).
    pub(super) refusal: OnceLock<BrokerError>,
    /// Set when the broker is closed: what is in flight is still served, new calls are not.
    pub(super) closed: OnceLock<BrokerError>,
    pub(super) readers_count: AtomicU64,
    /// Of every partition, until the directory is opened again.
    pub(super) leader_epoch: i32,
}

impl Core {
    /// # Errors
    /// The reason for the end of service: it was closed, or a write or sync failed.
    pub(super) fn check_open(&self) -> Result<(), BrokerError> {
        match self.refusal.get().or_else(|| self.closed.get()) {
            None => Ok(()),
            Some(why) => Err(why.clone()),
        }
    }

    /// Stops serving for good: after a failed write or sync nothing more may be acknowledged (F11).
    pub(super) fn halt(&self, why: &BrokerError) -> BrokerError {
        let refusal = BrokerError::fatal(
            ErrorCode::KafkaStorageError,
            format!(
                "the log stopped after a failed write or sync ({}): check the disk, then open the data directory again",
                why.message
            ),
        );
        if self.refusal.set(refusal.clone()).is_ok() {
            crate::env::error!(why = why.message, "the log stopped");
            if let Err(error) = self.directory.distrust_cache() {
                crate::env::error!(error = error.message, "the failure could not be noted");
            }
        }
        self.topics.wake_all();
        refusal
    }

    /// The partition of that name.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub(super) fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>, BrokerError> {
        self.topics.partition(name)
    }

    pub(super) fn now(&self) -> Now {
        Now {
            instant: self.env.clock.now(),
            wall: self.env.clock.wall(),
        }
    }

    pub(super) fn is_fsync(&self) -> bool {
        self.config.durability == Durability::Fsync
    }

    /// A number for a waiting reader, never used twice.
    pub(super) fn next_reader(&self) -> u64 {
        self.readers_count.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes a failed append on, and stops the broker if the log is poisoned by it.
    pub(super) fn append_failed(
        &self,
        error: crate::log::LogError,
        is_poisoned: bool,
    ) -> BrokerError {
        let error = BrokerError::from(error);
        match is_poisoned {
            true => self.halt(&error),
            false => error,
        }
    }

    /// Drops the senders of all replies that are still to come, so that whoever waits is told.
    pub(super) fn abandon(&self) {
        self.syncs.abandon();
        self.transactions.abandon();
        self.groups.abandon();
    }
}
