//! `flat_map`: any number of records for each record, borrowed from it or owned.

use std::marker::PhantomData;

use crate::runtime::{Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// A function from a value to items that borrow from it: any `fn(&T) -> impl Iterator<Item = &U>`.
pub trait Expand<'a, T: ?Sized, U: ?Sized + 'a> {
    /// The items.
    type Items: Iterator<Item = &'a U>;

    /// The items of `value`.
    fn expand(&self, value: &'a T) -> Self::Items;
}

impl<'a, T: ?Sized + 'a, U: ?Sized + 'a, I: Iterator<Item = &'a U>, F: Fn(&'a T) -> I>
    Expand<'a, T, U> for F
{
    type Items = I;

    #[inline]
    fn expand(&self, value: &'a T) -> I {
        self(value)
    }
}

/// Takes the results of a [`Stream::flat_map_with`] function.
pub struct Collector<'a, U: ?Sized> {
    push: &'a mut dyn FnMut(&U) -> Flow,
    flow: Flow,
}

impl<U: ?Sized> Collector<'_, U> {
    /// Passes `item` on.
    pub fn collect(&mut self, item: &U) {
        if self.flow.is_ok() {
            self.flow = (self.push)(item);
        }
    }
}

/// Borrowed items.
struct FlatMap<F, U: ?Sized> {
    function: F,
    out: PhantomData<fn() -> Box<U>>,
}

impl<K, T, U, F> Operator<K, T> for FlatMap<F, U>
where
    K: ?Sized,
    T: ?Sized,
    U: ?Sized + 'static,
    F: for<'a> Expand<'a, T, U>,
{
    type OutKey = K;
    type Out = U;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, T>, out: &mut impl Output<K, U>) -> Flow {
        self.function
            .expand(record.value)
            .try_for_each(|item| out.push(record.with_value(item)))
    }
}

/// Owned items.
struct FlatMapInto<F, I> {
    function: F,
    items: PhantomData<fn() -> I>,
}

impl<K: ?Sized, T: ?Sized, I: IntoIterator, F: Fn(&T) -> I> Operator<K, T> for FlatMapInto<F, I> {
    type OutKey = K;
    type Out = I::Item;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, T>, out: &mut impl Output<K, I::Item>) -> Flow {
        (self.function)(record.value)
            .into_iter()
            .try_for_each(|item| out.push(record.with_value(&item)))
    }
}

/// Collected items.
struct FlatMapWith<F, U: ?Sized> {
    function: F,
    out: PhantomData<fn() -> Box<U>>,
}

impl<K: ?Sized, T: ?Sized, U: ?Sized, F: Fn(&T, &mut Collector<'_, U>)> Operator<K, T>
    for FlatMapWith<F, U>
{
    type OutKey = K;
    type Out = U;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, K, T>, out: &mut impl Output<K, U>) -> Flow {
        let mut push = |item: &U| out.push(record.with_value(item));
        let mut collector = Collector {
            push: &mut push,
            flow: Ok(()),
        };
        (self.function)(record.value, &mut collector);
        collector.flow
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Replaces each value by the items that `function`, a named function, borrows from it: nothing is copied.
    /// A closure cannot say that its result borrows from its argument: see [`Stream::flat_map_with`] and
    /// [`Stream::flat_map_into`] for those.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// fn words(line: &str) -> impl Iterator<Item = &str> {
    ///     line.split_whitespace()
    /// }
    ///
    /// let job = Job::new("words");
    /// job.source(lines(["book.txt"])).flat_map(words).sink(topic("words"));
    /// ```
    #[track_caller]
    pub fn flat_map<U, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: ?Sized + 'static,
        F: for<'a> Expand<'a, T, U> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }

    /// Replaces each value by the owned items that `function` makes of it.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("sizes");
    /// job.source(lines(["book.txt"]))
    ///     .flat_map_into(|line: &str| line.split(' ').map(|word| word.len() as u64).collect::<Vec<_>>())
    ///     .sink(topic("sizes"));
    /// ```
    #[track_caller]
    pub fn flat_map_into<I, F>(
        self,
        function: F,
    ) -> Stream<I::Item, impl Upstream<Unkeyed, I::Item>>
    where
        I: IntoIterator<Item: 'static> + 'static,
        F: Fn(&T) -> I + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMapInto {
                function: function.clone(),
                items: PhantomData,
            })
        })
    }

    /// Replaces each value by the items that `function` collects, borrowed or not. Costs one indirect call an item.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("words");
    /// job.source(lines(["book.txt"]))
    ///     .flat_map_with(|line: &str, out: &mut Collector<'_, str>| {
    ///         line.split_whitespace().for_each(|word| out.collect(word));
    ///     })
    ///     .sink(topic("words"));
    /// ```
    #[track_caller]
    pub fn flat_map_with<U, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: ?Sized + 'static,
        F: Fn(&T, &mut Collector<'_, U>) + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMapWith {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Replaces each value by the items that `function`, a named function, borrows from it, under the same key. See
    /// [`Stream::flat_map`].
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// fn words(line: &str) -> impl Iterator<Item = &str> {
    ///     line.split_whitespace()
    /// }
    ///
    /// let job = Job::new("words-by-length");
    /// job.source(lines(["book.txt"])).key_by(|line| line.len() as u64).flat_map(words).sink(topic("words"));
    /// ```
    #[track_caller]
    pub fn flat_map<U, F>(self, function: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: ?Sized + 'static,
        F: for<'a> Expand<'a, V, U> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }

    /// Replaces each value by the owned items that `function` makes of it, under the same key.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("multiples");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 3).flat_map_into(|n| [*n, n * 10]).sink(topic("multiples"));
    /// ```
    #[track_caller]
    pub fn flat_map_into<I, F>(self, function: F) -> Keyed<K, I::Item, impl Upstream<K, I::Item>>
    where
        I: IntoIterator<Item: 'static> + 'static,
        F: Fn(&V) -> I + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMapInto {
                function: function.clone(),
                items: PhantomData,
            })
        })
    }

    /// Replaces each value by the items that `function` collects, under the same key. See [`Stream::flat_map_with`].
    #[track_caller]
    pub fn flat_map_with<U, F>(self, function: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: ?Sized + 'static,
        F: Fn(&V, &mut Collector<'_, U>) + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FlatMapWith {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}
