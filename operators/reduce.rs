//! `reduce`: the values of each key, combined.

use crate::codec::Datum;
use crate::runtime::{Flow, KeyValueStore, Keyed, Operator, Output, Record, Table, Upstream};

/// Combines values by key.
struct Reduce<V, F> {
    store: KeyValueStore<V>,
    combine: F,
}

impl<K, V, F> Operator<K, V> for Reduce<V, F>
where
    K: ?Sized,
    V: Datum + Clone,
    F: Fn(&mut V, &V),
{
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        let combine = &self.combine;
        self.store.update(record.key, |reduced| {
            let reduced = match reduced {
                Some(reduced) => {
                    combine(reduced, record.value);
                    reduced
                }
                None => reduced.insert(record.value.clone()),
            };
            out.push(record.with_value(reduced))
        })?
    }
}

impl<K: Datum + ?Sized, V: Datum + Clone, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Combines the values of each key in the store `name`: the first is kept as it is, each later one is
    /// combined into it. Each record is a change of the table.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("sums");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 2).reduce("sums", |sum, n| *sum += n).changes().sink(topic("sums"));
    /// ```
    #[track_caller]
    pub fn reduce<F>(self, name: &str, combine: F) -> Table<K, V, impl Upstream<K, V>>
    where
        F: Fn(&mut V, &V) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let reduced = self.with_store::<V>(name).process(name, move |context| {
            Ok(Reduce {
                store: context.store(&store)?,
                combine: combine.clone(),
            })
        });
        Table::from_changes(reduced)
    }
}
