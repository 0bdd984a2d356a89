//! Steps that ignore what is late, and joins behind them that would take it: found where the job is launched.

use std::time::Duration;

use super::connect::Connected;
use super::stream::{Keyed, Upstream};
use crate::codec::Datum;

impl<K: ?Sized, V: ?Sized, U> Keyed<K, V, U> {
    /// Says that the step in front ignores what is later than `history`: a join behind it that takes what is later is refused
    /// ([`Connected::needs_history`]).
    pub fn with_history(self, history: Duration) -> Self {
        if let Some(node) = self.place.node_in_front() {
            self.graph.note_history(node, history);
        }
        self
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
    /// Refuses to run a job whose right input comes through a step that ignores what is later than its history, if the step `name` behind
    /// this point takes what is late by up to `grace`.
    pub fn needs_history(self, name: &str, grace: Duration) -> Self {
        let graph = self.left_graph();
        let in_front = self.right_place().node_in_front();
        if let Some((step, history)) = in_front.and_then(|node| graph.history_in_front(node))
            && history < grace
        {
            graph.add_fault(format!(
                "the join {name:?} takes versions that are late by up to {grace:?} (`grace`), but {step:?} in front of it has a history of \
                 {history:?}, and ignores those that are later: give it a history of {grace:?} or more, or the join less grace"
            ));
        }
        self
    }
}
