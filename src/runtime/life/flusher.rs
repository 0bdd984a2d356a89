//! Brings committed values to RocksDB, on a thread of its own, so that a commit does not wait for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use tracing::debug_span;

use crate::env::{Env, Instant, JoinHandle, error, release_free_memory};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::changelog::Flush;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::inbox::Message;
use crate::runtime::task::report::{Report, Reports};
use crate::state::StateError;

/// The thread that writes to the state store.
const THREAD: &str = "of-flush";
/// Flushes that wait at most. Their bytes count in the stores' own bound: entries stay until they are flushed.
const QUEUE_MAX: usize = 64;

/// Free memory is given back at most so often.
const RELEASE_EVERY: Duration = Duration::from_millis(250);
/// Giving it back takes at most one in so many parts of the flush thread's time.
const RELEASE_SHARE: u32 = 20;

enum Order {
    /// Values of a worker's store.
    Flush(usize, Flush),
    /// To be told that everything before this is written.
    Tell(Sender<()>),
    /// To bring everything before this to the disk, and report it.
    MakeDurable,
}

/// The sending end of what writes to the state store.
pub(crate) struct Flusher(Way);

enum Way {
    /// A thread of its own.
    Thread {
        queue: Option<Sender<Order>>,
        thread: Option<Box<dyn JoinHandle>>,
    },
    /// The driver's thread, whenever it is given a turn (design D27).
    Turns(RefCell<(Flushing, VecDeque<Order>)>),
}

/// The hand that carries orders out.
struct Flushing {
    job: Arc<JobContext>,
    reports: Reports,
    release: Release,
    has_failed: bool,
}

impl Flushing {
    fn new(job: &Arc<JobContext>, reports: Reports) -> Self {
        Self {
            release: Release::new(&job.env),
            job: Arc::clone(job),
            reports,
            has_failed: false,
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            _ if self.has_failed => {}
            Order::Flush(worker, flush) => self.flush(worker, flush),
            Order::Tell(waiting) => {
                // Whoever waited may be gone.
                let _ = waiting.send(());
            }
            Order::MakeDurable => match self.job.backend.make_durable() {
                Ok(()) => self.reports.send(Report::Durable),
                Err(e) => self.fail(e),
            },
        }
    }

    fn flush(&mut self, worker: usize, flush: Flush) {
        let span = debug_span!(
            "flush",
            store = flush.batch.store(),
            changes = flush.batch.changes_count()
        );
        let _entered = span.enter();
        let ticket = (flush.batch.store().to_owned(), flush.batch.ticket());
        if let Err(e) = self.job.backend.flush(flush.batch, &flush.positions) {
            return self.fail(e);
        }
        self.job.inboxes[worker].send(Message::Flushed {
            tickets: vec![ticket],
        });
        self.release.after_flush(&self.job.env);
    }

    /// S5: the job stops; nothing is lost, the changelog has it all.
    fn fail(&mut self, error: StateError) {
        error!(%error, "the state store failed");
        self.has_failed = true;
        self.reports.send(Report::StateFailed(error));
    }
}

impl Flusher {
    /// One with a thread of its own.
    pub(crate) fn start(job: &Arc<JobContext>, reports: Reports) -> Result<Self, JobError> {
        let (queue, orders) = bounded::<Order>(QUEUE_MAX);
        let mut flushing = Flushing::new(job, reports);
        let body = move || {
            for order in orders {
                flushing.carry_out(order);
                if flushing.has_failed {
                    return;
                }
            }
        };
        let spawned = job.env.spawn.spawn(THREAD, Box::new(body));
        let thread = spawned.map_err(|e| JobError::no_thread(THREAD, &e))?;
        Ok(Self(Way::Thread {
            queue: Some(queue),
            thread: Some(thread),
        }))
    }

    /// One that works when it is given a turn, or somebody waits for it.
    pub(crate) fn in_turns(job: &Arc<JobContext>, reports: Reports) -> Self {
        let flushing = Flushing::new(job, reports);
        Self(Way::Turns(RefCell::new((flushing, VecDeque::new()))))
    }

    /// Carries out one order; `false` if there was none. Only of a flusher [`in_turns`](Self::in_turns).
    pub(crate) fn turn(&self) -> bool {
        let Way::Turns(turns) = &self.0 else {
            return false;
        };
        let (flushing, orders) = &mut *turns.borrow_mut();
        let order = orders.pop_front();
        let is_there = order.is_some();
        order
            .into_iter()
            .for_each(|order| flushing.carry_out(order));
        is_there
    }

    /// Hands over values of a committed cycle.
    pub(crate) fn flush(&mut self, worker: usize, flush: Flush) -> Result<(), JobError> {
        self.send(Order::Flush(worker, flush))
    }

    fn send(&self, order: Order) -> Result<(), JobError> {
        match &self.0 {
            Way::Thread { queue, .. } => {
                let sent = queue
                    .as_ref()
                    .is_some_and(|queue| queue.send(order).is_ok());
                sent.then_some(()).ok_or_else(gone)
            }
            Way::Turns(turns) => {
                turns.borrow_mut().1.push_back(order);
                Ok(())
            }
        }
    }

    /// Has everything that was handed over brought to the disk; [`Report::Durable`] says when it is.
    pub(crate) fn make_durable(&self) -> Result<(), JobError> {
        self.send(Order::MakeDurable)
    }

    /// Waits until everything handed over is written, and the workers were sent word of it.
    pub(crate) fn wait_until_idle(&self) -> Result<(), JobError> {
        let (waiting, told) = bounded(1);
        self.send(Order::Tell(waiting))?;
        while self.turn() {}
        told.recv().map_err(|_| gone())
    }

    /// Waits until everything handed over is written.
    pub(crate) fn close(mut self) -> Result<(), JobError> {
        while self.turn() {}
        let Way::Thread { queue, thread } = &mut self.0 else {
            return Ok(());
        };
        drop(queue.take());
        let joined = thread.take().map_or(Ok(()), JoinHandle::join);
        joined.map_err(|why| JobError::thread(THREAD, format!("it panicked: {why}")))
    }
}

fn gone() -> JobError {
    JobError::thread(THREAD, "it ended before the job did")
}

/// When free memory is given back to the system: after a flush, whose values may now be evicted as others come.
struct Release {
    last: Instant,
    wait: Duration,
}

impl Release {
    fn new(env: &Env) -> Self {
        Self {
            last: env.clock.now(),
            wait: RELEASE_EVERY,
        }
    }

    fn after_flush(&mut self, env: &Env) {
        let now = env.clock.now();
        if now.since(self.last) < self.wait {
            return;
        }
        release_free_memory();
        self.last = env.clock.now();
        self.wait = RELEASE_EVERY.max(self.last.since(now) * RELEASE_SHARE);
    }
}
