//! Functions in windows: `sum`, `avg`, `min`, `max`, `top_n`, `distinct`, `approx_distinct`.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fold::WindowFold;
use super::sketch::{Sketch, Sketched};
use super::{Emission, LateRecords, WindowedBy, Windows};
use crate::codec::Datum;
use crate::runtime::{Keyed, Upstream};

/// A number that can be summed without loss: integers in 128 bits, floats in 64.
pub trait Number: Datum + Copy {
    /// The sum of many.
    type Total: Datum + Copy;

    /// Adds itself to a sum.
    fn add_to(self, total: Option<Self::Total>) -> Self::Total;

    /// Adds two sums.
    fn add(total: Self::Total, other: Self::Total) -> Self::Total;

    /// The sum as a number of this type: its smallest or largest value where the sum is out of its range.
    fn from_total(total: Self::Total) -> Self;

    /// The sum divided by a count.
    fn mean(total: Self::Total, count: u64) -> f64;
}

macro_rules! integers {
    ($($integer:ident)*) => {$(
        impl Number for $integer {
            type Total = i128;

            fn add_to(self, total: Option<i128>) -> i128 {
                Self::add(total.unwrap_or(0), i128::from(self))
            }

            fn add(total: i128, other: i128) -> i128 {
                total.saturating_add(other)
            }

            fn from_total(total: i128) -> Self {
                let end = if total < 0 { Self::MIN } else { Self::MAX };
                Self::try_from(total).unwrap_or(end)
            }

            #[allow(clippy::cast_precision_loss, reason = "a mean is a float")]
            fn mean(total: i128, count: u64) -> f64 {
                total as f64 / count as f64
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! floats {
    ($($float:ident)*) => {$(
        impl Number for $float {
            type Total = f64;

            fn add_to(self, total: Option<f64>) -> f64 {
                total.unwrap_or(0.0) + f64::from(self)
            }

            fn add(total: f64, other: f64) -> f64 {
                total + other
            }

            #[allow(clippy::cast_possible_truncation, reason = "the sum is given in the precision of what is summed")]
            fn from_total(total: f64) -> Self {
                total as $float
            }

            #[allow(clippy::cast_precision_loss, reason = "a mean is a float")]
            fn mean(total: f64, count: u64) -> f64 {
                total / count as f64
            }
        }
    )*};
}

floats!(f32 f64);

/// A sum.
struct Sum<N, F> {
    of: F,
    number: PhantomData<fn() -> N>,
}

/// A sum and how many it is of.
struct Mean<N, F>(Sum<N, F>);

/// The value that is before all others in an order.
struct Best<B, F, P> {
    of: F,
    is_better: P,
    value: PhantomData<fn() -> B>,
}

/// The values with the largest scores, the largest first.
struct Top<F> {
    count: usize,
    score: F,
}

/// The set of all values.
struct Distinct<B, F> {
    of: F,
    value: PhantomData<fn() -> B>,
}

impl<N, F: Clone> Clone for Sum<N, F> {
    fn clone(&self) -> Self {
        Self {
            of: self.of.clone(),
            number: PhantomData,
        }
    }
}

impl<N, F: Clone> Clone for Mean<N, F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B, F: Clone, P: Clone> Clone for Best<B, F, P> {
    fn clone(&self) -> Self {
        Self {
            of: self.of.clone(),
            is_better: self.is_better.clone(),
            value: PhantomData,
        }
    }
}

impl<F: Clone> Clone for Top<F> {
    fn clone(&self) -> Self {
        Self {
            count: self.count,
            score: self.score.clone(),
        }
    }
}

impl<B, F: Clone> Clone for Distinct<B, F> {
    fn clone(&self) -> Self {
        Self {
            of: self.of.clone(),
            value: PhantomData,
        }
    }
}

impl<V, N, F> WindowFold<V> for Sum<N, F>
where
    V: ?Sized,
    N: Number,
    F: Fn(&V) -> N + Clone + Send + Sync + 'static,
{
    type State = N::Total;

    fn first(&self, value: &V) -> N::Total {
        (self.of)(value).add_to(None)
    }

    fn add(&self, total: &mut N::Total, value: &V) {
        *total = (self.of)(value).add_to(Some(*total));
    }

    fn merge(&self, total: &mut N::Total, other: &N::Total) {
        *total = N::add(*total, *other);
    }
}

impl<V, N, F> WindowFold<V> for Mean<N, F>
where
    V: ?Sized,
    N: Number<Total: Serialize + DeserializeOwned>,
    F: Fn(&V) -> N + Clone + Send + Sync + 'static,
{
    type State = (N::Total, u64);

    fn first(&self, value: &V) -> (N::Total, u64) {
        (self.0.first(value), 1)
    }

    fn add(&self, (total, count): &mut (N::Total, u64), value: &V) {
        self.0.add(total, value);
        *count += 1;
    }

    fn merge(&self, (total, count): &mut (N::Total, u64), other: &(N::Total, u64)) {
        *total = N::add(*total, other.0);
        *count += other.1;
    }
}

impl<V, B, F, P> WindowFold<V> for Best<B, F, P>
where
    V: ?Sized,
    B: Datum + Clone,
    F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    P: Fn(&B, &B) -> bool + Clone + Send + Sync + 'static,
{
    type State = B;

    fn first(&self, value: &V) -> B {
        (self.of)(value)
    }

    fn add(&self, best: &mut B, value: &V) {
        let value = (self.of)(value);
        if (self.is_better)(&value, best) {
            *best = value;
        }
    }

    fn merge(&self, best: &mut B, other: &B) {
        if (self.is_better)(other, best) {
            best.clone_from(other);
        }
    }
}

impl<F> Top<F> {
    /// Takes a value in, if it is among the largest.
    fn offer<V: Ord + Clone, B: Ord>(&self, top: &mut Vec<V>, value: &V)
    where
        F: Fn(&V) -> B,
    {
        // Values of equal scores are in the order of values, so that it does not matter which came first.
        let rank = |value: &V| (self.score)(value);
        let is_before = |it: &V| (rank(it), it) >= (rank(value), value);
        if top.len() == self.count && top.last().is_none_or(is_before) {
            return;
        }
        let place = top.partition_point(is_before);
        top.insert(place, value.clone());
        top.truncate(self.count);
    }
}

impl<V, B, F> WindowFold<V> for Top<F>
where
    V: Serialize + DeserializeOwned + Ord + Clone + Send + Sync + 'static,
    B: Ord,
    F: Fn(&V) -> B + Clone + Send + Sync + 'static,
{
    type State = Vec<V>;

    fn first(&self, value: &V) -> Vec<V> {
        let mut top = Vec::new();
        self.offer(&mut top, value);
        top
    }

    fn add(&self, top: &mut Vec<V>, value: &V) {
        self.offer(top, value);
    }

    fn merge(&self, top: &mut Vec<V>, other: &Vec<V>) {
        for value in other {
            self.offer(top, value);
        }
    }
}

impl<V, B, F> WindowFold<V> for Distinct<B, F>
where
    V: ?Sized,
    B: Serialize + DeserializeOwned + Ord + Clone + Send + Sync + 'static,
    F: Fn(&V) -> B + Clone + Send + Sync + 'static,
{
    type State = BTreeSet<B>;

    fn first(&self, value: &V) -> BTreeSet<B> {
        BTreeSet::from([(self.of)(value)])
    }

    fn add(&self, seen: &mut BTreeSet<B>, value: &V) {
        seen.insert((self.of)(value));
    }

    fn merge(&self, seen: &mut BTreeSet<B>, other: &BTreeSet<B>) {
        seen.extend(other.iter().cloned());
    }
}

impl<K, V, Up, W, L, E> WindowedBy<K, V, Up, W, L, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    L: LateRecords<K, V>,
    E: Emission,
{
    /// Sums what `of` takes from each value. Integers are summed without overflow; a sum that their type cannot hold is its smallest
    /// or largest value. Floats are added as they come, so between workers the last digits may differ.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("revenue");
    /// job.source(values("orders", [("tea".to_owned(), 250u64), ("tea".to_owned(), 125)]))
    ///     .event_time(|_| 1_767_182_400_000, Watermarks::default())
    ///     .key_by(|(product, _)| product.clone())
    ///     .window(FixedWindows::tumbling(Duration::from_secs(3600)))
    ///     .sum("revenue", |(_, cents)| *cents)
    ///     .sink(topic("revenue"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let revenue = bed.take::<Windowed<String>, u64>("revenue");
    /// assert_eq!(revenue[0].value, Some(375));
    /// ```
    #[track_caller]
    pub fn sum<N, F>(
        self,
        name: &str,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<N>, impl Upstream<W::Key<K>, E::Of<N>>>
    where
        N: Number,
        F: Fn(&V) -> N + Clone + Send + Sync + 'static,
    {
        let sum = Sum {
            of,
            number: PhantomData,
        };
        self.fold(name, sum)
            .map(|sum| E::map::<N::Total, N>(sum, |total| N::from_total(*total)))
    }

    /// The mean of what `of` takes from each value.
    #[track_caller]
    pub fn avg<N, F>(
        self,
        name: &str,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<f64>, impl Upstream<W::Key<K>, E::Of<f64>>>
    where
        N: Number<Total: Serialize + DeserializeOwned>,
        F: Fn(&V) -> N + Clone + Send + Sync + 'static,
    {
        let sum = Sum {
            of,
            number: PhantomData,
        };
        self.fold(name, Mean(sum)).map(|mean| {
            E::map::<(N::Total, u64), f64>(mean, |(total, count)| N::mean(*total, *count))
        })
    }

    /// The smallest of what `of` takes from each value. Values that cannot be compared, such as NaN, replace none.
    #[track_caller]
    pub fn min<B, F>(
        self,
        name: &str,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<B>, impl Upstream<W::Key<K>, E::Of<B>>>
    where
        B: Datum + Clone + PartialOrd,
        F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    {
        let is_better = |value: &B, best: &B| value < best;
        self.fold(name, Best::new(of, is_better))
    }

    /// The largest of what `of` takes from each value. Values that cannot be compared, such as NaN, replace none.
    #[track_caller]
    pub fn max<B, F>(
        self,
        name: &str,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<B>, impl Upstream<W::Key<K>, E::Of<B>>>
    where
        B: Datum + Clone + PartialOrd,
        F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    {
        let is_better = |value: &B, best: &B| value > best;
        self.fold(name, Best::new(of, is_better))
    }

    /// The `count` values with the largest scores, the largest first. Equal scores are in the order of the values, the larger
    /// first, so that it does not matter which came first; equal values are counted each.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("dearest");
    /// job.source(values("orders", [("tea".to_owned(), 250u64), ("rum".to_owned(), 1_999)]))
    ///     .event_time(|_| 1_767_182_400_000, Watermarks::default())
    ///     .key_by(|_| ())
    ///     .window(FixedWindows::tumbling(Duration::from_secs(3600)))
    ///     .top_n("dearest", 3, |(_, cents)| *cents)
    ///     .sink(topic("dearest"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let dearest = bed.take::<Windowed<()>, Vec<(String, u64)>>("dearest");
    /// assert_eq!(dearest[0].value, Some(vec![("rum".to_owned(), 1_999), ("tea".to_owned(), 250)]));
    /// ```
    #[track_caller]
    pub fn top_n<B, F>(
        self,
        name: &str,
        count: usize,
        score: F,
    ) -> Keyed<W::Key<K>, E::Of<Vec<V>>, impl Upstream<W::Key<K>, E::Of<Vec<V>>>>
    where
        V: Serialize + DeserializeOwned + Ord + Clone,
        B: Ord,
        F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    {
        self.fold(name, Top { count, score })
    }

    /// Counts the different ones of what `of` takes from each value. Exact: the state of a window holds each of them once.
    #[track_caller]
    pub fn distinct<B, F>(
        self,
        name: &str,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<u64>, impl Upstream<W::Key<K>, E::Of<u64>>>
    where
        B: Serialize + DeserializeOwned + Ord + Clone + Send + Sync + 'static,
        F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    {
        let distinct = Distinct {
            of,
            value: PhantomData,
        };
        self.fold(name, distinct)
            .map(|seen| E::map::<BTreeSet<B>, u64>(seen, |seen| seen.len() as u64))
    }
}

impl<K, V, Up, W, L, E> WindowedBy<K, V, Up, W, L, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    L: LateRecords<K, V>,
    E: Emission,
{
    /// Counts about how many different ones there are of what `of` takes from each value: by HyperLogLog with 2^`precision` registers, whose
    /// standard error is 1.04 / √(2^`precision`): 0.8 % with 14, in 16 KiB for each open window and key. As many as 2^`precision` / 8
    /// are counted exactly. All that their codec cannot encode count as one.
    ///
    /// # Panics
    /// If `precision` is not within 4 to 18.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("visitors");
    /// job.source(values("visits", (0..100u64).map(|n| (n % 3, n % 50))))
    ///     .event_time(|(_, user)| user.cast_signed(), Watermarks::at_end_only())
    ///     .key_by(|(page, _)| *page)
    ///     .window(FixedWindows::tumbling(Duration::from_secs(3600)))
    ///     .approx_distinct("visitors", 14, |(_, user)| *user)
    ///     .sink(topic("visitors"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let visitors = bed.take::<Windowed<u64>, u64>("visitors");
    /// assert_eq!(visitors.len(), 3);
    /// ```
    #[track_caller]
    pub fn approx_distinct<B, F>(
        self,
        name: &str,
        precision: u8,
        of: F,
    ) -> Keyed<W::Key<K>, E::Of<u64>, impl Upstream<W::Key<K>, E::Of<u64>>>
    where
        B: Datum,
        F: Fn(&V) -> B + Clone + Send + Sync + 'static,
    {
        self.fold(name, Sketched::new(of, precision))
            .map(|sketch| E::map::<Sketch<B>, u64>(sketch, Sketch::estimate))
    }
}

impl<B, F, P> Best<B, F, P> {
    fn new(of: F, is_better: P) -> Self {
        Self {
            of,
            is_better,
            value: PhantomData,
        }
    }
}
