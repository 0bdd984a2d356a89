//! `map`: one record for each record.

use std::marker::PhantomData;

use crate::runtime::{Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// Applies a function to each value.
struct Map<F, U> {
    function: F,
    out: PhantomData<fn() -> U>,
}

impl<K: ?Sized, V: ?Sized, U, F: Fn(&V) -> U> Operator<K, V> for Map<F, U> {
    type OutKey = K;
    type Out = U;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, U>) -> Flow {
        out.push(record.with_value(&(self.function)(record.value)))
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Replaces each value by what `function` makes of it.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("lengths");
    /// job.source(lines(["words.txt"])).map(|line: &str| line.len() as u64).sink(topic("lengths"));
    /// ```
    #[track_caller]
    pub fn map<U, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: 'static,
        F: Fn(&T) -> U + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Map {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Replaces each value by what `function` makes of it; the key stays.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parities");
    /// let counts = job.source(values("n", 0..9u64)).key_by(|n| n % 3).count("counts").changes();
    /// counts.map(|n| n % 2 == 0).sink(topic("even"));
    /// ```
    #[track_caller]
    pub fn map<U, F>(self, function: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&V) -> U + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Map {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}
