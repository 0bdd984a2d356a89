//! `Shared` and its sender: the one thread of a producer, which hands batches over, takes the answers, and runs the transactional calls.
//!
//! Everything that has to end although its caller is gone (a commit, C17) is a job on this thread.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, Shared as SharedFuture, select};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future::ready};
use parking_lot::Mutex;

use super::accumulator::{Accumulator, Fate, Outgoing, Rules};
use super::config::ProducerConfig;
use super::memory::Memory;
use super::timers::{Parker, Timers};
use super::transaction::Transaction;
use crate::client::{ClientError, Transport};
use crate::env::Instant;
use crate::protocol::ErrorKind;
use crate::protocol::messages::{Acks, InitProducerIdRequest, ProduceRequest, ProduceResponse};
use crate::types::{ProducerIdentity, TopicPartition};

/// The outcome of a job, for any number of waiters.
pub(super) type Outcome<T> = SharedFuture<BoxFuture<'static, Result<T, ClientError>>>;

/// State of a producer's handles and its thread.
pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) config: ProducerConfig,
    pub(super) memory: Arc<Memory>,
    pub(super) core: Mutex<Core>,
    pub(super) timers: Arc<Timers>,
    parker: Arc<Parker>,
    jobs: Mutex<Vec<BoxFuture<'static, ()>>>,
}

/// State under one lock.
pub(super) struct Core {
    pub(super) accumulator: Accumulator,
    pub(super) transaction: Transaction,
    /// No record is taken any more.
    pub(super) is_closed: bool,
    /// The thread ends once nothing is left to do.
    pub(super) is_stopping: bool,
    is_asking_for_identity: bool,
}

/// The answer to a batch's request.
type Answer = (TopicPartition, u64, Result<ProduceResponse, ClientError>);

impl Shared {
    pub(super) fn new(transport: Arc<dyn Transport>, config: ProducerConfig) -> Arc<Self> {
        let core = Core {
            accumulator: Accumulator::new(Rules::new(&config)),
            transaction: Transaction::new(config.transactional_id.is_some()),
            is_closed: false,
            is_stopping: false,
            is_asking_for_identity: false,
        };
        Arc::new(Self {
            memory: Memory::new(config.buffer_memory_bytes),
            core: Mutex::new(core),
            timers: Timers::new(transport.env().clock.clone()),
            parker: Arc::default(),
            jobs: Mutex::default(),
            transport,
            config,
        })
    }

    /// Starts the thread.
    pub(super) fn start(self: &Arc<Self>) -> Result<(), ClientError> {
        const NAME: &str = "of-producer";
        let shared = self.clone();
        let spawned = self
            .transport
            .env()
            .spawn
            .spawn(NAME, Box::new(move || Sender::new(shared).run()));
        spawned.map(drop).map_err(|e| ClientError::Thread {
            name: NAME.to_owned(),
            why: e.to_string(),
        })
    }

    /// Has the thread look again.
    pub(super) fn wake(&self) {
        self.parker.notify();
    }

    /// Runs `job` to its end on the producer's thread, whoever still waits for it.
    pub(super) fn spawn<T: Clone + Send + Sync + 'static>(
        &self,
        job: impl Future<Output = Result<T, ClientError>> + Send + 'static,
    ) -> Outcome<T> {
        let (done, outcome) = oneshot::channel();
        let job = job.map(|result| {
            // Nobody listens if the caller is gone.
            let _ = done.send(result);
        });
        self.jobs.lock().push(job.boxed());
        self.wake();
        outcome
            .map(|result| result.unwrap_or_else(|oneshot::Canceled| Err(closed())))
            .boxed()
            .shared()
    }

    /// Answers a request that is not answered within `request.timeout.ms` itself.
    pub(super) async fn within_request_timeout<T>(
        &self,
        request: &'static str,
        reply: crate::client::transport::Reply<T>,
    ) -> Result<T, ClientError> {
        let timeout = self.config.request_timeout;
        match select(reply, self.timers.sleep(timeout)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(unanswered(request, timeout)),
        }
    }

    /// Repeats `ask` while the answer is retriable or lost, for `max.block.ms` in all. The flag
    /// tells whether any answer was lost.
    pub(super) async fn persist<T>(
        &self,
        request: &'static str,
        mut ask: impl FnMut() -> crate::client::transport::Reply<T>,
    ) -> (Result<T, ClientError>, bool) {
        let deadline = self.timers.now().plus(self.config.max_block);
        let mut was_lost = false;
        loop {
            let answer = self.within_request_timeout(request, ask()).await;
            let Err(error) = answer else {
                return (answer, was_lost);
            };
            was_lost |= error.is_outcome_unknown();
            let is_over = self.timers.now().plus(self.config.retry_backoff) >= deadline;
            if error.kind() != ErrorKind::Retriable || is_over {
                return (Err(error), was_lost);
            }
            self.timers.sleep(self.config.retry_backoff).await;
        }
    }

    /// Asks for a producer identity.
    pub(super) async fn init_producer_id(&self) -> Result<ProducerIdentity, ClientError> {
        let request = InitProducerIdRequest {
            transactional_id: self.config.transactional_id.clone(),
            transaction_timeout: self.config.transaction_timeout,
            current: None,
        };
        let ask = || self.transport.init_producer_id(request.clone());
        self.persist("InitProducerId", ask).await.0
    }

    /// Notes what the fates mean for the transaction, then tells them. `core` is unlocked while users' callbacks run.
    pub(super) fn tell(&self, mut fates: Vec<Fate>) {
        let error = fates.iter().find_map(Fate::error).cloned();
        if let Some(error) = error {
            let mut core = self.core.lock();
            if core.transaction.fail(error) {
                let error = ClientError::NotSent {
                    why: "an earlier record of its transaction failed".to_owned(),
                };
                fates.extend(core.accumulator.abandon(&error));
            }
        }
        fates.into_iter().for_each(Fate::tell);
    }
}

pub(super) fn closed() -> ClientError {
    ClientError::Closed { client: "producer" }
}

fn unanswered(request: &'static str, timeout: std::time::Duration) -> ClientError {
    ClientError::Unanswered {
        request,
        why: format!("nothing came within {timeout:?}"),
        kind: ErrorKind::Retriable,
    }
}

/// The thread.
struct Sender {
    shared: Arc<Shared>,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    jobs: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// Result of a look at the accumulator.
struct Look {
    outgoing: Vec<Outgoing>,
    next: Option<Instant>,
    is_idle: bool,
}

impl Sender {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            requests: FuturesUnordered::new(),
            jobs: FuturesUnordered::new(),
        }
    }

    fn run(mut self) {
        let waker = Waker::from(self.shared.parker.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            let now = self.shared.timers.now();
            let next_timer = self.shared.timers.fire(now);
            self.jobs
                .extend(std::mem::take(&mut *self.shared.jobs.lock()));
            let next_waiter = self.shared.memory.expire(now);
            let look = self.look(now);
            let has_sent = !look.outgoing.is_empty();
            for batch in look.outgoing {
                let request = self.hand_over(batch);
                self.requests.push(request);
            }
            if self.poll(&mut context) || has_sent {
                continue;
            }
            if look.is_idle && self.requests.is_empty() && self.jobs.is_empty() {
                return;
            }
            let next = [look.next, next_timer, next_waiter].into_iter().flatten();
            self.shared.parker.park(next.min().map(|at| at.since(now)));
        }
    }

    fn look(&self, now: Instant) -> Look {
        let is_exhausted = self.shared.memory.is_exhausted();
        let mut core = self.shared.core.lock();
        let fates = core.accumulator.expire(now);
        let is_urgent = is_exhausted || core.is_closed;
        let look = Look {
            outgoing: core.accumulator.drain(is_urgent, now),
            next: core.accumulator.next_deadline(now),
            is_idle: core.is_stopping && core.accumulator.is_empty(),
        };
        let asks = core.accumulator.needs_identity()
            && !core.accumulator.is_empty()
            && !core.is_asking_for_identity;
        core.is_asking_for_identity |= asks;
        drop(core);
        self.shared.tell(fates);
        if asks {
            let shared = self.shared.clone();
            drop(self.shared.spawn(async move { identify(shared).await }));
        }
        look
    }

    fn hand_over(&self, batch: Outgoing) -> BoxFuture<'static, Answer> {
        let shared = &self.shared;
        let acks = shared.config.acks;
        let reply = shared.transport.produce(ProduceRequest {
            partition: batch.partition.clone(),
            records: batch.records,
            acks,
            transactional_id: shared.config.transactional_id.clone(),
        });
        let (partition, number) = (batch.partition, batch.number);
        if acks == Acks::None {
            return ready((partition, number, Ok(unknown_place()))).boxed();
        }
        let timeout = shared.timers.sleep(batch.timeout);
        async move {
            let answer = match select(reply, timeout).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(unanswered("Produce", batch.timeout)),
            };
            (partition, number, answer)
        }
        .boxed()
    }

    /// Takes all that is there; whether there was anything.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let mut has_moved = false;
        while let Poll::Ready(Some(answer)) = self.requests.poll_next_unpin(context) {
            has_moved = true;
            let (partition, number, answer) = answer;
            let now = self.shared.timers.now();
            let fates = self
                .shared
                .core
                .lock()
                .accumulator
                .complete(&partition, number, answer, now);
            self.shared.tell(fates);
        }
        while let Poll::Ready(Some(())) = self.jobs.poll_next_unpin(context) {
            has_moved = true;
        }
        has_moved
    }
}

impl Drop for Sender {
    /// However the thread ends, nobody waits for it in vain.
    fn drop(&mut self) {
        let error = closed();
        let fates = {
            let mut core = self.shared.core.lock();
            core.is_closed = true;
            core.accumulator.abandon(&error)
        };
        self.shared.memory.refuse_all(&error);
        fates.into_iter().for_each(Fate::tell);
        self.shared.jobs.lock().clear();
    }
}

/// With `acks=0` nobody looks at the offset.
fn unknown_place() -> ProduceResponse {
    ProduceResponse {
        base_offset: crate::types::Offset(-1),
        log_append_time: crate::types::Timestamp::NONE,
        log_start_offset: crate::types::Offset(-1),
    }
}

/// Gets an idempotent producer its (next) identity.
async fn identify(shared: Arc<Shared>) -> Result<(), ClientError> {
    let answer = shared.init_producer_id().await;
    let mut core = shared.core.lock();
    core.is_asking_for_identity = false;
    match answer {
        Ok(identity) => {
            core.accumulator.set_identity(identity);
            Ok(())
        }
        Err(error) => {
            let fates = core.accumulator.abandon(&error);
            core.accumulator.set_abandoned(false);
            drop(core);
            shared.tell(fates);
            Err(error)
        }
    }
}
