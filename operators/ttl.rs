//! State with a lifetime: what a key has is forgotten when nothing came for it for some time of a named clock.
//!
//! The values are in a store as they would be without a lifetime, byte for byte; beside it is one of times and timers. So a lifetime
//! can be set, changed and taken away, and the values stay readable.

use std::marker::PhantomData;
use std::time::Duration;

use super::stateful::Results;
use super::window::{Clock, EventClock, WallClock, millis};
use crate::codec::Datum;
use crate::runtime::{
    Change, Deletes, Due, Failure, Flow, Headers, JobError, Key, KeyValueStore, Keyed, Late, Meta,
    Operator, OperatorContext, Origin, Output, Record, Table, TimedStore, Upstream,
};
use crate::types::Timestamp;

/// The lifetime of a key's state by the clock `C`, from the last record of the key on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl<C> {
    millis: i64,
    clock: PhantomData<fn() -> C>,
}

impl<C> Ttl<C> {
    fn new(lifetime: Duration) -> Self {
        Self {
            millis: millis(lifetime),
            clock: PhantomData,
        }
    }
}

impl Ttl<EventClock> {
    /// Forgets what a key has when the watermark has passed the latest time of its records by `lifetime`. Neither a stop nor the end of
    /// the input forgets anything.
    #[must_use]
    pub fn event_time(lifetime: Duration) -> Self {
        Self::new(lifetime)
    }
}

impl Ttl<WallClock> {
    /// Forgets what a key has when the job has run for `lifetime` since its last record. Time in which the job does not run does not
    /// count. After a stop up to a sixteenth of the lifetime may be counted again.
    #[must_use]
    pub fn running_time(lifetime: Duration) -> Self {
        Self::new(lifetime)
    }
}

/// The most that the wall clock may go on between two looks at it and count as time in which the job ran.
const STEP_MAX: i64 = 1_000;

/// The time in which the job ran, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct RunningTime {
    now: Timestamp,
    /// The last reading of the wall clock.
    wall: Option<Timestamp>,
}

impl RunningTime {
    fn go_on(&mut self, wall: Timestamp) {
        let before = self.wall.replace(wall).unwrap_or(wall);
        let on = wall.0.saturating_sub(before.0).clamp(0, STEP_MAX);
        self.now = self.now.plus_millis(on);
    }
}

/// A store of values by key that have a lifetime, for an operator of your own: it hands on its watermarks, its clock and the ends of its
/// cycles ([`on_watermark`](Self::on_watermark), [`on_clock`](Self::on_clock), [`end_cycle`](Self::end_cycle)), and asks for what
/// has expired. Declared by [`Keyed::with_ttl_store`].
pub struct TtlStore<S, C> {
    values: KeyValueStore<S>,
    /// The time of each key's last record, and one timer for each key, which is moved when it comes too early.
    times: TimedStore<i64>,
    ttl: Ttl<C>,
    /// Time of the clock. Nothing is due before it goes on.
    now: Timestamp,
    running: RunningTime,
    /// Part of the running time kept as state.
    kept: Timestamp,
}

fn times_of(name: &str) -> String {
    format!("{name}-ttl")
}

impl<S: Datum + Clone, C: Clock> TtlStore<S, C> {
    /// Opens this worker's part of the store `name`.
    ///
    /// # Errors
    /// As [`OperatorContext::store`].
    pub fn open(context: &mut OperatorContext, name: &str, ttl: Ttl<C>) -> Result<Self, JobError> {
        let values = context.store(name)?;
        let mut times: TimedStore<i64> = context.timed_store(&times_of(name))?;
        context.read_ahead(&mut times);
        let now = match C::IS_ON_WALL {
            true => times.last_time().max(Timestamp(0)),
            false => Timestamp::MIN,
        };
        Ok(Self {
            values,
            times,
            ttl,
            now,
            running: RunningTime { now, wall: None },
            kept: now,
        })
    }

    /// Changes the value of a key because of a record with this time; `None` is absent. Its lifetime begins anew. Returns what
    /// `change` returns.
    ///
    /// # Errors
    /// As [`KeyValueStore::update`].
    ///
    /// # Panics
    /// As [`KeyValueStore::update`].
    #[inline]
    pub fn update<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
        change: impl FnOnce(&mut Option<S>) -> R,
    ) -> Result<R, Failure> {
        self.take_expired(key)?;
        let (is_there, result) = self.values.update(key, |value| {
            let result = change(value);
            (value.is_some(), result)
        })?;
        let time = if C::IS_ON_WALL { self.now } else { time };
        let is_first = self.times.update(key, |last| {
            let is_first = last.is_none();
            let latest = last.map_or(time.0, |last| last.max(time.0));
            *last = is_there.then_some(latest);
            is_first && is_there
        })?;
        if is_first {
            self.times
                .set_timer(key, time.plus_millis(self.ttl.millis))?;
        }
        Ok(result)
    }

    /// Takes out the value of a key if its lifetime is over, which nothing has said so far: a record that came late may begin one
    /// that is over at once.
    ///
    /// # Errors
    /// As [`KeyValueStore::update`].
    pub fn take_expired<K: ?Sized>(&mut self, key: Key<'_, K>) -> Result<Option<S>, Failure> {
        let now = self.now_of(key);
        let is_over = |last: i64| Timestamp(last).plus_millis(self.ttl.millis) <= now;
        let is_over = self
            .times
            .peek(key, |last| last.is_some_and(|last| is_over(*last)))?;
        if !is_over {
            return Ok(None);
        }
        self.times.update(key, |last| *last = None)?;
        self.values.remove(key)
    }

    /// Whether the lifetime of a record at `time` is over, and its key has no value: it comes behind what expired.
    ///
    /// # Errors
    /// As [`KeyValueStore::update`].
    pub fn is_over<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
    ) -> Result<bool, Failure> {
        if C::IS_ON_WALL || time.plus_millis(self.ttl.millis) > self.now_of(key) {
            return Ok(false);
        }
        self.times.peek(key, |last| last.is_none())
    }

    /// Returns the clock's time for a key, in this run or an earlier one.
    fn now_of<K: ?Sized>(&self, key: Key<'_, K>) -> Timestamp {
        let kept = self.times.kept_time(key).unwrap_or(Timestamp::MIN);
        kept.max(self.now)
    }

    /// Told that a cycle ends: how far event time has come is state of it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn end_cycle(&mut self) -> Result<(), Failure> {
        match C::IS_ON_WALL {
            true => Ok(()),
            false => self.times.set_time(self.now),
        }
    }

    /// Told the watermark; what has expired by it is there to be taken. The end of the input makes nothing expire.
    pub fn on_watermark(&mut self, watermark: Timestamp) {
        if !C::IS_ON_WALL && watermark < Timestamp::MAX {
            self.now = watermark;
        }
    }

    /// Told the wall clock; the time in which the job ran goes on with it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn on_clock(&mut self, wall: Timestamp) -> Result<(), Failure> {
        if !C::IS_ON_WALL {
            return Ok(());
        }
        self.running.go_on(wall);
        self.now = self.running.now;
        // State of each cycle would let a job commit all the time that has nothing else to do.
        if self.now.0 - self.kept.0 > self.ttl.millis / 16 {
            self.kept = self.now;
            self.times.set_time(self.now)?;
        }
        Ok(())
    }

    /// Takes out the next value that has expired, and says in `due` whose it was.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_expired(&mut self, due: &mut Due) -> Result<Option<S>, Failure> {
        while self.times.next_due(self.now, due)?.is_some() {
            let (key, time) = (due.key::<()>(), due.time);
            let end = |last: i64| Timestamp(last).plus_millis(self.ttl.millis);
            let end = self.times.update(key, |last| {
                let end = last.map(end);
                if end.is_some_and(|end| end <= time) {
                    *last = None;
                }
                end
            })?;
            match end {
                Some(end) if end > time => self.times.set_timer(key, end)?,
                Some(_) => {
                    if let Some(value) = self.values.remove(key)? {
                        return Ok(Some(value));
                    }
                }
                None => {}
            }
        }
        Ok(None)
    }
}

/// A keyed stream whose next step keeps state with a lifetime. Made by [`Keyed::ttl`].
#[must_use = "a lifetime does nothing until a step keeps state"]
pub struct Expiring<K: ?Sized, V: ?Sized, U, C> {
    keyed: Keyed<K, V, U>,
    ttl: Ttl<C>,
}

struct Stateful<S, C, F, V: ?Sized, W> {
    store: TtlStore<S, C>,
    function: F,
    due: Due,
    types: PhantomData<fn(&V) -> W>,
}

impl<S: Datum + Clone, C: Clock, F, V: ?Sized, W> Stateful<S, C, F, V, W> {
    fn forget(&mut self) -> Flow {
        while self.store.next_expired(&mut self.due)?.is_some() {}
        Ok(())
    }
}

impl<K, V, S, C, W, F> Operator<K, V> for Stateful<S, C, F, V, W>
where
    K: ?Sized,
    V: ?Sized,
    S: Datum + Clone,
    C: Clock,
    F: Fn(&mut Option<S>, &V, &mut Results<'_, W>),
{
    type OutKey = K;
    type Out = W;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = !C::IS_ON_WALL;
    const USES_CLOCK: bool = C::IS_ON_WALL;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, W>) -> Flow {
        let function = &self.function;
        self.store
            .update(record.key, record.meta.timestamp, |state| {
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

    fn on_watermark(&mut self, watermark: Timestamp, _out: &mut impl Output<K, W>) -> Flow {
        self.store.on_watermark(watermark);
        self.forget()
    }

    fn on_clock(&mut self, now: Timestamp, _out: &mut impl Output<K, W>) -> Flow {
        self.store.on_clock(now)?;
        self.forget()
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, W>) -> Flow {
        self.store.end_cycle()
    }
}

fn deletion<S>(old: S) -> Change<S> {
    Change {
        old: Some(old),
        new: None,
    }
}

struct Update<K: ?Sized, V: ?Sized, S, C, F> {
    store: TtlStore<S, C>,
    /// Whether somebody behind asks for old values, or reads the store.
    is_shared: bool,
    change: F,
    ignored: Late<K, V>,
    due: Due,
}

impl<K: ?Sized, V: ?Sized, S: Datum + Clone, C: Clock, F> Update<K, V, S, C, F> {
    /// Deletes what has expired from the table.
    fn delete(&mut self, out: &mut impl Output<K, Change<S>>) -> Flow {
        while let Some(old) = self.store.next_expired(&mut self.due)? {
            out.push(Record {
                key: self.due.key(),
                value: &deletion(old),
                meta: Meta {
                    timestamp: self.due.time,
                    origin: Origin::TIME,
                },
                headers: Headers::NONE,
            })?;
        }
        Ok(())
    }
}

impl<K, V, S, C, F> Operator<K, V> for Update<K, V, S, C, F>
where
    K: ?Sized,
    V: ?Sized,
    S: Datum + Clone,
    C: Clock,
    F: Fn(&mut Option<S>, &V),
{
    type OutKey = K;
    type Out = Change<S>;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = !C::IS_ON_WALL;
    const USES_CLOCK: bool = C::IS_ON_WALL;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, Change<S>>) -> Flow {
        if let Some(old) = self.store.take_expired(record.key)? {
            out.push(record.with_value(&deletion(old)))?;
        }
        let time = record.meta.timestamp;
        if self.store.is_over(record.key, time)? {
            self.ignored.leave_out(); // J18: it is below what was cleaned away.
            return Ok(());
        }
        let (change, ignored) = (&self.change, &self.ignored);
        let mut push = |was_there: bool, change: &Change<S>| {
            if was_there || change.new.is_some() {
                return out.push(record.with_value(change));
            }
            // A deletion of what has expired, or never was.
            ignored.leave_out();
            Ok(())
        };
        if self.is_shared {
            let change = self.store.update(record.key, time, |state| {
                let old = state.clone();
                change(state, record.value);
                let new = state.clone();
                Change { old, new }
            })?;
            return push(change.old.is_some(), &change);
        }
        self.store.update(record.key, time, |state| {
            let was_there = state.is_some();
            change(state, record.value);
            let (old, new) = (None, state.take());
            let change = Change { old, new };
            let flow = push(was_there, &change);
            *state = change.new;
            flow
        })?
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<K, Change<S>>) -> Flow {
        self.store.on_watermark(watermark);
        self.delete(out)
    }

    fn on_clock(&mut self, now: Timestamp, out: &mut impl Output<K, Change<S>>) -> Flow {
        self.store.on_clock(now)?;
        self.delete(out)
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, Change<S>>) -> Flow {
        self.store.end_cycle()
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Gives the state that the next step keeps for each key a lifetime by a named clock: it is forgotten when no record of the key
    /// came for so long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// // How often each user came, from the beginning again after an hour without a visit.
    /// let job = Job::new("visits");
    /// job.source(topic::<str>("visits"))
    ///     .key_by(|user: &str| user.to_owned())
    ///     .ttl(Ttl::event_time(Duration::from_secs(3_600)))
    ///     .stateful("visits-so-far", |visits: &mut Option<u64>, _: &str, results| {
    ///         *visits = Some(visits.unwrap_or(0) + 1);
    ///         results.push(visits.unwrap_or(0));
    ///     })
    ///     .sink(topic("visits-so-far"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("visits", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_value_at("visits", "ann", noon);
    /// bed.send_value_at("visits", "ann", noon.plus_millis(1_000));
    /// // The watermark passes the end of ann's hour with somebody else's visit.
    /// bed.send_value_at("visits", "bob", noon.plus_millis(2 * 3_600_000));
    /// bed.commit();
    /// bed.send_value_at("visits", "ann", noon.plus_millis(2 * 3_600_000));
    /// let (ann, bob) = ("ann".to_owned(), "bob".to_owned());
    /// bed.expect::<String, u64>("visits-so-far", [(&ann, 1), (&ann, 2), (&bob, 1), (&ann, 1)]);
    /// ```
    pub fn ttl<C: Clock>(self, ttl: Ttl<C>) -> Expiring<K, V, Up, C> {
        Expiring { keyed: self, ttl }
    }

    /// Declares a store of values with a lifetime, which an operator behind this point opens with [`TtlStore::open`]: the
    /// store `name`, and `name-ttl` for the times. See [`with_store`](Self::with_store).
    ///
    /// # Panics
    /// As [`with_store`](Self::with_store).
    pub fn with_ttl_store<S: Datum>(self, name: &str) -> Self {
        self.with_store::<S>(name)
            .with_timed_store::<i64>(&times_of(name))
    }
}

impl<K, V, Up, C> Expiring<K, V, Up, C>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    C: Clock,
{
    /// As [`Keyed::stateful`], with a lifetime of the state. Nothing is said when it ends.
    #[track_caller]
    pub fn stateful<S, W, F>(self, name: &str, function: F) -> Keyed<K, W, impl Upstream<K, W>>
    where
        S: Datum + Clone,
        W: 'static,
        F: Fn(&mut Option<S>, &V, &mut Results<'_, W>) + Clone + Send + Sync + 'static,
    {
        let (store, ttl) = (name.to_owned(), self.ttl);
        self.keyed
            .with_ttl_store::<S>(name)
            .process(name, move |context| {
                Ok(Stateful {
                    store: TtlStore::open(context, &store, ttl)?,
                    function: function.clone(),
                    due: Due::default(),
                    types: PhantomData,
                })
            })
    }

    /// As [`Keyed::update`], with a lifetime of the state: what expires is deleted from the table, as any other deletion is. A change that
    /// finds nothing and leaves nothing, such as a deletion of what has expired, is ignored, and so is one that finds nothing and whose own
    /// lifetime is over; both are counted as [`JobProgress::left_out_records`](crate::runtime::JobProgress::left_out_records).
    #[track_caller]
    pub fn update<S, F>(
        self,
        name: &str,
        change: F,
    ) -> Table<K, S, impl Upstream<K, Change<S>>, Deletes>
    where
        S: Datum + Clone,
        F: Fn(&mut Option<S>, &V) + Clone + Send + Sync + 'static,
    {
        let (store, ttl) = (name.to_owned(), self.ttl);
        let updated = self
            .keyed
            .with_ttl_store::<S>(name)
            .process(name, move |context| {
                Ok(Update {
                    is_shared: context.is_table_shared(&store),
                    store: TtlStore::open(context, &store, ttl)?,
                    change: change.clone(),
                    ignored: context.late(&store, None)?,
                    due: Due::default(),
                })
            });
        Table::in_store(updated, name)
    }

    /// As [`Keyed::count`], with a lifetime of the counts: see [`update`](Self::update).
    #[track_caller]
    pub fn count(self, name: &str) -> Table<K, u64, impl Upstream<K, Change<u64>>, Deletes> {
        // Nobody needs the values: the shuffle moves keys only.
        let keys = self.keyed.map(|_| ());
        keys.ttl(self.ttl).update(name, |count, ()| {
            *count = Some(count.unwrap_or(0) + 1);
        })
    }

    /// As [`Keyed::aggregate`], with a lifetime of the aggregates: see [`update`](Self::update).
    #[track_caller]
    pub fn aggregate<A, I, F>(
        self,
        name: &str,
        initial: I,
        add: F,
    ) -> Table<K, A, impl Upstream<K, Change<A>>, Deletes>
    where
        A: Datum + Clone,
        I: Fn() -> A + Clone + Send + Sync + 'static,
        F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    {
        self.update(name, move |aggregate, value| {
            add(aggregate.get_or_insert_with(&initial), value);
        })
    }

    /// As [`Keyed::reduce`], with a lifetime of the combined values: see [`update`](Self::update).
    #[track_caller]
    pub fn reduce<F>(
        self,
        name: &str,
        combine: F,
    ) -> Table<K, V, impl Upstream<K, Change<V>>, Deletes>
    where
        V: Sized + Clone,
        F: Fn(&mut V, &V) + Clone + Send + Sync + 'static,
    {
        self.update(name, move |reduced, value| match reduced {
            Some(reduced) => combine(reduced, value),
            None => *reduced = Some(value.clone()),
        })
    }
}

impl<K, V, Up, C> Expiring<K, Option<V>, Up, C>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    Option<V>: Datum,
    Up: Upstream<K, Option<V>>,
    C: Clock,
{
    /// As [`Keyed::to_table`], with a lifetime of the values: see [`update`](Self::update).
    #[track_caller]
    pub fn to_table(self, name: &str) -> Table<K, V, impl Upstream<K, Change<V>>, Deletes> {
        self.update(name, |last, value: &Option<V>| last.clone_from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_running_time_counts_neither_outages_nor_jumps_of_the_clock() {
        let mut running = RunningTime {
            now: Timestamp(500),
            wall: None,
        };
        let looks = [
            (1_000_000, 500),
            (1_000_010, 510),
            // The clock is set back, and runs on from there.
            (900_000, 510),
            (900_010, 520),
            // It is set forward, or the process was suspended.
            (9_900_010, 1_520),
        ];
        for (wall, now) in looks {
            running.go_on(Timestamp(wall));
            assert_eq!(running.now, Timestamp(now));
        }
        // The next run goes on where this one was.
        let now = running.now;
        let mut next = RunningTime { now, wall: None };
        next.go_on(Timestamp(99_000_000));
        assert_eq!(next.now, now);
    }
}
