//! A clock that stands still until a test moves it.

use std::cell::Cell;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::{Clock, Instant};
use crate::types::Timestamp;

/// Where the wall clock of a new world stands: 2026-01-01T00:00:00Z.
pub(super) const WALL_START: Timestamp = Timestamp(1_767_225_600_000);

thread_local! {
    /// Whether this thread was started by a simulated world.
    pub(super) static IS_SPAWNED: Cell<bool> = const { Cell::new(false) };
}

/// Virtual time. A thread that the world did not start moves the clock by sleeping; a thread that
/// the world did start sleeps until somebody else moved it, so that a loop with a sleep in it does
/// not run time away from the test.
pub(super) struct SimulatedClock {
    time: Mutex<Time>,
    moved: Condvar,
}

struct Time {
    now: Instant,
    wall_start: Timestamp,
    is_off: bool,
}

impl SimulatedClock {
    pub(super) fn new(wall_start: Timestamp) -> Self {
        let time = Time {
            now: Instant::default(),
            wall_start,
            is_off: false,
        };
        Self {
            time: Mutex::new(time),
            moved: Condvar::new(),
        }
    }

    pub(super) fn advance(&self, duration: Duration) {
        let mut time = self.time.lock();
        time.now = time.now.plus(duration);
        self.moved.notify_all();
    }

    pub(super) fn jump_wall(&self, millis: i64) {
        let mut time = self.time.lock();
        time.wall_start = time.wall_start.plus_millis(millis);
    }

    /// Wakes all sleepers, for good.
    pub(super) fn power_off(&self) {
        self.time.lock().is_off = true;
        self.moved.notify_all();
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.time.lock().now
    }

    fn wall(&self) -> Timestamp {
        let time = self.time.lock();
        let elapsed = i64::try_from(time.now.0.as_millis()).unwrap_or(i64::MAX);
        time.wall_start.plus_millis(elapsed)
    }

    fn sleep(&self, duration: Duration) {
        if !IS_SPAWNED.get() {
            return self.advance(duration);
        }
        let mut time = self.time.lock();
        let wake = time.now.plus(duration);
        while time.now < wake && !time.is_off {
            self.moved.wait(&mut time);
        }
    }
}
