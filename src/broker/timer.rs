//! `Timer`: wakes reads whose time is over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::Instant;

/// The deadlines of waiting reads.
#[derive(Default)]
pub(super) struct Timer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Entries whose waker is gone are skipped when they come up.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    wakers: HashMap<u64, Waker>,
    is_stopped: bool,
}

impl Timer {
    /// Wakes `waker` at `deadline`. A second call for the same reader replaces the waker only.
    pub(super) fn register(&self, reader: u64, deadline: Instant, waker: &Waker) {
        let mut state = self.state.lock();
        if state.wakers.insert(reader, waker.clone()).is_none() {
            state.deadlines.push(Reverse((deadline, reader)));
            let is_first = state.deadlines.peek() == Some(&Reverse((deadline, reader)));
            if is_first {
                self.changed.notify_one();
            }
        }
    }

    /// Forgets a reader.
    pub(super) fn unregister(&self, reader: u64) {
        let mut state = self.state.lock();
        state.wakers.remove(&reader);
        // Readers that were answered early leave their deadlines behind; most of the heap being such is the time to sweep.
        if state.deadlines.len() > 64 && state.deadlines.len() > 4 * state.wakers.len() {
            let State {
                deadlines, wakers, ..
            } = &mut *state;
            deadlines.retain(|Reverse((_, reader))| wakers.contains_key(reader));
        }
    }

    /// Wakes what is due at `now`.
    pub(super) fn fire(&self, now: Instant) {
        let mut due = Vec::new();
        let mut state = self.state.lock();
        while let Some(&Reverse((deadline, reader))) = state.deadlines.peek() {
            if deadline > now {
                break;
            }
            state.deadlines.pop();
            due.extend(state.wakers.remove(&reader));
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Blocks until the next deadline, a stop, or `longest`. False once stopped.
    pub(super) fn wait(&self, now: Instant, longest: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.is_stopped {
            let next = state.deadlines.peek();
            let next = next.map_or(longest, |Reverse((deadline, _))| deadline.since(now));
            self.changed.wait_for(&mut state, next.min(longest));
        }
        !state.is_stopped
    }

    /// Ends every later wait at once.
    pub(super) fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.changed.notify_all();
    }
}
