//! Where calls of the world outside run: on a thread of their own in production, in turns in a test bed, where their pauses and time
//! limits are of virtual time, too.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use crate::env::{Env, Instant};

/// The name of the thread on which calls run.
pub(super) const THREAD: &str = "of-calls";
/// The most polls of the calls' tasks in a turn: what they wake each other for is done in the next one.
const ROUNDS_OF_A_TURN: usize = 16;

/// The runtime of a job's calls.
pub(super) struct CallRuntime {
    handle: Handle,
    kind: Kind,
}

enum Kind {
    /// The drop of the sender ends the thread.
    Thread { _is_over: oneshot::Sender<()> },
    Turns {
        runtime: Mutex<Option<Runtime>>,
        timers: Arc<Timers>,
    },
}

impl CallRuntime {
    /// Begins a thread, or a runtime that is given turns where there are no threads.
    pub(super) fn begin(env: &Env) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        if !env.spawn.has_threads() {
            let timers = Arc::new(Timers {
                env: env.clone(),
                due: Mutex::default(),
                next: AtomicU64::new(0),
                polls: AtomicU64::new(0),
            });
            let runtime = Mutex::new(Some(runtime));
            return Ok(Self {
                handle,
                kind: Kind::Turns { runtime, timers },
            });
        }
        let (is_over, over) = oneshot::channel();
        let body = move || {
            let _ = runtime.block_on(over);
            // A call may block a thread of its own; nobody waits for it.
            runtime.shutdown_background();
        };
        env.spawn.spawn(THREAD, Box::new(body))?;
        Ok(Self {
            handle,
            kind: Kind::Thread { _is_over: is_over },
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The clock of the calls.
    pub(super) fn clock(&self) -> CallClock {
        CallClock(match &self.kind {
            Kind::Thread { .. } => None,
            Kind::Turns { timers, .. } => Some(Arc::clone(timers)),
        })
    }

    /// Lets the tasks of calls go on as far as they can without waiting; `false` if none did anything, or they have a thread.
    pub(super) fn turn(&self) -> bool {
        let Kind::Turns { runtime, timers } = &self.kind else {
            return false;
        };
        timers.wake_due();
        let before = timers.polls.load(Ordering::Relaxed);
        if let Some(runtime) = &*runtime.lock() {
            runtime.block_on(async {
                for _ in 0..ROUNDS_OF_A_TURN {
                    let polls = timers.polls.load(Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    if timers.polls.load(Ordering::Relaxed) == polls {
                        break;
                    }
                }
            });
        }
        timers.polls.load(Ordering::Relaxed) != before
    }

    /// In how long the next pause or time limit of a call is over, by the clock of the turns.
    pub(super) fn next_due(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Thread { .. } => None,
            Kind::Turns { timers, .. } => timers.next_due(),
        }
    }
}

impl Drop for CallRuntime {
    fn drop(&mut self) {
        if let Kind::Turns { runtime, .. } = &self.kind
            && let Some(runtime) = runtime.lock().take()
        {
            // What the tasks hold goes, and nobody waits for what they began on threads of theirs.
            runtime.shutdown_background();
        }
    }
}

/// Who waits for which moment of virtual time.
struct Timers {
    env: Env,
    due: Mutex<BTreeMap<(Instant, u64), Waker>>,
    next: AtomicU64,
    /// The number of polls of tasks.
    polls: AtomicU64,
}

impl Timers {
    fn wake_due(&self) {
        let now = self.env.clock.now();
        let mut due = self.due.lock();
        let later = due.split_off(&(now, u64::MAX));
        let woken = std::mem::replace(&mut *due, later);
        drop(due);
        woken.into_values().for_each(Waker::wake);
    }

    fn next_due(&self) -> Option<Duration> {
        let due = self.due.lock();
        let ((at, _), _) = due.first_key_value()?;
        Some(at.since(self.env.clock.now()))
    }
}

/// The clock by which calls pause and run out of time: the machine's, or the one of a test bed.
#[derive(Clone)]
pub struct CallClock(Option<Arc<Timers>>);

impl CallClock {
    /// Waits for so long.
    pub async fn pause(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(timers) => Pause::new(timers, duration).await,
        }
    }

    /// Gives `call` so much time; `None` if that was not enough. An answer that is there counts, whatever the time.
    pub async fn within<R>(&self, limit: Duration, call: impl Future<Output = R>) -> Option<R> {
        match &self.0 {
            None => tokio::time::timeout(limit, call).await.ok(),
            Some(timers) => {
                let pause = std::pin::pin!(Pause::new(timers, limit));
                let call = std::pin::pin!(call);
                match futures::future::select(call, pause).await {
                    futures::future::Either::Left((answer, _)) => Some(answer),
                    futures::future::Either::Right(_) => None,
                }
            }
        }
    }

    /// A task whose work is seen by the turns that it is given.
    pub(super) async fn count<R>(self, task: impl Future<Output = R>) -> R {
        let Some(timers) = self.0 else {
            return task.await;
        };
        let mut task = std::pin::pin!(task);
        std::future::poll_fn(|context| {
            timers.polls.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(context)
        })
        .await
    }
}

/// A wait of virtual time.
struct Pause<'a> {
    timers: &'a Timers,
    at: Instant,
    number: u64,
}

impl<'a> Pause<'a> {
    fn new(timers: &'a Timers, duration: Duration) -> Self {
        Self {
            timers,
            at: timers.env.clock.now().plus(duration),
            number: timers.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timers.env.clock.now() >= self.at {
            return Poll::Ready(());
        }
        let mut due = self.timers.due.lock();
        due.insert((self.at, self.number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.timers.due.lock().remove(&(self.at, self.number));
    }
}
