//! `branch` and `tee`: two streams out of one.

use crate::runtime::{Keyed, Route, Stream, Unkeyed, Upstream};

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Two streams: the records for which `predicate` holds, and the others. Either may be dropped.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parity");
    /// let (even, odd) = job.source(values("n", 0..10u64)).branch(|n| n % 2 == 0);
    /// even.sink(topic("even"));
    /// odd.sink(topic("odd"));
    /// ```
    #[track_caller]
    pub fn branch<F>(self, predicate: F) -> (Stream<T>, Stream<T>)
    where
        F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
    {
        self.fork(move |record| {
            if predicate(record.value) {
                Route::First
            } else {
                Route::Second
            }
        })
    }

    /// The same stream twice. What is in front runs once.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("twice");
    /// let (a, b) = job.source(values("n", 0..10u64)).tee();
    /// a.sink(topic("numbers"));
    /// b.map(|n| n * n).sink(topic("squares"));
    /// ```
    #[track_caller]
    pub fn tee(self) -> (Stream<T>, Stream<T>) {
        self.fork(|_| Route::Both)
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// As [`Stream::branch`].
    #[track_caller]
    pub fn branch<F>(self, predicate: F) -> (Keyed<K, V>, Keyed<K, V>)
    where
        F: Fn(&V) -> bool + Clone + Send + Sync + 'static,
    {
        self.fork(move |record| {
            if predicate(record.value) {
                Route::First
            } else {
                Route::Second
            }
        })
    }

    /// As [`Stream::tee`].
    #[track_caller]
    pub fn tee(self) -> (Keyed<K, V>, Keyed<K, V>) {
        self.fork(|_| Route::Both)
    }
}
