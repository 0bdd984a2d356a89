//! What a running job tells about itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::{Offset, TopicId, TopicName};

/// Counters of a running job, shared with whoever watches it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    commits: AtomicU64,
    positions: Mutex<BTreeMap<u32, Offset>>,
    /// Who the topics that it reads were when it first read them (S16).
    pub(crate) read_topics: Mutex<BTreeMap<TopicName, TopicId>>,
}

impl Progress {
    pub(crate) fn committed(&self, moved: &BTreeMap<u32, Offset>) {
        self.positions.lock().extend(moved);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn positions(&self) -> BTreeMap<u32, Offset> {
        self.positions.lock().clone()
    }
}
