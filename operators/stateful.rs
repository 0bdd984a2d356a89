//! `stateful`: a function with one value of state for each key.

use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{Flow, KeyValueStore, Keyed, Operator, Output, Record, Upstream};

struct Stateful<S, F, V: ?Sized, W> {
    store: KeyValueStore<S>,
    function: F,
    types: PhantomData<fn(&V) -> W>,
}

/// Takes the results that a function has for one record.
pub struct Results<'a, W> {
    pub(super) push: &'a mut dyn FnMut(&W),
}

impl<W> Results<'_, W> {
    /// Adds a result, with the key and the time of the record.
    pub fn push(&mut self, result: W) {
        (self.push)(&result);
    }
}

impl<K, V, S, W, F> Operator<K, V> for Stateful<S, F, V, W>
where
    K: ?Sized,
    V: ?Sized,
    S: Datum + Clone,
    F: Fn(&mut Option<S>, &V, &mut Results<'_, W>),
{
    type OutKey = K;
    type Out = W;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, W>) -> Flow {
        let function = &self.function;
        self.store.update(record.key, |state| {
            let mut flow = Ok(());
            let mut push = |result: &W| {
                if flow.is_ok() {
                    flow = out.push(record.with_value(result));
                }
            };
            function(state, record.value, &mut Results { push: &mut push });
            flow
        })?
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Calls `function` for each record with the state of its key, which it may change, and a place for any number of
    /// results. `None` is a key without state; a state that is set to `None` is forgotten. The store `name` keeps it:
    /// its changes are committed with the results.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// // Of each sensor, only the readings that differ from the last one.
    /// let job = Job::new("changes");
    /// job.source(values("readings", [("a".to_owned(), 1i64), ("a".to_owned(), 1), ("a".to_owned(), 2)]))
    ///     .key_by(|(sensor, _)| sensor.clone())
    ///     .stateful("last", |last: &mut Option<i64>, (_, reading), results| {
    ///         if last.replace(*reading) != Some(*reading) {
    ///             results.push(*reading);
    ///         }
    ///     })
    ///     .sink(topic("changes"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let a = "a".to_owned();
    /// bed.expect::<String, i64>("changes", [(&a, 1), (&a, 2)]);
    /// ```
    #[track_caller]
    pub fn stateful<S, W, F>(self, name: &str, function: F) -> Keyed<K, W, impl Upstream<K, W>>
    where
        S: Datum + Clone,
        W: 'static,
        F: Fn(&mut Option<S>, &V, &mut Results<'_, W>) + Clone + Send + Sync + 'static,
    {
        let store = name.to_owned();
        self.with_store::<S>(name).process(name, move |context| {
            Ok(Stateful {
                store: context.store(&store)?,
                function: function.clone(),
                types: PhantomData,
            })
        })
    }
}
