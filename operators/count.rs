//! `count`: how many records each key had.

use crate::codec::Datum;
use crate::runtime::{Change, Flow, Keyed, Operator, Output, Record, Table, TableStore, Upstream};

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
    store: TableStore<u64>,
}

impl<K: ?Sized> Operator<K, ()> for Count {
    type OutKey = K;
    type Out = Change<u64>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, ()>,
        out: &mut impl Output<K, Change<u64>>,
    ) -> Flow {
        let count = |count: &mut Option<u64>| *count = Some(count.unwrap_or(0) + 1);
        self.store.change(record.key, count, |change| {
            out.push(record.with_value(change))
        })
    }
}

impl<K: Datum + ?Sized, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Counts the records of each key in the store `name`. Each record is a change of the table.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("parity");
    /// job.source(values("n", 0..4u64)).key_by(|n| n % 2).count("counts").changes().sink(topic("counts"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.expect::<u64, u64>("counts", [(&0, 1), (&1, 1), (&0, 2), (&1, 2)]);
    /// ```
    #[track_caller]
    pub fn count(self, name: &str) -> Table<K, u64, impl Upstream<K, Change<u64>>> {
        let store = name.to_owned();
        let counted = self
            .operator(|_| Ok(Forget))
            .with_store::<u64>(name)
            .process(name, move |context| {
                Ok(Count {
                    store: context.table_store(&store)?,
                })
            });
        Table::in_store(counted, name)
    }
}
