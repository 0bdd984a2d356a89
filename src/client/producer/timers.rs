//! `Timers`: sleeping futures of the producer's thread; `Parker`: how that thread waits and is woken.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::{Clock, Instant};

/// Wakes futures when their time has come.
pub(super) struct Timers {
    clock: Arc<dyn Clock>,
    state: Mutex<TimersState>,
}

#[derive(Default)]
struct TimersState {
    sleepers: BTreeMap<(Instant, u64), Waker>,
    sleepers_count: u64,
}

impl Timers {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// A future that completes after `duration`.
    pub(super) fn sleep(self: &Arc<Self>, duration: Duration) -> Sleep {
        Sleep {
            timers: self.clone(),
            deadline: self.now().plus(duration),
            number: None,
        }
    }

    /// Wakes who is due; returns when the next one is.
    pub(super) fn fire(&self, now: Instant) -> Option<Instant> {
        let (due, next) = {
            let mut state = self.state.lock();
            let later = state.sleepers.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut state.sleepers, later);
            let next = state.sleepers.keys().next().map(|(deadline, _)| *deadline);
            (due, next)
        };
        due.into_values().for_each(Waker::wake);
        next
    }
}

/// See [`Timers::sleep`].
pub(super) struct Sleep {
    timers: Arc<Timers>,
    deadline: Instant,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.timers.now() >= this.deadline {
            return Poll::Ready(());
        }
        let mut state = this.timers.state.lock();
        let number = *this.number.get_or_insert_with(|| {
            state.sleepers_count += 1;
            state.sleepers_count
        });
        let waker = context.waker().clone();
        state.sleepers.insert((this.deadline, number), waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let key = (self.deadline, number);
            self.timers.state.lock().sleepers.remove(&key);
        }
    }
}

/// Where a thread waits until it is woken or a time is over.
#[derive(Default)]
pub(super) struct Parker {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    pub(super) fn notify(&self) {
        *self.is_woken.lock() = true;
        self.changed.notify_one();
    }

    /// Returns at once if it was woken since the last time.
    pub(super) fn park(&self, timeout: Option<Duration>) {
        let mut is_woken = self.is_woken.lock();
        if !*is_woken {
            match timeout {
                Some(timeout) => {
                    let _ = self.changed.wait_for(&mut is_woken, timeout);
                }
                None => self.changed.wait(&mut is_woken),
            }
        }
        *is_woken = false;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
