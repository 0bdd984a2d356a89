//! Nodes of the graph at which several chains end: one instance a worker, and what each chain must know of it.

use std::any::Any;
use std::rc::Rc;

use super::context::{OperatorContext, Producer};
use super::read_ahead::SharedReadAhead;
use crate::runtime::contract::error::JobError;

/// The way from a producer to an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExchangeEdge {
    pub(crate) producer: Producer,
    pub(crate) exchange: usize,
    /// Whether the sender belongs to the edge of another producer, which feeds the same node: that one tells of time.
    pub(crate) is_shared: bool,
}

/// One worker's instance of a node, and all that was built with it.
pub(crate) struct SharedNode {
    instance: Rc<dyn Any>,
    stores: Vec<SharedReadAhead>,
    exchanges: Vec<usize>,
}

impl OperatorContext {
    /// This worker's instance of a node: made where the first of its ports is built, and found at the others. The chain of each port
    /// feeds the exchanges that are behind the node, and reads a batch's keys of its stores.
    pub(crate) fn shared_node<T: 'static>(
        &mut self,
        node: usize,
        make: impl FnOnce(&mut Self) -> Result<T, JobError>,
    ) -> Result<Rc<T>, JobError> {
        if let Some(known) = self.shared_nodes.get(&node) {
            let instance = Rc::clone(&known.instance).downcast::<T>();
            let instance =
                instance.unwrap_or_else(|_| unreachable!("the ports of a node have one instance"));
            self.met_stores.extend(known.stores.iter().map(Rc::clone));
            let edges = known.exchanges.iter().map(|&exchange| ExchangeEdge {
                producer: self.producer,
                exchange,
                is_shared: true,
            });
            self.edges.extend(edges);
            return Ok(instance);
        }
        let (stores_before, edges_before) = (self.met_stores.len(), self.edges.len());
        let instance = Rc::new(make(self)?);
        let edges = self.edges.iter().skip(edges_before);
        let shared = SharedNode {
            instance: Rc::clone(&instance) as Rc<dyn Any>,
            stores: self.stores_since(stores_before),
            exchanges: edges.map(|edge| edge.exchange).collect(),
        };
        self.shared_nodes.insert(node, shared);
        Ok(instance)
    }
}
