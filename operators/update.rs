//! `update` and `to_table`: tables from which keys are deleted.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{Flow, KeyValueStore, Keyed, Operator, Output, Record, Table, Upstream};

/// Changes the state of a key, and forgets it where nothing is left.
struct Update<S, F, V: ?Sized> {
    store: KeyValueStore<S>,
    function: F,
    value: PhantomData<fn(&V)>,
}

impl<K, V, S, F> Operator<K, V> for Update<S, F, V>
where
    K: ?Sized,
    V: ?Sized,
    S: Datum + Clone,
    F: Fn(&mut Option<S>, &V),
{
    type OutKey = K;
    type Out = Option<S>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, Option<S>>) -> Flow {
        let function = &self.function;
        self.store.update(record.key, |state| {
            let was_there = state.is_some();
            function(state, record.value);
            match was_there || state.is_some() {
                true => out.push(record.with_value(&*state)),
                // There was nothing, and there is nothing.
                false => Ok(()),
            }
        })?
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Changes the state of each record's key in the store `name`, beginning with `None`; a state that `change` sets to `None` is
    /// deleted. Each record is a change of the table: the new state, or `None` for a deletion, which a topic that is
    /// written [`as_option`](crate::runtime::Topic::as_option) gets as a tombstone.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// // The open orders of each customer; a customer without one is forgotten.
    /// let job = Job::new("orders");
    /// job.source(values("orders", [("ann".to_owned(), 1i64), ("bob".to_owned(), 1), ("ann".to_owned(), -1)]))
    ///     .key_by(|(customer, _)| customer.clone())
    ///     .update("open", |open: &mut Option<i64>, (_, change)| {
    ///         let left = open.unwrap_or(0) + change;
    ///         *open = (left > 0).then_some(left);
    ///     })
    ///     .changes()
    ///     .sink(topic::<i64>("open-orders").as_option());
    /// ```
    #[track_caller]
    pub fn update<S, F>(
        self,
        name: &str,
        change: F,
    ) -> Table<K, Option<S>, impl Upstream<K, Option<S>>>
    where
        S: Datum + Clone,
        F: Fn(&mut Option<S>, &V) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let updated = self.with_store::<S>(name).process(name, move |context| {
            Ok(Update {
                store: context.store(&store)?,
                function: change.clone(),
                value: PhantomData,
            })
        });
        Table::from_changes(updated)
    }
}

impl<K, V, Up> Keyed<K, Option<V>, Up>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    Option<V>: Datum,
    Up: Upstream<K, Option<V>>,
{
    /// The last value of each key, in the store `name`; `None` deletes the key.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("customers");
    /// job.keyed_source(keyed_topic::<u64, String>("customers").as_option())
    ///     .to_table("customers")
    ///     .changes()
    ///     .sink(topic::<String>("copy").as_option());
    /// ```
    #[track_caller]
    pub fn to_table(self, name: &str) -> Table<K, Option<V>, impl Upstream<K, Option<V>>> {
        self.update(name, |last, value: &Option<V>| last.clone_from(value))
    }
}
