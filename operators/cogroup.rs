//! `cogroup`: records of any number of keyed streams, each of its own type, in one aggregate.
//!
//! ```text
//! a ──► shuffle ─┐
//! b ──► shuffle ─┴─► Either ─┐
//! c ──► shuffle ─────────────┴─► Either of that ──► one store
//! ```
//! Records of equal keys are on one worker behind the first step, so each input is shuffled once, and one that is together by key already
//! is not.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::window::Windows;
use crate::codec::Datum;
use crate::runtime::{Change, Flow, Keyed, Output, Record, Table, TwoInputOperator, Upstream};

/// A value of one of two types: that of a stream which was made of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Either<A, B> {
    /// Of the first one.
    Left(A),
    /// Of the second one.
    Right(B),
}

/// Keyed streams whose values go into one aggregate of each key: made by [`Keyed::cogroup`].
///
/// `F` takes a value of any of them, as an [`Either`], into the aggregate.
#[must_use = "a cogroup does nothing before `aggregate` or `window_aggregate` says where the aggregate is kept"]
pub struct Cogroup<K: ?Sized, V: ?Sized, U, F> {
    inputs: Keyed<K, V, U>,
    add: F,
}

/// Makes one stream of two.
struct Both;

impl<K: ?Sized, A, B> TwoInputOperator<K, A, B> for Both
where
    A: ToOwned + ?Sized,
    B: ToOwned + ?Sized,
{
    type OutKey = K;
    type Out = Either<A::Owned, B::Owned>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process_left(
        &mut self,
        record: Record<'_, K, A>,
        out: &mut impl Output<K, Self::Out>,
    ) -> Flow {
        out.push(record.with_value(&Either::Left(record.value.to_owned())))
    }

    #[inline]
    fn process_right(
        &mut self,
        record: Record<'_, K, B>,
        out: &mut impl Output<K, Self::Out>,
    ) -> Flow {
        out.push(record.with_value(&Either::Right(record.value.to_owned())))
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Begins an aggregate of each key that is made of the values of several streams, each of its own type: `add` takes one of this
    /// stream into it, [`and`](Cogroup::and) adds the others.
    ///
    /// Between the streams there is no order. Where one is needed, [`into_parts`](Cogroup::into_parts) gives the streams as one, which
    /// can be [`sorted_by_time`](Keyed::sorted_by_time).
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// /// What is ordered, and what is paid.
    /// type Account = (u64, i64);
    ///
    /// let job = Job::new("accounts");
    /// let orders = job.keyed_source(keyed_topic::<String, u64>("orders"));
    /// let payments = job.keyed_source(keyed_topic::<String, i64>("payments"));
    /// let refunds = job.keyed_source(keyed_topic::<String, String>("refunds"));
    /// orders
    ///     .cogroup(|account: &mut Account, pieces| account.0 += pieces)
    ///     .and("with-payments", payments, |account, cents| account.1 += cents)
    ///     .and("with-refunds", refunds, |account, _reason| account.1 = 0)
    ///     .aggregate("accounts", Account::default)
    ///     .changes()
    ///     .sink(topic("accounts"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let ann = "ann".to_owned();
    /// bed.send("orders", &ann, &3u64);
    /// bed.expect::<String, Account>("accounts", [(&ann, (3, 0))]);
    /// bed.send("payments", &ann, &500i64);
    /// bed.expect::<String, Account>("accounts", [(&ann, (3, 500))]);
    /// ```
    pub fn cogroup<S, F>(
        self,
        add: F,
    ) -> Cogroup<K, V, Up, impl Fn(&mut S, &V) + Clone + Send + Sync + 'static + use<K, V, Up, S, F>>
    where
        F: Fn(&mut S, &V) + Clone + Send + Sync + 'static,
    {
        Cogroup { inputs: self, add }
    }
}

impl<K, V, U, F> Cogroup<K, V, U, F>
where
    K: Datum + ?Sized,
    V: Datum<Owned: Serialize + DeserializeOwned> + ?Sized,
    U: Upstream<K, V>,
{
    /// Adds a stream of the same keys, whose values `add` takes into the aggregate. `name` is that of the step where it joins the others.
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    #[track_caller]
    #[allow(
        clippy::type_complexity,
        reason = "the type says what is in front; nobody writes it out"
    )]
    pub fn and<S, W, B, G>(
        self,
        name: &str,
        other: Keyed<K, W, B>,
        add: G,
    ) -> Cogroup<
        K,
        Either<V::Owned, W::Owned>,
        impl Upstream<K, Either<V::Owned, W::Owned>> + use<S, K, V, U, F, W, B, G>,
        impl Fn(&mut S, &Either<V::Owned, W::Owned>)
        + Clone
        + Send
        + Sync
        + 'static
        + use<S, K, V, U, F, W, B, G>,
    >
    where
        W: Datum<Owned: Serialize + DeserializeOwned> + ?Sized,
        B: Upstream<K, W>,
        F: Fn(&mut S, &V) + Clone + Send + Sync + 'static,
        G: Fn(&mut S, &W) + Clone + Send + Sync + 'static,
    {
        let Self {
            inputs,
            add: add_left,
        } = self;
        Cogroup {
            inputs: inputs.connect(other).process(name, |_| Ok(Both)),
            add: move |aggregate: &mut S, value: &Either<V::Owned, W::Owned>| match value {
                Either::Left(value) => add_left(aggregate, std::borrow::Borrow::borrow(value)),
                Either::Right(value) => add(aggregate, std::borrow::Borrow::borrow(value)),
            },
        }
    }
}

impl<K, V, U, F> Cogroup<K, V, U, F>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    U: Upstream<K, V>,
{
    /// Keeps the aggregate of each key, which begins with `initial`, as a table in the store `name`. Each record is a change of it.
    #[track_caller]
    pub fn aggregate<S, I>(self, name: &str, initial: I) -> Table<K, S, impl Upstream<K, Change<S>>>
    where
        S: Datum + Clone,
        I: Fn() -> S + Clone + Send + Sync + 'static,
        F: Fn(&mut S, &V) + Clone + Send + Sync + 'static,
    {
        self.inputs.aggregate(name, initial, self.add)
    }

    /// Keeps an aggregate of each key and window, which begins with `initial`, in the store `name`; `merge` puts two together where windows overlap or grow
    /// together. A result comes when its window closes; late records are counted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("visits");
    /// let clicks = job.keyed_source(keyed_topic::<u64, String>("clicks"));
    /// let orders = job.keyed_source(keyed_topic::<u64, i64>("orders"));
    /// clicks
    ///     .cogroup(|visit: &mut (u64, i64), _page| visit.0 += 1)
    ///     .and("with-orders", orders, |visit, cents| visit.1 += cents)
    ///     .window_aggregate(
    ///         "visits",
    ///         SessionWindows::gap(Duration::from_secs(30 * 60)),
    ///         || (0, 0),
    ///         |visit, other| *visit = (visit.0 + other.0, visit.1 + other.1),
    ///     )
    ///     .sink(topic("visits"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("clicks", 1).partitions("orders", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("clicks", &1u64, &"home".to_owned(), noon);
    /// bed.send_at("orders", &1u64, &250i64, noon.plus_millis(60_000));
    /// // Later records of both streams close the visit.
    /// bed.send_at("clicks", &2u64, &"home".to_owned(), noon.plus_millis(3_600_000));
    /// bed.send_at("orders", &2u64, &100i64, noon.plus_millis(3_600_000));
    /// let visits = bed.take::<Windowed<u64>, (u64, i64)>("visits");
    /// assert_eq!(visits[0].value, Some((1, 250)));
    /// ```
    #[track_caller]
    #[allow(
        clippy::type_complexity,
        reason = "the type says what is in front; nobody writes it out"
    )]
    pub fn window_aggregate<S, W, I, M>(
        self,
        name: &str,
        windows: W,
        initial: I,
        merge: M,
    ) -> Keyed<W::Key<K>, S, impl Upstream<W::Key<K>, S>>
    where
        S: Datum + Clone,
        W: Windows,
        I: Fn() -> S + Clone + Send + Sync + 'static,
        F: Fn(&mut S, &V) + Clone + Send + Sync + 'static,
        M: Fn(&mut S, &S) + Clone + Send + Sync + 'static,
    {
        let windowed = self.inputs.window(windows);
        windowed.aggregate(name, initial, self.add, merge)
    }

    /// The streams as one, and the function that takes a value of any of them into the aggregate: for windows with streams of late
    /// records or early results, and for steps in between.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("last-words");
    /// let asked = job.keyed_source(keyed_topic::<u64, String>("asked"));
    /// let answered = job.keyed_source(keyed_topic::<u64, u64>("answered"));
    /// let (both, add) = asked
    ///     .cogroup(|last: &mut String, text: &String| last.clone_from(text))
    ///     .and("with-answers", answered, |last, number| *last = number.to_string())
    ///     .into_parts();
    /// let (in_order, late) = both.sorted_by_time("in-order");
    /// late.map(|_| ()).sink(topic("late"));
    /// in_order.aggregate("last", String::new, add).changes().sink(topic("last"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("asked", 1).partitions("answered", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("answered", &7u64, &42u64, noon.plus_millis(1));
    /// bed.send_at("asked", &7u64, &"what?".to_owned(), noon);
    /// // Time goes on in both streams.
    /// bed.send_at("asked", &8u64, &"who?".to_owned(), noon.plus_millis(60_000));
    /// bed.send_at("answered", &8u64, &1u64, noon.plus_millis(60_000));
    /// bed.expect::<u64, String>("last", [(&7, "what?".to_owned()), (&7, "42".to_owned())]);
    /// ```
    pub fn into_parts(self) -> (Keyed<K, V, U>, F) {
        (self.inputs, self.add)
    }
}
