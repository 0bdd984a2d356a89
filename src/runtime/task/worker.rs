//! A worker: one thread that reads its splits, runs the chains, and owns its part of the state (design D8).

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::appender::TopicAppender;
use super::chains::Chains;
use super::changelog::{Changelog, Flush};
use super::context::{JobContext, OperatorContext, Producer};
use super::cycle::Commit;
use super::exchange::Receive;
use super::feed::Feed;
use super::inbox::Message;
use super::meter::WorkerMeters;
use super::open_sink::OpenSink;
use super::pace::Turn;
use super::report::{Drained, Report, Reports};
use super::stores::OpenStore;
use crate::env::{Instant, failpoint};
use crate::runtime::contract::error::{Failure, FailureInner, JobError};
use crate::runtime::contract::operator::Signal;
use crate::runtime::contract::record::Origin;
use crate::runtime::contract::sink::MarkChanges;
use crate::runtime::contract::source::{Position, Read};
use crate::state::{CycleStore, FlushUrgency};

mod handing_over;
mod reading;

/// The longest sleep without a message; a guard against a lost wake-up, not a way to notice work.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// The name of a worker's thread.
pub(crate) fn worker_thread(number: usize) -> String {
    format!("of-worker-{number}")
}

/// Interval of ticks to chains that ask for the wall clock.
const TICK: Duration = Duration::from_millis(10);

/// A worker at work. It stays on the thread that built it, which gives it its turns.
pub(crate) struct Worker {
    job: Arc<JobContext>,
    number: usize,
    /// The makers of its chains.
    chains: Chains,
    commit: Commit,
    reports: Reports,
    waker: Waker,
    feeds: Vec<Box<dyn Feed>>,
    receivers: Vec<Receiver>,
    /// Exchanges behind each source.
    source_edges: Vec<Vec<usize>>,
    writer: Rc<std::cell::Cell<usize>>,
    dead_letters: Option<Rc<RefCell<TopicAppender>>>,
    stores: Vec<OpenStore>,
    sinks: Vec<OpenSink>,
    turn: Rc<Turn>,
    meters: WorkerMeters,
    /// The feed that reads next.
    next_feed: usize,
    /// When the chains are told of the wall clock next.
    next_tick: Instant,
    state: State,
    current: Origin,
    is_exhausted: bool,
    /// Changes of this worker's stores in the open cycle, in bytes, as of the last look.
    overlay_bytes: usize,
    /// The writer of the next cycle, once the driver said to open it.
    open_due: Option<usize>,
    /// Messages of the next cycle that came before this worker could open it.
    early: Vec<Message>,
}

struct Receiver {
    receive: Box<dyn Receive>,
    /// The exchanges that this one's chain feeds.
    feeds: Vec<usize>,
    /// Senders in all workers.
    senders: usize,
    /// Those of them that ended the cycle.
    ended: usize,
    is_closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The cycle is open.
    Open,
    /// Sources stand still; what is in flight runs out.
    Closing,
    /// Everything ran out; waiting for the next cycle.
    Drained,
}

/// The wish of a worker after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Another turn.
    Again,
    /// A turn when something comes, and after so long at the latest.
    Wait(Duration),
    /// None: it was told to stop.
    Ended,
}

/// Next step of a worker.
enum Next {
    GoOn,
    Stop,
}

/// Reads a panic's message.
fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(other) => (*other
            .downcast_ref::<&str>()
            .unwrap_or(&"a panic without a message"))
        .to_owned(),
    }
}

/// Builds worker `number`, gives it turns until it ends, and puts it away. Panics are contained in all of it (C18): the
/// driver waits for every worker's end.
pub(crate) fn run_worker(
    job: Arc<JobContext>,
    number: usize,
    chains: &Chains,
    commit: Commit,
    reports: &Reports,
) -> Result<(), JobError> {
    let mut worker = Worker::build_contained(job, number, chains, commit, reports.clone())?;
    let worked = loop {
        match worker.turn(usize::MAX) {
            Ok(Turned::Again) => {}
            Ok(Turned::Wait(at_most)) => worker.wait(at_most),
            Ok(Turned::Ended) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    contained(number, || {
        drop(worker);
        worked
    })
}

/// Does what runs functions of the job where no record is to blame: while a worker is made or put away.
fn contained<T>(number: usize, work: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = format!(
            "a function of the job panicked while it was made or dropped: {}",
            panic_message(panic)
        );
        Err(JobError::thread(&worker_thread(number), why))
    })
}

/// The reading ends of a worker's chains: of sources and topics, and of its inbox.
type ReadingEnds = (Vec<Box<dyn Feed>>, Vec<Box<dyn Receive>>);

/// Builds a worker's instances of all chains.
fn build_chains(chains: &Chains, context: &mut OperatorContext) -> Result<ReadingEnds, JobError> {
    let mut feeds = Vec::new();
    for (index, source) in chains.sources.iter().enumerate() {
        context.begin(Producer::Source(index));
        feeds.push(source(context)?);
    }
    let mut receives = Vec::new();
    for (index, exchange) in chains.exchanges.iter().enumerate() {
        if context.job().is_spread {
            context.begin(Producer::Source(chains.sources.len() + index));
            feeds.push((exchange.repartition)(context)?);
        } else {
            context.begin(Producer::Exchange(index));
            receives.push((exchange.receive)(context)?);
        }
    }
    Ok((feeds, receives))
}

impl Worker {
    /// Builds this worker's instances of everything, and restores its state.
    fn build(
        job: Arc<JobContext>,
        number: usize,
        chains: &Chains,
        commit: Commit,
        reports: Reports,
    ) -> Result<Self, JobError> {
        let mut context = OperatorContext::new(
            Arc::clone(&job),
            number,
            chains.sources.len(),
            commit,
            reports.clone(),
        )?;
        let (mut feeds, receives) = build_chains(chains, &mut context)?;
        let parts = context.into_parts();
        handing_over::expect_senders(&job, &mut feeds, chains.sources.len(), &parts.ways)?;
        let workers = job.inboxes.len();
        let fed_by = |producer| {
            parts
                .edges
                .iter()
                .filter(move |edge| edge.producer == producer)
                .map(|edge| edge.exchange)
                .collect::<Vec<_>>()
        };
        let receivers = receives
            .into_iter()
            .enumerate()
            .map(|(index, mut receive)| {
                let edges = parts.edges.iter().filter(|edge| edge.exchange == index);
                let senders: Vec<bool> = edges
                    .flat_map(|edge| (0..workers).map(|worker| job.may_send(edge, worker)))
                    .collect();
                receive.expect_senders(&senders);
                Receiver {
                    receive,
                    feeds: fed_by(Producer::Exchange(index)),
                    senders: senders.len(),
                    ended: 0,
                    is_closed: false,
                }
            });
        let receivers = receivers.collect();
        let source_edges = (0..feeds.len())
            .map(|index| fed_by(Producer::Source(index)))
            .collect();
        let meters = job.meters_of(number, chains.sources.len());
        Ok(Self {
            waker: job.inboxes[number].waker(),
            job,
            number,
            chains: chains.clone(),
            commit,
            reports,
            feeds,
            receivers,
            source_edges,
            writer: parts.writer,
            dead_letters: parts.dead_letters,
            stores: parts.stores,
            sinks: parts.sinks,
            turn: parts.turn,
            meters,
            next_feed: 0,
            next_tick: Instant::default(),
            state: State::Open,
            current: Origin::default(),
            is_exhausted: false,
            overlay_bytes: 0,
            open_due: None,
            early: Vec::new(),
        })
    }

    /// [`Worker::build`], where a panic is contained.
    pub(crate) fn build_contained(
        job: Arc<JobContext>,
        number: usize,
        chains: &Chains,
        commit: Commit,
        reports: Reports,
    ) -> Result<Self, JobError> {
        contained(number, || Self::build(job, number, chains, commit, reports))
    }

    /// Handles at most `messages_max` messages, then reads a batch of every source that may be read (design D27). A panic in
    /// a user's function is contained and reported (C18); there is no turn after an error.
    pub(crate) fn turn(&mut self, messages_max: usize) -> Result<Turned, JobError> {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(messages_max)));
        worked.unwrap_or_else(|panic| {
            Err(JobError::Panicked {
                split: self.job.split_name(self.current.split),
                offset: self.current.offset,
                message: panic_message(panic),
            })
        })
    }

    fn work(&mut self, messages_max: usize) -> Result<Turned, JobError> {
        let mut handled = 0;
        while handled < messages_max
            && let Some(message) = self.job.inboxes[self.number].receive()
        {
            if let Next::Stop = self.handle(message)? {
                return Ok(Turned::Ended);
            }
            handled += 1;
        }
        self.tick()?;
        let at_most = match self.read_sources()? {
            Read::Progress => return Ok(Turned::Again),
            // There may be more messages.
            _ if handled == messages_max => return Ok(Turned::Again),
            Read::Later(after) => after,
            Read::Pending | Read::Exhausted => SLEEP_MAX,
        };
        Ok(Turned::Wait(match self.job.uses_clock {
            true => at_most.min(TICK),
            false => at_most,
        }))
    }

    /// Sleeps until a message or a source's news is there, at most so long.
    fn wait(&self, at_most: Duration) {
        let is_blocked = self.is_held_back();
        let began = self.job.env.clock.now();
        self.job.inboxes[self.number].wait(at_most);
        let slept = self.job.env.clock.now().since(began);
        self.meters.sleep.add(is_blocked, slept);
    }

    /// Whether it could read more, but waits for others: for a commit, or for a worker that is behind.
    fn is_held_back(&self) -> bool {
        let is_crowded = |worker| self.job.is_crowded(worker);
        self.state != State::Open
            || self.job.pressure.are_sources_stopped()
            || (0..self.job.inboxes.len()).any(is_crowded)
    }

    /// Where each of its splits stands.
    pub(crate) fn positions(&self) -> Vec<(u32, Position)> {
        let mut positions = Vec::new();
        for feed in &self.feeds {
            feed.positions(&mut |split, at| positions.push((split, at)));
        }
        positions
    }

    fn handle(&mut self, message: Message) -> Result<Next, JobError> {
        match message {
            // Another worker opened the next cycle first: what it sends waits for our own `Open`.
            Message::Batch { .. } | Message::EndOfCycle { .. } if self.state == State::Drained => {
                self.early.push(message)
            }
            Message::Batch {
                exchange,
                batch,
                records_count,
                ..
            } => self.receive(exchange, batch, records_count)?,
            Message::EndOfCycle { exchange } => {
                self.receivers[exchange].ended += 1;
                self.close_receivers()?;
            }
            Message::Close if self.state == State::Drained => self.early.push(message),
            Message::Close => self.close()?,
            Message::Open { writer } => {
                self.open_due = Some(writer);
                self.open_if_due()?;
            }
            Message::Committed => self.commit_sinks()?,
            Message::Flushed { tickets } => {
                self.each_store(&mut |store, _| {
                    for (name, ticket) in &tickets {
                        if name == store.name() {
                            store.flushed(*ticket);
                        }
                    }
                    Ok(())
                })?;
                self.open_if_due()?;
            }
            Message::Reassign(change) => self.reassign(&change)?,
            Message::FlushAll => self.flush_all()?,
            Message::Stop => return Ok(Next::Stop),
        }
        Ok(Next::GoOn)
    }

    /// Opens the next cycle, unless a store must first be rid of what waits for its flush: memory stays
    /// within its bound (I10). Messages of that cycle wait meanwhile.
    fn open_if_due(&mut self) -> Result<(), JobError> {
        let Some(writer) = self.open_due else {
            return Ok(());
        };
        if self.must_wait_for_flush()? {
            return Ok(());
        }
        assert_eq!(
            self.state,
            State::Drained,
            "a cycle opens where the last one was drained"
        );
        self.open_due = None;
        self.writer.set(writer);
        self.state = State::Open;
        self.turn.open_cycle();
        self.overlay_bytes = 0;
        for receiver in &mut self.receivers {
            (receiver.ended, receiver.is_closed) = (0, false);
        }
        for message in std::mem::take(&mut self.early) {
            self.handle(message)?;
        }
        Ok(())
    }

    /// Whether a store must first be rid of what waits for RocksDB. Where no flush is under way that could help, the
    /// next one is taken here: the last one may have been under way when the cycle was drained.
    fn must_wait_for_flush(&mut self) -> Result<bool, JobError> {
        let mut must_wait = false;
        let (number, reports) = (self.number, self.reports.clone());
        self.each_store(&mut |store, changelog| {
            if !store.must_wait_for_flush() {
                return Ok(());
            }
            must_wait = true;
            if let Some(flush) = changelog.take_flush(store, FlushUrgency::Now)? {
                reports.send(Report::Flush(number, flush));
            }
            Ok(())
        })?;
        Ok(must_wait)
    }

    /// Hands over all that RocksDB lacks; nothing is on its way there.
    fn flush_all(&mut self) -> Result<(), JobError> {
        assert_eq!(
            self.state,
            State::Drained,
            "all is handed over where no cycle is open"
        );
        let (number, reports) = (self.number, self.reports.clone());
        self.each_store(&mut |store, changelog| {
            if let Some(flush) = changelog.take_flush(store, FlushUrgency::Now)? {
                reports.send(Report::Flush(number, flush));
            }
            Ok(())
        })?;
        self.reports.send(Report::StateFlushed);
        Ok(())
    }

    /// The sources stand still: ends the cycle in their chains, and then wherever nothing more can come.
    fn close(&mut self) -> Result<(), JobError> {
        assert_eq!(self.state, State::Open, "a cycle closes once");
        self.state = State::Closing;
        for index in 0..self.feeds.len() {
            let ended = self.feeds[index].signal(Signal::EndOfCycle);
            ended.map_err(|failure| self.failed(failure))?;
            self.tell_ended(&self.source_edges[index]);
        }
        self.close_receivers()
    }

    fn tell_ended(&self, exchanges: &[usize]) {
        for &exchange in exchanges {
            self.job
                .inboxes
                .iter()
                .for_each(|inbox| inbox.send(Message::EndOfCycle { exchange }));
        }
    }

    /// Ends the cycle in every chain whose senders have all ended it. Messages of one sender come in
    /// order, so all its batches were received before its end.
    fn close_receivers(&mut self) -> Result<(), JobError> {
        if self.state != State::Closing {
            return Ok(());
        }
        for index in 0..self.receivers.len() {
            let receiver = &mut self.receivers[index];
            if receiver.is_closed || receiver.ended < receiver.senders {
                continue;
            }
            receiver.is_closed = true;
            let ended = receiver.receive.signal(Signal::EndOfCycle);
            ended.map_err(|failure| self.failed(failure))?;
            self.tell_ended(&self.receivers[index].feeds);
        }
        if self.receivers.iter().all(|receiver| receiver.is_closed) {
            self.drain()
        } else {
            Ok(())
        }
    }

    /// Nothing is in flight: writes the changelogs, and tells the driver where the sources stand.
    fn drain(&mut self) -> Result<(), JobError> {
        self.state = State::Drained;
        failpoint("cycle.drained");
        let began = self.job.env.clock.now();
        let marks = self.prepare_sinks()?;
        let mut flushes: Vec<Flush> = Vec::new();
        let timestamp = self.job.env.clock.wall();
        let urgency = match self.job.is_flush_due.load(Ordering::Relaxed) {
            true => FlushUrgency::Now,
            false => FlushUrgency::WhenDue,
        };
        let (progress, worker) = (Arc::clone(&self.job.progress), self.number);
        self.each_store(&mut |store, changelog| {
            flushes.extend(changelog.drain(store, timestamp, urgency)?);
            progress.note_size(store.name(), worker, store.size());
            progress.meters.note_reads(store.name(), store.take_reads());
            Ok(())
        })?;
        failpoint("cycle.changelog_written");
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters
                .borrow_mut()
                .flush_all()
                .map_err(|failure| self.failed(failure))?;
        }
        let positions = self.positions();
        for feed in &self.feeds {
            feed.states(&mut |split, state| progress.meters.note_state(split, state));
        }
        self.reports.send(Report::Drained(Drained {
            worker: self.number,
            positions,
            flushed_in: self.job.env.clock.now().since(began),
            marks,
            flushes,
        }));
        Ok(())
    }

    /// Makes durable what this worker's sinks were given, and collects the marks that say how much that is.
    fn prepare_sinks(&mut self) -> Result<Vec<(String, MarkChanges)>, JobError> {
        let mut marks = Vec::new();
        for open in &self.sinks {
            let mut changes = MarkChanges::default();
            let prepared = open.writer.borrow_mut().prepare_commit(&mut changes);
            prepared.map_err(|failure| open.failed(failure))?;
            if !changes.is_empty() {
                open.check_marks()?;
                marks.push((open.name.clone(), changes));
            }
        }
        failpoint("sink.prepared");
        Ok(marks)
    }

    /// Has this worker's sinks show what is committed.
    fn commit_sinks(&mut self) -> Result<(), JobError> {
        for open in &self.sinks {
            let committed = open.writer.borrow_mut().commit();
            committed.map_err(|failure| open.failed(failure))?;
        }
        failpoint("sink.committed");
        Ok(())
    }

    /// Shows each store of this worker with its changelog, until one fails.
    fn each_store(
        &mut self,
        visit: &mut dyn FnMut(&mut dyn CycleStore, &mut Changelog) -> Result<(), Failure>,
    ) -> Result<(), JobError> {
        let mut stores = self.stores.iter_mut();
        let visited =
            stores.try_for_each(|open| visit(&mut *open.store.borrow_mut(), &mut open.changelog));
        visited.map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure) -> JobError {
        match failure.into_inner() {
            FailureInner::Job(e) => e,
            FailureInner::Poison(why) => JobError::Poison {
                split: self.job.split_name(self.current.split),
                offset: self.current.offset,
                why,
            },
        }
    }
}
