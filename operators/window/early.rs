//! Early results: what windows give with each change, held back until a clock has gone on, and in any case until they close.
//!
//! Of each window the last change is kept which was not given yet. A timer is set when there is one, and another at the window's end.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Emission, millis};
use crate::codec::{Codec, CodecError, CodecId, Datum, First, Parts, TypeIdentity};
use crate::runtime::{
    Due, Flow, Headers, Key, Keyed, Meta, Operator, Origin, Output, Record, TimedStore, Upstream,
    Window,
};
use crate::types::Timestamp;

/// Windows give results early, by the clock `C`, and the last one when they close. Each is the whole of a window so far, or `None` for a
/// window that is no more; there is none where nothing changed since the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every<C> {
    period: i64,
    clock: PhantomData<fn() -> C>,
}

/// The clock of event time: the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventClock {}

/// The clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallClock {}

/// A clock: [`EventClock`] or [`WallClock`].
pub trait Clock: Copy + Send + Sync + 'static {
    /// Whether it is the one on the wall.
    const IS_ON_WALL: bool;
}

impl Clock for EventClock {
    const IS_ON_WALL: bool = false;
}

impl Clock for WallClock {
    const IS_ON_WALL: bool = true;
}

impl<C> Every<C> {
    fn new(period: Duration) -> Self {
        Self {
            period: millis(period).max(1),
            clock: PhantomData,
        }
    }

    /// The next time of the grid behind `time`: at once before there is a time.
    fn tick(self, time: Timestamp) -> Timestamp {
        match time {
            Timestamp::MIN => time,
            time => Timestamp(time.0.div_euclid(self.period).saturating_mul(self.period))
                .plus_millis(self.period),
        }
    }
}

impl Every<EventClock> {
    /// Early results each time that the watermark has passed a multiple of `period`.
    #[must_use]
    pub fn event_time(period: Duration) -> Self {
        Self::new(period)
    }
}

impl Every<WallClock> {
    /// Early results each time that the wall clock has passed a multiple of `period`, also where nothing comes. It does not close
    /// windows: that does event time.
    #[must_use]
    pub fn wall_clock(period: Duration) -> Self {
        Self::new(period)
    }
}

impl<C: Clock> Emission for Every<C> {
    type Of<S: Clone + 'static> = Option<S>;
    const IS_ON_UPDATE: bool = true;

    fn with<S: Clone + 'static, R>(state: &S, give: impl FnOnce(&Option<S>) -> R) -> R {
        give(&Some(state.clone()))
    }

    fn map<S: Clone + 'static, R: Clone + 'static>(
        result: &Option<S>,
        function: impl FnOnce(&S) -> R,
    ) -> Option<R> {
        result.as_ref().map(function)
    }

    fn gone<S: Clone + 'static>() -> Option<Option<S>> {
        Some(None)
    }

    #[track_caller]
    fn finish<K, S, Up>(
        self,
        name: &str,
        results: Keyed<K, Option<S>, Up>,
    ) -> Keyed<K, Option<S>, impl Upstream<K, Option<S>>>
    where
        K: Datum + ?Sized,
        S: Datum + Clone,
        Up: Upstream<K, Option<S>>,
    {
        let (early, ticks) = (format!("{name}-early"), format!("{name}-ticks"));
        let mut results = results
            .with_timed_store::<Unsaid<S>>(&early)
            .with_parts(&early, unsaid_parts::<S>());
        if C::IS_ON_WALL {
            results = results.with_timed_store::<()>(&ticks);
        }
        // Results are where their keys are: nothing needs to be moved.
        results.named(name).operator(move |context| {
            Ok(Held::<S, C> {
                store: context.timed_store(&early)?,
                ticks: match C::IS_ON_WALL {
                    true => Some(context.timed_store(&ticks)?),
                    false => None,
                },
                every: self,
                watermark: Timestamp::MIN,
                now: Timestamp::MIN,
                due: Due::default(),
            })
        })
    }
}

/// The state of a window's early results.
#[derive(Debug, Clone, PartialEq)]
struct Unsaid<S> {
    /// Whether the window has a result that stands.
    has_result: bool,
    /// The change that was not given yet: a result, or that the window is no more.
    change: Option<Option<S>>,
}

/// The bytes of [`Unsaid`]: a number whose bits say whether there is a result (1), a change (2), and a result in the change (4),
/// and that result.
#[derive(Clone, Default)]
struct UnsaidCodec<C>(C);

const HAS_RESULT: u8 = 1;
const HAS_CHANGE: u8 = 2;
const IS_RESULT: u8 = 4;

impl<S: Clone, C: Codec<S>> Codec<Unsaid<S>> for UnsaidCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, value: &Unsaid<S>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let has_result = if value.has_result { HAS_RESULT } else { 0 };
        match &value.change {
            None => out.push(has_result),
            Some(None) => out.push(has_result | HAS_CHANGE),
            Some(Some(result)) => {
                out.push(has_result | HAS_CHANGE | IS_RESULT);
                self.0.encode(result, out)?;
            }
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Unsaid<S>>, CodecError> {
        let change = match bytes {
            [0 | HAS_RESULT] => None,
            [bits, result @ ..] if bits & !HAS_RESULT == HAS_CHANGE | IS_RESULT => {
                Some(Some(self.0.decode(result)?.into_owned()))
            }
            [bits] if bits & !HAS_RESULT == HAS_CHANGE => Some(None),
            _ => {
                return Err(CodecError::Decode {
                    codec: "early results",
                    length_bytes: bytes.len(),
                    why: "they begin with no known bits".to_owned(),
                });
            }
        };
        let has_result = bytes.first().is_some_and(|bits| bits & HAS_RESULT > 0);
        Ok(Cow::Owned(Unsaid { has_result, change }))
    }
}

impl<S: Datum + Clone> Datum for Unsaid<S> {
    type DefaultCodec = UnsaidCodec<S::DefaultCodec>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("early results {}", S::identity()))
    }
}

/// Where the result is in it.
fn unsaid_parts<S: Datum + Clone>() -> Parts {
    Parts::one::<Unsaid<First>, S>(|walk| {
        walk.bytes(1)?;
        if walk.is_over() { Ok(()) } else { walk.last(0) }
    })
}

/// Holds changes of windows back.
struct Held<S, C> {
    store: TimedStore<Unsaid<S>>,
    /// Timers of the wall clock.
    ticks: Option<TimedStore<()>>,
    every: Every<C>,
    watermark: Timestamp,
    now: Timestamp,
    due: Due,
}

impl<S: Datum + Clone, C: Clock> Held<S, C> {
    /// Gives what a window has to say, for which a timer has come.
    fn give<K: ?Sized>(&mut self, is_closed: bool, out: &mut impl Output<K, Option<S>>) -> Flow {
        let key: Key<'_, K> = self.due.key();
        let change = self.store.update(key, |unsaid| {
            let held = unsaid.as_mut()?;
            let change = held.change.take();
            // Nobody was told of a window that came and went meanwhile.
            let change = change.filter(|change| change.is_some() || held.has_result);
            held.has_result |= change.is_some();
            let is_gone = change.as_ref().is_some_and(Option::is_none);
            if is_closed || is_gone || !held.has_result {
                *unsaid = None;
            }
            change
        })?;
        let Some(change) = change else {
            return Ok(());
        };
        let timestamp = window_of(key).last();
        out.push(Record {
            key,
            value: &change,
            meta: Meta {
                timestamp,
                origin: Origin::TIME,
            },
            headers: Headers::NONE,
        })
    }
}

/// The window of a result's key.
fn window_of<K: ?Sized>(key: Key<'_, K>) -> Window {
    let whole = Window {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };
    Window::of_key(key.bytes()).unwrap_or(whole)
}

impl<K, S, C> Operator<K, Option<S>> for Held<S, C>
where
    K: ?Sized,
    S: Datum + Clone,
    C: Clock,
{
    type OutKey = K;
    type Out = Option<S>;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;
    const USES_CLOCK: bool = C::IS_ON_WALL;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, Option<S>>,
        _out: &mut impl Output<K, Option<S>>,
    ) -> Flow {
        let key = record.key;
        let (is_first, has_timer) = self.store.update(key, |unsaid| {
            let is_first = unsaid.is_none();
            let unsaid = unsaid.get_or_insert(Unsaid {
                has_result: false,
                change: None,
            });
            let change = unsaid.change.replace(record.value.clone());
            (is_first, change.is_some())
        })?;
        let end = window_of(key).end;
        if is_first {
            self.store.set_timer(key, end)?;
        }
        if has_timer {
            return Ok(());
        }
        match &mut self.ticks {
            Some(ticks) => ticks.set_timer(key, self.every.tick(self.now)),
            None => {
                let time = self.watermark.max(self.store.time(key));
                match self.every.tick(time) {
                    tick if tick < end => self.store.set_timer(key, tick),
                    _ => Ok(()),
                }
            }
        }
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<K, Option<S>>) -> Flow {
        self.watermark = watermark;
        while self.store.next_due(watermark, &mut self.due)?.is_some() {
            let is_closed = window_of(self.due.key::<K>()).end <= self.due.time;
            self.give::<K>(is_closed, out)?;
        }
        Ok(())
    }

    fn on_clock(&mut self, now: Timestamp, out: &mut impl Output<K, Option<S>>) -> Flow {
        self.now = now;
        loop {
            let Some(ticks) = &mut self.ticks else {
                return Ok(());
            };
            if ticks.next_due(now, &mut self.due)?.is_none() {
                return Ok(());
            }
            self.give::<K>(false, out)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_results_have_these_bytes() {
        let codec = UnsaidCodec::<crate::codec::Bincode>::default();
        let cases: [(bool, Option<Option<u64>>, &[u8]); 4] = [
            (false, Some(Some(9)), &[6, 9]),
            (true, Some(Some(9)), &[7, 9]),
            (true, Some(None), &[3]),
            (true, None, &[1]),
        ];
        for (has_result, change, expected) in cases {
            let unsaid = Unsaid { has_result, change };
            let mut bytes = Vec::new();
            codec.encode(&unsaid, &mut bytes).unwrap();
            assert_eq!(bytes, expected);
            assert_eq!(*codec.decode(&bytes).unwrap(), unsaid);
        }
        let refused: [&[u8]; 4] = [&[], &[8], &[4, 9], &[1, 9]];
        for bytes in refused {
            assert!(Codec::<Unsaid<u64>>::decode(&codec, bytes).is_err());
        }
    }

    #[test]
    fn ticks_are_on_a_grid() {
        let every = Every::event_time(Duration::from_millis(10));
        let ticks = [(-11, -10), (-10, 0), (-1, 0), (0, 10), (9, 10), (10, 20)];
        for (time, tick) in ticks {
            assert_eq!(every.tick(Timestamp(time)), Timestamp(tick));
        }
        assert_eq!(every.tick(Timestamp::MIN), Timestamp::MIN);
        assert!(every.tick(Timestamp::MAX) >= Timestamp(i64::MAX - 10));
    }
}
