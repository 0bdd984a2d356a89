//! `join_table`: records of a stream with the values that a table has for their keys.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::operators::join::{Inner, Joiner, Left};
use crate::runtime::{
    Change, Deletions, Flow, Keyed, Operator, Output, Record, Table, TableReader, Upstream,
};

/// Looks up the value of each record's key.
struct Lookup<K: ?Sized, V: ?Sized, T, J> {
    table: TableReader<K, T>,
    joiner: J,
    value: PhantomData<fn(&V)>,
}

impl<K: ?Sized, V: ?Sized, T, J: Joiner<V, T>> Operator<K, V> for Lookup<K, V, T, J> {
    type OutKey = K;
    type Out = J::Out;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, J::Out>) -> Flow {
        let joiner = &self.joiner;
        let result = self
            .table
            .get(record.key, |value| joiner.of(Some(record.value), value))?;
        result.map_or(Ok(()), |it| out.push(record.with_value(&it)))
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Joins each record with the value that `table` has for its key at that moment; records whose key has none are passed over. The
    /// table gives no results by itself, and its time does not hold that of the stream.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("clicks");
    /// let users = job.table("users", keyed_topic::<u64, String>("users"));
    /// job.keyed_source(keyed_topic::<u64, String>("clicks"))
    ///     .join_table("named", users, |page, name| format!("{name} saw {page}"))
    ///     .sink(topic("named-clicks"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("users", &1u64, &"ann".to_owned());
    /// bed.commit();
    /// bed.send("clicks", &1u64, &"home".to_owned());
    /// bed.send("clicks", &2u64, &"home".to_owned());
    /// bed.expect::<u64, String>("named-clicks", [(&1, "ann saw home".to_owned())]);
    /// ```
    #[track_caller]
    pub fn join_table<T, TU, D, U, F>(
        self,
        name: &str,
        table: Table<K, T, TU, D>,
        join: F,
    ) -> Keyed<K, U, impl Upstream<K, U>>
    where
        T: Datum + Clone,
        TU: Upstream<K, Change<T>>,
        D: Deletions,
        U: 'static,
        F: Fn(&V, &T) -> U + Clone + Send + Sync + 'static,
    {
        self.look_up(name, table, Inner(join))
    }

    /// As [`join_table`](Self::join_table), with `None` for records whose key has no value.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("clicks");
    /// let visits = job.keyed_source(keyed_topic::<u64, String>("visits")).count("visits");
    /// job.keyed_source(keyed_topic::<u64, String>("clicks"))
    ///     .left_join_table("rated", visits, |page, visits| (page.clone(), visits.copied().unwrap_or(0)))
    ///     .sink(topic("rated-clicks"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("clicks", &1u64, &"home".to_owned());
    /// bed.expect::<u64, (String, u64)>("rated-clicks", [(&1, ("home".to_owned(), 0))]);
    /// ```
    #[track_caller]
    pub fn left_join_table<T, TU, D, U, F>(
        self,
        name: &str,
        table: Table<K, T, TU, D>,
        join: F,
    ) -> Keyed<K, U, impl Upstream<K, U>>
    where
        T: Datum + Clone,
        TU: Upstream<K, Change<T>>,
        D: Deletions,
        U: 'static,
        F: Fn(&V, Option<&T>) -> U + Clone + Send + Sync + 'static,
    {
        self.look_up(name, table, Left(join))
    }

    #[track_caller]
    fn look_up<T, TU, D, J>(
        self,
        name: &str,
        table: Table<K, T, TU, D>,
        joiner: J,
    ) -> Keyed<K, J::Out, impl Upstream<K, J::Out> + use<K, V, Up, T, TU, D, J>>
    where
        T: Datum + Clone,
        TU: Upstream<K, Change<T>>,
        D: Deletions,
        J: Joiner<V, T>,
    {
        let view = table.view();
        table.materialize();
        self.partitioned(name).operator(move |context| {
            Ok(Lookup {
                table: view.open(context)?,
                joiner: joiner.clone(),
                value: PhantomData,
            })
        })
    }
}
