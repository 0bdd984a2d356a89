//! `update` and `to_table`: tables from which keys are deleted.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{
    Change, Deletes, Flow, Keyed, Operator, Output, Record, Table, TableStore, Upstream,
};

/// Changes the state of a key, and forgets it where nothing is left.
struct Update<S, F, V: ?Sized> {
    store: TableStore<S>,
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
    type Out = Change<S>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, Change<S>>) -> Flow {
        let function = &self.function;
        let change = |state: &mut Option<S>| function(state, record.value);
        self.store.change(record.key, change, |change| {
            out.push(record.with_value(change))
        })
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Changes the state of each record's key in the store `name`, beginning with `None`; a state that `change` sets to `None` is
    /// deleted. Each record is a change of the table: the new state, or `None` for a deletion, which a topic that is
    /// written [`as_option`](crate::runtime::Topic::as_option) gets as a tombstone.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
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
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let (ann, bob) = ("ann".to_owned(), "bob".to_owned());
    /// bed.expect_changes::<String, i64>("open-orders", [(&ann, Some(1)), (&bob, Some(1)), (&ann, None)]);
    /// ```
    #[track_caller]
    pub fn update<S, F>(
        self,
        name: &str,
        change: F,
    ) -> Table<K, S, impl Upstream<K, Change<S>> + use<K, V, Up, S, F>, Deletes>
    where
        S: Datum + Clone,
        F: Fn(&mut Option<S>, &V) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let updated = self.with_store::<S>(name).process(name, move |context| {
            Ok(Update {
                store: context.table_store(&store)?,
                function: change.clone(),
                value: PhantomData,
            })
        });
        Table::in_store(updated, name)
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
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("customers");
    /// job.keyed_source(keyed_topic::<u64, String>("customers").as_option())
    ///     .to_table("customers")
    ///     .changes()
    ///     .sink(topic::<String>("copy").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("customers", &1u64, &"ann".to_owned());
    /// bed.send_delete("customers", &1u64);
    /// bed.expect_changes::<u64, String>("copy", [(&1, Some("ann".to_owned())), (&1, None)]);
    /// ```
    #[track_caller]
    pub fn to_table(
        self,
        name: &str,
    ) -> Table<K, V, impl Upstream<K, Change<V>> + use<K, V, Up>, Deletes> {
        self.update(name, |last, value: &Option<V>| last.clone_from(value))
    }
}
