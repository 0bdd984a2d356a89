//! `join_on` and `left_join_on`: a table joined with another one by a foreign key.
//!
//! The operators of a join, of which two are at the home of the left key and one at that of the foreign key:
//! ```text
//!   left table ──┬─► Questions ──shuffle──► ForeignHome ──shuffle──► LeftHome (right port) ──► changes of the joined table
//!                │                             ▲                        ▲
//!                │                        right table                   │
//!                └───────────────────────────────────────── (left port) ┘
//! ```

mod rows;

use std::marker::PhantomData;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use self::rows::{Answer, Matched, Move, SharedBytes, Told};
use crate::codec::{Codec, Datum};
use crate::operators::join::{Inner, Joiner, Left};
use crate::runtime::{
    Change, Deletes, Deletions, Failure, Flow, Key, KeyValueStore, Operator, OrderedStore, Output,
    Record, Route, Table, TableReader, TableView, TwoInputOperator, Upstream,
};
use crate::types::Timestamp;

/// Encodes the foreign key of a value.
struct ForeignKeys<V, F, By> {
    by: By,
    values: PhantomData<fn(&V) -> F>,
}

impl<V, F, I, By> ForeignKeys<V, F, By>
where
    F: Datum + Clone,
    I: Into<Option<F>>,
    By: Fn(&V) -> I,
{
    fn new(by: By) -> Self {
        Self {
            by,
            values: PhantomData,
        }
    }

    /// Puts the foreign key of a value into `bytes`; returns whether it has one.
    fn encode(&self, value: Option<&V>, bytes: &mut Vec<u8>) -> Result<bool, Failure> {
        bytes.clear();
        let key: Option<F> = value.and_then(|value| (self.by)(value).into());
        let Some(key) = key else {
            return Ok(false);
        };
        F::DefaultCodec::default().encode(&key, bytes)?;
        Ok(true)
    }
}

/// A foreign key's bytes before a change and after it.
#[derive(Default)]
struct Both {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Both {
    /// Takes the foreign keys of a change; says what becomes of it, and whether there was one before.
    fn take<V, F, I, By>(
        &mut self,
        keys: &ForeignKeys<V, F, By>,
        change: &Change<V>,
    ) -> Result<(Move, bool), Failure>
    where
        F: Datum + Clone,
        I: Into<Option<F>>,
        By: Fn(&V) -> I,
    {
        let was_there = keys.encode(change.old.as_ref(), &mut self.before)?;
        let is_there = keys.encode(change.new.as_ref(), &mut self.after)?;
        let moves = match (was_there, is_there) {
            (true, true) if self.before == self.after => Move::Stays,
            (false, false) => Move::Stays,
            (_, true) => Move::Asks,
            (true, false) => Move::Leaves,
        };
        Ok((moves, was_there))
    }
}

/// The message of a left key to the home of a foreign key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question {
    /// The left key.
    from: Vec<u8>,
    /// Whether it comes, and asks for the value, or goes.
    comes: bool,
}

/// Says at the homes of the foreign keys that a left key comes or goes.
struct Questions<V, F, By> {
    keys: ForeignKeys<V, F, By>,
    both: Both,
    question: Question,
}

impl<K, V, F, I, By> Operator<K, Change<V>> for Questions<V, F, By>
where
    K: ?Sized,
    F: Datum + Clone,
    I: Into<Option<F>>,
    By: Fn(&V) -> I,
{
    type OutKey = F;
    type Out = Question;

    fn process(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<F, Question>,
    ) -> Flow {
        let (moves, was_there) = self.both.take(&self.keys, record.value)?;
        if moves == Move::Stays {
            return Ok(());
        }
        self.question.from.clear();
        self.question.from.extend_from_slice(record.key.bytes());
        let mut say = |comes: bool, to: &[u8]| {
            self.question.comes = comes;
            out.push(record.with_value(&self.question).with_key(Key::new(to)))
        };
        if was_there {
            say(false, &self.both.before)?;
        }
        match moves {
            Move::Asks => say(true, &self.both.after),
            Move::Leaves | Move::Stays => Ok(()),
        }
    }
}

/// Knows which left keys have a foreign key, and tells them of its value.
struct ForeignHome<F: ?Sized, W, K: ?Sized> {
    /// The left keys of each foreign key, in order.
    known: OrderedStore<Vec<u8>, ()>,
    right: TableReader<F, W>,
    left_key: PhantomData<fn(&K)>,
}

impl<F, W, K> TwoInputOperator<F, Question, Change<W>> for ForeignHome<F, W, K>
where
    F: ?Sized,
    W: Clone + 'static,
    K: ?Sized,
    Answer<W>: Datum,
{
    type OutKey = K;
    type Out = Answer<W>;

    fn process_left(
        &mut self,
        record: Record<'_, F, Question>,
        out: &mut impl Output<K, Answer<W>>,
    ) -> Flow {
        let Question { from, comes } = record.value;
        if !comes {
            self.known.remove(record.key, from)?;
            return Ok(());
        }
        self.known.put(record.key, from, ())?;
        let answer = Answer {
            of: SharedBytes::of(record.key.bytes()),
            told: Told {
                is_answer: true,
                right: self.right.get(record.key, |right| right.cloned())?,
            },
        };
        out.push(record.with_value(&answer).with_key(Key::new(from)))
    }

    fn process_right(
        &mut self,
        record: Record<'_, F, Change<W>>,
        out: &mut impl Output<K, Answer<W>>,
    ) -> Flow {
        let mut answer = None;
        let Change { new, .. } = record.value;
        self.known.visit(record.key, .., |left_key, ()| {
            let answer = answer.get_or_insert_with(|| Answer {
                of: SharedBytes::of(record.key.bytes()),
                told: Told {
                    is_answer: false,
                    right: new.clone(),
                },
            });
            out.push(record.with_value(answer).with_key(Key::new(&left_key)))?;
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Shows what is made of a left value and the right value of its foreign key.
struct LeftHome<K: ?Sized, V, W, F, By, J> {
    left: TableReader<K, V>,
    rows: KeyValueStore<Matched<V, W>>,
    keys: ForeignKeys<V, F, By>,
    both: Both,
    joiner: J,
}

/// Hands on a change of what is shown, at the time that it has.
fn show<K: ?Sized, V, R>(
    record: Record<'_, K, V>,
    shown: Option<(Change<R>, i64)>,
    out: &mut impl Output<K, Change<R>>,
) -> Flow {
    let Some((change, time)) = shown else {
        return Ok(());
    };
    let mut record = record.with_value(&change);
    record.meta.timestamp = Timestamp(time);
    out.push(record)
}

impl<K, V, W, F, I, By, J> TwoInputOperator<K, Change<V>, Answer<W>> for LeftHome<K, V, W, F, By, J>
where
    K: ?Sized,
    V: Clone + Send + 'static,
    W: Clone + Send + 'static,
    F: Datum + Clone,
    I: Into<Option<F>>,
    By: Fn(&V) -> I,
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
        let (change, joiner, time) = (record.value, &self.joiner, record.meta.timestamp.0);
        let (moves, _) = self.both.take(&self.keys, change)?;
        let shown = self.rows.update(record.key, |stored| {
            let mut row = stored.take().unwrap_or_default();
            let shown = row.change_left(change, moves, joiner);
            let shown = shown.map(|shown| (shown, row.time_of(time)));
            *stored = Some(row).filter(|row| !row.is_over(change.new.is_some()));
            shown
        })?;
        show(record, shown, out)
    }

    fn process_right(
        &mut self,
        record: Record<'_, K, Answer<W>>,
        out: &mut impl Output<K, Change<J::Out>>,
    ) -> Flow {
        let (joiner, time) = (&self.joiner, record.meta.timestamp.0);
        let Answer { of, told } = record.value;
        let (rows, keys, bytes) = (&mut self.rows, &self.keys, &mut self.both.after);
        let shown = self.left.get(record.key, |left| {
            let is_of_now = keys.encode(left, bytes)? && of.is(bytes);
            rows.update(record.key, |stored| {
                let mut row = stored.take().unwrap_or_default();
                let shown = row.hear(told, left, is_of_now, joiner);
                let shown = shown.map(|shown| (shown, row.time_of(time)));
                *stored = Some(row).filter(|row| !row.is_over(left.is_some()));
                shown
            })
        })??;
        show(record, shown, out)
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
    /// The table of what `join` makes of each value and the value that `other` has for its foreign key: `by` gives that key, or `None`.
    /// It has the keys of this table, and changes with either of them. Rows whose foreign key is `None` or has no value are not in it.
    ///
    /// A change of the foreign key is one change of the result; nothing is deleted in between. What it keeps is in the store `name`
    /// (of each key the value that it was told) and in `name-known` (of each foreign key the keys that have it).
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("addressed-orders");
    /// let orders = job.table("orders", keyed_topic::<u64, (u64, String)>("orders"));
    /// let customers = job.table("customers", keyed_topic::<u64, String>("customers"));
    /// orders
    ///     .join_on("addressed", customers, |(customer, _)| *customer, |(_, goods), name| format!("{goods} for {name}"))
    ///     .changes()
    ///     .sink(topic::<String>("addressed-orders").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("customers", &49u64, &"ann".to_owned());
    /// bed.commit();
    /// bed.send("orders", &1u64, &(49u64, "tea".to_owned()));
    /// bed.expect_changes::<u64, String>("addressed-orders", [(&1, Some("tea for ann".to_owned()))]);
    /// bed.send("customers", &49u64, &"anna".to_owned());
    /// bed.expect_changes::<u64, String>("addressed-orders", [(&1, Some("tea for anna".to_owned()))]);
    /// ```
    ///
    /// # Panics
    /// If the tables belong to different jobs.
    #[track_caller]
    pub fn join_on<F, W, UW, DW, I, By, R, Fun>(
        self,
        name: &str,
        other: Table<F, W, UW, DW>,
        by: By,
        join: Fun,
    ) -> Table<K, R, impl Upstream<K, Change<R>>, Deletes>
    where
        F: Datum + Clone,
        W: Datum + Clone,
        Change<W>: Datum,
        Matched<V, W>: Datum,
        Answer<W>: Datum,
        UW: Upstream<F, Change<W>>,
        DW: Deletions,
        I: Into<Option<F>> + 'static,
        By: Fn(&V) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&V, &W) -> R + Clone + Send + Sync + 'static,
    {
        self.joined_on(name, other, by, Inner(join))
    }

    /// As [`join_on`](Self::join_on), with every key of this table: with `None` where its foreign key is `None` or has no value.
    ///
    /// # Panics
    /// As [`join_on`](Self::join_on).
    #[track_caller]
    pub fn left_join_on<F, W, UW, DW, I, By, R, Fun>(
        self,
        name: &str,
        other: Table<F, W, UW, DW>,
        by: By,
        join: Fun,
    ) -> Table<K, R, impl Upstream<K, Change<R>>, Deletes>
    where
        F: Datum + Clone,
        W: Datum + Clone,
        Change<W>: Datum,
        Matched<V, W>: Datum,
        Answer<W>: Datum,
        UW: Upstream<F, Change<W>>,
        DW: Deletions,
        I: Into<Option<F>> + 'static,
        By: Fn(&V) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&V, Option<&W>) -> R + Clone + Send + Sync + 'static,
    {
        self.joined_on(name, other, by, Left(join))
    }

    #[track_caller]
    fn joined_on<F, W, UW, DW, I, By, J>(
        self,
        name: &str,
        other: Table<F, W, UW, DW>,
        by: By,
        joiner: J,
    ) -> Table<
        K,
        J::Out,
        impl Upstream<K, Change<J::Out>> + use<K, V, U, D, F, W, UW, DW, I, By, J>,
        Deletes,
    >
    where
        F: Datum + Clone,
        W: Datum + Clone,
        Change<W>: Datum,
        Matched<V, W>: Datum,
        Answer<W>: Datum,
        UW: Upstream<F, Change<W>>,
        DW: Deletions,
        I: Into<Option<F>> + 'static,
        By: Fn(&V) -> I + Clone + Send + Sync + 'static,
        J: Joiner<V, W>,
    {
        let (left, right) = (self.view(), other.view());
        let of_both = joiner.clone();
        let rows = TableView::<K, Matched<V, W>>::of_store(name);
        let view = left.join(&rows, move |left, row| Matched::seen(row, left, &of_both));
        let (to_ask, to_show) = self.changes_with_old().fork(|_| Route::Both);
        let known = format!("{name}-known");
        let (asked_by, store) = (by.clone(), name.to_owned());
        let answers = to_ask
            .operator(move |_| {
                Ok(Questions {
                    keys: ForeignKeys::new(asked_by.clone()),
                    both: Both::default(),
                    question: Question {
                        from: Vec::new(),
                        comes: false,
                    },
                })
            })
            .connect(other.changes_with_old())
            .with_ordered_store::<Vec<u8>, ()>(&known)
            .process(name, move |context| {
                Ok(ForeignHome {
                    known: context.ordered_store(&known)?,
                    right: right.open(context)?,
                    left_key: PhantomData::<fn(&K)>,
                })
            });
        let changes = to_show
            .connect(answers)
            .with_store::<Matched<V, W>>(name)
            .with_parts(name, Matched::<V, W>::parts())
            .process(name, move |context| {
                Ok(LeftHome {
                    left: left.open(context)?,
                    rows: context.store(&store)?,
                    keys: ForeignKeys::new(by.clone()),
                    both: Both::default(),
                    joiner: joiner.clone(),
                })
            });
        Table::seen_as(changes, view)
    }
}
