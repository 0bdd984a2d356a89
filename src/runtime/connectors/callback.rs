//! A sink that calls a function: at least once, because what the function does is outside the transaction.

use std::marker::PhantomData;

use crate::runtime::contract::operator::{Signal, Stage};
use crate::runtime::contract::sink::Sink;
use crate::runtime::graph::topology::Graph;
use crate::runtime::task::chains::StageFactory;
use crate::runtime::{Flow, JobError, OperatorContext, Output, Record};

/// A function as a sink; see [`at_least_once`].
pub struct AtLeastOnce<F> {
    function: F,
}

/// A sink that calls `function` for each record, *before* the cycle is committed: after a crash it is called
/// again for the same records. The name says so, because this is the one place where exactly once ends.
pub fn at_least_once<F>(function: F) -> AtLeastOnce<F> {
    AtLeastOnce { function }
}

impl<K, V, F> Sink<K, V> for AtLeastOnce<F>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    F: Fn(Record<'_, K, V>) + Clone + Send + Sync + 'static,
{
    fn name(&self) -> String {
        "a function (at least once)".to_owned()
    }

    fn declare(&self, _graph: &Graph) {}

    fn into_factory(self) -> impl StageFactory<K, V> {
        CallFactory {
            function: self.function,
            types: PhantomData::<fn(&K, &V)>,
        }
    }
}

struct CallFactory<F, KV> {
    function: F,
    types: PhantomData<KV>,
}

#[diagnostic::do_not_recommend]
impl<K, V, F> StageFactory<K, V> for CallFactory<F, fn(&K, &V)>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    F: Fn(Record<'_, K, V>) + Clone + Send + Sync + 'static,
{
    type Stage = CallStage<F>;

    fn build(&self, _context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(CallStage(self.function.clone()))
    }
}

/// Calls the function.
pub(crate) struct CallStage<F>(F);

impl<K: ?Sized, V: ?Sized, F: Fn(Record<'_, K, V>)> Output<K, V> for CallStage<F> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        (self.0)(record);
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized, F: Fn(Record<'_, K, V>)> Stage<K, V> for CallStage<F> {
    fn signal(&mut self, _signal: Signal) -> Flow {
        Ok(())
    }
}
