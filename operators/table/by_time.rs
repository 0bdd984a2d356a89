//! `to_table_by_time`: a table whose values are the newest by their times, in whichever order they come.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::codec::{Datum, First, Parts};
use crate::runtime::{
    Change, Deletes, Flow, Keyed, Late, Operator, Output, Record, Table, TableStore, TableView,
    Upstream,
};

/// A value or a deletion, with its time.
type Timed<V> = (i64, Option<V>);

/// Where the value is in it.
fn timed_parts<V: Datum>() -> Parts {
    Parts::one::<Timed<First>, V>(|walk| {
        walk.same::<i64>()?;
        walk.optional(|walk| walk.part::<V>(0))
    })
}

/// Keeps the newest value of each key; older ones are left out, and counted.
struct Newest<K: ?Sized, V: Datum + ?Sized, X> {
    store: TableStore<Timed<X>>,
    ignored: Late<K, V>,
    value: PhantomData<fn(&V)>,
}

impl<K, X> Operator<K, Option<X>> for Newest<K, Option<X>, X>
where
    K: ?Sized,
    X: Clone + Send + 'static,
    Option<X>: Datum,
{
    type OutKey = K;
    type Out = Change<X>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, K, Option<X>>,
        out: &mut impl Output<K, Change<X>>,
    ) -> Flow {
        let time = record.meta.timestamp.0;
        let (is_older, was_there) = (Cell::new(false), Cell::new(false));
        let take = |newest: &mut Option<Timed<X>>| {
            was_there.set(newest.as_ref().is_some_and(|it| it.1.is_some()));
            match newest {
                // J12: also than a deletion. J20: of one time the last by offset counts.
                Some((last, _)) if *last > time => is_older.set(true),
                _ => *newest = Some((time, record.value.clone())),
            }
        };
        let ignored = &self.ignored;
        self.store.change(record.key, take, |change| {
            if is_older.get() {
                ignored.leave_out();
                return Ok(());
            }
            let value = |timed: &Option<Timed<X>>| timed.as_ref().and_then(|it| it.1.clone());
            let (old, new) = (value(&change.old), value(&change.new));
            match was_there.get() || new.is_some() {
                true => out.push(record.with_value(&Change { old, new })),
                false => Ok(()),
            }
        })
    }
}

impl<K, V, Up> Keyed<K, Option<V>, Up>
where
    K: Datum + ?Sized,
    V: Datum<Owned = V> + Clone,
    Option<V>: Datum,
    Timed<V>: Datum,
    Up: Upstream<K, Option<V>>,
{
    /// The table of the newest values by their times, in the store `name`: a value, or a deletion, that is older than what its key has
    /// is ignored, and counted as
    /// [`JobProgress::left_out_records`](crate::runtime::JobProgress::left_out_records). Of two of one time the later one in its
    /// partition counts. [`to_table`](Self::to_table) takes them as they come. A deleted key is kept with its time for good, or an older value would
    /// bring it back.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// // Positions of ships, which come over several ways; an older one is not to replace a newer one.
    /// let job = Job::new("ships");
    /// job.keyed_source(keyed_topic::<u64, (i32, i32)>("positions").as_option())
    ///     .to_table_by_time("last-position")
    ///     .changes()
    ///     .sink(topic::<(i32, i32)>("last-positions").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("positions", &1u64, &(54i32, 10i32), noon);
    /// bed.send_at("positions", &1u64, &(53i32, 9i32), noon.plus_millis(-60_000));
    /// bed.expect_changes::<u64, (i32, i32)>("last-positions", [(&1, Some((54, 10)))]);
    /// ```
    #[track_caller]
    pub fn to_table_by_time(
        self,
        name: &str,
    ) -> Table<K, V, impl Upstream<K, Change<V>> + use<K, V, Up>, Deletes> {
        let store = name.to_owned();
        let changes = self
            .with_store::<Timed<V>>(name)
            .with_parts(name, timed_parts::<V>())
            .partitioned(name)
            .operator(move |context| {
                Ok(Newest {
                    store: context.table_store(&store)?,
                    ignored: context.late(&store, None)?,
                    value: PhantomData,
                })
            });
        let view = TableView::<K, Timed<V>>::of_store(name);
        Table::seen_as(changes, view.filter_map(|timed| timed.1.clone()))
    }
}
