//! The contract of an operator: the one trait on which everything that users chain is built.
//!
//! An operator sees one record at a time and pushes any number of records on. Operators of one
//! chain are fused into one monomorphised function; nothing is boxed between them. A stateful
//! operator owns its stores, and lets the runtime visit them at the end of each cycle.

use super::error::Failure;
use super::record::Record;
use crate::state::{CycleStore, HashedKey};

/// What a step answers: go on, or why not.
pub type Flow = Result<(), Failure>;

/// Where an operator pushes its results.
pub trait Output<K: ?Sized, V: ?Sized> {
    /// Hands a record to the next step.
    ///
    /// # Errors
    /// What the steps behind it answer; an operator passes it up with `?`.
    fn push(&mut self, record: Record<'_, K, V>) -> Flow;
}

/// One step of a job: records of `(K, V)` in, records of `(OutKey, Out)` out. One instance runs per worker.
///
/// ```
/// use onceflow::runtime::{Flow, Operator, Output, Record, Unkeyed};
///
/// /// Passes on every `n`-th record.
/// struct Every { n: u64, seen: u64 }
///
/// impl<V: ?Sized> Operator<Unkeyed, V> for Every {
///     type OutKey = Unkeyed;
///     type Out = V;
///
///     fn process(&mut self, record: Record<'_, Unkeyed, V>, out: &mut impl Output<Unkeyed, V>) -> Flow {
///         self.seen += 1;
///         if self.seen % self.n == 0 { out.push(record) } else { Ok(()) }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator on these records (key `{K}`, value `{V}`)",
    note = "implement `Operator<{K}, {V}>` for it"
)]
pub trait Operator<K: ?Sized, V: ?Sized> {
    /// The key type of the records pushed on.
    type OutKey: ?Sized;
    /// The value type of the records pushed on.
    type Out: ?Sized;
    /// Whether every record pushed on has the key of the record that caused it. Then records of one
    /// key stay on their worker, and no shuffle is needed behind this operator.
    const KEEPS_KEY: bool = false;

    /// Sees one record. Records of one key come in the order of their source partition.
    ///
    /// # Errors
    /// A [`Failure`]; what happens then is the job's poison policy.
    fn process(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow;

    /// Told which keys the next batch of records has, so that a store can bring them into memory in one go.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn prepare(&mut self, _keys: &mut dyn Iterator<Item = HashedKey<'_>>) -> Flow {
        Ok(())
    }

    /// Called when a cycle closes and every record of it was processed; may push more.
    ///
    /// # Errors
    /// A [`Failure`], which aborts the cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<Self::OutKey, Self::Out>) -> Flow {
        Ok(())
    }

    /// Shows the operator's stores to the runtime, always in the same order.
    fn stores(&mut self, _visit: &mut dyn FnMut(&mut dyn CycleStore)) {}
}

/// An operator with what follows it: itself an output.
pub(crate) struct Step<O, D> {
    pub(crate) operator: O,
    pub(crate) down: D,
}

/// What the runtime asks of a fused chain besides pushing records.
pub trait Stage<K: ?Sized, V: ?Sized>: Output<K, V> {
    /// See [`Operator::prepare`].
    fn prepare(&mut self, keys: &mut dyn Iterator<Item = HashedKey<'_>>) -> Flow;
    /// Ends the cycle in this step and then in all behind it.
    fn end_cycle(&mut self) -> Flow;
    /// Visits the stores of this step and of all behind it.
    fn stores(&mut self, visit: &mut dyn FnMut(&mut dyn CycleStore));
}

impl<K: ?Sized, V: ?Sized, O, D> Output<K, V> for Step<O, D>
where
    O: Operator<K, V>,
    D: Output<O::OutKey, O::Out>,
{
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        self.operator.process(record, &mut self.down)
    }
}

impl<K: ?Sized, V: ?Sized, O, D> Stage<K, V> for Step<O, D>
where
    O: Operator<K, V>,
    D: Stage<O::OutKey, O::Out>,
{
    fn prepare(&mut self, keys: &mut dyn Iterator<Item = HashedKey<'_>>) -> Flow {
        self.operator.prepare(keys)
    }

    fn end_cycle(&mut self) -> Flow {
        self.operator.end_cycle(&mut self.down)?;
        self.down.end_cycle()
    }

    fn stores(&mut self, visit: &mut dyn FnMut(&mut dyn CycleStore)) {
        self.operator.stores(visit);
        self.down.stores(visit);
    }
}

impl<K: ?Sized, V: ?Sized> Output<K, V> for Box<dyn Stage<K, V>> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        (**self).push(record)
    }
}

impl<K: ?Sized, V: ?Sized> Stage<K, V> for Box<dyn Stage<K, V>> {
    fn prepare(&mut self, keys: &mut dyn Iterator<Item = HashedKey<'_>>) -> Flow {
        (**self).prepare(keys)
    }

    fn end_cycle(&mut self) -> Flow {
        (**self).end_cycle()
    }

    fn stores(&mut self, visit: &mut dyn FnMut(&mut dyn CycleStore)) {
        (**self).stores(visit);
    }
}
