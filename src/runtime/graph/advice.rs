//! Methods that are not there, so that the compiler says which ones are meant (X18).

#![allow(
    private_bounds,
    reason = "nothing implements these bounds: they are there for their messages"
)]

use super::stream::Stream;
use super::table::Table;

/// The trait that a stream would need for a step that works by key. Nothing implements it.
#[diagnostic::on_unimplemented(
    message = "this step works by key, and the stream has none",
    label = "give the records a key first: `key_by` computes or clones it, `key_by_ref` borrows it from the value",
    note = "`stream.key_by(|event| event.user.clone()).count(\"counts\")`, or `stream.key_by_ref(|event: &Event| &event.user)`"
)]
trait HasKeys {}

/// The trait that a table would need to end in a sink. Nothing implements it.
#[diagnostic::on_unimplemented(
    message = "a table is not a stream of records",
    label = "take its changes first: `.changes()`",
    note = "`table.changes().sink(topic(\"counts\"))` writes every change; `table.materialize()` keeps the table without a sink"
)]
trait HasRecords {}

impl<T: ?Sized, U> Stream<T, U> {
    /// Not there: records are counted by key, see `Keyed::count`.
    #[doc(hidden)]
    pub fn count(self, _name: &str)
    where
        Self: HasKeys,
    {
    }

    /// Not there: records are reduced by key, see `Keyed::reduce`.
    #[doc(hidden)]
    pub fn reduce<F>(self, _name: &str, _combine: F)
    where
        Self: HasKeys,
    {
    }

    /// Not there: records are aggregated by key, see `Keyed::aggregate`.
    #[doc(hidden)]
    pub fn aggregate<I, F>(self, _name: &str, _init: I, _add: F)
    where
        Self: HasKeys,
    {
    }

    /// Not there: stores are declared on keyed streams, see `Keyed::with_store`.
    #[doc(hidden)]
    pub fn with_store<S>(self, _name: &str)
    where
        Self: HasKeys,
    {
    }
}

impl<K: ?Sized, V, U, D> Table<K, V, U, D> {
    /// Not there: a table's changes end in a sink, see [`Table::changes`].
    #[doc(hidden)]
    pub fn sink<S>(self, _sink: S)
    where
        Self: HasRecords,
    {
    }

    /// Not there: see [`Table::changes`] and `Table::map_values`.
    #[doc(hidden)]
    pub fn map<F>(self, _function: F)
    where
        Self: HasRecords,
    {
    }
}
