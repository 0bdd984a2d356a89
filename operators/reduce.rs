//! `reduce`: the values of each key, combined.

use crate::codec::Datum;
use crate::runtime::{Change, Flow, Keyed, Operator, Output, Record, Table, TableStore, Upstream};

/// Combines values by key.
struct Reduce<V, F> {
    store: TableStore<V>,
    combine: F,
}

impl<K, V, F> Operator<K, V> for Reduce<V, F>
where
    K: ?Sized,
    V: Datum + Clone,
    F: Fn(&mut V, &V),
{
    type OutKey = K;
    type Out = Change<V>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, Change<V>>) -> Flow {
        let combine = &self.combine;
        let change = |reduced: &mut Option<V>| match reduced {
            Some(reduced) => combine(reduced, record.value),
            None => *reduced = Some(record.value.clone()),
        };
        self.store.change(record.key, change, |change| {
            out.push(record.with_value(change))
        })
    }
}

impl<K: Datum + ?Sized, V: Datum + Clone, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Combines the values of each key in the store `name`: the first is kept as it is, each later one is
    /// combined into it. Each record is a change of the table.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("sums");
    /// job.source(values("n", 0..4u64)).key_by(|n| n % 2).reduce("sums", |sum, n| *sum += n).changes().sink(topic("sums"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.expect::<u64, u64>("sums", [(&0, 0), (&1, 1), (&0, 2), (&1, 4)]);
    /// ```
    #[track_caller]
    pub fn reduce<F>(self, name: &str, combine: F) -> Table<K, V, impl Upstream<K, Change<V>>>
    where
        F: Fn(&mut V, &V) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let reduced = self.with_store::<V>(name).process(name, move |context| {
            Ok(Reduce {
                store: context.table_store(&store)?,
                combine: combine.clone(),
            })
        });
        Table::in_store(reduced, name)
    }
}
