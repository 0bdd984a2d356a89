//! The join of two streams within an interval of time.
//!
//! ```text
//! a record at t ──► a row of its side ──► watermark above t: meets the rows of the other side that did so before
//!                                    └──► watermark above t, the interval and the grace: without a match it gives a result; it goes
//! ```
//! Rows of a key meet in the order of their times (left before right at one time), so a pair is found when the later of the two comes
//! up, once, and the results of a key are a function of the input (I16). A record that is late within the grace meets at once those
//! that it was to be among.

use std::time::Duration;

use super::joiner::{Alone, Inner, Joiner, Left, Outer, Right};
use super::rows::{Place, Row, Rows, meta_of, row_parts};
use crate::codec::Datum;
use crate::runtime::{
    Came, Connected, Due, Failure, Flow, Key, Keyed, Late, LateReason, Meta, Output, Record,
    SideOutput, TimedStore, TwoInputOperator, Upstream,
};
use crate::types::Timestamp;

/// Rows that give nothing alone are taken out a sixteenth of their life later at most: several of a key then share a timer.
const SHARES_OF_LIFE: i64 = 16;

/// Bounds on the times of rows that match, and on their lateness, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most by which the right row is older than the left one; where it is negative, the least by which it is newer.
    pub(super) before: i64,
    /// Most by which it is newer; where that is negative, the least by which it is older.
    pub(super) after: i64,
    pub(super) grace: i64,
}

impl Bounds {
    /// Returns the time that a row stays if it matches up to `ahead` of it: at least until it has met the other side.
    fn life(self, ahead: i64) -> i64 {
        // Half-open: the last match is at `ahead`, and no later record is below the watermark less the grace.
        ahead.saturating_add(self.grace).max(0).saturating_add(1)
    }

    /// The time at which a row that matches up to so far ahead of it can find no other match. Rows that give nothing alone may stay longer.
    fn closes<M: Alone>(self, time: i64, ahead: i64) -> Timestamp {
        let life = self.life(ahead);
        let closes = time.saturating_add(life);
        if M::GIVES {
            return Timestamp(closes);
        }
        let share = (life / SHARES_OF_LIFE).max(1);
        let behind = closes.rem_euclid(share);
        Timestamp(match behind {
            0 => closes,
            _ => closes.saturating_add(share - behind),
        })
    }

    /// The newest time of rows that are closed at `at`.
    fn closed(self, at: Timestamp, ahead: i64) -> i64 {
        at.0.saturating_sub(self.life(ahead))
    }

    /// Returns the results' lag behind the watermark.
    fn hold<ML: Alone, MR: Alone>(self) -> i64 {
        let of_left = if ML::GIVES { self.after } else { 0 };
        let of_right = if MR::GIVES { self.before } else { 0 };
        self.grace.saturating_add(of_left.max(of_right))
    }
}

/// Two keyed streams whose records belong together where they have one key and their times are near; the next step says what is made of
/// them. Made by [`Join::within`](super::Join::within).
///
/// A result has the later time of its two records, and comes when the watermark has passed it. The results of a key come in the order
/// of their times, whatever runs the job. A record without a match gives its result, with its own time, when nothing can match it any
/// more: when the watermark has passed its time, the interval and the grace. Headers are not kept.
#[must_use = "a join does nothing before it says what is made of the records"]
pub struct IntervalJoin<K: ?Sized, L: ?Sized, R: ?Sized, A, B> {
    both: Connected<K, L, R, A, B>,
    name: String,
    bounds: Bounds,
    late_left: Option<SideOutput<K, L>>,
    late_right: Option<SideOutput<K, R>>,
}

/// Rows of a key and a time on the left and on the right, while they have not met the other side.
type Meeting = (u32, u32);

/// Joins the rows of both sides.
struct Within<K, L, R, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    J: Joiner<L, R>,
{
    left: Rows<L, J::OfLeft>,
    right: Rows<R, J::OfRight>,
    /// At the time behind each row that has not met the other side yet, how many there are; a timer where rows of a key are closed.
    times: TimedStore<Meeting>,
    bounds: Bounds,
    joiner: J,
    late_left: Late<K, L>,
    late_right: Late<K, R>,
    watermark: Timestamp,
    /// Operator's time, as state.
    reached: Timestamp,
    due: Due,
}

/// Gives a result with the later of two times.
#[inline]
fn give<K: ?Sized, U>(
    key: Key<'_, K>,
    meta: Meta,
    other: &Place,
    result: &U,
    out: &mut impl Output<K, U>,
) -> Flow {
    let timestamp = meta.timestamp.max(Timestamp(other.0));
    out.push(Record::new(key, result, Meta { timestamp, ..meta }))
}

impl<K, L, R, J> Within<K, L, R, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    J: Joiner<L, R>,
{
    /// Notes that a row will meet the other side; returns whether it is the first one of its side and time. `count` is that of the side.
    fn will_meet(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
        count: impl FnOnce(&mut Meeting) -> &mut u32,
    ) -> Result<bool, Failure> {
        self.times.update_at(key, time.plus_millis(1), |meeting| {
            let count = count(meeting.get_or_insert((0, 0)));
            *count = count.saturating_add(1);
            *count == 1
        })
    }

    /// The left rows of a key at a time meet the right ones up to `until`; then the right ones those on the left.
    fn meet(
        &mut self,
        key: Key<'_, K>,
        time: i64,
        (left_count, right_count): Meeting,
        out: &mut impl Output<K, J::Out>,
    ) -> Flow {
        let (left, right, joiner) = (&mut self.left, &mut self.right, &self.joiner);
        let (start, end) = left.matching(time).into_inner();
        let earlier = start..=end.min(time.saturating_sub(1));
        left.visit_counted(key, time, left_count, |place, value| {
            let mut has_match = false;
            right.visit(key, earlier.clone(), |other, match_| {
                has_match = true;
                give(key, meta_of(place), other, &joiner.both(value, match_), out)?;
                Ok(true)
            })?;
            Ok(has_match)
        })?;
        let (start, end) = right.matching(time).into_inner();
        let earlier = start..=end.min(time);
        right.visit_counted(key, time, right_count, |place, value| {
            let mut has_match = false;
            left.visit(key, earlier.clone(), |other, match_| {
                has_match = true;
                give(key, meta_of(place), other, &joiner.both(match_, value), out)?;
                Ok(true)
            })?;
            Ok(has_match)
        })
    }

    /// Takes out what is closed at a time, and gives the results of rows without a match.
    fn close(&mut self, key: Key<'_, K>, at: Timestamp, out: &mut impl Output<K, J::Out>) -> Flow {
        let (bounds, joiner) = (self.bounds, &self.joiner);
        let until = bounds.closed(at, self.left.ahead);
        self.left.expire(key, until, |place, value| {
            let result = joiner.left(value);
            result.map_or(Ok(()), |it| out.push(Record::new(key, &it, meta_of(place))))
        })?;
        let until = bounds.closed(at, self.right.ahead);
        self.right.expire(key, until, |place, value| {
            let result = joiner.right(value);
            result.map_or(Ok(()), |it| out.push(Record::new(key, &it, meta_of(place))))
        })
    }

    /// Lets all that is due up to `until` meet and close.
    fn go_on(&mut self, until: Timestamp, out: &mut impl Output<K, J::Out>) -> Flow {
        let mut due = std::mem::take(&mut self.due);
        while let Some(came) = self.times.next_due(until, &mut due)? {
            match came {
                Came::Value(meeting) => {
                    self.meet(due.key(), due.time.plus_millis(-1).0, meeting, out)?;
                }
                Came::Timer => self.close(due.key(), due.time, out)?,
            }
            self.reached = self.reached.max(due.time);
        }
        self.due = due;
        Ok(())
    }
}

impl<K, L, R, J> TwoInputOperator<K, L, R> for Within<K, L, R, J>
where
    K: ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    J: Joiner<L, R>,
{
    type OutKey = K;
    type Out = J::Out;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process_left(&mut self, record: Record<'_, K, L>, out: &mut impl Output<K, J::Out>) -> Flow {
        let (key, meta) = (record.key, record.meta);
        let reached = self.watermark.max(self.times.time(key));
        if meta.timestamp.plus_millis(self.bounds.grace) < reached {
            return self.late_left.push(record, LateReason::Closed, reached);
        }
        let (time, ahead) = (meta.timestamp, self.left.ahead);
        let closes = self.bounds.closes::<J::OfLeft>(time.0, ahead);
        self.times.set_timer(key, closes)?;
        if time >= reached {
            match self.will_meet(key, time, |it| &mut it.0)? {
                true => self.left.put_first(key, meta, record.value)?,
                false => self.left.put(key, meta, record.value)?,
            };
            return Ok(());
        }
        let place = self.left.put(key, meta, record.value)?;
        let (start, end) = self.left.matching(place.0).into_inner();
        // Those behind will meet it when they come up.
        let came_up = start..=end.min(reached.plus_millis(-1).0);
        let (mut has_match, joiner) = (false, &self.joiner);
        self.right.visit(key, came_up, |other, value| {
            has_match = true;
            give(key, meta, other, &joiner.both(record.value, value), out)?;
            Ok(true)
        })?;
        match has_match {
            true => self.left.set_matched(key, place),
            false => Ok(()),
        }
    }

    fn process_right(
        &mut self,
        record: Record<'_, K, R>,
        out: &mut impl Output<K, J::Out>,
    ) -> Flow {
        let (key, meta) = (record.key, record.meta);
        let reached = self.watermark.max(self.times.time(key));
        if meta.timestamp.plus_millis(self.bounds.grace) < reached {
            return self.late_right.push(record, LateReason::Closed, reached);
        }
        let (time, ahead) = (meta.timestamp, self.right.ahead);
        let closes = self.bounds.closes::<J::OfRight>(time.0, ahead);
        self.times.set_timer(key, closes)?;
        if time >= reached {
            match self.will_meet(key, time, |it| &mut it.1)? {
                true => self.right.put_first(key, meta, record.value)?,
                false => self.right.put(key, meta, record.value)?,
            };
            return Ok(());
        }
        let place = self.right.put(key, meta, record.value)?;
        let (start, end) = self.right.matching(place.0).into_inner();
        let came_up = start..=end.min(reached.plus_millis(-1).0);
        let (mut has_match, joiner) = (false, &self.joiner);
        self.left.visit(key, came_up, |other, value| {
            has_match = true;
            give(key, meta, other, &joiner.both(value, record.value), out)?;
            Ok(true)
        })?;
        match has_match {
            true => self.right.set_matched(key, place),
            false => Ok(()),
        }
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<K, J::Out>) -> Flow {
        self.watermark = watermark;
        if watermark < Timestamp::MAX {
            self.go_on(watermark, out)?;
            self.reached = self.reached.max(watermark);
            return Ok(());
        }
        if J::OfLeft::GIVES || J::OfRight::GIVES {
            // J5, T15: what has no match gives its result now.
            return self.go_on(watermark, out);
        }
        // All meet; what may find more in a later run stays.
        while let Some(meets) = self.times.first_time(watermark)? {
            self.go_on(meets, out)?;
        }
        Ok(())
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.bounds.hold::<J::OfLeft, J::OfRight>()),
        }
    }

    /// Each time decides what is late, so how far time has come is state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<K, J::Out>) -> Flow {
        self.times.set_time(self.reached)
    }
}

impl<K, L, R, A, B> IntervalJoin<K, L, R, A, B>
where
    K: Datum + ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    A: Upstream<K, L>,
    B: Upstream<K, R>,
{
    pub(super) fn new(both: Connected<K, L, R, A, B>, name: String, bounds: Bounds) -> Self {
        Self {
            both,
            name,
            bounds,
            late_left: None,
            late_right: None,
        }
    }

    /// Takes records that are late by up to `grace`, and waits so much longer before a record without a match gives its result. The
    /// default is none. A match of a late record comes at once.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.bounds.grace = super::millis(grace);
        self
    }

    /// Gives late records streams of their own, those of the left input and those of the right one. Without it they are counted and
    /// warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the three parts, once")]
    pub fn late(mut self) -> (Self, Keyed<K, L>, Keyed<K, R>) {
        let (left, late_left) = self.both.side_output("late-left");
        let (right, late_right) = self.both.side_output("late-right");
        (self.late_left, self.late_right) = (Some(left), Some(right));
        (self, late_left, late_right)
    }

    /// Gives a result for each two records that match.
    #[track_caller]
    pub fn inner<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&L, &R) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Inner(join))
    }

    /// Gives a result for each two records that match, and for each left one without a match.
    #[track_caller]
    pub fn left<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(&L, Option<&R>) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Left(join))
    }

    /// Gives a result for each two records that match, and for each right one without a match.
    #[track_caller]
    pub fn right<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(Option<&L>, &R) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Right(join))
    }

    /// Gives a result for each two records that match, and for each one of either side without a match: one of the two is there.
    #[track_caller]
    pub fn outer<U, F>(self, join: F) -> Keyed<K, U, impl Upstream<K, U>>
    where
        U: 'static,
        F: Fn(Option<&L>, Option<&R>) -> U + Clone + Send + Sync + 'static,
    {
        self.join(Outer(join))
    }

    #[track_caller]
    fn join<J: Joiner<L, R>>(self, joiner: J) -> Keyed<K, J::Out, impl Upstream<K, J::Out>> {
        let Self {
            both,
            name,
            bounds,
            late_left,
            late_right,
        } = self;
        let store = |side: &str| format!("{name}-{side}");
        let (left, right, times) = (store("left"), store("right"), store("times"));
        let node = name.clone();
        both.with_ordered_store::<Place, Row<L, J::OfLeft>>(&left)
            .with_ordered_store::<Place, Row<R, J::OfRight>>(&right)
            .with_timed_store::<Meeting>(&times)
            .with_parts(&left, row_parts::<L, J::OfLeft>())
            .with_parts(&right, row_parts::<R, J::OfRight>())
            .process(&name, move |context| {
                let Bounds { before, after, .. } = bounds;
                let mut timed = context.timed_store(&times)?;
                context.read_ahead_at(&mut timed, |time| Some(time.plus_millis(1)));
                Ok(Within {
                    left: Rows::new(context.ordered_store(&left)?, before, after),
                    right: Rows::new(context.ordered_store(&right)?, after, before),
                    times: timed,
                    bounds,
                    joiner: joiner.clone(),
                    late_left: context.late(&node, late_left.as_ref())?,
                    late_right: context.late(&node, late_right.as_ref())?,
                    watermark: Timestamp::MIN,
                    reached: Timestamp::MIN,
                    due: Due::default(),
                })
            })
    }
}
