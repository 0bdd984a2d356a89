//! `filter` and `map_values` of tables, and `Job::table`.

use std::marker::PhantomData;

use crate::codec::{Codec, Datum};
use crate::runtime::{
    Change, Deletes, Deletions, Flow, Job, KeyedTopic, Operator, Output, Record, Table, Upstream,
};

/// Lets values through; one that is let through no more is a deletion.
struct Filter<F> {
    predicate: F,
}

impl<K: ?Sized, V: Clone, F: Fn(&V) -> bool> Operator<K, Change<V>> for Filter<F> {
    type OutKey = K;
    type Out = Change<V>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<K, Change<V>>,
    ) -> Flow {
        let let_through =
            |value: &Option<V>| value.as_ref().filter(|it| (self.predicate)(it)).cloned();
        let change = Change {
            old: let_through(&record.value.old),
            new: let_through(&record.value.new),
        };
        match change.old.is_some() || change.new.is_some() {
            true => out.push(record.with_value(&change)),
            false => Ok(()),
        }
    }
}

/// Makes other values.
struct MapValues<F, W> {
    function: F,
    out: PhantomData<fn() -> W>,
}

impl<K: ?Sized, V, W, F: Fn(&V) -> W> Operator<K, Change<V>> for MapValues<F, W> {
    type OutKey = K;
    type Out = Change<W>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<K, Change<W>>,
    ) -> Flow {
        let Change { old, new } = record.value;
        out.push(record.with_value(&Change {
            old: old.as_ref().map(&self.function),
            new: new.as_ref().map(&self.function),
        }))
    }
}

impl<K, V, U, D> Table<K, V, U, D>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    U: Upstream<K, Change<V>>,
    D: Deletions,
{
    /// The table of the values for which `predicate` holds. A key whose value ceases to be one of them is deleted.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("stock");
    /// job.table("stock", keyed_topic::<String, u64>("stock"))
    ///     .filter(|pieces| *pieces < 10)
    ///     .changes()
    ///     .sink(topic::<u64>("short").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let tea = "tea".to_owned();
    /// bed.send("stock", &tea, &3u64);
    /// bed.expect_changes::<String, u64>("short", [(&tea, Some(3))]);
    /// bed.send("stock", &tea, &80u64);
    /// bed.expect_changes::<String, u64>("short", [(&tea, None)]);
    /// ```
    #[track_caller]
    pub fn filter<F>(self, predicate: F) -> Table<K, V, impl Upstream<K, Change<V>>, Deletes>
    where
        F: Fn(&V) -> bool + Clone + Send + Sync + 'static,
    {
        let is_let_through = predicate.clone();
        let view = self
            .view()
            .filter_map(move |value: &V| Some(value).filter(|it| is_let_through(it)).cloned());
        let filtered = self.changes_with_old().operator(move |_| {
            Ok(Filter {
                predicate: predicate.clone(),
            })
        });
        Table::seen_as(filtered, view)
    }

    /// The table of what `function` makes of each value.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("names");
    /// job.table("users", keyed_topic::<u64, (String, u32)>("users"))
    ///     .map_values(|(name, _age)| name.clone())
    ///     .changes()
    ///     .sink(topic::<String>("names").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("users", &1u64, &("ann".to_owned(), 33u32));
    /// bed.expect_changes::<u64, String>("names", [(&1, Some("ann".to_owned()))]);
    /// ```
    #[track_caller]
    pub fn map_values<W, F>(self, function: F) -> Table<K, W, impl Upstream<K, Change<W>>, D>
    where
        W: 'static,
        F: Fn(&V) -> W + Clone + Send + Sync + 'static,
    {
        let (changes, view) = self.into_parts();
        let make = function.clone();
        let view = view.filter_map(move |value| Some(make(value)));
        let mapped = changes.operator(move |_| {
            Ok(MapValues {
                function: function.clone(),
                out: PhantomData,
            })
        });
        Table::seen_as(mapped, view)
    }
}

impl Job {
    /// The table of a topic: the last value of each key, in the store `name`. A tombstone deletes a key.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("customers");
    /// job.table("customers", keyed_topic::<u64, String>("customers"))
    ///     .changes()
    ///     .sink(topic::<String>("copy").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("customers", &1u64, &"ann".to_owned());
    /// bed.send_delete("customers", &1u64);
    /// bed.expect_changes::<u64, String>("copy", [(&1, Some("ann".to_owned())), (&1, None)]);
    /// ```
    #[track_caller]
    pub fn table<K, V, C>(
        &self,
        name: &str,
        topic: KeyedTopic<K, V, C>,
    ) -> Table<K, V, impl Upstream<K, Change<V>> + use<K, V, C>, Deletes>
    where
        K: Datum,
        V: Datum<Owned = V> + Clone,
        Option<V>: Datum,
        C: Codec<V>,
    {
        self.note_table_of(name, &topic);
        self.keyed_source(topic.as_option()).to_table(name)
    }
}
