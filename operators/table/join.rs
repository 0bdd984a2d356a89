//! `join`, `left_join` and `outer_join` of two tables.
//!
//! A join reads what the other side has in that side's own store. Where one change reaches both sides, as in a join of a table with
//! itself, that store may have the change before the join is told of it: then the join keeps what it was told of both sides.
//! Of each key it keeps the latest time of a change, so that results never go back in time (J16).

use crate::codec::{Datum, First, Parts, Second};
use crate::operators::join::{Inner, Joiner, Left, Outer};
use crate::runtime::{
    Change, Deletes, Deletions, Failure, Flow, Key, KeyValueStore, Output, Record, Table,
    TableReader, TableView, TwoInputOperator, Upstream,
};
use crate::types::Timestamp;

/// The latest time of a change of a key.
type Latest = i64;
/// That, and the values of the key on both sides, as the join was told of them.
type Told<V, W> = (Latest, Option<V>, Option<W>);

/// Where the values are in it.
fn told_parts<V: Datum, W: Datum>() -> Parts {
    Parts::two::<Told<First, Second>, V, W>(|walk| {
        walk.same::<Latest>()?;
        walk.optional(|walk| walk.part::<V>(0))?;
        walk.optional(|walk| walk.part::<W>(1))
    })
}

/// Where the join finds what the other side has.
enum Sides<K: ?Sized, V, W> {
    /// In the stores of both sides; its own has the times.
    Stores(TableReader<K, V>, TableReader<K, W>, KeyValueStore<Latest>),
    Kept(KeyValueStore<Told<V, W>>),
}

/// Joins the values that a key has in both tables, whichever of them changes.
struct Join<K: ?Sized, V, W, J> {
    sides: Sides<K, V, W>,
    joiner: J,
}

/// Step of a key: its result before and after a change, and whether neither side has a value then.
struct Step<R> {
    change: Change<R>,
    is_over: bool,
}

/// Changes one side of what a join keeps of a key; returns what becomes of it, and at which time.
fn tell<V, W, J: Joiner<V, W>>(
    kept: &mut Option<Told<V, W>>,
    joiner: &J,
    time: Latest,
    side: impl FnOnce(&mut Option<V>, &mut Option<W>),
) -> (Change<J::Out>, Latest) {
    let (latest, mut left, mut right) = kept.take().unwrap_or((time, None, None));
    let old = joiner.of(left.as_ref(), right.as_ref());
    side(&mut left, &mut right);
    let new = joiner.of(left.as_ref(), right.as_ref());
    let latest = latest.max(time);
    let is_there = left.is_some() || right.is_some();
    *kept = is_there.then_some((latest, left, right));
    (Change { old, new }, latest)
}

/// Notes the time of a change of a key; returns the latest one.
fn note<K: ?Sized>(
    times: &mut KeyValueStore<Latest>,
    key: Key<'_, K>,
    time: Latest,
    is_over: bool,
) -> Result<Latest, Failure> {
    times.update(key, |latest| {
        let time = latest.map_or(time, |latest| latest.max(time));
        *latest = (!is_over).then_some(time);
        time
    })
}

/// Hands on a change at the time that it has, unless there was nothing and there is nothing.
#[inline]
fn give<K: ?Sized, V, R>(
    record: Record<'_, K, Change<V>>,
    (change, time): (Change<R>, Latest),
    out: &mut impl Output<K, Change<R>>,
) -> Flow {
    if change.old.is_none() && change.new.is_none() {
        return Ok(());
    }
    let mut record = record.with_value(&change);
    record.meta.timestamp = Timestamp(time);
    out.push(record)
}

impl<K, V, W, J> TwoInputOperator<K, Change<V>, Change<W>> for Join<K, V, W, J>
where
    K: ?Sized,
    V: Clone + Send + 'static,
    W: Clone + Send + 'static,
    J: Joiner<V, W>,
{
    type OutKey = K;
    type Out = Change<J::Out>;
    const KEEPS_KEY: bool = true;

    fn process_left(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<K, Change<J::Out>>,
    ) -> Flow {
        let (key, time, joiner) = (record.key, record.meta.timestamp.0, &self.joiner);
        let Change { old, new } = record.value;
        let given = match &mut self.sides {
            Sides::Stores(_, right, times) => {
                let Step { change, is_over } = right.get(key, |right| Step {
                    change: Change {
                        old: joiner.of(old.as_ref(), right),
                        new: joiner.of(new.as_ref(), right),
                    },
                    is_over: new.is_none() && right.is_none(),
                })?;
                (change, note(times, key, time, is_over)?)
            }
            Sides::Kept(store) => store.update(key, |kept| {
                tell(kept, joiner, time, |left, _| left.clone_from(new))
            })?,
        };
        give(record, given, out)
    }

    fn process_right(
        &mut self,
        record: Record<'_, K, Change<W>>,
        out: &mut impl Output<K, Change<J::Out>>,
    ) -> Flow {
        let (key, time, joiner) = (record.key, record.meta.timestamp.0, &self.joiner);
        let Change { old, new } = record.value;
        let given = match &mut self.sides {
            Sides::Stores(left, _, times) => {
                let Step { change, is_over } = left.get(key, |left| Step {
                    change: Change {
                        old: joiner.of(left, old.as_ref()),
                        new: joiner.of(left, new.as_ref()),
                    },
                    is_over: left.is_none() && new.is_none(),
                })?;
                (change, note(times, key, time, is_over)?)
            }
            Sides::Kept(store) => store.update(key, |kept| {
                tell(kept, joiner, time, |_, right| right.clone_from(new))
            })?,
        };
        give(record, given, out)
    }
}

impl<K, V, U, D> Table<K, V, U, D>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    Change<V>: Datum,
    U: Upstream<K, Change<V>>,
    D: Deletions,
{
    /// The table of what `join` makes of the values of each key that both tables have: it changes with either of them. The time of a
    /// change is the latest time of what the key had on both sides, which is kept in the store `name`.
    ///
    /// A table may be joined with itself, or with one that is made of it: then the values of both sides are in the store `name`, too, and
    /// a change that reaches both sides is two changes of the result, one behind the other.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("stock-value");
    /// let stock = job.table("stock", keyed_topic::<String, u64>("stock"));
    /// let prices = job.table("prices", keyed_topic::<String, u64>("prices"));
    /// stock
    ///     .join("value", prices, |pieces, cents| pieces * cents)
    ///     .changes()
    ///     .sink(topic::<u64>("stock-value").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let tea = "tea".to_owned();
    /// bed.send("stock", &tea, &3u64);
    /// bed.commit();
    /// bed.send("prices", &tea, &250u64);
    /// bed.expect_changes::<String, u64>("stock-value", [(&tea, Some(750))]);
    /// bed.send_delete("stock", &tea);
    /// bed.expect_changes::<String, u64>("stock-value", [(&tea, None)]);
    /// ```
    ///
    /// # Panics
    /// If the tables belong to different jobs.
    #[track_caller]
    pub fn join<W, UW, DW, R, F>(
        self,
        name: &str,
        other: Table<K, W, UW, DW>,
        join: F,
    ) -> Table<K, R, impl Upstream<K, Change<R>>, Deletes>
    where
        W: Datum + Clone,
        Change<W>: Datum,
        Told<V, W>: Datum,
        UW: Upstream<K, Change<W>>,
        DW: Deletions,
        R: 'static,
        F: Fn(&V, &W) -> R + Clone + Send + Sync + 'static,
    {
        self.joined(name, other, Inner(join))
    }

    /// As [`join`](Self::join), with a value for each key that this table has.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn left_join<W, UW, DW, R, F>(
        self,
        name: &str,
        other: Table<K, W, UW, DW>,
        join: F,
    ) -> Table<K, R, impl Upstream<K, Change<R>>, Deletes>
    where
        W: Datum + Clone,
        Change<W>: Datum,
        Told<V, W>: Datum,
        UW: Upstream<K, Change<W>>,
        DW: Deletions,
        R: 'static,
        F: Fn(&V, Option<&W>) -> R + Clone + Send + Sync + 'static,
    {
        self.joined(name, other, Left(join))
    }

    /// As [`join`](Self::join), with a value for each key that either table has.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn outer_join<W, UW, DW, R, F>(
        self,
        name: &str,
        other: Table<K, W, UW, DW>,
        join: F,
    ) -> Table<K, R, impl Upstream<K, Change<R>>, Deletes>
    where
        W: Datum + Clone,
        Change<W>: Datum,
        Told<V, W>: Datum,
        UW: Upstream<K, Change<W>>,
        DW: Deletions,
        R: 'static,
        F: Fn(Option<&V>, Option<&W>) -> R + Clone + Send + Sync + 'static,
    {
        self.joined(name, other, Outer(join))
    }

    #[track_caller]
    fn joined<W, UW, DW, J>(
        self,
        name: &str,
        other: Table<K, W, UW, DW>,
        joiner: J,
    ) -> Table<K, J::Out, impl Upstream<K, Change<J::Out>> + use<K, V, U, D, W, UW, DW, J>, Deletes>
    where
        W: Datum + Clone,
        Change<W>: Datum,
        Told<V, W>: Datum,
        UW: Upstream<K, Change<W>>,
        DW: Deletions,
        J: Joiner<V, W>,
    {
        let of_both = joiner.clone();
        let (left, right) = (self.view(), other.view());
        let is_in_step = self.is_in_step_with(&other);
        let view = match is_in_step {
            true => TableView::<K, Told<V, W>>::of_store(name)
                .filter_map(move |told| of_both.of(told.1.as_ref(), told.2.as_ref())),
            false => left.join(&right, move |left, right| of_both.of(left, right)),
        };
        let both = self.changes_with_old().connect(other.changes_with_old());
        let both = match is_in_step {
            true => both
                .with_store::<Told<V, W>>(name)
                .with_parts(name, told_parts::<V, W>()),
            false => both.with_store::<Latest>(name),
        };
        let store = name.to_owned();
        let changes = both.process(name, move |context| {
            let sides = match is_in_step {
                true => Sides::Kept(context.store(&store)?),
                false => {
                    let times = context.store(&store)?;
                    Sides::Stores(left.open(context)?, right.open(context)?, times)
                }
            };
            let joiner = joiner.clone();
            Ok(Join { sides, joiner })
        });
        Table::seen_as(changes, view)
    }
}
