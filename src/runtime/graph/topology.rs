//! The job as a graph: what was declared, checked, named and printed before anything runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::description::{Description, Edge, EdgeKind, Node};
use super::source::{ReplayTopic, SplitLister};
use crate::codec::{Parts, Schema, ValueVersions};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::chains::{Chains, ExchangeChain, FeedFactory, ReceiveFactory};
use crate::runtime::task::committed::{Face, WindowsFace};
use crate::runtime::task::open_sink::AnySink;
use crate::runtime::task::replay::{late_topic, replay_topic};
use crate::runtime::task::source_changelog::SourceTable;
use crate::types::TopicName;

/// A source of the job.
#[derive(Clone)]
pub(crate) struct SourceNode {
    pub(crate) name: String,
    pub(crate) lister: Arc<dyn SplitLister>,
    pub(crate) feed: FeedFactory,
    /// Whether it is a topic of letters that the job takes back, and whose: another source's, by this name, or its own.
    pub(crate) replays: Option<String>,
}

/// The way back into the job for letters.
#[derive(Clone)]
pub(crate) struct LetterNode {
    /// The name of the source, or of the topic of late letters.
    pub(crate) name: String,
    pub(crate) feed: FeedFactory,
    /// Whether they are those that a source of the job lost: only a job with a dead-letter topic has any.
    pub(crate) is_of_a_source: bool,
}

/// An exchange of the job: its receiving end, behind the inboxes of this process or behind a topic.
#[derive(Clone)]
pub(crate) struct ExchangeNode {
    /// The name of the node behind it.
    pub(crate) name: Arc<str>,
    pub(crate) receive: ReceiveFactory,
    pub(crate) repartition: FeedFactory,
    /// The contents of the topic.
    pub(crate) schema: Schema,
}

/// A topic that a sink writes, as the job creates it if it is absent.
#[derive(Clone, Default)]
pub(crate) struct SinkTopic {
    pub(crate) partitions_count: Option<i32>,
    pub(crate) configs: BTreeMap<String, String>,
}

/// A sink that keeps marks.
#[derive(Clone)]
pub(crate) struct SinkNode {
    pub(crate) name: String,
    pub(crate) sink: Arc<dyn AnySink>,
}

/// Gets something ready before the job starts.
pub(crate) type Prepare = Arc<dyn Fn() -> Result<(), JobError> + Send + Sync>;

/// Everything that was declared.
#[derive(Clone, Default)]
pub(crate) struct Topology {
    pub(crate) sources: Vec<SourceNode>,
    pub(crate) letters: Vec<LetterNode>,
    pub(crate) exchanges: Vec<ExchangeNode>,
    pub(crate) stores: BTreeMap<String, Schema>,
    /// Faces: they show rows to who has not the types.
    pub(crate) faces: BTreeMap<String, Face>,
    /// The steps to which streams beside belong that are all that a step gives, by the numbers of the nodes.
    pub(crate) steps_of_sides: BTreeMap<usize, usize>,
    /// Readers of earlier versions of values, by store.
    pub(crate) versions: BTreeMap<String, Arc<ValueVersions>>,
    /// The tables that are made of topics as they are, by store.
    pub(crate) source_tables: BTreeMap<String, SourceTable>,
    /// The stores whose values have parts of a user's types.
    pub(crate) parts: BTreeMap<String, Parts>,
    /// The stores of tables whose old values somebody asks for, or whose values others read.
    pub(crate) shared_stores: BTreeSet<String>,
    pub(crate) sink_topics: BTreeMap<TopicName, SinkTopic>,
    /// The preparations before the job starts, besides its sources.
    pub(crate) preparations: Vec<Prepare>,
    /// The sinks that keep marks.
    pub(crate) sinks: Vec<SinkNode>,
    pub(crate) faults: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    /// Steps that were renamed: under which name their state is kept.
    pub(crate) renamed: BTreeMap<String, String>,
    /// The names of the exchanges in front of them, likewise.
    pub(crate) renamed_exchanges: BTreeMap<String, String>,
    /// The steps that let go of what is later than this, by the numbers of their nodes.
    pub(crate) histories: BTreeMap<usize, Duration>,
    /// Whether a step of the job asks for the time.
    pub(crate) uses_time: bool,
    /// Whether one asks for the wall clock.
    pub(crate) uses_clock: bool,
}

impl Topology {
    /// Names everything that state depends on, in an order of its own: another fingerprint means another topology, and the
    /// order of a program's lines means nothing.
    pub(crate) fn fingerprint(&self) -> String {
        let stores = self
            .stores
            .iter()
            .map(|(name, schema)| format!("store {name} {:016x}", schema.fingerprint()));
        let exchanges = self.exchanges.iter().map(|exchange| {
            let fingerprint = exchange.schema.fingerprint();
            format!("exchange {} {fingerprint:016x}", exchange.name)
        });
        let sources = self.sources.iter();
        let sources = sources.map(|source| format!("source {}", source.name));
        let mut all: Vec<String> = sources.chain(stores).chain(exchanges).collect();
        all.sort();
        all.join("; ")
    }

    /// With the topics of letters that it takes back as sources, behind its own.
    pub(crate) fn with_replays(
        mut self,
        job: &str,
        has_dead_letters: bool,
    ) -> Result<Self, JobError> {
        let mut letters = std::mem::take(&mut self.letters);
        letters.retain(|node| has_dead_letters || !node.is_of_a_source);
        letters.sort_by(|a, b| a.name.cmp(&b.name));
        for node in letters {
            let topic = match node.is_of_a_source {
                true => replay_topic(job, &node.name)?,
                false => late_topic(job, &node.name)?,
            };
            self.sources.push(SourceNode {
                name: topic.to_string(),
                lister: Arc::new(ReplayTopic(topic)),
                feed: node.feed,
                replays: Some(node.name),
            });
        }
        Ok(self)
    }

    /// The topic through which each source, in their order, takes letters back; empty where it does not.
    pub(crate) fn replay_topics_of_sources(&self) -> Vec<Arc<str>> {
        let way_of = |name: &str| {
            let mut replays = self.sources.iter();
            let of_it = |it: &&SourceNode| it.name == name || it.replays.as_deref() == Some(name);
            let way = replays.find(|it| it.replays.is_some() && of_it(it));
            way.map_or("", |way| &way.name).into()
        };
        let sources = self.sources.iter();
        sources.map(|source| way_of(&source.name)).collect()
    }

    /// Counts its sources that are no topics of letters.
    pub(crate) fn own_sources_count(&self) -> usize {
        let own = self.sources.iter().filter(|it| it.replays.is_none());
        own.count()
    }

    /// The topics of letters that it takes back.
    pub(crate) fn replay_topics(&self) -> impl Iterator<Item = &str> {
        let replays = self.sources.iter().filter(|it| it.replays.is_some());
        replays.map(|source| source.name.as_str())
    }

    /// The names of its exchanges, in their order.
    pub(crate) fn exchange_names(&self) -> Vec<Arc<str>> {
        let exchanges = self.exchanges.iter();
        exchanges
            .map(|exchange| Arc::clone(&exchange.name))
            .collect()
    }

    /// Gets ready what it needs from outside before it starts.
    pub(crate) fn prepare(&self) -> Result<(), JobError> {
        self.preparations.iter().try_for_each(|prepare| prepare())?;
        let mut sources = self.sources.iter();
        sources.try_for_each(|source| source.lister.prepare())
    }

    /// All that its workers need.
    pub(crate) fn chains(&self) -> Chains {
        let exchanges = self.exchanges.iter().map(|exchange| ExchangeChain {
            receive: Arc::clone(&exchange.receive),
            repartition: Arc::clone(&exchange.repartition),
        });
        Chains {
            sources: self.sources.iter().map(|it| Arc::clone(&it.feed)).collect(),
            exchanges: exchanges.collect(),
        }
    }
}

/// The graph under construction, shared by the streams of one job.
#[derive(Clone, Default)]
pub struct Graph(Rc<RefCell<Topology>>);

impl Graph {
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn add_exchange(&self, exchange: ExchangeNode) {
        let mut topology = self.0.borrow_mut();
        let is_taken = |other: &ExchangeNode| other.name == exchange.name;
        if topology.exchanges.iter().any(is_taken) {
            topology.faults.push(format!(
                "records are brought together by key for two steps that are called {:?}: the name is what the topic between \
                 processes is known by for good, choose another for one of them",
                exchange.name
            ));
        }
        if let Err(e) = TopicName::new(&exchange.name) {
            topology.faults.push(format!(
                "the name {:?} of a step cannot be part of a topic name: {e}",
                exchange.name
            ));
        }
        topology.exchanges.push(exchange);
    }

    pub(crate) fn add_source(&self, source: SourceNode) {
        let mut topology = self.0.borrow_mut();
        if source.name.is_empty() || source.name.contains('\0') {
            // Positions are kept under the name, with a 0 byte behind it.
            topology.faults.push(format!(
                "a source cannot be called {:?}: give it a name without 0 bytes",
                source.name
            ));
        }
        if topology
            .sources
            .iter()
            .any(|other| other.name == source.name)
        {
            topology.faults.push(format!(
                "two sources are called {:?}: give one another name, or merge their streams",
                source.name
            ));
        }
        topology.sources.push(source);
    }

    pub(crate) fn add_letters(&self, letters: LetterNode) {
        let mut topology = self.0.borrow_mut();
        let mut known = topology.letters.iter();
        // Two sources of one name are refused as such.
        if !letters.is_of_a_source && known.any(|other| other.name == letters.name) {
            topology.faults.push(format!(
                "letters of {:?} are replayed in two places: begin one stream with `replayed`, and use it in both",
                letters.name
            ));
        }
        topology.letters.push(letters);
    }

    /// Declares a store; its name becomes part of its changelog topic's name.
    pub(crate) fn declare_store(&self, name: &str, schema: Schema, face: Face) {
        let mut topology = self.0.borrow_mut();
        if let Err(e) = TopicName::new(name) {
            topology.faults.push(format!(
                "the store name {name:?} cannot be part of a topic name: {e}"
            ));
        }
        topology.faces.insert(name.to_owned(), face);
        if topology.stores.insert(name.to_owned(), schema).is_some() {
            topology.faults.push(format!("two stores are called {name:?}: a store's name is its identity for good, choose another"));
        }
    }

    /// The owner of a store says how the windows in it are read.
    pub(crate) fn show_windows(&self, name: &str, windows: WindowsFace) {
        let mut topology = self.0.borrow_mut();
        match topology.faces.get_mut(name) {
            Some(face) => face.windows = Some(windows),
            None => topology.faults.push(format!(
                "`with_open_windows({name:?}, …)` names a store that was not declared: put it behind `with_timed_store({name:?})`"
            )),
        }
    }

    /// The store of a table is made of a topic's records as they are.
    pub(crate) fn note_source_table(&self, store: &str, table: SourceTable) {
        let mut topology = self.0.borrow_mut();
        topology.source_tables.insert(store.to_owned(), table);
    }

    /// Others read these stores, or ask for the old values of changes.
    pub(crate) fn share_stores(&self, names: &[String]) {
        let mut topology = self.0.borrow_mut();
        topology.shared_stores.extend(names.iter().cloned());
    }

    /// Whether a step that has one of these stores calls what is behind the edges, with no shuffle in between.
    pub(crate) fn is_called_by(&self, edges: &[Edge], stores: &[String]) -> bool {
        let topology = self.0.borrow();
        let (mut seen, mut to_see) = (BTreeSet::new(), edges.to_vec());
        while let Some(edge) = to_see.pop() {
            let node = topology.nodes.get(edge.from);
            let Some(node) = node.filter(|_| edge.kind == EdgeKind::Fused) else {
                continue;
            };
            if node.stores.iter().any(|it| stores.contains(it)) {
                return true;
            }
            if seen.insert(edge.from) {
                to_see.extend(&node.inputs);
            }
        }
        false
    }

    /// A node, by its number, was called `first`.
    pub(crate) fn rename_node(&self, node: usize, first: &str) {
        let node = self.step_of(node);
        let found = self.0.borrow().nodes.get(node).cloned();
        let ports = found.iter().flat_map(|node| &node.inputs);
        let ports: Vec<&str> = ports.filter_map(|edge| edge.port).collect();
        match found.as_ref().and_then(|node| node.name.as_deref()) {
            Some(name) => {
                self.rename(name, first, &ports);
                // A step may be several nodes of one name.
                let nodes = self.0.borrow().nodes.clone();
                let parts = nodes.iter().filter(|it| it.name.as_deref() == Some(name));
                self.rename_stores(name, first, parts.flat_map(|node| &node.stores));
            }
            None => self.add_fault(format!(
                "`.was({first:?})` stands behind a step without a name: put it right behind the one that was renamed"
            )),
        }
    }

    /// The node of the step that a node is, or stands beside.
    pub(super) fn step_of(&self, node: usize) -> usize {
        let topology = self.0.borrow();
        topology.steps_of_sides.get(&node).copied().unwrap_or(node)
    }

    /// The state of the step `name`, and what is under way to it, is kept under the name that it had first.
    fn rename(&self, name: &str, first: &str, ports: &[&str]) {
        let mut topology = self.0.borrow_mut();
        let exchanges = ports
            .iter()
            .map(|port| (format!("{name}-{port}"), format!("{first}-{port}")));
        let exchanges = exchanges.chain([(name.to_owned(), first.to_owned())]);
        topology.renamed_exchanges.extend(exchanges);
        let again = topology.renamed.insert(name.to_owned(), first.to_owned());
        if again.is_some_and(|again| again != first) {
            topology.faults.push(format!(
                "the step {name:?} was two others: name the first one only, under which its state is kept"
            ));
        }
    }

    /// The stores of a step that are named after it, as `<step>-left` is, are kept under the name that it had first, too.
    fn rename_stores<'s>(&self, name: &str, first: &str, stores: impl Iterator<Item = &'s String>) {
        for store in stores {
            let part = store.strip_prefix(name);
            if let Some(part) = part.filter(|part| part.starts_with('-')) {
                self.rename(store, &format!("{first}{part}"), &[]);
            }
        }
    }

    /// Changes what was declared.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Topology) -> R) -> R {
        change(&mut self.0.borrow_mut())
    }

    /// A step asks for the time.
    pub(crate) fn use_time(&self) {
        self.0.borrow_mut().uses_time = true;
    }

    /// A step asks for the wall clock.
    pub(crate) fn use_clock(&self) {
        self.0.borrow_mut().uses_clock = true;
    }

    /// Adds a node; returns its number.
    pub(crate) fn add_node(&self, node: Node) -> usize {
        let mut topology = self.0.borrow_mut();
        topology.nodes.push(node);
        topology.nodes.len() - 1
    }

    pub(crate) fn add_sink(&self, sink: SinkNode) {
        let mut topology = self.0.borrow_mut();
        if sink.name.is_empty() || sink.name.contains('\0') {
            // Marks are kept under the name, with a 0 byte behind it.
            topology.faults.push(format!(
                "a sink cannot be called {:?}: give it a name without 0 bytes",
                sink.name
            ));
        }
        if topology.sinks.iter().any(|other| other.name == sink.name) {
            topology.faults.push(format!(
                "two sinks are called {:?}: give one another name, or merge their streams",
                sink.name
            ));
        }
        topology.sinks.push(sink);
    }

    /// Something must be ready before the job starts.
    pub(crate) fn add_preparation(&self, prepare: Prepare) {
        self.0.borrow_mut().preparations.push(prepare);
    }

    /// Several sinks may write one topic: what each says of it holds.
    pub(crate) fn add_sink_topic(&self, name: TopicName, topic: SinkTopic) {
        let mut topology = self.0.borrow_mut();
        let known = topology.sink_topics.entry(name).or_default();
        known.partitions_count = topic.partitions_count.or(known.partitions_count);
        known.configs.extend(topic.configs);
    }

    /// A step ignores what is later than this.
    pub(super) fn note_history(&self, node: usize, history: Duration) {
        self.0.borrow_mut().histories.insert(node, history);
    }

    /// The least history of a step and of those in front of it, as far as records come from there as they were; with the step's name.
    pub(super) fn history_in_front(&self, node: usize) -> Option<(String, Duration)> {
        let topology = self.0.borrow();
        let mut least: Option<(String, Duration)> = None;
        let mut next = Some(node);
        while let Some(node) = next.and_then(|number| topology.nodes.get(number)) {
            let history = next.and_then(|number| topology.histories.get(&number));
            if let Some(history) = history
                && least.as_ref().is_none_or(|(_, it)| history < it)
            {
                least = Some((node.name.clone().unwrap_or_default(), *history));
            }
            let is_passed_on = history.is_some() || node.stores.is_empty();
            next = match node.inputs.as_slice() {
                [edge] if is_passed_on => Some(edge.from),
                _ => None,
            };
        }
        least
    }

    pub(crate) fn add_fault(&self, why: String) {
        self.0.borrow_mut().faults.push(why);
    }

    /// The graph as it is now, checked.
    pub(crate) fn topology(&self, job: &str) -> Result<Topology, JobError> {
        let mut topology = self.0.borrow().clone();
        for (name, first) in topology.renamed.clone() {
            if let Some(face) = topology.faces.remove(&name) {
                topology.faces.insert(first.clone(), face);
            }
            if let Some(table) = topology.source_tables.remove(&name) {
                topology.source_tables.insert(first.clone(), table);
            }
            if let Some(parts) = topology.parts.remove(&name) {
                topology.parts.insert(first.clone(), parts);
            }
            if let Some(versions) = topology.versions.remove(&name) {
                topology.versions.insert(first.clone(), versions);
            }
            if let Some(schema) = topology.stores.remove(&name)
                && topology.stores.insert(first.clone(), schema).is_some()
            {
                topology.faults.push(format!(
                    "the step {name:?} was {first:?}, but there is another step of that name: one state cannot be both's"
                ));
            }
        }
        for (name, schema) in &mut topology.stores {
            // Values that a step keeps around a user's tell themselves where they begin (`codec/parts.rs`).
            if !topology.parts.contains_key(name) {
                *schema = schema.clone().told_apart();
            }
        }
        for exchange in &mut topology.exchanges {
            if let Some(first) = topology.renamed_exchanges.get(&*exchange.name) {
                exchange.name = first.as_str().into();
            }
        }
        // Names decide, not the order of the program's lines.
        topology.sources.sort_by(|a, b| a.name.cmp(&b.name));
        topology.exchanges.sort_by(|a, b| a.name.cmp(&b.name));
        let refuse = |why: String| {
            Err(JobError::Topology {
                job: job.to_owned(),
                why,
            })
        };
        if let Some(fault) = topology.faults.first() {
            return refuse(fault.clone());
        }
        let is_source = |sink: &&SinkNode| topology.sources.iter().any(|it| it.name == sink.name);
        if let Some(sink) = topology.sinks.iter().find(is_source) {
            return refuse(format!(
                "a source and a sink are called {:?}, under which positions and marks are kept: give one another name",
                sink.name
            ));
        }
        if topology.sources.is_empty() {
            return refuse("it has no source that leads to a sink: begin with `job.source(…)` and end with `.sink(…)`".to_owned());
        }
        Ok(topology)
    }

    /// The graph as data that can be shown.
    pub(crate) fn describe(&self, job: &str) -> Description {
        let topology = self.0.borrow();
        Description::new(job, &topology.nodes, &topology.stores)
    }
}
