//! The typed builder: [`Stream`] and [`Keyed`], and beside them `Table`, so that a wrong order does not compile.
//!
//! A chain is built front to back as a type and attached back to front: each step wraps the one
//! behind it, so a chain of stateless operators becomes one monomorphised function. The operators
//! themselves are in `operators/`; they use only what is public here.

use std::marker::PhantomData;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

use super::description::{Edge, EdgeKind, Node, kind_of};
use super::exchange::Exchange;
use super::topology::Graph;
use crate::codec::{Codec, Datum, Schema, SortKey};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Operator, Stage, Step, StepTime};
use crate::runtime::contract::record::Unkeyed;
use crate::runtime::contract::window::Window;
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::committed::{Face, QueryError, TimedRows, View, WindowsFace};
use crate::runtime::task::context::OperatorContext;
use crate::runtime::task::ordered_store::ordered_schema;
use crate::runtime::task::timed_store::timed_schema;
use crate::types::Timestamp;

/// Everything in front of a step: a source, or a step with what is in front of it.
pub trait Attach<K: ?Sized, V: ?Sized>: 'static {
    /// Whether records of one key already meet on one worker.
    fn is_partitioned(&self) -> bool {
        false
    }

    /// Puts `stage` behind this.
    fn attach<F: StageFactory<K, V>>(self, graph: &Graph, stage: F);
}

/// The part in front of a step: made by sources and operators only.
pub trait Upstream<K: ?Sized, V: ?Sized>: Attach<K, V> {}

impl<K: ?Sized, V: ?Sized, A: Attach<K, V>> Upstream<K, V> for A {}

pub(crate) type DynFactory<K, V> =
    Arc<dyn Fn(&mut OperatorContext) -> Result<Box<dyn Stage<K, V>>, JobError> + Send + Sync>;

/// Puts a stage behind an upstream.
type AttachLater<K, V> = Box<dyn FnOnce(&Graph, DynFactory<K, V>)>;

/// An upstream whose type is hidden, so that it can be stored, merged, or returned from a function.
pub struct Boxed<K: ?Sized, V: ?Sized> {
    attach: AttachLater<K, V>,
    is_partitioned: bool,
}

/// A stage factory with its type hidden.
pub(crate) struct BoxedFactory<K: ?Sized, V: ?Sized>(pub(crate) DynFactory<K, V>);

#[diagnostic::do_not_recommend]
impl<K: ?Sized + 'static, V: ?Sized + 'static> StageFactory<K, V> for BoxedFactory<K, V> {
    type Stage = Box<dyn Stage<K, V>>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        (self.0)(context)
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Boxed<K, V> {
    fn new(upstream: impl Attach<K, V>) -> Self {
        Self {
            is_partitioned: upstream.is_partitioned(),
            attach: Box::new(move |graph, stage| upstream.attach(graph, BoxedFactory(stage))),
        }
    }

    /// An upstream that learns what is behind it when it must.
    pub(crate) fn deferred(
        is_partitioned: bool,
        attach: impl FnOnce(DynFactory<K, V>) + 'static,
    ) -> Self {
        Self {
            is_partitioned,
            attach: Box::new(move |_, stage| attach(stage)),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Attach<K, V> for Boxed<K, V> {
    fn is_partitioned(&self) -> bool {
        self.is_partitioned
    }

    fn attach<F: StageFactory<K, V>>(self, graph: &Graph, stage: F) {
        (self.attach)(
            graph,
            Arc::new(move |context| Ok(Box::new(stage.build(context)?))),
        );
    }
}

/// Several upstreams of one type, whose records are interleaved.
pub struct Merged<K: ?Sized, V: ?Sized> {
    inputs: Vec<Boxed<K, V>>,
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Attach<K, V> for Merged<K, V> {
    fn attach<F: StageFactory<K, V>>(self, graph: &Graph, stage: F) {
        let stage = Arc::new(stage);
        for input in self.inputs {
            let stage = Arc::clone(&stage);
            (input.attach)(
                graph,
                Arc::new(move |context| Ok(Box::new(stage.build(context)?))),
            );
        }
    }
}

/// Makes a worker's instance of the operator `O`.
///
/// Its type is hidden, which costs a call a worker: the type of a closure names that of the stream it was written for, and
/// a chain of steps that named both would double with each.
pub(super) type Make<O> =
    Box<dyn Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static>;

/// An operator behind an upstream.
pub struct Then<U, O, K: ?Sized, V: ?Sized> {
    pub(super) upstream: U,
    pub(super) make: Make<O>,
    pub(super) types: PhantomData<fn(&K, &V) -> O>,
}

struct StepFactory<F, O> {
    make: Make<O>,
    down: F,
}

#[diagnostic::do_not_recommend]
impl<K, V, O, F> StageFactory<K, V> for StepFactory<F, O>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    O: Operator<K, V> + 'static,
    F: StageFactory<O::OutKey, O::Out>,
{
    type Stage = Step<O, F::Stage>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        let sides_before = context.sides_count();
        let operator = (self.make)(context)?;
        Ok(Step {
            operator,
            sides: context.sides_since(sides_before),
            down: self.down.build(context)?,
            time: StepTime::default(),
        })
    }
}

impl<K, V, U, O> Attach<O::OutKey, O::Out> for Then<U, O, K, V>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    U: Attach<K, V>,
    O: Operator<K, V> + 'static,
{
    fn is_partitioned(&self) -> bool {
        O::KEEPS_KEY && self.upstream.is_partitioned()
    }

    fn attach<F: StageFactory<O::OutKey, O::Out>>(self, graph: &Graph, stage: F) {
        if O::USES_TIME {
            graph.use_time();
        }
        if O::USES_CLOCK {
            graph.use_clock();
        }
        self.upstream.attach(
            graph,
            StepFactory {
                make: self.make,
                down: stage,
            },
        );
    }
}

/// Where a stream under construction stands in the graph.
#[derive(Clone)]
pub(crate) struct Place {
    /// The node that it comes from, and how it gets to the next one.
    pub(super) edges: Vec<Edge>,
    /// The name of the next node, if it has one.
    pub(super) name: Option<String>,
    /// The stores that were declared for the next node.
    pub(super) stores: Vec<String>,
}

impl Place {
    /// The number of the node in front, if it is a single one.
    pub(super) fn node_in_front(&self) -> Option<usize> {
        match self.edges.as_slice() {
            [edge] => Some(edge.from),
            _ => None,
        }
    }
}

impl Graph {
    /// The node in front of a place was called `first`.
    pub(super) fn rename_last(&self, place: &Place, first: &str) {
        match place.node_in_front() {
            Some(node) => self.rename_node(node, first),
            None => self.add_fault(format!("`.was({first:?})` stands behind no single step: put it right behind the one that was renamed")),
        }
    }
}

impl Place {
    /// Behind a node.
    fn behind(node: usize) -> Self {
        Self {
            edges: vec![Edge {
                from: node,
                kind: EdgeKind::Fused,
                port: None,
            }],
            name: None,
            stores: Vec::new(),
        }
    }

    /// At a new source.
    #[track_caller]
    pub(crate) fn source(graph: &Graph, name: String) -> Self {
        Self::behind(graph.add_node(Node {
            name: Some(name),
            kind: "source".to_owned(),
            inputs: Vec::new(),
            stores: Vec::new(),
            location: Location::caller(),
        }))
    }

    /// Adds a node here; returns the place behind it.
    #[track_caller]
    pub(crate) fn then(self, graph: &Graph, kind: String) -> Self {
        self.then_numbered(graph, kind).0
    }

    /// The same, with the number of the node.
    #[track_caller]
    pub(super) fn then_numbered(self, graph: &Graph, kind: String) -> (Self, usize) {
        let number = graph.add_node(Node {
            name: self.name,
            kind,
            inputs: self.edges,
            stores: self.stores,
            location: Location::caller(),
        });
        (Self::behind(number), number)
    }

    /// Ends the stream in a sink.
    #[track_caller]
    pub(crate) fn end(mut self, graph: &Graph, sink: String) {
        self.name = Some(sink);
        self.then(graph, "sink".to_owned());
    }

    /// Both streams at once.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.edges.extend(other.edges);
        self.stores.extend(other.stores);
        self
    }

    /// The way to the next node leads into this port of it.
    pub(super) fn at_port(mut self, port: &'static str) -> Self {
        let edges = self.edges.iter_mut();
        edges.for_each(|edge| edge.port = Some(port));
        self
    }

    /// The way to the next node, which is called `name`, leads to the worker of the key.
    pub(super) fn shuffled(mut self, name: &str, is_needed: bool) -> Self {
        if is_needed {
            let edges = self.edges.iter_mut();
            edges.for_each(|edge| edge.kind = EdgeKind::Shuffle);
        }
        self.name = Some(name.to_owned());
        self
    }
}

/// Records without a key. Made by [`Job::source`](crate::runtime::Job::source) and by operators.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<T: ?Sized, U = Boxed<Unkeyed, T>> {
    pub(crate) graph: Graph,
    pub(crate) place: Place,
    pub(crate) upstream: U,
    pub(crate) item: PhantomData<fn(&T)>,
}

/// Records with a key. Made by [`Stream::key_by`] and by stateful operators.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Keyed<K: ?Sized, V: ?Sized, U = Boxed<K, V>> {
    pub(crate) graph: Graph,
    pub(crate) place: Place,
    pub(crate) upstream: U,
    pub(crate) types: PhantomData<fn(&K, &V)>,
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Starts a stream at `upstream`.
    pub(crate) fn new(graph: Graph, place: Place, upstream: U) -> Self {
        Self {
            graph,
            place,
            upstream,
            item: PhantomData,
        }
    }

    /// Puts an operator of your own behind this stream. `make` builds one instance per worker.
    #[track_caller]
    pub fn operator<O, M>(self, make: M) -> Stream<O::Out, Then<U, O, Unkeyed, T>>
    where
        O: Operator<Unkeyed, T, OutKey = Unkeyed> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        Stream {
            place: self.place.then(&self.graph, kind_of::<O>()),
            graph: self.graph,
            upstream: Then {
                upstream: self.upstream,
                make: Box::new(make),
                types: PhantomData,
            },
            item: PhantomData,
        }
    }

    /// Puts an operator behind this stream that gives records a key.
    #[allow(
        clippy::type_complexity,
        reason = "the type says what is in front; nobody writes it out"
    )]
    #[track_caller]
    pub fn keying_operator<O, M>(self, make: M) -> Keyed<O::OutKey, O::Out, Then<U, O, Unkeyed, T>>
    where
        O: Operator<Unkeyed, T> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        Keyed {
            place: self.place.then(&self.graph, kind_of::<O>()),
            graph: self.graph,
            upstream: Then {
                upstream: self.upstream,
                make: Box::new(make),
                types: PhantomData,
            },
            types: PhantomData,
        }
    }

    /// Hides the type of what is in front, so that the stream can be stored or returned. Costs one indirect call a record.
    pub fn boxed(self) -> Stream<T> {
        Stream {
            upstream: Boxed::new(self.upstream),
            graph: self.graph,
            place: self.place,
            item: PhantomData,
        }
    }

    /// Interleaves the records of two streams. Each keeps its own order; between them there is none.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("both");
    /// let (even, odd) = (job.source(values("even", [2u64, 4])), job.source(values("odd", [1u64, 3])));
    /// even.merge(odd).sink(topic("numbers"));
    /// ```
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    #[track_caller]
    pub fn merge<W: Upstream<Unkeyed, T>>(
        self,
        other: Stream<T, W>,
    ) -> Stream<T, Merged<Unkeyed, T>> {
        assert!(
            self.graph.is_same(&other.graph),
            "streams of two jobs cannot be merged: build both from one `Job`"
        );
        let inputs = vec![Boxed::new(self.upstream), Boxed::new(other.upstream)];
        Stream {
            place: self.place.and(other.place),
            graph: self.graph,
            upstream: Merged { inputs },
            item: PhantomData,
        }
    }

    /// Ends the stream in `stage`, a sink called `name`.
    #[track_caller]
    pub(crate) fn end<F: StageFactory<Unkeyed, T>>(self, name: String, stage: F) {
        self.place.end(&self.graph, name);
        self.upstream.attach(&self.graph, stage);
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Starts a keyed stream at `upstream`.
    pub(crate) fn new(graph: Graph, place: Place, upstream: U) -> Self {
        Self {
            graph,
            place,
            upstream,
            types: PhantomData,
        }
    }

    /// Puts an operator of your own behind this stream, *before* any shuffle: records of one key may be on several workers.
    #[allow(
        clippy::type_complexity,
        reason = "the type says what is in front; nobody writes it out"
    )]
    #[track_caller]
    pub fn operator<O, M>(self, make: M) -> Keyed<O::OutKey, O::Out, Then<U, O, K, V>>
    where
        O: Operator<K, V> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        Keyed {
            place: self.place.then(&self.graph, kind_of::<O>()),
            graph: self.graph,
            upstream: Then {
                upstream: self.upstream,
                make: Box::new(make),
                types: PhantomData,
            },
            types: PhantomData,
        }
    }

    /// Puts an operator behind this stream that takes the key away.
    #[track_caller]
    pub fn unkeying_operator<O, M>(self, make: M) -> Stream<O::Out, Then<U, O, K, V>>
    where
        O: Operator<K, V, OutKey = Unkeyed> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        Stream {
            place: self.place.then(&self.graph, kind_of::<O>()),
            graph: self.graph,
            upstream: Then {
                upstream: self.upstream,
                make: Box::new(make),
                types: PhantomData,
            },
            item: PhantomData,
        }
    }

    /// Declares a store that an operator behind this point opens with [`OperatorContext::store`]. The types of its keys and
    /// values are part of what it is: a later build of the job with others is refused.
    ///
    /// # Panics
    /// If the job has a store of that name already, or the name is not a valid part of a topic name.
    pub fn with_store<S: Datum>(mut self, name: &str) -> Self
    where
        K: Datum,
    {
        self.graph
            .declare_store(name, Schema::of::<K, S>(), Face::values::<K, S>());
        self.place.stores.push(name.to_owned());
        self
    }

    /// Declares a store of values and timers with times, which an operator behind this point opens with
    /// [`OperatorContext::timed_store`]. See [`with_store`](Self::with_store).
    ///
    /// # Panics
    /// As [`with_store`](Self::with_store).
    pub fn with_timed_store<S: Datum>(mut self, name: &str) -> Self
    where
        K: Datum,
    {
        self.graph
            .declare_store(name, timed_schema::<K, S>(), Face::timed::<K, S>());
        self.place.stores.push(name.to_owned());
        self
    }

    /// Says how the windows that an operator holds open in its store `name`, with values of `S`, are read: for who asks the running job
    /// ([`Queries::windows`](crate::runtime::Queries::windows)). `read` gives those of a key that have some of these times, in the
    /// order of time, and may be called at any moment, on any thread.
    pub fn with_open_windows<S, A>(
        self,
        name: &str,
        read: impl Fn(
            &View<'_>,
            &TimedRows<K, S>,
            &K,
            &Range<Timestamp>,
        ) -> Result<Vec<(Window, A)>, QueryError>
        + Send
        + Sync
        + 'static,
    ) -> Self
    where
        K: Datum,
        S: Datum + Clone,
        A: Datum + Clone,
        A::DefaultCodec: Codec<A>,
    {
        self.graph.show_windows(name, WindowsFace::new(read));
        self
    }

    /// Declares a store that has, for each key, values of `T` in the order of `S`, which an operator behind this point opens with
    /// [`OperatorContext::ordered_store`]. See [`with_store`](Self::with_store).
    ///
    /// # Panics
    /// As [`with_store`](Self::with_store).
    pub fn with_ordered_store<S: SortKey, T: Datum>(mut self, name: &str) -> Self
    where
        K: Datum,
    {
        let (schema, face) = (ordered_schema::<K, S, T>(), Face::ordered::<K, S, T>());
        self.graph.declare_store(name, schema, face);
        self.place.stores.push(name.to_owned());
        self
    }

    /// Hides the type of what is in front, so that the stream can be stored or returned.
    pub fn boxed(self) -> Keyed<K, V> {
        Keyed {
            upstream: Boxed::new(self.upstream),
            graph: self.graph,
            place: self.place,
            types: PhantomData,
        }
    }

    /// Interleaves the records of two keyed streams.
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    #[track_caller]
    pub fn merge<W: Upstream<K, V>>(self, other: Keyed<K, V, W>) -> Keyed<K, V, Merged<K, V>> {
        assert!(
            self.graph.is_same(&other.graph),
            "streams of two jobs cannot be merged: build both from one `Job`"
        );
        let inputs = vec![Boxed::new(self.upstream), Boxed::new(other.upstream)];
        Keyed {
            place: self.place.and(other.place),
            graph: self.graph,
            upstream: Merged { inputs },
            types: PhantomData,
        }
    }

    /// Ends the stream in `stage`, a sink called `name`.
    #[track_caller]
    pub(crate) fn end<F: StageFactory<K, V>>(self, name: String, stage: F) {
        self.place.end(&self.graph, name);
        self.upstream.attach(&self.graph, stage);
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Brings all records of one key to one worker. Stateful operators call it themselves; it costs nothing where they are together already.
    /// `name` is that of the step behind: where a job is spread over several processes, the topic between them is called
    /// `<job>-<name>-repartition`.
    pub fn partitioned(self, name: &str) -> Keyed<K, V, Exchange<U>> {
        Keyed {
            place: self.place.shuffled(name, !self.upstream.is_partitioned()),
            graph: self.graph,
            upstream: Exchange {
                upstream: self.upstream,
                name: name.into(),
            },
            types: PhantomData,
        }
    }
}
