//! `filter`: the records for which a predicate holds.

use crate::runtime::{Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// Lets records through.
struct Filter<F> {
    predicate: F,
}

impl<K: ?Sized, V: ?Sized, F: Fn(&V) -> bool> Operator<K, V> for Filter<F> {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        if (self.predicate)(record.value) {
            out.push(record)
        } else {
            Ok(())
        }
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Keeps the records for which `predicate` holds.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("comments");
    /// job.source(lines(["main.rs"])).filter(|line: &str| line.contains("//")).sink(topic("comments"));
    /// ```
    #[track_caller]
    pub fn filter<F>(self, predicate: F) -> Stream<T, impl Upstream<Unkeyed, T>>
    where
        F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Filter {
                predicate: predicate.clone(),
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Keeps the records for whose value `predicate` holds.
    #[track_caller]
    pub fn filter<F>(self, predicate: F) -> Keyed<K, V, impl Upstream<K, V>>
    where
        F: Fn(&V) -> bool + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Filter {
                predicate: predicate.clone(),
            })
        })
    }
}
