//! State that the parts of a running job share: the job's, and each worker's own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::alignment::Alignment;
use super::appender::TopicAppender;
use super::calls::JobCalls;
use super::changelog::{Changelog, wipe_what_cannot_be_continued};
use super::cycle::{Commit, WRITERS_COUNT};
use super::exchange::SpentBatches;
use super::inbox::Inbox;
use super::late::Late;
use super::marks::{Beginning, SharedTasks};
use super::open_sink::OpenSink;
use super::pace::{RecordBudget, Turn};
use super::poison::{Poison, PoisonPolicy};
use super::pressure::Pressure;
use super::quarantine::{Alone, ApartAhead};
use super::read_ahead::{SharedReadAhead, ValuesAhead};
use super::report::Reports;
use super::shared_node::{ExchangeEdge, SharedNode};
use super::side::{Side, SideOutput};
use super::source_changelog::SourceChangelog;
use super::source_time::SourceTimes;
use super::splits::Splits;
use super::stores::{KeyValueStore, OpenStore, SharedStore, StoreKind};
use crate::client::{TransactionalWriter, Transport};
use crate::codec::{Codec, Datum, Schema, ValueVersions};
use crate::env::Env;
use crate::protocol::batch::Compression;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::SharedStage;
use crate::runtime::contract::record::Origin;
use crate::runtime::contract::senders::Senders;
use crate::runtime::contract::source::AssignedSplit;
use crate::runtime::task::progress::Progress;
use crate::state::{StateBackend, Store, Trace};
use crate::types::{Offset, TopicId, TopicName};

/// State that a job's workers share.
pub struct JobContext {
    pub(crate) name: String,
    pub(crate) shown_as: super::desk::ShownAs,
    pub(crate) env: Env,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) backend: StateBackend,
    pub(crate) writers: [TransactionalWriter; WRITERS_COUNT],
    pub(crate) inboxes: Arc<[Inbox]>,
    pub(crate) state_partitions: u16,
    pub(crate) poison_policy: PoisonPolicy,
    pub(crate) compression: Compression,
    pub(crate) stores: BTreeMap<String, Schema>,
    /// The readers of earlier versions of values, by store.
    pub(crate) versions: BTreeMap<String, Arc<ValueVersions>>,
    /// The stores of tables whose old values somebody asks for, or whose values others read.
    pub(crate) shared_stores: BTreeSet<String>,
    /// The source topics that are changelogs, by store.
    pub(crate) source_changelogs: BTreeMap<String, SourceChangelog>,
    /// Partition count and largest record of each topic that the job writes.
    pub(crate) topics: HashMap<TopicName, (i32, usize)>,
    /// The topics through which sources, by their numbers, take letters back; empty where they do not.
    pub(crate) replay_topics: Vec<Arc<str>>,
    /// Sources that are no topics of letters: those come behind.
    pub(crate) own_sources_count: usize,
    /// The names of the sources by their numbers.
    pub(crate) sources: Vec<Arc<str>>,
    /// The exchanges by their numbers, in the order of their names.
    pub(crate) exchanges: Vec<Arc<str>>,
    /// Steps that were renamed: under which name their state is kept.
    pub(crate) renamed: BTreeMap<String, String>,
    /// The names of the exchanges in front of them, likewise.
    pub(crate) renamed_exchanges: BTreeMap<String, String>,
    /// Whether a step of the job asks for the time.
    pub(crate) uses_time: bool,
    /// Whether one asks for the wall clock.
    pub(crate) uses_clock: bool,
    pub(crate) splits: Splits,
    /// The tables that this process has as a whole, by their sources' names.
    pub(crate) broadcasts: parking_lot::Mutex<BTreeMap<String, Arc<dyn Any + Send + Sync>>>,
    pub(crate) alignment: Arc<Alignment>,
    pub(crate) calls: JobCalls,
    /// The topics that the job has read before, and who they were.
    pub(crate) read_topics: BTreeMap<TopicName, TopicId>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) topic_partitions: i32,
    /// The records that all workers read in the open cycle.
    pub(crate) cycle_records: AtomicU64,
    pub(crate) transaction_timeout: Duration,
    /// The records that they may still read in it.
    pub(crate) record_budget: RecordBudget,
    pub(crate) pressure: Pressure,
    /// The split whose next record has the open cycle to itself, if one has.
    pub(crate) alone: Alone,
    /// Whether stores hand over for RocksDB all that they have, at the end of the open cycle.
    pub(crate) is_flush_due: AtomicBool,
    /// Whether several processes share the job.
    pub(crate) is_spread: bool,
    /// The beginnings of chains in the order of feeds, if several processes share the job: sources, then steps behind topics.
    pub(crate) beginnings: Vec<Beginning>,
}

impl JobContext {
    /// The job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The world.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The way to the log.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Returns the job's state partitions; fixed when the job first ran.
    #[must_use]
    pub fn state_partitions(&self) -> u16 {
        self.state_partitions
    }

    /// The name by which an exchange's topic and number are known.
    pub(crate) fn first_name_of_exchange<'n>(&'n self, name: &'n str) -> &'n str {
        self.renamed_exchanges
            .get(name)
            .map_or(name, String::as_str)
    }

    /// The worker that owns a state partition from the start. Those of a spread job come later.
    pub(crate) fn worker_of_state(&self, partition: u16) -> Option<usize> {
        (!self.is_spread).then(|| usize::from(partition) % self.inboxes.len())
    }

    /// Whether a worker's sender of an edge will ever tell of time: one of a source only where the worker reads a split of it.
    pub(crate) fn may_send(&self, edge: &ExchangeEdge, worker: usize) -> bool {
        if edge.is_shared {
            return false;
        }
        let Producer::Source(source) = edge.producer else {
            return true;
        };
        if self.is_of_letters(edge.producer) {
            return false;
        }
        let splits = self.splits.of_worker(source, worker, self.inboxes.len());
        !splits.is_empty()
    }

    /// Whether the job has read a topic, now or in an earlier run.
    pub(crate) fn has_read(&self, topic: &TopicName) -> bool {
        let read_now = self.progress.read_topics.lock();
        read_now.contains_key(topic) || self.read_topics.contains_key(topic)
    }

    /// Whether the worker has more waiting than should be in flight.
    pub(crate) fn is_crowded(&self, worker: usize) -> bool {
        let inbox = &self.inboxes[worker];
        self.pressure
            .is_crowded(inbox.size_bytes(), inbox.records_count())
    }

    pub(crate) fn writers(&self) -> &[TransactionalWriter; WRITERS_COUNT] {
        &self.writers
    }

    pub(crate) fn topic(&self, topic: &TopicName) -> Result<(i32, usize), JobError> {
        self.topics.get(topic).copied().ok_or_else(|| JobError::Sink {
            sink: topic.to_string(),
            why: "it was not declared before the job started: end the stream in a sink of this topic".to_owned(),
        })
    }

    /// The records set apart of a split that is about to be read.
    pub(crate) fn apart_ahead(&self, assigned: &AssignedSplit) -> ApartAhead {
        let position = assigned.position.as_ref();
        let offset = position.map_or(Offset::ZERO, |position| position.offset);
        ApartAhead::new(self.progress.quarantine.of(&assigned.split, offset))
    }

    /// The topic through which letters of a split come back; empty where none do, as behind a topic between processes.
    pub(crate) fn replay_topic(&self, split: u32) -> String {
        let plan = self.splits.get(split);
        let name = plan.and_then(|plan| self.replay_topics.get(plan.source));
        name.map_or_else(String::new, |name| name.to_string())
    }

    pub(crate) fn split_name(&self, number: u32) -> String {
        if number == Origin::TIME.split {
            return "a result of time (of a window, or a timer)".to_owned();
        }
        self.splits
            .get(number)
            .map_or_else(|| format!("split {number}"), |plan| plan.split.to_string())
    }
}

/// Feeder of an exchange: it ends its cycle before the exchange can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Producer {
    Source(usize),
    Exchange(usize),
}

/// Context in which one worker's instance of an operator is made.
pub struct OperatorContext {
    pub(super) job: Arc<JobContext>,
    worker: usize,
    pub(super) producer: Producer,
    pub(super) sources_count: usize,
    writer: Rc<Cell<usize>>,
    pub(super) edges: Vec<ExchangeEdge>,
    dead_letters: Option<Rc<RefCell<TopicAppender>>>,
    pub(super) stores: Vec<OpenStore>,
    /// The stores whose rows are told by the records, in the order in which chains meet them.
    pub(super) met_stores: Vec<SharedReadAhead>,
    pub(super) shared_nodes: HashMap<usize, SharedNode>,
    sides: Vec<SharedStage>,
    /// Times of the source being built.
    times: Rc<SourceTimes>,
    /// The tasks of the feed being built.
    pub(super) tasks: SharedTasks,
    /// The ways to the topics of exchanges, each with the number of its exchange.
    pub(super) ways: Vec<(Senders, usize)>,
    /// Stores that were open before the chains were built anew.
    kept: Vec<OpenStore>,
    sinks: Vec<OpenSink>,
    turn: Rc<Turn>,
    spent_batches: HashMap<usize, SpentBatches>,
}

impl OperatorContext {
    pub(crate) fn new(
        job: Arc<JobContext>,
        worker: usize,
        sources_count: usize,
        commit: Commit,
        reports: Reports,
    ) -> Result<Self, JobError> {
        let turn = Turn::new(Arc::clone(&job), reports, commit.interval);
        let writer = Rc::new(Cell::new(0));
        let dead_letters = match &job.poison_policy {
            PoisonPolicy::Fail => None,
            PoisonPolicy::DeadLetter(topic) => {
                let appender =
                    TopicAppender::new(&job, Rc::clone(&writer), topic.clone(), job.compression)?;
                Some(Rc::new(RefCell::new(appender)))
            }
        };
        let parts = ContextParts {
            writer,
            edges: Vec::new(),
            ways: Vec::new(),
            dead_letters,
            stores: Vec::new(),
            sinks: Vec::new(),
            turn: Rc::new(turn),
        };
        Ok(Self::again(job, worker, sources_count, parts))
    }

    /// For the chains of a worker that has these stores open already.
    pub(crate) fn again(
        job: Arc<JobContext>,
        worker: usize,
        sources_count: usize,
        parts: ContextParts,
    ) -> Self {
        Self {
            job,
            worker,
            producer: Producer::Source(0),
            sources_count,
            writer: parts.writer,
            edges: Vec::new(),
            dead_letters: parts.dead_letters,
            stores: Vec::new(),
            met_stores: Vec::new(),
            shared_nodes: HashMap::new(),
            sides: Vec::new(),
            times: Rc::default(),
            tasks: SharedTasks::default(),
            ways: Vec::new(),
            kept: parts.stores,
            sinks: Vec::new(),
            turn: parts.turn,
            spent_batches: HashMap::new(),
        }
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &JobContext {
        &self.job
    }

    /// Which worker the instance is for, from 0.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Opens this worker's part of a store that was declared with
    /// [`Keyed::with_store`](crate::runtime::Keyed::with_store), restored to the last committed cycle. From here on its changes
    /// are committed with the cycles, and the values of each batch's keys are read in one go.
    ///
    /// # Errors
    /// If the store was not declared or is open already, or cannot be restored.
    pub fn store<V: Datum + Sized + Clone>(
        &mut self,
        name: &str,
    ) -> Result<KeyValueStore<V>, JobError> {
        let codec = self.codec_of::<V>(name);
        let store = self.open_store::<V, V>(name, StoreKind::Values, codec)?;
        let ahead = ValuesAhead(Rc::clone(&store) as SharedStore);
        self.met_stores.push(Rc::new(ahead));
        Ok(KeyValueStore::new(store))
    }

    /// As [`store`](Self::store), for an operator that reads the store of another one, whichever of them is made first.
    pub(super) fn store_to_read<V: Datum + Sized + Clone>(
        &mut self,
        name: &str,
    ) -> Result<KeyValueStore<V>, JobError> {
        let first = self.job.renamed.get(name).map_or(name, String::as_str);
        let mut open = self.stores.iter();
        let open = open.find(|open| open.store.borrow().name() == first);
        let store = match open.and_then(OpenStore::typed::<V>) {
            Some(store) => store,
            None => {
                let codec = self.codec_of::<V>(name);
                let store = self.open_store::<V, V>(name, StoreKind::Values, codec)?;
                if let Some(open) = self.stores.last_mut() {
                    open.has_owner = false;
                }
                store
            }
        };
        let ahead = ValuesAhead(Rc::clone(&store) as SharedStore);
        self.met_stores.push(Rc::new(ahead));
        Ok(KeyValueStore::new(store))
    }

    /// Opens a store as it was declared, and restores it; or goes on with one that is open.
    pub(super) fn open_store<V: Datum + Clone, R: Clone + Send + 'static>(
        &mut self,
        name: &str,
        kind: StoreKind<'_>,
        codec: impl Codec<R>,
    ) -> Result<Rc<RefCell<Store<R>>>, JobError> {
        let refuse = |why: &str| JobError::Topology {
            job: self.job.name.clone(),
            why: format!("the store {name:?} {why}"),
        };
        let job = Arc::clone(&self.job);
        let name = job.renamed.get(name).map_or(name, String::as_str);
        let Some(schema) = self.job.stores.get(name) else {
            return Err(refuse(
                "was not declared: call `.with_store`, `.with_timed_store` or `.with_ordered_store` on the keyed stream before the operator",
            ));
        };
        if schema.value != V::identity() {
            return Err(refuse(&format!(
                "was declared with values of the type {}, and is opened with {}: name the same type at `.with_store`",
                schema.value,
                V::identity()
            )));
        }
        if !kind.fits(&schema.key) {
            return Err(refuse(
                "was declared as one of another kind, or in another order: `.with_store` goes with `store`, `.with_timed_store` with \
                 `timed_store`, `.with_ordered_store` with `ordered_store` of the same type to sort by",
            ));
        }
        let mut open = self.stores.iter_mut();
        if let Some(open) = open.find(|open| open.store.borrow().name() == name) {
            return match open.typed().filter(|_| !open.has_owner) {
                Some(store) => {
                    open.has_owner = true;
                    Ok(store)
                }
                None => Err(refuse("is open already: give every operator its own store")),
            };
        }
        let mut kept = self.kept.iter();
        let kept = kept.position(|open| open.store.borrow().name() == name);
        if let Some(mut open) = kept.map(|place| self.kept.swap_remove(place))
            && let Some(store) = open.typed()
        {
            open.has_owner = true;
            self.stores.push(open);
            return Ok(store);
        }
        let own: Vec<u16> = (0..self.job.state_partitions)
            .filter(|partition| self.job.worker_of_state(*partition) == Some(self.worker))
            .collect();
        wipe_what_cannot_be_continued(&self.job, name, &own)?;
        let mut store = Store::open(&self.job.backend, name, &own, codec)?;
        if matches!(kind, StoreKind::Ordered(_)) {
            store.keep_order();
        }
        store.trace_changes(self.trace());
        // From here on its changes are committed with the cycles.
        let changelog = Changelog::open(&self.job, Rc::clone(&self.writer), &mut store)?;
        let store = Rc::new(RefCell::new(store));
        self.stores.push(OpenStore::new(&store, changelog));
        Ok(store)
    }

    /// The way for late records: into the stream that `output` begins, if there is one, and counted in any case.
    ///
    /// # Errors
    /// If what is behind it cannot be built.
    pub fn late<K: ?Sized + 'static, V: ?Sized + 'static>(
        &mut self,
        node: &str,
        output: Option<&SideOutput<K, V>>,
    ) -> Result<Late<K, V>, JobError> {
        let side = match output {
            Some(output) => self.side(output)?,
            None => Side::nowhere(),
        };
        Ok(Late::new(self.shared_job(), node, side))
    }

    /// Opens this worker's end of a side stream; see [`Keyed::side_output`](crate::runtime::Keyed::side_output).
    ///
    /// # Errors
    /// If what is behind it cannot be built.
    pub fn side<K: ?Sized + 'static, V: ?Sized + 'static>(
        &mut self,
        output: &SideOutput<K, V>,
    ) -> Result<Side<K, V>, JobError> {
        let (side, shared) = output.open(self)?;
        self.sides.extend(shared);
        Ok(side)
    }

    pub(crate) fn sides_count(&self) -> usize {
        self.sides.len()
    }

    /// The side streams that were opened since there were so many.
    pub(crate) fn sides_since(&mut self, count: usize) -> Vec<SharedStage> {
        self.sides.split_off(count)
    }

    /// Returns the times of the source being built.
    pub(crate) fn source_times(&self) -> Rc<SourceTimes> {
        Rc::clone(&self.times)
    }

    /// Whether what is being built stands behind a source, without a shuffle between.
    pub(crate) fn is_at_source(&self) -> bool {
        let sources = self.sources_count;
        matches!(self.producer, Producer::Source(source) if source < sources)
    }

    pub(crate) fn stores_count(&self) -> usize {
        self.met_stores.len()
    }

    /// The stores that were met since there were so many and whose rows are told by the records.
    pub(crate) fn stores_since(&self, count: usize) -> Vec<SharedReadAhead> {
        self.met_stores.iter().skip(count).map(Rc::clone).collect()
    }

    pub(crate) fn shared_job(&self) -> Arc<JobContext> {
        Arc::clone(&self.job)
    }

    pub(crate) fn writer_cell(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.writer)
    }

    pub(crate) fn sinks(&self) -> &[OpenSink] {
        &self.sinks
    }

    pub(crate) fn add_sink(&mut self, sink: OpenSink) {
        self.sinks.push(sink);
    }

    pub(crate) fn turn(&self) -> Rc<Turn> {
        Rc::clone(&self.turn)
    }

    pub(crate) fn trace(&self) -> Trace {
        self.turn.trace().clone()
    }

    pub(crate) fn poison(&self) -> Result<Poison, JobError> {
        Ok(Poison::new(
            Arc::clone(&self.job),
            self.dead_letters.clone(),
            self.trace(),
        ))
    }

    /// From here on, what is built belongs to `producer`.
    pub(crate) fn begin(&mut self, producer: Producer) {
        self.times = Rc::default();
        self.tasks = SharedTasks::default();
        self.producer = producer;
    }

    /// The number of an exchange.
    ///
    /// # Panics
    /// If the job has none of that name: it was added when the sender's factory was made.
    pub(crate) fn exchange(&self, name: &str) -> usize {
        let name = self.job.first_name_of_exchange(name);
        let mut exchanges = self.job.exchanges.iter();
        exchanges
            .position(|exchange| **exchange == *name)
            .unwrap_or_else(|| panic!("the job has no exchange {name:?}"))
    }

    /// This worker's empty batches of `exchange`.
    pub(crate) fn spent_batches(&mut self, exchange: usize) -> SpentBatches {
        Rc::clone(self.spent_batches.entry(exchange).or_default())
    }

    /// This worker's empty batches of the exchange being built.
    pub(crate) fn spent_batches_here(&mut self) -> SpentBatches {
        match self.producer {
            Producer::Exchange(exchange) => self.spent_batches(exchange),
            Producer::Source(_) => SpentBatches::default(),
        }
    }

    /// Notes that the producer being built feeds `exchange`; returns the number of this worker's sender among all of the exchange.
    pub(crate) fn note_edge_to(&mut self, exchange: usize) -> usize {
        let edges = self.edges.iter();
        let edge = edges.filter(|edge| edge.exchange == exchange).count();
        self.edges.push(ExchangeEdge {
            producer: self.producer,
            exchange,
            is_shared: false,
        });
        edge * self.job.inboxes.len() + self.worker
    }

    /// The splits of the source being built that fall to this worker.
    pub(crate) fn take_splits(&mut self) -> Vec<AssignedSplit> {
        let Producer::Source(source) = self.producer else {
            return vec![];
        };
        if self.job.is_spread {
            // They come as the group gives them.
            return vec![];
        }
        let workers = self.job.inboxes.len();
        let splits = self.job.splits.of_worker(source, self.worker, workers);
        let assigned = splits.into_iter().map(|(number, plan)| AssignedSplit {
            number,
            split: plan.split,
            position: plan.position,
        });
        assigned.collect()
    }

    pub(crate) fn into_parts(self) -> ContextParts {
        ContextParts {
            writer: self.writer,
            edges: self.edges,
            ways: self.ways,
            dead_letters: self.dead_letters,
            stores: self.stores,
            sinks: self.sinks,
            turn: self.turn,
        }
    }
}

/// The part of the context that outlives the building of a worker.
pub(crate) struct ContextParts {
    pub(crate) writer: Rc<Cell<usize>>,
    pub(crate) edges: Vec<ExchangeEdge>,
    /// The ways to the topics of exchanges, each with the number of its exchange.
    pub(crate) ways: Vec<(Senders, usize)>,
    pub(crate) dead_letters: Option<Rc<RefCell<TopicAppender>>>,
    pub(crate) stores: Vec<OpenStore>,
    pub(crate) sinks: Vec<OpenSink>,
    pub(crate) turn: Rc<Turn>,
}
