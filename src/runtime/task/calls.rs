//! Calls of the world outside that a step makes for its records, while the worker goes on: they run on a thread of their own, and
//! their answers wait for the step. What waits for an answer is state of the step; here is what is under way.
//!
//! A call may be made once its input is committed ([`Calls::is_committed`]): so whatever it does outside, its input has its id for good.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::call_runtime::{CallClock, CallRuntime, THREAD};
use super::context::{JobContext, OperatorContext};
use super::pace::Turn;
use crate::env::{Env, failpoint, warn};
use crate::runtime::contract::error::JobError;

/// The id of a call: the same however often the call is made for its input, and of no other input of any job.
///
/// It is shown as `incarnation/epoch/sequence`. Each instance of a step has an incarnation of its own, which is drawn at random: a job
/// that was created anew, or that went back to a savepoint, never gives an id again that was given before.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct CallId {
    incarnation: u128,
    epoch: u64,
    sequence: u64,
}

impl CallId {
    /// The number of the instance of the step that gave the id.
    #[must_use]
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// The number of the cycle in which it was given, counted from 0 by each start of the job.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its number among those that the instance gave in that cycle, from 0.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (incarnation, epoch, sequence) = (self.incarnation, self.epoch, self.sequence);
        write!(f, "{incarnation:032x}/{epoch}/{sequence}")
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
    /// The instances of steps that have more of them than they should.
    crowded: AtomicUsize,
    /// The cycles that were committed.
    committed: AtomicU64,
    /// Whether a step makes calls at all.
    are_used: AtomicBool,
    runtime: OnceLock<CallRuntime>,
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
            are_used: AtomicBool::new(false),
            runtime: OnceLock::new(),
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

    /// Whether a step of the job makes calls: then it keeps in memory which inputs of its keys have no answer.
    pub(crate) fn are_used(&self) -> bool {
        self.are_used.load(Ordering::Relaxed)
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
    fn runtime(&self, env: &Env) -> Result<&CallRuntime, JobError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let begun = CallRuntime::begin(env).map_err(|e| JobError::thread(THREAD, e.to_string()))?;
        Ok(self.runtime.get_or_init(|| begun))
    }

    /// Gives the calls a turn, where they have no thread; `false` if nothing was to be done.
    pub(crate) fn turn(&self) -> bool {
        self.runtime.get().is_some_and(CallRuntime::turn)
    }

    /// In how long something of a call is due, where they have no thread.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.runtime.get()?.next_due()
    }

    /// Whether a worker's steps are to be asked for answers.
    pub(crate) fn has_news(&self, worker: usize) -> bool {
        self.news[worker].is_there.load(Ordering::Relaxed)
    }
}

/// The calls that one worker's instance of a step has under way. Made by [`OperatorContext::calls`]; when it is dropped, they are given up.
pub struct Calls<R> {
    job: Arc<JobContext>,
    worker: usize,
    turn: Rc<Turn>,
    runtime: Handle,
    clock: CallClock,
    /// Ends the calls with it.
    tasks: JoinSet<()>,
    under_way: usize,
    teller: Sender<Told<R>>,
    answers: Receiver<Told<R>>,
    limit: usize,
    crowded_from: usize,
    are_effects: bool,
    pending: usize,
    is_crowded: bool,
    incarnation: u128,
    cycle: u64,
    /// The ids that were given in the open cycle.
    given: u64,
}

/// An answer on its way to the step.
struct Told<R> {
    number: u64,
    answer: R,
    /// Whether its task is over with it.
    is_last: bool,
}

/// Takes the answers of one task, each with the number that the task was given, and wakes the worker for them.
pub struct Answers<R> {
    number: u64,
    worker: usize,
    teller: Sender<Told<R>>,
    news: Arc<[News]>,
}

impl<R> Answers<R> {
    /// Hands an answer to the step, behind those before it.
    pub fn give(&self, answer: R) {
        self.tell(answer, false);
    }

    /// Hands the last answer of the task to the step.
    pub fn give_last(self, answer: R) {
        self.tell(answer, true);
    }

    /// Says in the log that an effect was not delivered at so many attempts.
    pub fn warn(&self, idempotency_key: &str, attempts: u64, why: &str) {
        warn!(
            effect = idempotency_key,
            attempts,
            why,
            "an effect is not delivered: it is tried again, and those behind it of its key wait; see to its target"
        );
    }

    fn tell(&self, answer: R, is_last: bool) {
        let told = Told {
            number: self.number,
            answer,
            is_last,
        };
        // Nobody waits for it where the step is gone.
        if self.teller.send(told).is_ok() {
            self.news[self.worker].tell();
        }
    }
}

impl OperatorContext {
    /// Lets an operator make calls of the world outside, `limit` at a time in all workers together, and at least one in each.
    ///
    /// # Errors
    /// If the system gives no thread for them.
    pub fn calls<R: Send + 'static>(&mut self, limit: usize) -> Result<Calls<R>, JobError> {
        let job = self.shared_job();
        let (teller, answers) = crossbeam_channel::unbounded();
        job.calls.are_used.store(true, Ordering::Relaxed);
        let limit = (limit / job.inboxes.len()).max(1);
        // It may have inputs from before.
        job.calls.news[self.worker()].tell();
        let runtime = job.calls.runtime(&job.env)?;
        Ok(Calls {
            worker: self.worker(),
            turn: self.turn(),
            runtime: runtime.handle().clone(),
            clock: runtime.clock(),
            tasks: JoinSet::new(),
            under_way: 0,
            teller,
            answers,
            limit,
            crowded_from: limit.saturating_mul(2),
            are_effects: false,
            pending: 0,
            is_crowded: false,
            incarnation: job.env.random.next_u128(),
            cycle: job.calls.committed.load(Ordering::Acquire),
            given: 0,
            job,
        })
    }
}

impl<R: Send + 'static> Calls<R> {
    /// Sources stand still where all workers together have `bound` inputs without an answer, and not from twice the limit on. They are
    /// counted as effects ([`JobProgress::undelivered_effects`](crate::runtime::JobProgress::undelivered_effects)).
    #[must_use]
    pub fn of_effects(mut self, bound: usize) -> Self {
        self.crowded_from = (bound / self.job.inboxes.len()).max(1);
        self.are_effects = true;
        self
    }

    /// An id for a new input.
    #[must_use]
    pub fn new_id(&mut self) -> CallId {
        self.given += 1;
        CallId {
            incarnation: self.incarnation,
            epoch: self.cycle,
            sequence: self.given - 1,
        }
    }

    /// The clock by which calls pause and run out of time: in a test bed it is the one that the test moves.
    #[must_use]
    pub fn clock(&self) -> CallClock {
        self.clock.clone()
    }

    /// Whether another call may be made now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.under_way < self.limit
    }

    /// Makes a call; [`next_answer`](Self::next_answer) gives its answer with this number, and the worker is woken for it. The
    /// call must not panic: then it has no answer.
    pub fn ask(&mut self, number: u64, call: impl Future<Output = R> + Send + 'static) {
        self.ask_in_turn(number, |answers| async move {
            answers.give_last(call.await);
        });
    }

    /// Makes calls one after the other, in one task that counts as one call until it gives its last answer;
    /// [`next_answer`](Self::next_answer) gives each of the answers with this number. As in [`ask`](Self::ask), nothing may panic.
    pub fn ask_in_turn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        number: u64,
        calls: impl FnOnce(Answers<R>) -> F,
    ) {
        let task = calls(Answers {
            number,
            worker: self.worker,
            teller: self.teller.clone(),
            news: Arc::clone(&self.job.calls.news),
        });
        self.under_way += 1;
        let task = self.clock.clone().count(task);
        self.tasks.spawn_on(task, &self.runtime);
        failpoint("calls.begun");
    }

    /// The next answer that is there, with the number of its call. Never waits.
    pub fn next_answer(&mut self) -> Option<(u64, R)> {
        // Tasks that are over take memory until they are asked for.
        while self.tasks.try_join_next().is_some() {}
        let told = self.answers.try_recv().ok()?;
        self.under_way -= usize::from(told.is_last);
        failpoint("calls.answered");
        Some((told.number, told.answer))
    }

    /// The number of the cycle that is open.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// To be called when the cycle closes.
    pub fn end_cycle(&mut self) {
        self.cycle += 1;
        self.given = 0;
    }

    /// Whether the cycle of this number is committed.
    #[must_use]
    pub fn is_committed(&self, cycle: u64) -> bool {
        cycle < self.job.calls.committed.load(Ordering::Acquire)
    }
}

impl<R> Calls<R> {
    /// Says how many inputs have no answer yet, under way or not. From twice the limit on sources stand still, or from the bound
    /// of [`of_effects`](Calls::of_effects); the job does not end with its input while there are any.
    pub fn set_pending(&mut self, count: usize) {
        let calls = &self.job.calls;
        // Wraps around where there are fewer: the sum is right.
        let more = count.wrapping_sub(self.pending);
        calls.pending.fetch_add(more, Ordering::Relaxed);
        if self.are_effects {
            self.job.progress.note_undelivered(more);
        }
        self.pending = count;
        let is_crowded = count >= self.crowded_from;
        if is_crowded != self.is_crowded {
            self.is_crowded = is_crowded;
            match is_crowded {
                true => {
                    // The source of this worker stops behind its record, and not behind its batch.
                    self.turn.crowd();
                    calls.crowded.fetch_add(1, Ordering::Relaxed)
                }
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
