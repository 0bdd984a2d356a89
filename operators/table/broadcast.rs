//! `Job::broadcast` and `join_broadcast`: records of a stream with the values of a table that every process has as a whole.

use std::marker::PhantomData;

use crate::codec::{Codec, Datum};
use crate::operators::join::{Inner, Joiner, Left};
use crate::runtime::{
    Broadcast, BroadcastReader, BroadcastView, Flow, Job, JobError, Key, Keyed, KeyedTopic,
    Operator, OperatorContext, Output, Record, Stream, Unkeyed, Upstream,
};
use crate::types::Timestamp;

impl Job {
    /// The table of a topic, as a whole in the memory of each process of the job: records find values in it where they are, without a
    /// shuffle. It is complete up to what is the topic's end when the process starts before the first record uses it; what comes later
    /// is seen from one of the next cycles on, and all records of a cycle see one state of it. A tombstone deletes a key; a record that
    /// cannot be decoded follows the job's policy, as in any source.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("orders-by-country");
    /// let countries = job.broadcast(keyed_topic::<u32, String>("countries"));
    /// job.keyed_source(keyed_topic::<u64, (u32, u64)>("orders"))
    ///     .join_broadcast(&countries, |(country, _)| *country, |(_, cents), name| format!("{name}: {cents}"))
    ///     .sink(topic("named-orders"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("countries", &49u32, &"Germany".to_owned());
    /// bed.commit();
    /// bed.send("orders", &1u64, &(49u32, 250u64));
    /// bed.expect::<u64, String>("named-orders", [(&1, "Germany: 250".to_owned())]);
    /// ```
    #[track_caller]
    pub fn broadcast<K, V, C>(&self, topic: KeyedTopic<K, V, C>) -> Broadcast<K, V>
    where
        K: Datum + ?Sized,
        V: Datum<Owned = V> + Clone,
        Option<V>: Datum,
        C: Codec<V>,
    {
        self.keyed_source(topic.as_option()).broadcast()
    }
}

/// Looks values up in a table that is here as a whole.
struct JoinBroadcast<V: ?Sized, F: ?Sized, W, By, J> {
    table: BroadcastReader<F, W>,
    by: By,
    key: Vec<u8>,
    joiner: J,
    value: PhantomData<fn(&V)>,
}

impl<K, V, F, W, I, By, J> Operator<K, V> for JoinBroadcast<V, F, W, By, J>
where
    K: ?Sized,
    V: ?Sized,
    F: Datum + Clone,
    I: Into<Option<F>>,
    By: Fn(&V) -> I,
    J: Joiner<V, W>,
{
    type OutKey = K;
    type Out = J::Out;
    const KEEPS_KEY: bool = true;
    const USES_CLOCK: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, J::Out>) -> Flow {
        let found = match (self.by)(record.value).into() {
            None => None,
            Some(key) => {
                self.key.clear();
                F::DefaultCodec::default().encode(&key, &mut self.key)?;
                self.table.get(Key::with_hash(&self.key, 0))
            }
        };
        let result = self.joiner.of(Some(record.value), found);
        result.map_or(Ok(()), |it| out.push(record.with_value(&it)))
    }

    fn on_clock(&mut self, _now: Timestamp, _out: &mut impl Output<K, J::Out>) -> Flow {
        self.table.on_clock()
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, J::Out>) -> Flow {
        self.table.end_cycle()
    }
}

/// Makes the operator on each worker.
fn maker<V, F, W, By, J>(
    table: BroadcastView<F, W>,
    by: By,
    joiner: J,
) -> impl Fn(&mut OperatorContext) -> Result<JoinBroadcast<V, F, W, By, J>, JobError> + Send + Sync
where
    V: ?Sized + 'static,
    F: Datum,
    W: 'static,
    By: Clone + Send + Sync + 'static,
    J: Joiner<V, W>,
{
    move |context| {
        Ok(JoinBroadcast {
            table: table.open(context)?,
            by: by.clone(),
            key: Vec::new(),
            joiner: joiner.clone(),
            value: PhantomData,
        })
    }
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Joins each record with the value that `table` has for the key that `by` gives, or `None`; records without one, and those whose
    /// key has no value, are passed over. Nothing is shuffled.
    ///
    /// # Panics
    /// If the table belongs to another job.
    #[track_caller]
    pub fn join_broadcast<F, W, I, By, R, Fun>(
        self,
        table: &Broadcast<F, W>,
        by: By,
        join: Fun,
    ) -> Stream<R, impl Upstream<Unkeyed, R>>
    where
        F: Datum + Clone,
        W: 'static,
        I: Into<Option<F>> + 'static,
        By: Fn(&T) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&T, &W) -> R + Clone + Send + Sync + 'static,
    {
        self.beside(table)
            .operator(maker(table.view(), by, Inner(join)))
    }

    /// As [`join_broadcast`](Self::join_broadcast), with `None` for records that have no key or whose key has no value.
    ///
    /// # Panics
    /// As [`join_broadcast`](Self::join_broadcast).
    #[track_caller]
    pub fn left_join_broadcast<F, W, I, By, R, Fun>(
        self,
        table: &Broadcast<F, W>,
        by: By,
        join: Fun,
    ) -> Stream<R, impl Upstream<Unkeyed, R>>
    where
        F: Datum + Clone,
        W: 'static,
        I: Into<Option<F>> + 'static,
        By: Fn(&T) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&T, Option<&W>) -> R + Clone + Send + Sync + 'static,
    {
        self.beside(table)
            .operator(maker(table.view(), by, Left(join)))
    }
}

impl<K: ?Sized + 'static, T: ?Sized + 'static, U: Upstream<K, T>> Keyed<K, T, U> {
    /// Joins each record with the value that `table` has for the key that `by` gives, or `None`; records without one, and those whose
    /// key has no value, are passed over. The stream keeps its own keys, and nothing is shuffled. See
    /// [`Job::broadcast`](crate::runtime::Job::broadcast).
    ///
    /// # Panics
    /// If the table belongs to another job.
    #[track_caller]
    pub fn join_broadcast<F, W, I, By, R, Fun>(
        self,
        table: &Broadcast<F, W>,
        by: By,
        join: Fun,
    ) -> Keyed<K, R, impl Upstream<K, R>>
    where
        F: Datum + Clone,
        W: 'static,
        I: Into<Option<F>> + 'static,
        By: Fn(&T) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&T, &W) -> R + Clone + Send + Sync + 'static,
    {
        self.beside(table)
            .operator(maker(table.view(), by, Inner(join)))
    }

    /// As [`join_broadcast`](Self::join_broadcast), with `None` for records that have no key or whose key has no value.
    ///
    /// # Panics
    /// As [`join_broadcast`](Self::join_broadcast).
    #[track_caller]
    pub fn left_join_broadcast<F, W, I, By, R, Fun>(
        self,
        table: &Broadcast<F, W>,
        by: By,
        join: Fun,
    ) -> Keyed<K, R, impl Upstream<K, R>>
    where
        F: Datum + Clone,
        W: 'static,
        I: Into<Option<F>> + 'static,
        By: Fn(&T) -> I + Clone + Send + Sync + 'static,
        R: 'static,
        Fun: Fn(&T, Option<&W>) -> R + Clone + Send + Sync + 'static,
    {
        self.beside(table)
            .operator(maker(table.view(), by, Left(join)))
    }
}
