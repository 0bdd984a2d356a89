//! Streams beside the one that leads on from an operator.

use super::stream::{Boxed, Keyed, Place, Upstream};
use super::topology::Graph;
use crate::runtime::task::side::SideOutput;

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// A stream beside this one, for an operator that has something to say besides its results: it opens the first end with
    /// [`OperatorContext::side`](crate::runtime::OperatorContext::side) and pushes into it; the second is a stream like any other.
    #[track_caller]
    pub fn side_output<L: ?Sized + 'static, W: ?Sized + 'static>(
        &self,
        name: &str,
    ) -> (SideOutput<L, W>, Keyed<L, W>) {
        side_output(&self.graph, self.place.clone(), name)
    }
}

impl<K: ?Sized, V: ?Sized, U> Keyed<K, V, U> {
    /// Says that this stream beside is all that `step` gives: what is said behind it about a step's state is about that one.
    pub(crate) fn belongs_to<L: ?Sized, W: ?Sized, S>(&self, step: &Keyed<L, W, S>) {
        let nodes = (self.place.node_in_front(), step.place.node_in_front());
        if let (Some(side), Some(step)) = nodes {
            self.graph
                .change(|topology| topology.steps_of_sides.insert(side, step));
        }
    }
}

/// Both ends of a stream beside the one that goes on at a place.
#[track_caller]
pub(super) fn side_output<L: ?Sized + 'static, W: ?Sized + 'static>(
    graph: &Graph,
    mut place: Place,
    name: &str,
) -> (SideOutput<L, W>, Keyed<L, W>) {
    (place.name, place.stores) = (Some(name.to_owned()), Vec::new());
    let place = place.then(graph, "side".to_owned());
    let output = SideOutput::default();
    let end = output.clone();
    let upstream = Boxed::deferred(false, move |factory| end.set(factory));
    (output, Keyed::new(graph.clone(), place, upstream))
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Calls the step behind `name`, without a shuffle: its stores need records of one key on one worker, so that it goes
    /// behind a step that keeps the key of records which are together already. See [`partitioned`](Self::partitioned).
    pub fn named(self, name: &str) -> Self {
        Self {
            place: self.place.shuffled(name, false),
            ..self
        }
    }
}
