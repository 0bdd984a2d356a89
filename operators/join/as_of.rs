//! `join_as_of`: each record of a stream with the version that its key had at the record's time.
//!
//! Versions are kept in the order of their times. A record waits until the watermark is above its time, so that all versions up to it
//! are there; then it finds the last of them. A version stays for as long as a record may come that finds it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::joiner::{Inner, Joiner, Left, Nothing};
use super::rows::{Place, Row, Rows, meta_of};
use crate::codec::Datum;
use crate::runtime::{
    Came, Connected, Due, Flow, Key, Keyed, Late, LateReason, Output, Record, SideOutput,
    TimedStore, TwoInputOperator, Upstream,
};
use crate::types::Timestamp;

/// A keyed stream whose records are joined with the versions that their keys had at their times; the next step says what is made of
/// them. Made by [`Keyed::join_as_of`].
///
/// A result has the record's time and comes when the watermark has passed it; the results of a key come in the order of their times,
/// whatever runs the job. Headers are not kept.
#[must_use = "a join does nothing before it says what is made of the records"]
pub struct AsOfJoin<K: ?Sized, L: ?Sized, V, A, B> {
    both: Connected<K, L, Option<V>, A, B>,
    name: String,
    bounds: Bounds,
    late_records: Option<SideOutput<K, L>>,
    late_versions: Option<SideOutput<K, Option<V>>>,
}

/// How old a version may be that is found, and how late records may come, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    tolerance: Option<i64>,
    grace: i64,
}

impl Bounds {
    /// The times of the versions among which a record at `time` finds the last.
    fn finds(self, time: i64) -> RangeInclusive<i64> {
        let first = self.tolerance.map(|it| time.saturating_sub(it));
        first.unwrap_or(i64::MIN)..=time
    }

    /// The watermark at which no record comes any more that finds a version before the one at `time`.
    fn supersedes(self, time: i64) -> Timestamp {
        Timestamp(time).plus_millis(self.grace).plus_millis(1)
    }
}

struct AsOf<K, L, V, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    Option<V>: Datum,
    J: Joiner<L, V>,
{
    waiting: Rows<L, Nothing>,
    versions: Rows<Option<V>, Nothing>,
    /// A value at the time behind each record that waits, and a timer where versions of a key are superseded or too old.
    times: TimedStore<()>,
    bounds: Bounds,
    joiner: J,
    late_records: Late<K, L>,
    late_versions: Late<K, Option<V>>,
    watermark: Timestamp,
    /// How far the operator has come, as state.
    reached: Timestamp,
    due: Due,
}

/// The result of a record with the last of these versions.
fn find<K, L, V, J>(
    versions: &mut Rows<Option<V>, Nothing>,
    key: Key<'_, K>,
    times: RangeInclusive<i64>,
    value: &L,
    joiner: &J,
) -> Result<Option<J::Out>, crate::runtime::Failure>
where
    K: ?Sized,
    L: Datum + ?Sized,
    Option<V>: Datum<Owned = Option<V>>,
    J: Joiner<L, V>,
{
    let found = versions.last(key, times, |_, version| {
        joiner.of(Some(value), version.as_ref())
    })?;
    Ok(found.unwrap_or_else(|| joiner.left(value)))
}

impl<K, L, V, J> AsOf<K, L, V, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    Option<V>: Datum<Owned = Option<V>>,
    J: Joiner<L, V>,
{
    /// The records of a key at a time find their versions.
    fn give(&mut self, key: Key<'_, K>, time: i64, out: &mut impl Output<K, J::Out>) -> Flow {
        let (versions, joiner, bounds) = (&mut self.versions, &self.joiner, self.bounds);
        self.waiting.visit(key, time..=time, |place, value| {
            let result = find(versions, key, bounds.finds(time), value, joiner)?;
            if let Some(result) = result {
                out.push(Record::new(key, &result, meta_of(place)))?;
            }
            Ok(false)
        })?;
        self.waiting.expire(key, time, |_, _| Ok(()))
    }

    /// Takes out the versions of a key that nothing finds any more.
    fn prune(&mut self, key: Key<'_, K>, at: Timestamp) -> Flow {
        let superseding = at.plus_millis(-1).plus_millis(-self.bounds.grace).0;
        if let Some(tolerance) = self.bounds.tolerance {
            let too_old = superseding.saturating_sub(tolerance);
            self.versions.expire(key, too_old, |_, _| Ok(()))?;
        }
        // J11: the last of them is valid until there is another; a deletion is as good as nothing.
        let last = self
            .versions
            .last(key, i64::MIN..=superseding, |place, version| {
                (*place, version.is_none())
            })?;
        match last {
            Some((place, is_deletion)) => self.versions.expire_before(key, place, is_deletion),
            None => Ok(()),
        }
    }

    fn go_on(&mut self, until: Timestamp, out: &mut impl Output<K, J::Out>) -> Flow {
        let mut due = std::mem::take(&mut self.due);
        while let Some(came) = self.times.next_due(until, &mut due)? {
            match came {
                Came::Value(()) => self.give(due.key(), due.time.plus_millis(-1).0, out)?,
                Came::Timer => self.prune(due.key(), due.time)?,
            }
            self.reached = self.reached.max(due.time);
        }
        self.due = due;
        Ok(())
    }
}

impl<K, L, V, J> TwoInputOperator<K, L, Option<V>> for AsOf<K, L, V, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    Option<V>: Datum<Owned = Option<V>>,
    J: Joiner<L, V>,
{
    type OutKey = K;
    type Out = J::Out;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process_left(&mut self, record: Record<'_, K, L>, out: &mut impl Output<K, J::Out>) -> Flow {
        let (key, meta) = (record.key, record.meta);
        let time = meta.timestamp;
        let reached = self.watermark.max(self.times.time(key));
        if time.plus_millis(self.bounds.grace) < reached {
            return self.late_records.push(record, LateReason::Closed, reached);
        }
        if time < reached {
            let times = self.bounds.finds(time.0);
            let found = find(&mut self.versions, key, times, record.value, &self.joiner)?;
            return found.map_or(Ok(()), |it| out.push(Record::new(key, &it, meta)));
        }
        self.waiting.put(key, meta, record.value)?;
        self.times
            .update_at(key, time.plus_millis(1), |gives| *gives = Some(()))
    }

    fn process_right(
        &mut self,
        record: Record<'_, K, Option<V>>,
        _out: &mut impl Output<K, J::Out>,
    ) -> Flow {
        let (key, time) = (record.key, record.meta.timestamp);
        let reached = self.watermark.max(self.times.time(key));
        if time.plus_millis(self.bounds.grace) < reached {
            // J12: nobody knows any more whether there was a later one.
            return self.late_versions.push(record, LateReason::Closed, reached);
        }
        self.versions.put(key, record.meta, record.value)?;
        let superseding = self.bounds.supersedes(time.0);
        if let Some(tolerance) = self.bounds.tolerance {
            self.times
                .set_timer(key, superseding.plus_millis(tolerance))?;
        }
        self.times.set_timer(key, superseding)
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<K, J::Out>) -> Flow {
        self.watermark = watermark;
        if watermark < Timestamp::MAX {
            self.go_on(watermark, out)?;
            self.reached = self.reached.max(watermark);
            return Ok(());
        }
        // All records find what there is; versions stay for a later run.
        while let Some(gives) = self.times.first_time(watermark)? {
            self.go_on(gives, out)?;
        }
        Ok(())
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.bounds.grace),
        }
    }

    /// Each time decides what is late, so how far time has come is state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<K, J::Out>) -> Flow {
        self.times.set_time(self.reached)
    }
}

impl<K: Datum + ?Sized, L: Datum + ?Sized, A: Upstream<K, L>> Keyed<K, L, A> {
    /// Joins each record with the version that its key had at the record's time: the last one that is not newer. `versions` are values
    /// with the times from which they are valid, in any order within the bound of disorder; `None` is a deletion.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("priced");
    /// let prices = job.keyed_source(keyed_topic::<String, u64>("prices").as_option());
    /// job.keyed_source(keyed_topic::<String, u64>("orders"))
    ///     .join_as_of("priced", prices)
    ///     .grace(Duration::from_secs(60))
    ///     .inner(|pieces, cents| pieces * cents)
    ///     .sink(topic("priced"));
    /// ```
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    pub fn join_as_of<V, B>(
        self,
        name: &str,
        versions: Keyed<K, Option<V>, B>,
    ) -> AsOfJoin<K, L, V, A, B>
    where
        Option<V>: Datum,
        B: Upstream<K, Option<V>>,
    {
        AsOfJoin {
            both: self.connect(versions),
            name: name.to_owned(),
            bounds: Bounds {
                tolerance: None,
                grace: 0,
            },
            late_records: None,
            late_versions: None,
        }
    }
}

impl<K, L, V, A, B> AsOfJoin<K, L, V, A, B>
where
    K: Datum + ?Sized,
    L: Datum + ?Sized,
    V: 'static,
    Option<V>: Datum<Owned = Option<V>>,
    A: Upstream<K, L>,
    B: Upstream<K, Option<V>>,
{
    /// Takes records and versions that are late by up to `grace`, and keeps what was valid for so much longer. The default is none. A late
    /// record finds at once what there is.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.bounds.grace = super::millis(grace);
        self
    }

    /// Finds versions that are at most `tolerance` older than the record. Without it a version is valid until there is another.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.bounds.tolerance = Some(super::millis(tolerance));
        self
    }

    /// Gives late records and late versions streams of their own. Without it they are counted and warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the three parts, once")]
    pub fn late(mut self) -> (Self, Keyed<K, L>, Keyed<K, Option<V>>) {
        let (records, late_records) = self.both.side_output("late-left");
        let (versions, late_versions) = self.both.side_output("late-right");
        (self.late_records, self.late_versions) = (Some(records), Some(versions));
        (self, late_records, late_versions)
    }

    /// Gives a result for each record that finds a version.
    #[track_caller]
    pub fn inner<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&L, &V) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Inner(join))
    }

    /// Gives a result for each record, with the version that it finds or none.
    #[track_caller]
    pub fn left<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&L, Option<&V>) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Left(join))
    }

    #[track_caller]
    fn join<J: Joiner<L, V>>(self, joiner: J) -> Keyed<K, J::Out, impl Upstream<K, J::Out>> {
        let Self {
            both,
            name,
            bounds,
            late_records,
            late_versions,
        } = self;
        let store = |part: &str| format!("{name}-{part}");
        let (waiting, versions, times) = (store("waiting"), store("versions"), store("times"));
        let node = name.clone();
        both.with_ordered_store::<Place, Row<L, Nothing>>(&waiting)
            .with_ordered_store::<Place, Row<Option<V>, Nothing>>(&versions)
            .with_timed_store::<()>(&times)
            .process(&name, move |context| {
                Ok(AsOf {
                    waiting: Rows::new(context.ordered_store(&waiting)?, 0, 0),
                    versions: Rows::new(context.ordered_store(&versions)?, 0, 0),
                    times: context.timed_store(&times)?,
                    bounds,
                    joiner: joiner.clone(),
                    late_records: context.late(&node, late_records.as_ref())?,
                    late_versions: context.late(&node, late_versions.as_ref())?,
                    watermark: Timestamp::MIN,
                    reached: Timestamp::MIN,
                    due: Due::default(),
                })
            })
    }
}
