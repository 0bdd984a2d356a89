//! `join`, `left_join` and `outer_join` of two tables.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::operators::join::{Inner, Joiner, Left, Outer};
use crate::runtime::{
    Change, Deletes, Deletions, Flow, Output, Record, Table, TableReader, TwoInputOperator,
    Upstream,
};

/// Joins the values that a key has in both tables, whichever of them changes.
struct Join<K: ?Sized, V, W, J> {
    left: TableReader<K, V>,
    right: TableReader<K, W>,
    joiner: J,
    values: PhantomData<fn(&V, &W)>,
}

/// Hands on a change, unless there was nothing and there is nothing.
#[inline]
fn give<K: ?Sized, V, R>(
    record: Record<'_, K, Change<V>>,
    change: &Change<R>,
    out: &mut impl Output<K, Change<R>>,
) -> Flow {
    match change.old.is_some() || change.new.is_some() {
        true => out.push(record.with_value(change)),
        false => Ok(()),
    }
}

impl<K, V, W, J> TwoInputOperator<K, Change<V>, Change<W>> for Join<K, V, W, J>
where
    K: ?Sized,
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
        let (joiner, Change { old, new }) = (&self.joiner, record.value);
        let change = self.right.get(record.key, |right| Change {
            old: joiner.of(old.as_ref(), right),
            new: joiner.of(new.as_ref(), right),
        })?;
        give(record, &change, out)
    }

    fn process_right(
        &mut self,
        record: Record<'_, K, Change<W>>,
        out: &mut impl Output<K, Change<J::Out>>,
    ) -> Flow {
        let (joiner, Change { old, new }) = (&self.joiner, record.value);
        let change = self.left.get(record.key, |left| Change {
            old: joiner.of(left, old.as_ref()),
            new: joiner.of(left, new.as_ref()),
        })?;
        give(record, &change, out)
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
    /// The table of what `join` makes of the values of each key that both tables have: it changes with either of them. It has no store of
    /// its own.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("stock-value");
    /// let stock = job.table("stock", keyed_topic::<String, u64>("stock"));
    /// let prices = job.table("prices", keyed_topic::<String, u64>("prices"));
    /// stock
    ///     .join("value", prices, |pieces, cents| pieces * cents)
    ///     .changes()
    ///     .sink(topic::<u64>("stock-value").as_option());
    /// ```
    ///
    /// # Panics
    /// If the tables belong to different jobs, or are made of one table.
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
        UW: Upstream<K, Change<W>>,
        DW: Deletions,
        J: Joiner<V, W>,
    {
        let (left, right) = (self.view(), other.view());
        let of_both = joiner.clone();
        let view = left.join(&right, move |left, right| of_both.of(left, right));
        let changes = self
            .changes_with_old()
            .connect(other.changes_with_old())
            .process(name, move |context| {
                Ok(Join {
                    left: left.open(context)?,
                    right: right.open(context)?,
                    joiner: joiner.clone(),
                    values: PhantomData,
                })
            });
        Table::seen_as(changes, view)
    }
}
