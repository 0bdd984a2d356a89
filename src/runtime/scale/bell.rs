//! [`Bell`]: when something that is polled gets its next turn.

use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::{Clock, Instant};

/// A bell that is rung by hand, by a reply that is there, or by the clock.
#[derive(Default)]
pub(super) struct Bell {
    due: Mutex<Due>,
    rung: Condvar,
}

#[derive(Default)]
struct Due {
    is_rung: bool,
    at: Option<Instant>,
}

impl Due {
    fn is_due(&self, now: Instant) -> bool {
        self.is_rung || self.at.is_some_and(|at| at <= now)
    }
}

impl Bell {
    /// A turn is due.
    pub(super) fn ring(&self) {
        self.due.lock().is_rung = true;
        self.rung.notify_all();
    }

    /// A turn is due at this moment, if none is before.
    pub(super) fn ring_at(&self, at: Instant) {
        self.due.lock().at = Some(at);
    }

    /// Whether a turn is due. If so, the caller takes it: the bell is to be rung anew for the next one.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut due = self.due.lock();
        let is_due = due.is_due(now);
        if is_due {
            *due = Due::default();
        }
        is_due
    }

    /// In how long a turn is due, if nothing but time brings it about; `None` if only something else does.
    pub(super) fn next_due(&self, now: Instant) -> Option<Duration> {
        let due = self.due.lock();
        match due.is_rung {
            true => Some(Duration::ZERO),
            false => due.at.map(|at| at.since(now)),
        }
    }

    /// Blocks until a turn is due. Only the one who has the turns sets a time.
    pub(super) fn wait(&self, clock: &Arc<dyn Clock>) {
        let mut due = self.due.lock();
        loop {
            let now = clock.now();
            if due.is_due(now) {
                return;
            }
            match due.at {
                None => self.rung.wait(&mut due),
                Some(at) => drop(self.rung.wait_for(&mut due, at.since(now))),
            }
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::simulated::SimulatedWorld;

    #[test]
    fn a_turn_is_due_when_the_bell_was_rung_or_its_time_has_come() {
        let world = SimulatedWorld::new(0);
        let clock = world.env().clock;
        let bell = Bell::default();
        assert!(!bell.take(clock.now()));
        assert_eq!(bell.next_due(clock.now()), None);
        bell.ring();
        assert_eq!(bell.next_due(clock.now()), Some(Duration::ZERO));
        assert!(bell.take(clock.now()));
        assert!(!bell.take(clock.now()));
        let second = Duration::from_secs(1);
        bell.ring_at(clock.now().plus(second));
        assert_eq!(bell.next_due(clock.now()), Some(second));
        assert!(!bell.take(clock.now()));
        world.advance(second);
        assert!(bell.take(clock.now()));
        assert_eq!(bell.next_due(clock.now()), None);
    }
}
