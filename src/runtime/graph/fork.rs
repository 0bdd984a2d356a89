//! Two streams out of one: the only point where a record has two ways to go.

use std::cell::RefCell;
use std::rc::Rc;

use super::stream::{Boxed, BoxedFactory, DynFactory, Keyed, Stream, Upstream};
use super::topology::Graph;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Output, Signal, Stage};
use crate::runtime::contract::record::{Record, Unkeyed};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::context::OperatorContext;
use crate::runtime::task::discard::Discard;

/// Which way a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the first stream.
    First,
    /// To the second stream.
    Second,
    /// To both.
    Both,
}

/// Puts a stage behind each end.
type AttachBoth<K, V> = Box<dyn FnOnce(&Graph, DynFactory<K, V>, DynFactory<K, V>)>;

struct Fork<K: ?Sized + 'static, V: ?Sized + 'static> {
    graph: Graph,
    /// Attaches the two ends, once both are known.
    attach: Option<AttachBoth<K, V>>,
    ends: [Option<DynFactory<K, V>>; 2],
}

impl<K: ?Sized, V: ?Sized> Fork<K, V> {
    fn set(&mut self, end: usize, stage: DynFactory<K, V>) {
        self.ends[end] = Some(stage);
        if let [Some(first), Some(second)] = &self.ends
            && let Some(attach) = self.attach.take()
        {
            attach(&self.graph, first.clone(), second.clone());
        }
    }
}

/// One end of a fork. An end that is dropped discards its records, so that the other one still gets its own.
struct End<K: ?Sized + 'static, V: ?Sized + 'static> {
    fork: Rc<RefCell<Fork<K, V>>>,
    end: usize,
}

impl<K: ?Sized, V: ?Sized> End<K, V> {
    fn attach(self, stage: DynFactory<K, V>) {
        self.fork.borrow_mut().set(self.end, stage);
    }
}

impl<K: ?Sized, V: ?Sized> Drop for End<K, V> {
    fn drop(&mut self) {
        let mut fork = self.fork.borrow_mut();
        if fork.ends[self.end].is_none() {
            fork.set(self.end, std::sync::Arc::new(|_| Ok(Box::new(Discard))));
        }
    }
}

fn fork<K, V, U, R>(graph: &Graph, upstream: U, route: R) -> (Boxed<K, V>, Boxed<K, V>)
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    U: Upstream<K, V>,
    R: Fn(&Record<'_, K, V>) -> Route + Clone + Send + Sync + 'static,
{
    let is_partitioned = upstream.is_partitioned();
    let attach = Box::new(move |graph: &Graph, first, second| {
        upstream.attach(
            graph,
            ForkFactory {
                route,
                first: BoxedFactory(first),
                second: BoxedFactory(second),
            },
        );
    });
    let fork = Rc::new(RefCell::new(Fork {
        graph: graph.clone(),
        attach: Some(attach),
        ends: [None, None],
    }));
    let boxed = |end: usize| {
        let end = End {
            fork: Rc::clone(&fork),
            end,
        };
        Boxed::deferred(is_partitioned, move |stage| end.attach(stage))
    };
    (boxed(0), boxed(1))
}

struct ForkFactory<R, K: ?Sized, V: ?Sized> {
    route: R,
    first: BoxedFactory<K, V>,
    second: BoxedFactory<K, V>,
}

#[diagnostic::do_not_recommend]
impl<K, V, R> StageFactory<K, V> for ForkFactory<R, K, V>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    R: Fn(&Record<'_, K, V>) -> Route + Clone + Send + Sync + 'static,
{
    type Stage = ForkStage<R, K, V>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(ForkStage {
            route: self.route.clone(),
            first: self.first.build(context)?,
            second: self.second.build(context)?,
        })
    }
}

struct ForkStage<R, K: ?Sized, V: ?Sized> {
    route: R,
    first: Box<dyn Stage<K, V>>,
    second: Box<dyn Stage<K, V>>,
}

impl<K: ?Sized, V: ?Sized, R: Fn(&Record<'_, K, V>) -> Route> Output<K, V> for ForkStage<R, K, V> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        match (self.route)(&record) {
            Route::First => self.first.push(record),
            Route::Second => self.second.push(record),
            Route::Both => {
                self.first.push(record)?;
                self.second.push(record)
            }
        }
    }
}

impl<K: ?Sized, V: ?Sized, R: Fn(&Record<'_, K, V>) -> Route> Stage<K, V> for ForkStage<R, K, V> {
    fn signal(&mut self, signal: Signal) -> Flow {
        self.first.signal(signal)?;
        self.second.signal(signal)
    }
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Two streams; `route` says of each record which way it goes. Either stream may be dropped.
    #[track_caller]
    pub fn fork<R>(self, route: R) -> (Stream<T>, Stream<T>)
    where
        R: Fn(&Record<'_, Unkeyed, T>) -> Route + Clone + Send + Sync + 'static,
    {
        let place = self.place.then(&self.graph, "fork".to_owned());
        let (first, second) = fork(&self.graph, self.upstream, route);
        (
            Stream::new(self.graph.clone(), place.clone(), first),
            Stream::new(self.graph, place, second),
        )
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Two streams; `route` says of each record which way it goes. Either stream may be dropped.
    #[track_caller]
    pub fn fork<R>(self, route: R) -> (Keyed<K, V>, Keyed<K, V>)
    where
        R: Fn(&Record<'_, K, V>) -> Route + Clone + Send + Sync + 'static,
    {
        let place = self.place.then(&self.graph, "fork".to_owned());
        let (first, second) = fork(&self.graph, self.upstream, route);
        (
            Keyed::new(self.graph.clone(), place.clone(), first),
            Keyed::new(self.graph, place, second),
        )
    }
}
