//! Brings committed values to RocksDB, on a thread of its own, so that a commit does not wait for it.

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

/// The sending end of the flush thread.
pub(crate) struct Flusher {
    queue: Option<Sender<Order>>,
    thread: Option<Box<dyn JoinHandle>>,
}

impl Flusher {
    pub(crate) fn start(job: &Arc<JobContext>, reports: Reports) -> Result<Self, JobError> {
        let (queue, flushes) = bounded::<Order>(QUEUE_MAX);
        let shared = Arc::clone(job);
        let body = move || {
            let mut release = Release::new(&shared.env);
            for order in flushes {
                let (worker, flush) = match order {
                    Order::Flush(worker, flush) => (worker, flush),
                    Order::Tell(waiting) => {
                        // Whoever waited may be gone.
                        let _ = waiting.send(());
                        continue;
                    }
                    Order::MakeDurable => {
                        if let Err(e) = shared.backend.make_durable() {
                            return fail(&reports, e);
                        }
                        reports.send(Report::Durable);
                        continue;
                    }
                };
                let span = debug_span!(
                    "flush",
                    store = flush.batch.store(),
                    changes = flush.batch.changes_count()
                );
                let _entered = span.enter();
                let ticket = (flush.batch.store().to_owned(), flush.batch.ticket());
                if let Err(e) = shared.backend.flush(flush.batch, &flush.positions) {
                    return fail(&reports, e);
                }
                shared.inboxes[worker].send(Message::Flushed {
                    tickets: vec![ticket],
                });
                release.after_flush(&shared.env);
            }
        };
        let spawned = job.env.spawn.spawn(THREAD, Box::new(body));
        let thread = spawned.map_err(|e| JobError::no_thread(THREAD, &e))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Hands over values of a committed cycle.
    pub(crate) fn flush(&mut self, worker: usize, flush: Flush) -> Result<(), JobError> {
        self.send(Order::Flush(worker, flush))
    }

    fn send(&self, order: Order) -> Result<(), JobError> {
        let queue = self.queue.as_ref();
        match queue.is_some_and(|queue| queue.send(order).is_ok()) {
            true => Ok(()),
            false => Err(gone()),
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
        told.recv().map_err(|_| gone())
    }

    /// Waits until everything handed over is written.
    pub(crate) fn close(mut self) -> Result<(), JobError> {
        drop(self.queue.take());
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        joined.map_err(|why| JobError::thread(THREAD, format!("it panicked: {why}")))
    }
}

/// S5: the job stops; nothing is lost, the changelog has it all.
fn fail(reports: &Reports, error: StateError) {
    error!(%error, "the state store failed");
    reports.send(Report::StateFailed(error));
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
