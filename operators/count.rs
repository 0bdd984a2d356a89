//! `count`: how many records each key had.

use crate::codec::Datum;
use crate::runtime::{Flow, KeyValueStore, Keyed, Operator, Output, Record, Table, Upstream};

/// Forgets values before the shuffle, which then moves keys only.
struct Forget;

impl<K: ?Sized, V: ?Sized> Operator<K, V> for Forget {
    type OutKey = K;
    type Out = ();
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, ()>) -> Flow {
        out.push(record.with_value(&()))
    }
}

/// Counts records by key.
struct Count {
    store: KeyValueStore<u64>,
}

impl<K: ?Sized> Operator<K, ()> for Count {
    type OutKey = K;
    type Out = u64;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, ()>, out: &mut impl Output<K, u64>) -> Flow {
        let count = self.store.update(record.key, |count| {
            let next = count.unwrap_or(0) + 1;
            *count = Some(next);
            next
        })?;
        out.push(record.with_value(&count))
    }
}

impl<K: Datum + ?Sized, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Counts the records of each key in the store `name`. Each record is a change of the table.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parity");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 2).count("counts").changes().sink(topic("counts"));
    /// ```
    #[track_caller]
    pub fn count(self, name: &str) -> Table<K, u64, impl Upstream<K, u64>> {
        let store = name.to_owned();
        let counted = self
            .operator(|_| Ok(Forget))
            .with_store::<u64>(name)
            .process(name, move |context| {
                Ok(Count {
                    store: context.store(&store)?,
                })
            });
        Table::from_changes(counted)
    }
}
