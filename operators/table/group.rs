//! `group_by` of tables: aggregates over the values of a table by another key.

use std::marker::PhantomData;

use crate::codec::{Codec, Datum, First, Parts};
use crate::runtime::{
    Change, Deletes, Deletions, Flow, Key, Keyed, Operator, Output, Record, Table, TableStore,
    TableView, Upstream,
};

/// The values of a table by another key; the next step says what is made of them. Made by [`Table::group_by`].
#[must_use = "groups do nothing until something is made of their values"]
pub struct Regrouped<J: ?Sized, X, U> {
    pub(super) changes: Keyed<J, Change<X>, U>,
}

/// Gives each change to the groups of the value before it and of the one after it: in one record where that is one group.
struct Regroup<K: ?Sized, V, J, X, F> {
    by: F,
    before: Vec<u8>,
    after: Vec<u8>,
    values: PhantomData<fn(&K, &V)>,
    parts: PhantomData<fn() -> (J, X)>,
}

impl<K, V, J, X, F> Operator<K, Change<V>> for Regroup<K, V, J, X, F>
where
    K: Datum + ?Sized,
    J: Datum,
    F: Fn(&K, &V) -> (J, X),
{
    type OutKey = J;
    type Out = Change<X>;

    fn process(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<J, Change<X>>,
    ) -> Flow {
        let key = record.key.decode()?;
        let codec = J::DefaultCodec::default();
        let group = |value: &Option<V>, bytes: &mut Vec<u8>| {
            bytes.clear();
            let Some(value) = value else {
                return Ok(None);
            };
            let (group, part) = (self.by)(&key, value);
            codec.encode(&group, bytes).map(|()| Some(part))
        };
        let old = group(&record.value.old, &mut self.before)?;
        let new = group(&record.value.new, &mut self.after)?;
        let (before, after) = (Key::new(&self.before), Key::new(&self.after));
        let record = record.with_value(&());
        if old.is_some() && new.is_some() && self.before == self.after {
            return out.push(record.with_key(before).with_value(&Change { old, new }));
        }
        if old.is_some() {
            let change = Change { old, new: None };
            out.push(record.with_key(before).with_value(&change))?;
        }
        if new.is_some() {
            let change = Change { old: None, new };
            out.push(record.with_key(after).with_value(&change))?;
        }
        Ok(())
    }
}

/// A group: how many values it has, and what is made of them.
type Group<A> = (u64, A);

/// Where the aggregate is in it.
fn group_parts<A: Datum>() -> Parts {
    Parts::one::<Group<First>, A>(|walk| {
        walk.same::<u64>()?;
        walk.part::<A>(0)
    })
}

/// Takes what a value was before out of its group, and adds what it is now, in one step.
struct Aggregate<A, I, Add, Sub, X> {
    store: TableStore<Group<A>>,
    initial: I,
    add: Add,
    subtract: Sub,
    value: PhantomData<fn(&X)>,
}

impl<J, X, A, I, Add, Sub> Operator<J, Change<X>> for Aggregate<A, I, Add, Sub, X>
where
    J: ?Sized,
    A: Datum + Clone,
    I: Fn() -> A,
    Add: Fn(&mut A, &X),
    Sub: Fn(&mut A, &X),
{
    type OutKey = J;
    type Out = Change<A>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, J, Change<X>>,
        out: &mut impl Output<J, Change<A>>,
    ) -> Flow {
        let (initial, add, subtract) = (&self.initial, &self.add, &self.subtract);
        let Change { old, new } = record.value;
        let change = |group: &mut Option<Group<A>>| {
            let (mut count, mut aggregate) = group.take().unwrap_or_else(|| (0, initial()));
            if let Some(old) = old {
                subtract(&mut aggregate, old);
                count = count.saturating_sub(1);
            }
            if let Some(new) = new {
                add(&mut aggregate, new);
                count += 1;
            }
            *group = (count > 0).then_some((count, aggregate));
        };
        let aggregate = |group: &Option<Group<A>>| group.as_ref().map(|(_, it)| it.clone());
        self.store.change(record.key, change, |groups| {
            out.push(record.with_value(&Change {
                old: aggregate(&groups.old),
                new: aggregate(&groups.new),
            }))
        })
    }
}

impl<K, V, U, D> Table<K, V, U, D>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    U: Upstream<K, Change<V>>,
    D: Deletions,
{
    /// Groups the table's values by another key: `by` gives for each key and value that of its group, and what it adds to it.
    /// [`aggregate`](Regrouped::aggregate) or [`count`](Regrouped::count) says what is made of a group.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// // How many people live in each town, and how old they are together; who moves leaves one town and comes to another.
    /// let job = Job::new("towns");
    /// job.table("people", keyed_topic::<u64, (String, u64)>("people"))
    ///     .group_by(|_person, (town, age)| (town.clone(), *age))
    ///     .aggregate("ages", || 0u64, |sum, age| *sum += age, |sum, age| *sum -= age)
    ///     .changes()
    ///     .sink(topic::<u64>("ages").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("people", &1u64, &("Ulm".to_owned(), 30u64));
    /// let (ulm, bonn) = ("Ulm".to_owned(), "Bonn".to_owned());
    /// bed.expect_changes::<String, u64>("ages", [(&ulm, Some(30))]);
    /// bed.send("people", &1u64, &("Bonn".to_owned(), 30u64));
    /// bed.expect_changes::<String, u64>("ages", [(&ulm, None), (&bonn, Some(30))]);
    /// ```
    #[track_caller]
    pub fn group_by<J, X, F>(self, by: F) -> Regrouped<J, X, impl Upstream<J, Change<X>>>
    where
        J: Datum,
        X: 'static,
        F: Fn(&K, &V) -> (J, X) + Clone + Send + Sync + 'static,
    {
        let changes = self.changes_with_old().operator(move |_| {
            Ok(Regroup {
                by: by.clone(),
                before: Vec::new(),
                after: Vec::new(),
                values: PhantomData,
                parts: PhantomData,
            })
        });
        Regrouped { changes }
    }
}

impl<J, X, U> Regrouped<J, X, U>
where
    J: Datum,
    X: 'static,
    Change<X>: Datum,
    U: Upstream<J, Change<X>>,
{
    /// The table of an aggregate for each group, in the store `name`: `add` adds a value to it, beginning with `initial`, `subtract` takes
    /// it out again. A value that changes within its group is one change of the aggregate, so that no total lacks it in between; one that
    /// changes its group is a change of both, in one transaction. A group without values is deleted. Values of one group come in no
    /// particular order, so adding and subtracting must not depend on it.
    #[track_caller]
    pub fn aggregate<A, I, Add, Sub>(
        self,
        name: &str,
        initial: I,
        add: Add,
        subtract: Sub,
    ) -> Table<J, A, impl Upstream<J, Change<A>> + use<J, X, U, A, I, Add, Sub>, Deletes>
    where
        A: Datum + Clone,
        Group<A>: Datum,
        I: Fn() -> A + Clone + Send + Sync + 'static,
        Add: Fn(&mut A, &X) + Clone + Send + Sync + 'static,
        Sub: Fn(&mut A, &X) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        let changes = self
            .changes
            .with_store::<Group<A>>(name)
            .with_parts(name, group_parts::<A>())
            .partitioned(name)
            .operator(move |context| {
                Ok(Aggregate {
                    store: context.table_store(&store)?,
                    initial: initial.clone(),
                    add: add.clone(),
                    subtract: subtract.clone(),
                    value: PhantomData,
                })
            });
        let view = TableView::<J, Group<A>>::of_store(name);
        Table::seen_as(changes, view.filter_map(|group| Some(group.1.clone())))
    }

    /// The table of how many values each group has, in the store `name`: see [`aggregate`](Self::aggregate).
    #[track_caller]
    pub fn count(
        self,
        name: &str,
    ) -> Table<J, u64, impl Upstream<J, Change<u64>> + use<J, X, U>, Deletes> {
        self.aggregate(
            name,
            || 0u64,
            |count, _| *count += 1,
            |count, _| *count -= 1,
        )
    }
}
