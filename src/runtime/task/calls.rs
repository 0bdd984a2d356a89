//! Calls of the world outside that a step makes for its records, while the worker goes on: they run on a thread of their own, and
//! their answers wait for the step. What waits for an answer is state of the step; here is what is under way.
//!
//! A call may be made once its input is committed ([`Calls::is_committed`]): so whatever it does outside, its input has its id for good.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::context::{JobContext, OperatorContext};
use crate::env::Env;
use crate::runtime::contract::error::JobError;

/// The name of the thread on which calls run.
const THREAD: &str = "of-calls";

/// The id of a call: the same however often the call is made for its input, and of no other input.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct CallId(u128);

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// One worker's sign that there is something to do for steps with calls.
struct News {
    is_there: AtomicBool,
    waker: Waker,
}

impl News {
    fn tell(&self) {
        self.is_there.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

/// The part of their calls that the workers of a job share.
pub(crate) struct JobCalls {
    /// Each worker's.
    news: Arc<[News]>,
    /// The inputs that have no answer yet, of all steps and workers.
    pending: AtomicUsize,
    /// How many instances of steps have more of them than they should.
    crowded: AtomicUsize,
    /// The cycles that were committed.
    committed: AtomicU64,
    thread: OnceLock<CallThread>,
}

struct CallThread {
    handle: Handle,
    /// Its drop ends the thread.
    _is_over: oneshot::Sender<()>,
}

impl JobCalls {
    /// For workers that these wake.
    pub(crate) fn new(wakers: impl IntoIterator<Item = Waker>) -> Self {
        let news = wakers.into_iter().map(|waker| News {
            is_there: AtomicBool::new(false),
            waker,
        });
        Self {
            news: news.collect(),
            pending: AtomicUsize::new(0),
            crowded: AtomicUsize::new(0),
            committed: AtomicU64::new(0),
            thread: OnceLock::new(),
        }
    }

    /// A cycle was committed: what came in it may be asked about.
    pub(crate) fn note_committed(&self) {
        self.committed.fetch_add(1, Ordering::Release);
        if self.are_pending() {
            self.tell_all();
        }
    }

    fn tell_all(&self) {
        self.news.iter().for_each(News::tell);
    }

    /// Whether a worker's steps are to be asked for answers, and to make calls; says so once.
    #[inline]
    pub(crate) fn take_news(&self, worker: usize) -> bool {
        let is_there = &self.news[worker].is_there;
        is_there.load(Ordering::Relaxed) && is_there.swap(false, Ordering::Acquire)
    }

    /// Whether any input has no answer yet.
    pub(crate) fn are_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// Whether sources are to stand still until there are answers (I10).
    pub(crate) fn are_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed) > 0
    }

    /// The runtime on which calls run; begins it when it is first asked for.
    fn runtime(&self, env: &Env) -> Result<Handle, JobError> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread.handle.clone());
        }
        let begun = begin_thread(env).map_err(|e| JobError::thread(THREAD, e.to_string()))?;
        Ok(self.thread.get_or_init(|| begun).handle.clone())
    }
}

fn begin_thread(env: &Env) -> std::io::Result<CallThread> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let (is_over, over) = oneshot::channel();
    let body = move || {
        let _ = runtime.block_on(over);
        // A call may block a thread of its own; nobody waits for it.
        runtime.shutdown_background();
    };
    env.spawn.spawn(THREAD, Box::new(body))?;
    Ok(CallThread {
        handle,
        _is_over: is_over,
    })
}

/// The calls that one worker's instance of a step has under way. Made by [`OperatorContext::calls`]; when it is dropped, they are given up.
pub struct Calls<R> {
    job: Arc<JobContext>,
    worker: usize,
    runtime: Handle,
    /// Ends the calls with it.
    tasks: JoinSet<()>,
    under_way: usize,
    teller: Sender<(u64, R)>,
    answers: Receiver<(u64, R)>,
    limit: usize,
    pending: usize,
    is_crowded: bool,
    cycle: u64,
}

impl OperatorContext {
    /// Lets an operator make calls of the world outside, `limit` at a time in all workers together, and at least one in each.
    ///
    /// # Errors
    /// If the system gives no thread for them.
    pub fn calls<R: Send + 'static>(&mut self, limit: usize) -> Result<Calls<R>, JobError> {
        let job = self.shared_job();
        let (teller, answers) = crossbeam_channel::unbounded();
        // It may have inputs from before.
        job.calls.news[self.worker()].tell();
        Ok(Calls {
            worker: self.worker(),
            runtime: job.calls.runtime(&job.env)?,
            tasks: JoinSet::new(),
            under_way: 0,
            teller,
            answers,
            limit: (limit / job.inboxes.len()).max(1),
            pending: 0,
            is_crowded: false,
            cycle: job.calls.committed.load(Ordering::Acquire),
            job,
        })
    }
}

impl<R: Send + 'static> Calls<R> {
    /// An id for a new input.
    #[must_use]
    pub fn new_id(&self) -> CallId {
        CallId(self.job.env.random.next_u128())
    }

    /// Whether another call may be made now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.under_way < self.limit
    }

    /// Makes a call; [`next_answer`](Self::next_answer) gives its answer with this number, and the worker is woken for it. The
    /// call must not panic: then it has no answer.
    pub fn ask(&mut self, number: u64, call: impl Future<Output = R> + Send + 'static) {
        let (teller, news) = (self.teller.clone(), Arc::clone(&self.job.calls.news));
        let worker = self.worker;
        let told = async move {
            let answer = call.await;
            // Nobody waits for it where the step is gone.
            if teller.send((number, answer)).is_ok() {
                news[worker].tell();
            }
        };
        self.under_way += 1;
        self.tasks.spawn_on(told, &self.runtime);
    }

    /// The next answer that is there, with the number of its call. Never waits.
    pub fn next_answer(&mut self) -> Option<(u64, R)> {
        // Tasks that are over take memory until they are asked for.
        while self.tasks.try_join_next().is_some() {}
        let answer = self.answers.try_recv().ok()?;
        self.under_way -= 1;
        Some(answer)
    }

    /// The number of the cycle that is open.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// To be called when the cycle closes.
    pub fn end_cycle(&mut self) {
        self.cycle += 1;
    }

    /// Whether the cycle of this number is committed.
    #[must_use]
    pub fn is_committed(&self, cycle: u64) -> bool {
        cycle < self.job.calls.committed.load(Ordering::Acquire)
    }
}

impl<R> Calls<R> {
    /// Says how many inputs have no answer yet, under way or not. From twice the limit on sources stand still; the job does not end
    /// with its input while there are any.
    pub fn set_pending(&mut self, count: usize) {
        let calls = &self.job.calls;
        // Wraps around where there are fewer: the sum is right.
        let more = count.wrapping_sub(self.pending);
        calls.pending.fetch_add(more, Ordering::Relaxed);
        self.pending = count;
        let is_crowded = count >= self.limit.saturating_mul(2);
        if is_crowded != self.is_crowded {
            self.is_crowded = is_crowded;
            match is_crowded {
                true => calls.crowded.fetch_add(1, Ordering::Relaxed),
                false => {
                    let before = calls.crowded.fetch_sub(1, Ordering::Relaxed);
                    if before == 1 {
                        // Sources may go on.
                        calls.tell_all();
                    }
                    before
                }
            };
        }
    }
}

impl<R> Drop for Calls<R> {
    fn drop(&mut self) {
        self.set_pending(0);
    }
}
