//! `entries`: key and value together, as a stream without a key.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{Flow, Key, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

struct Entries<F, U> {
    function: F,
    out: PhantomData<fn() -> U>,
}

impl<K: Datum + ?Sized, V: ?Sized, U, F: Fn(&K, &V) -> U> Operator<K, V> for Entries<F, U> {
    type OutKey = Unkeyed;
    type Out = U;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<Unkeyed, U>) -> Flow {
        let key = record.key.decode()?;
        out.push(Record {
            key: Key::none(),
            value: &(self.function)(&key, record.value),
            meta: record.meta,
            headers: record.headers,
        })
    }
}

impl<K: Datum + ?Sized, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// A stream of what `function` makes of each key and value.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("lines");
    /// let counts = job.source(lines(["a.txt"])).key_by_ref(|line: &str| line).count("lines");
    /// counts.changes().entries(|line, count| format!("{count} x {line}")).sink(topic("line-counts"));
    /// ```
    #[track_caller]
    pub fn entries<U, F>(self, function: F) -> Stream<U, impl Upstream<Unkeyed, U>>
    where
        U: 'static,
        F: Fn(&K, &V) -> U + Clone + Send + Sync + 'static,
    {
        self.unkeying_operator(move |_| {
            Ok(Entries {
                function: function.clone(),
                out: PhantomData,
            })
        })
    }
}
