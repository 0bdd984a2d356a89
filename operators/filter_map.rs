//! `filter_map`: at most one record for each record.

use std::marker::PhantomData;

use crate::runtime::{Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

struct FilterMap<F, U> {
    function: F,
    out: PhantomData<fn() -> U>,
}

impl<K: ?Sized, V: ?Sized, U, F: Fn(&V) -> Option<U>> Operator<K, V> for FilterMap<F, U> {
    type OutKey = K;
    type Out = U;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, U>) -> Flow {
        match (self.function)(record.value) {
            Some(value) => out.push(record.with_value(&value)),
            None => Ok(()),
        }
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Passes on what `function` makes of each record; where it makes `None` of it, nothing.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("halves");
    /// job.source(values("n", 0..10u64)).filter_map(|n| (n % 2 == 0).then_some(n / 2)).sink(topic("halves"));
    /// ```
    #[track_caller]
    pub fn filter_map<U, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: 'static,
        F: Fn(&T) -> Option<U> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FilterMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Passes on what `function` makes of each value, under the same key; where it makes `None` of it, nothing.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("halves");
    /// job.source(values("n", 0..10u64))
    ///     .key_by(|n| n % 3)
    ///     .filter_map(|n| (n % 2 == 0).then_some(n / 2))
    ///     .sink(topic("halves"));
    /// ```
    #[track_caller]
    pub fn filter_map<U, F>(self, function: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&V) -> Option<U> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(FilterMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}
