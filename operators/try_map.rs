//! `try_map`: one record for each record, or a poison record.

use std::fmt::Display;
use std::marker::PhantomData;

use crate::runtime::{Failure, Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// Applies a function that may fail to each value.
struct TryMap<F, U, E> {
    function: F,
    out: PhantomData<fn() -> (U, E)>,
}

impl<K: ?Sized, V: ?Sized, U, E: Display, F: Fn(&V) -> Result<U, E>> Operator<K, V>
    for TryMap<F, U, E>
{
    type OutKey = K;
    type Out = U;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, U>) -> Flow {
        match (self.function)(record.value) {
            Ok(value) => out.push(record.with_value(&value)),
            Err(e) => Err(Failure::poison(format_args!("{e:#}"))),
        }
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Replaces each value by what `function` makes of it. A record for which it fails is a poison record:
    /// the job's policy says what happens to it.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("numbers");
    /// job.source(lines(["numbers.txt"])).try_map(|line: &str| line.parse::<u64>()).sink(topic("numbers"));
    /// ```
    #[track_caller]
    pub fn try_map<U, E, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: 'static,
        E: Display + 'static,
        F: Fn(&T) -> Result<U, E> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(TryMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// As [`Stream::try_map`]; the key stays.
    #[track_caller]
    pub fn try_map<U, E, F>(self, function: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        E: Display + 'static,
        F: Fn(&V) -> Result<U, E> + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(TryMap {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}
