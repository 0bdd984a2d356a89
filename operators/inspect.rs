//! `inspect`: looks at records as they pass.

use crate::runtime::{Flow, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// Looks at records.
struct Inspect<F> {
    function: F,
}

impl<K: ?Sized, V: ?Sized, F: Fn(&V)> Operator<K, V> for Inspect<F> {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        (self.function)(record.value);
        out.push(record)
    }
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Calls `function` for each value, and passes it on. After a crash it is called again for the records of
    /// the cycle that was not committed.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("seen");
    /// job.source(lines(["a.txt"])).inspect(|line: &str| println!("{line}")).sink(topic("seen"));
    /// ```
    #[track_caller]
    pub fn inspect<F>(self, function: F) -> Stream<T, impl Upstream<Unkeyed, T>>
    where
        F: Fn(&T) + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Inspect {
                function: function.clone(),
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// As [`Stream::inspect`].
    #[track_caller]
    pub fn inspect<F>(self, function: F) -> Keyed<K, V, impl Upstream<K, V>>
    where
        F: Fn(&V) + Clone + Send + Sync + 'static,
    {
        self.operator(move |_| {
            Ok(Inspect {
                function: function.clone(),
            })
        })
    }
}
