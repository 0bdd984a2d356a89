//! Two keyed streams of different types in front of one operator.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::description::kind_of;
use super::exchange::Exchange;
use super::stream::{Attach, Keyed, Make, Place, Upstream};
use super::topology::Graph;
use crate::codec::{Datum, SortKey};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::two_inputs::{
    LeftPort, RightPort, SharedStep, TwoInputOperator, TwoInputStep,
};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::context::OperatorContext;
use crate::runtime::task::side::SideOutput;

/// The ports of a step with two inputs, as its repartition topics and the job's graph call them.
const LEFT: &str = "left";
const RIGHT: &str = "right";

/// Two streams with keys of one type, which one step takes: made by [`Keyed::connect`].
#[must_use = "connected streams do nothing until an operator takes them"]
pub struct Connected<K: ?Sized, L: ?Sized, R: ?Sized, A, B> {
    left: Keyed<K, L, A>,
    right: Keyed<K, R, B>,
}

/// An operator behind two upstreams.
struct Joined<A, B, O, T> {
    left: A,
    right: B,
    make: Make<O>,
    /// The number of the node, by which both ports find the instance.
    node: usize,
    types: PhantomData<fn() -> T>,
}

/// Makes one worker's instance of the operator, with what is behind it.
struct NodeFactory<F, O> {
    make: Make<O>,
    down: F,
    node: usize,
}

struct LeftFactory<F, O, R: ?Sized> {
    node: Arc<NodeFactory<F, O>>,
    other: PhantomData<fn(&R)>,
}

struct RightFactory<F, O, L: ?Sized> {
    node: Arc<NodeFactory<F, O>>,
    other: PhantomData<fn(&L)>,
}

impl<F, O: 'static> NodeFactory<F, O> {
    /// The worker's instance: made at the port that is built first.
    fn step<K, V>(&self, context: &mut OperatorContext) -> Result<SharedStep<O, F::Stage>, JobError>
    where
        K: ?Sized,
        V: ?Sized,
        F: StageFactory<K, V>,
    {
        context.shared_node(self.node, |context| {
            let sides_before = context.sides_count();
            let operator = (self.make)(context)?;
            let sides = context.sides_since(sides_before);
            let down = self.down.build(context)?;
            Ok(RefCell::new(TwoInputStep::new(operator, sides, down)))
        })
    }
}

#[diagnostic::do_not_recommend]
impl<K, L, R, O, F> StageFactory<K, L> for LeftFactory<F, O, R>
where
    K: ?Sized + 'static,
    L: ?Sized + 'static,
    R: ?Sized + 'static,
    O: TwoInputOperator<K, L, R> + 'static,
    F: StageFactory<O::OutKey, O::Out>,
{
    type Stage = LeftPort<O, F::Stage, R>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(LeftPort::new(self.node.step(context)?))
    }
}

#[diagnostic::do_not_recommend]
impl<K, L, R, O, F> StageFactory<K, R> for RightFactory<F, O, L>
where
    K: ?Sized + 'static,
    L: ?Sized + 'static,
    R: ?Sized + 'static,
    O: TwoInputOperator<K, L, R> + 'static,
    F: StageFactory<O::OutKey, O::Out>,
{
    type Stage = RightPort<O, F::Stage, L>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(RightPort::new(self.node.step(context)?))
    }
}

impl<K, L, R, A, B, O> Attach<O::OutKey, O::Out> for Joined<A, B, O, fn(&K, &L, &R)>
where
    K: ?Sized + 'static,
    L: ?Sized + 'static,
    R: ?Sized + 'static,
    A: Attach<K, L>,
    B: Attach<K, R>,
    O: TwoInputOperator<K, L, R> + 'static,
{
    fn is_partitioned(&self) -> bool {
        O::KEEPS_KEY && self.left.is_partitioned() && self.right.is_partitioned()
    }

    fn attach<F: StageFactory<O::OutKey, O::Out>>(self, graph: &Graph, stage: F) {
        if O::USES_TIME {
            graph.use_time();
        }
        if O::USES_CLOCK {
            graph.use_clock();
        }
        let node = Arc::new(NodeFactory {
            make: self.make,
            down: stage,
            node: self.node,
        });
        let left = LeftFactory {
            node: Arc::clone(&node),
            other: PhantomData,
        };
        self.left.attach(graph, left);
        let right = RightFactory {
            node,
            other: PhantomData,
        };
        self.right.attach(graph, right);
    }
}

impl<K: Datum + ?Sized, L: Datum + ?Sized, A: Upstream<K, L>> Keyed<K, L, A> {
    /// Puts this stream, as the left one, and another of other values, as the right one, in front of one step:
    /// [`Connected::process`] runs a [`TwoInputOperator`] where the records of a key meet, of both streams. Both have keys of the
    /// same type.
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    pub fn connect<R: Datum + ?Sized, B: Upstream<K, R>>(
        self,
        right: Keyed<K, R, B>,
    ) -> Connected<K, L, R, A, B> {
        assert!(
            self.graph.is_same(&right.graph),
            "streams of two jobs cannot be connected: build both from one `Job`"
        );
        Connected { left: self, right }
    }
}

impl<K, L, R, A, B> Connected<K, L, R, A, B>
where
    K: Datum + ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    A: Upstream<K, L>,
    B: Upstream<K, R>,
{
    pub(super) fn right_place(&self) -> &Place {
        &self.right.place
    }

    pub(super) fn left_graph(&self) -> &Graph {
        &self.left.graph
    }

    /// Declares a store; see [`Keyed::with_store`].
    ///
    /// # Panics
    /// As [`Keyed::with_store`].
    pub fn with_store<S: Datum>(self, name: &str) -> Self {
        Self {
            left: self.left.with_store::<S>(name),
            ..self
        }
    }

    /// Declares a store of values and timers with times; see [`Keyed::with_timed_store`].
    ///
    /// # Panics
    /// As [`Keyed::with_store`].
    pub fn with_timed_store<S: Datum>(self, name: &str) -> Self {
        Self {
            left: self.left.with_timed_store::<S>(name),
            ..self
        }
    }

    /// Declares a store of values in an order; see [`Keyed::with_ordered_store`].
    ///
    /// # Panics
    /// As [`Keyed::with_store`].
    pub fn with_ordered_store<S: SortKey, T: Datum>(self, name: &str) -> Self {
        Self {
            left: self.left.with_ordered_store::<S, T>(name),
            ..self
        }
    }

    /// A stream beside the results; see [`Keyed::side_output`].
    #[track_caller]
    pub fn side_output<J: ?Sized + 'static, W: ?Sized + 'static>(
        &self,
        name: &str,
    ) -> (SideOutput<J, W>, Keyed<J, W>) {
        let place = self.left.place.clone().and(self.right.place.clone());
        super::beside::side_output(&self.left.graph, place, name)
    }

    /// Runs an operator of your own with two inputs, called `name`, where all records of a key meet. A side whose records are
    /// together by key already is not shuffled again. Where a job is spread over several processes, the topics between them are
    /// called `<job>-<name>-left-repartition` and `<job>-<name>-right-repartition`.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::runtime::TwoInputOperator;
    ///
    /// /// Gives each click the name of its user, as of now; clicks of unknown users are passed over.
    /// struct Named { names: KeyValueStore<String> }
    ///
    /// impl TwoInputOperator<u64, String, String> for Named {
    ///     type OutKey = u64;
    ///     type Out = String;
    ///     const KEEPS_KEY: bool = true;
    ///
    ///     fn process_left(&mut self, click: Record<'_, u64, String>, out: &mut impl Output<u64, String>) -> Flow {
    ///         match self.names.get(click.key)? {
    ///             Some(name) => out.push(click.with_value(&format!("{name} saw {}", click.value))),
    ///             None => Ok(()),
    ///         }
    ///     }
    ///
    ///     fn process_right(&mut self, name: Record<'_, u64, String>, _out: &mut impl Output<u64, String>) -> Flow {
    ///         self.names.put(name.key, name.value.clone())
    ///     }
    /// }
    ///
    /// let job = Job::new("named");
    /// let clicks = job.keyed_source(keyed_topic::<u64, String>("clicks"));
    /// let names = job.keyed_source(keyed_topic::<u64, String>("names"));
    /// clicks
    ///     .connect(names)
    ///     .with_store::<String>("names-of-users")
    ///     .process("named", |context| Ok(Named { names: context.store("names-of-users")? }))
    ///     .sink(topic("named-clicks"));
    /// ```
    #[track_caller]
    pub fn process<O, M>(
        self,
        name: &str,
        make: M,
    ) -> Keyed<O::OutKey, O::Out, impl Upstream<O::OutKey, O::Out> + use<K, L, R, A, B, O, M>>
    where
        O: TwoInputOperator<K, L, R, OutKey: 'static, Out: 'static> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        let Self { left, right } = self;
        let left_place = left
            .place
            .shuffled(name, !left.upstream.is_partitioned())
            .at_port(LEFT);
        let right_place = right
            .place
            .shuffled(name, !right.upstream.is_partitioned())
            .at_port(RIGHT);
        let (place, node) = left_place
            .and(right_place)
            .then_numbered(&left.graph, kind_of::<O>());
        let joined: Joined<_, _, O, fn(&K, &L, &R)> = Joined {
            left: Exchange {
                upstream: left.upstream,
                name: format!("{name}-{LEFT}").into(),
            },
            right: Exchange {
                upstream: right.upstream,
                name: format!("{name}-{RIGHT}").into(),
            },
            make: Box::new(make),
            node,
            types: PhantomData,
        };
        Keyed::new(left.graph, place, joined)
    }
}
