//! A flag that tells whether a record left a trace: something that was pushed on, or a change in a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Store;

/// A worker's flag, wiped before each source record. One thread uses it, so that setting it is one plain write.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<AtomicBool>);

impl Trace {
    /// Something was pushed or changed.
    #[inline]
    pub fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The next record begins.
    #[inline]
    pub fn wipe(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether anything was pushed or changed since.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<V> Store<V> {
    /// From here on every change leaves a trace there.
    pub fn trace_changes(&mut self, trace: Trace) {
        self.trace = trace;
    }
}
