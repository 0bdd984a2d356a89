//! The point of a graph at which records are brought to the worker of their key.

use std::sync::Arc;

use super::stream::Attach;
use super::topology::{ExchangeNode, Graph};
use crate::codec::{Datum, Schema};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::exchange::{Receiver, SenderFactory};
use crate::runtime::task::repartition::repartition_feed;

/// An upstream whose records are brought to the worker of their key.
pub struct Exchange<U> {
    pub(crate) upstream: U,
    /// The name of the node behind it.
    pub(crate) name: Arc<str>,
}

impl<K, V, U> Attach<K, V> for Exchange<U>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    U: Attach<K, V>,
{
    fn is_partitioned(&self) -> bool {
        true
    }

    fn attach<F: StageFactory<K, V>>(self, graph: &Graph, stage: F) {
        if self.upstream.is_partitioned() {
            return self.upstream.attach(graph, stage);
        }
        let stage = Arc::new(stage);
        let behind_topic = Arc::clone(&stage);
        graph.add_exchange(ExchangeNode {
            name: Arc::clone(&self.name),
            receive: Arc::new(move |context| Ok(Box::new(Receiver::new(&*stage, context)?))),
            repartition: Arc::new(move |context| {
                repartition_feed::<K, V, _>(&*behind_topic, context)
            }),
            schema: Schema::of::<K, V>(),
        });
        self.upstream
            .attach(graph, SenderFactory::<fn(&K, &V)>::new(self.name));
    }
}
