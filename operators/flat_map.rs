//! `flat_map`: any number of records for each record, borrowed from it or owned.

use std::marker::PhantomData;

use crate::runtime::{
    Failure, Flow, Key, Meta, Operator, Output, Record, Stream, Unkeyed, Upstream,
};

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
    out: &'a mut dyn Output<Unkeyed, U>,
    meta: Meta,
    failure: Option<Failure>,
}

impl<U: ?Sized> Collector<'_, U> {
    /// Passes `item` on.
    pub fn collect(&mut self, item: &U) {
        if self.failure.is_none() {
            self.failure = self
                .out
                .push(Record {
                    key: Key::none(),
                    value: item,
                    meta: self.meta,
                })
                .err();
        }
    }
}

/// Borrowed items.
struct FlatMap<F, U: ?Sized> {
    function: F,
    out: PhantomData<fn() -> Box<U>>,
}

impl<T, U, F> Operator<Unkeyed, T> for FlatMap<F, U>
where
    T: ?Sized,
    U: ?Sized + 'static,
    F: for<'a> Expand<'a, T, U>,
{
    type OutKey = Unkeyed;
    type Out = U;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, Unkeyed, T>,
        out: &mut impl Output<Unkeyed, U>,
    ) -> Flow {
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

impl<T: ?Sized, I: IntoIterator, F: Fn(&T) -> I> Operator<Unkeyed, T> for FlatMapInto<F, I> {
    type OutKey = Unkeyed;
    type Out = I::Item;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, Unkeyed, T>,
        out: &mut impl Output<Unkeyed, I::Item>,
    ) -> Flow {
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

impl<T: ?Sized, U: ?Sized, F: Fn(&T, &mut Collector<'_, U>)> Operator<Unkeyed, T>
    for FlatMapWith<F, U>
{
    type OutKey = Unkeyed;
    type Out = U;

    fn process(
        &mut self,
        record: Record<'_, Unkeyed, T>,
        out: &mut impl Output<Unkeyed, U>,
    ) -> Flow {
        let mut collector = Collector {
            out,
            meta: record.meta,
            failure: None,
        };
        (self.function)(record.value, &mut collector);
        collector.failure.map_or(Ok(()), Err)
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
