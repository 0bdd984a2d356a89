//! `join_as_of`: each record of a stream with the version that its key had at the record's time.
//!
//! Versions are kept in the order of their times. A record waits until no version can come that it would rather find: until the
//! watermark is above its time, and for the next or the nearest version above that one's time, or so far that none is near enough. A
//! version stays for as long as a record may find it.

use std::ops::ControlFlow;
use std::time::Duration;

use super::joiner::{Inner, Joiner, Left, Nothing};
use super::rows::{Place, Row, Rows, meta_of, row_parts, version_parts};
use crate::codec::Datum;
use crate::runtime::{
    Came, Connected, Due, Failure, Flow, Key, Keyed, Late, LateReason, Output, Record, SideOutput,
    TimedStore, TwoInputOperator, Upstream,
};
use crate::types::Timestamp;

/// A keyed stream whose records are joined with the versions that their keys had at their times; the next step says what is made of
/// them. Made by [`Keyed::join_as_of`].
///
/// A result has the record's time and comes when the watermark has passed it, and shows that no version comes any more that is to be
/// found instead; the results of a key come in the order of their times, whatever runs the job. Headers are not kept.
#[must_use = "a join does nothing before it says what is made of the records"]
pub struct AsOfJoin<K: ?Sized, L: ?Sized, V, A, B> {
    both: Connected<K, L, Option<V>, A, B>,
    name: String,
    bounds: Bounds,
    late_records: Option<SideOutput<K, L>>,
    late_versions: Option<SideOutput<K, Option<V>>>,
}

/// The last time of a version that is found: at the end of the input all that are at or below it are known.
const LAST_TIME: i64 = i64::MAX - 2;

/// Which version is found, and how late records may come, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Greatest age of a version, if bounded; with another direction, its distance.
    tolerance: Option<i64>,
    direction: Direction,
    grace: i64,
}

/// On which side of a record's time its version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// The last one that is not newer.
    Previous,
    /// The first one that is not older.
    Next,
    /// The nearer of both, of two that are equally near the older one.
    Nearest,
}

/// The version that a record finds while all versions below a time are known.
enum Found {
    /// The version at a time.
    At(i64),
    /// None.
    Nothing,
    /// Another version may come below this time.
    NotBefore(i64),
}

impl Bounds {
    /// Returns the farthest version's distance.
    fn reach(self) -> i64 {
        self.tolerance.unwrap_or(i64::MAX)
    }

    /// The watermark at which no record comes any more that finds a version before the one at `time`.
    fn supersedes(self, time: i64) -> Timestamp {
        Timestamp(time).plus_millis(self.grace).plus_millis(1)
    }

    /// Returns the rest of a version's life without a successor.
    fn rest_of_life(self) -> Option<i64> {
        match self.direction {
            Direction::Previous => self.tolerance,
            Direction::Next => Some(0),
            // The farthest record that finds it waits for one that is nearer.
            Direction::Nearest => self.tolerance.map(|it| it.saturating_mul(2)),
        }
    }

    /// Returns the results' lag behind the watermark.
    fn hold(self) -> i64 {
        match self.direction {
            Direction::Previous => self.grace,
            Direction::Next | Direction::Nearest => self.grace.max(self.reach()),
        }
    }

    /// Finds the version of a record at `time`, where all versions below `known` are there.
    fn find<K: ?Sized, W: Datum<Owned = W>>(
        self,
        versions: &mut Rows<W, Nothing>,
        key: Key<'_, K>,
        time: i64,
        known: i64,
    ) -> Result<Found, Failure> {
        let (first, last) = (
            time.saturating_sub(self.reach()),
            time.saturating_add(self.reach()).min(LAST_TIME),
        );
        let previous = match self.direction {
            Direction::Next => None,
            _ => versions.last_time(key, first..=time)?,
        };
        if self.direction == Direction::Previous {
            return Ok(previous.map_or(Found::Nothing, Found::At));
        }
        // One that is as far away as the older one is not found.
        let nearer = previous.map(|it| {
            time.saturating_add(time.saturating_sub(it))
                .saturating_sub(1)
        });
        let last = nearer.map_or(last, |it| it.min(last));
        let next = versions.first_time(key, time..=last)?;
        let decided = next.unwrap_or(last);
        Ok(match next.or(previous) {
            _ if decided >= known => Found::NotBefore(decided.saturating_add(1)),
            Some(time) => Found::At(time),
            None => Found::Nothing,
        })
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
    /// A value at the times at which records of a key may find their versions, and a timer where versions are superseded or too old.
    times: TimedStore<()>,
    bounds: Bounds,
    joiner: J,
    late_records: Late<K, L>,
    late_versions: Late<K, Option<V>>,
    watermark: Timestamp,
    /// Operator's time, as state.
    reached: Timestamp,
    due: Due,
}

/// The result of a record with the version at a time, or with none.
fn result_of<K, L, V, J>(
    versions: &mut Rows<Option<V>, Nothing>,
    key: Key<'_, K>,
    version: Option<i64>,
    value: &L,
    joiner: &J,
) -> Result<Option<J::Out>, Failure>
where
    K: ?Sized,
    L: Datum + ?Sized,
    Option<V>: Datum<Owned = Option<V>>,
    J: Joiner<L, V>,
{
    let Some(time) = version else {
        return Ok(joiner.left(value));
    };
    let found = versions.last(key, time..=time, |_, version| {
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
    /// Records of a key find their versions, in the order of their times, up to the first one that has to wait. All versions below
    /// `known` are there.
    fn give(&mut self, key: Key<'_, K>, known: i64, out: &mut impl Output<K, J::Out>) -> Flow {
        let (versions, joiner, bounds) = (&mut self.versions, &self.joiner, self.bounds);
        let (mut given, mut waits_until) = (None, None);
        let times = i64::MIN..=known.saturating_sub(1);
        self.waiting.visit_while(key, times, |place, value| {
            let version = match bounds.find(versions, key, place.0, known)? {
                Found::At(time) => Some(time),
                Found::Nothing => None,
                Found::NotBefore(time) => {
                    waits_until = Some(time);
                    return Ok(ControlFlow::Break(()));
                }
            };
            if let Some(result) = result_of(versions, key, version, value, joiner)? {
                out.push(Record::new(key, &result, meta_of(place)))?;
            }
            given = Some(place.0);
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(time) = given {
            // All of one time, since they find the same.
            self.waiting.expire(key, time, |_, _| Ok(()))?;
        }
        match waits_until {
            Some(time) => self.look_again(key, time),
            None => Ok(()),
        }
    }

    /// Keeps a record, which looks for its version when all versions below `known` are there.
    fn wait(&mut self, record: Record<'_, K, L>, known: i64) -> Flow {
        self.waiting.put(record.key, record.meta, record.value)?;
        self.look_again(record.key, known)
    }

    /// Has records of a key look for their versions when all of them below a time are there.
    fn look_again(&mut self, key: Key<'_, K>, known: i64) -> Flow {
        self.times
            .update_at(key, Timestamp(known), |looks| *looks = Some(()))
    }

    /// Takes out the versions of a key that nothing finds any more.
    fn prune(&mut self, key: Key<'_, K>, at: Timestamp) -> Flow {
        let superseding = at.plus_millis(-1).plus_millis(-self.bounds.grace).0;
        if let Some(rest) = self.bounds.rest_of_life() {
            let too_old = superseding.saturating_sub(rest);
            self.versions.expire(key, too_old, |_, _| Ok(()))?;
        }
        // J11: the last of them is valid until there is another. A deletion is as good as nothing, unless it is nearer than one that comes.
        let is_nothing = self.bounds.direction == Direction::Previous;
        let last = self
            .versions
            .last(key, i64::MIN..=superseding, |place, version| {
                (*place, is_nothing && version.is_none())
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
                Came::Value(()) => self.give(due.key(), due.time.0, out)?,
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
        let looks = match time < reached {
            false => time.plus_millis(1).0,
            true => {
                let versions = &mut self.versions;
                let version = match self.bounds.find(versions, key, time.0, reached.0)? {
                    Found::At(time) => Some(time),
                    Found::Nothing => None,
                    Found::NotBefore(known) => return self.wait(record, known),
                };
                let found = result_of(versions, key, version, record.value, &self.joiner)?;
                return found.map_or(Ok(()), |it| out.push(Record::new(key, &it, meta)));
            }
        };
        self.wait(record, looks)
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
        if self.bounds.direction != Direction::Previous
            && self.waiting.first_time(key, i64::MIN..=time.0)?.is_some()
        {
            self.look_again(key, time.plus_millis(1).0)?;
        }
        let superseding = self.bounds.supersedes(time.0);
        if let Some(rest) = self.bounds.rest_of_life() {
            self.times.set_timer(key, superseding.plus_millis(rest))?;
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
            open => open.plus_millis(-self.bounds.hold()),
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
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("priced");
    /// let prices = job.keyed_source(keyed_topic::<String, u64>("prices").as_option());
    /// job.keyed_source(keyed_topic::<String, u64>("orders"))
    ///     .join_as_of("priced", prices)
    ///     .grace(Duration::from_secs(60))
    ///     .inner(|pieces, cents| pieces * cents)
    ///     .sink(topic("priced"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("prices", 1).partitions("orders", 1).start();
    /// let tea = "tea".to_owned();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("prices", &tea, &300u64, noon);
    /// bed.send_at("prices", &tea, &350u64, noon.plus_millis(3_600_000));
    /// bed.send_at("orders", &tea, &2u64, noon.plus_millis(1_000));
    /// // The order is answered once the prices of its time are sure to be there.
    /// bed.send_at("orders", &"rum".to_owned(), &1u64, noon.plus_millis(3_600_000));
    /// bed.expect::<String, u64>("priced", [(&tea, 600)]);
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
                direction: Direction::Previous,
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
    V: Datum,
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

    /// Finds the next version instead: the first one that is not older than the record, and at most `tolerance` newer. The result waits
    /// until the watermark has passed that version, or the record by more than `tolerance`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("slippage");
    /// let quotes = job.keyed_source(keyed_topic::<String, i64>("quotes").as_option());
    /// job.keyed_source(keyed_topic::<String, i64>("trades"))
    ///     .join_as_of("next-quote", quotes)
    ///     .next_within(Duration::from_secs(5))
    ///     .left(|price, quote| quote.map(|next| next - price))
    ///     .sink(topic("slippage"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("quotes", 1).partitions("trades", 1).start();
    /// let acme = "ACME".to_owned();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("trades", &acme, &100i64, noon);
    /// bed.send_at("quotes", &acme, &103i64, noon.plus_millis(2_000));
    /// bed.send_at("quotes", &acme, &110i64, noon.plus_millis(60_000));
    /// bed.send_at("trades", &"other".to_owned(), &1i64, noon.plus_millis(60_000));
    /// bed.expect::<String, Option<i64>>("slippage", [(&acme, Some(3))]);
    /// ```
    pub fn next_within(self, tolerance: Duration) -> Self {
        self.tolerance(tolerance).to(Direction::Next)
    }

    /// Finds the nearest version instead: at most `tolerance` older or newer than the record; of two that are equally near, the older
    /// one. The result waits until no nearer one can come.
    pub fn nearest_within(self, tolerance: Duration) -> Self {
        self.tolerance(tolerance).to(Direction::Nearest)
    }

    fn to(mut self, direction: Direction) -> Self {
        self.bounds.direction = direction;
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
        let grace = Duration::from_millis(bounds.grace.unsigned_abs());
        both.needs_history(&name, grace)
            .with_ordered_store::<Place, Row<L, Nothing>>(&waiting)
            .with_ordered_store::<Place, Row<Option<V>, Nothing>>(&versions)
            .with_timed_store::<()>(&times)
            .with_parts(&waiting, row_parts::<L, Nothing>())
            .with_parts(&versions, version_parts::<V, Nothing>())
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
