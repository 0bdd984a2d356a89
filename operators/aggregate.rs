//! `aggregate`: anything folded from the values of each key.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{Change, Flow, Keyed, Operator, Output, Record, Table, TableStore, Upstream};

/// Folds values by key.
struct Aggregate<A, I, F, V: ?Sized> {
    store: TableStore<A>,
    initial: I,
    add: F,
    value: PhantomData<fn(&V)>,
}

impl<K, V, A, I, F> Operator<K, V> for Aggregate<A, I, F, V>
where
    K: ?Sized,
    V: ?Sized,
    A: Datum + Clone,
    I: Fn() -> A,
    F: Fn(&mut A, &V),
{
    type OutKey = K;
    type Out = Change<A>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, Change<A>>) -> Flow {
        let (initial, add) = (&self.initial, &self.add);
        let change = |aggregate: &mut Option<A>| {
            add(aggregate.get_or_insert_with(initial), record.value);
        };
        self.store.change(record.key, change, |change| {
            out.push(record.with_value(change))
        })
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Folds the values of each key into an aggregate in the store `name`: `add` changes the aggregate by
    /// a value, beginning with `initial`. Each record is a change of the table.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("extremes");
    /// job.source(values("n", 0..4u64))
    ///     .key_by(|n| n % 2)
    ///     .aggregate("extremes", || (u64::MAX, 0), |(least, most), n| {
    ///         *least = n.min(least).to_owned();
    ///         *most = n.max(most).to_owned();
    ///     })
    ///     .changes()
    ///     .sink(topic("extremes"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.expect::<u64, (u64, u64)>("extremes", [(&0, (0, 0)), (&1, (1, 1)), (&0, (0, 2)), (&1, (1, 3))]);
    /// ```
    #[track_caller]
    pub fn aggregate<A, I, F>(
        self,
        name: &str,
        initial: I,
        add: F,
    ) -> Table<K, A, impl Upstream<K, Change<A>>>
    where
        A: Datum + Clone,
        I: Fn() -> A + Clone + Send + Sync + 'static,
        F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let folded = self.with_store::<A>(name).process(name, move |context| {
            Ok(Aggregate {
                store: context.table_store(&store)?,
                initial: initial.clone(),
                add: add.clone(),
                value: PhantomData,
            })
        });
        Table::in_store(folded, name)
    }
}
