//! Session windows: the records of a key that follow each other without a pause.
//!
//! The open sessions of a key are one value of its store. A timer of the key is set at the time at which the first of them
//! would close if nothing more came: a record that prolongs a session changes the value alone, and when the timer comes too early, it
//! is set anew.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use super::fold::WindowFold;
use super::{Emission, Windows, push};
use crate::codec::{Codec, CodecError, CodecId, Datum, TypeIdentity};
use crate::runtime::{
    Due, Flow, Keyed, Late, LateReason, Operator, Origin, Output, Record, SideOutput, TimedStore,
    Upstream, Window, Windowed,
};
use crate::types::Timestamp;

/// Windows that last as long as the records of a key follow each other.
///
/// Two records are in one session if at most `gap` lies between their times, or if others lie between them so. A session is
/// [first, last + gap + 1 ms): half-open like every window, and the gap itself still belongs to it. A record that fits two
/// sessions makes them one.
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
///
/// let job = Job::new("visits");
/// job.source(topic::<str>("clicks"))
///     .key_by_ref(|user: &str| user)
///     .window(SessionWindows::gap(Duration::from_secs(30 * 60)).grace(Duration::from_secs(60)))
///     .count("clicks-of-a-visit")
///     .entries(|visit, clicks| format!("{} from {}: {clicks}", visit.key, visit.window.start))
///     .sink(topic("visits"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindows {
    gap: i64,
    grace: i64,
}

/// A pause or a grace is at most 2^60 ms, so that sums of them with times stay in order.
const MILLIS_MAX: i64 = 1 << 60;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).map_or(MILLIS_MAX, |millis| millis.min(MILLIS_MAX))
}

impl SessionWindows {
    /// Sessions that end with a pause of more than `gap`. Kept in whole milliseconds.
    #[must_use]
    pub fn gap(gap: Duration) -> Self {
        Self {
            gap: millis(gap),
            grace: 0,
        }
    }

    /// Keeps a session open for records that are late by up to `grace`. The default is none.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self {
            grace: millis(grace),
            ..self
        }
    }

    fn window(self, first: Timestamp, last: Timestamp) -> Window {
        Window {
            start: first,
            end: last.plus_millis(self.gap).plus_millis(1),
        }
    }

    /// The watermark that closes a session whose last record has this time.
    fn closes_at(self, last: Timestamp) -> Timestamp {
        last.plus_millis(self.gap)
            .plus_millis(1)
            .plus_millis(self.grace)
    }
}

/// A session: the times of its first and its last record, and its state.
#[derive(Debug, Clone, PartialEq)]
struct Session<A> {
    first: Timestamp,
    last: Timestamp,
    state: A,
}

/// The open sessions of a key, in the order of their times. More than the gap lies between any two.
#[derive(Debug, Clone, PartialEq)]
struct Sessions<A> {
    /// The time of the key's timer: at or before the first close.
    timer: Timestamp,
    open: Vec<Session<A>>,
}

/// The effect of a record.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// It is part of a session.
    Part,
    /// It is part of a session that closes before the key's timer.
    Timer(Timestamp),
    /// Its session would be closed already.
    Late,
}

impl SessionWindows {
    /// Takes a record into the sessions of its key, as of the watermark before it; says in `touched` which ones it changed.
    fn take<V: ?Sized, C: WindowFold<V>>(
        self,
        sessions: &mut Option<Sessions<C::State>>,
        time: Timestamp,
        value: &V,
        watermark: Timestamp,
        fold: &C,
        touched: &mut Vec<Window>,
    ) -> Taken {
        let open = sessions.as_mut().map(|it| &mut it.open);
        // Those that the record touches follow each other.
        let (from, to) = open.as_ref().map_or((0, 0), |open| {
            let from = open.partition_point(|it| it.last.plus_millis(self.gap) < time);
            let to = open.partition_point(|it| it.first.plus_millis(-self.gap) <= time);
            (from, to)
        });
        if let Some(open) = open
            && from < to
        {
            let before = open[from..to].iter();
            touched.extend(before.map(|it| self.window(it.first, it.last)));
            let (head, tail) = open.split_at_mut(from + 1);
            let session = &mut head[from];
            fold.add(&mut session.state, value);
            session.first = session.first.min(time);
            session.last = session.last.max(time);
            for other in &tail[..to - from - 1] {
                fold.merge(&mut session.state, &other.state);
                session.last = session.last.max(other.last);
            }
            open.drain(from + 1..to);
            return Taken::Part;
        }
        let closes_at = self.closes_at(time);
        if closes_at <= watermark {
            return Taken::Late;
        }
        let sessions = sessions.get_or_insert_with(|| Sessions {
            timer: Timestamp::MAX,
            open: Vec::with_capacity(1),
        });
        let session = Session {
            first: time,
            last: time,
            state: fold.first(value),
        };
        sessions.open.insert(from, session);
        if sessions.open.len() == 1 || closes_at < sessions.timer {
            sessions.timer = closes_at;
            return Taken::Timer(closes_at);
        }
        Taken::Part
    }

    /// Takes the sessions out that are closed by `time`, that of a timer; returns when the next timer is.
    fn close<A>(
        self,
        sessions: &mut Option<Sessions<A>>,
        time: Timestamp,
        closed: &mut Vec<Session<A>>,
    ) -> Option<Timestamp> {
        let held = sessions.as_mut().filter(|held| held.timer == time)?;
        let count = held
            .open
            .partition_point(|it| self.closes_at(it.last) <= time);
        closed.extend(held.open.drain(..count));
        match held.open.first() {
            Some(first) => {
                held.timer = self.closes_at(first.last);
                Some(held.timer)
            }
            None => {
                *sessions = None;
                None
            }
        }
    }
}

/// The bytes of the open sessions of a key: the timer's time in eight bytes, and for each session the times of its first and its last
/// record in eight bytes each, the length of its state in four, and the state. All numbers are big-endian.
#[derive(Clone, Default)]
struct SessionsCodec<C>(C);

fn take_time(bytes: &mut &[u8]) -> Option<Timestamp> {
    let (time, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Timestamp(i64::from_be_bytes(*time)))
}

/// The first, the last and the state's bytes of the next session.
fn take_session<'a>(bytes: &mut &'a [u8]) -> Option<(Timestamp, Timestamp, &'a [u8])> {
    let (first, last) = (take_time(bytes)?, take_time(bytes)?);
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (state, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((first, last, state))
}

impl<A: Clone, C: Codec<A>> Codec<Sessions<A>> for SessionsCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, value: &Sessions<A>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&value.timer.0.to_be_bytes());
        for session in &value.open {
            out.extend_from_slice(&session.first.0.to_be_bytes());
            out.extend_from_slice(&session.last.0.to_be_bytes());
            let length_at = out.len();
            out.extend_from_slice(&[0; 4]);
            self.0.encode(&session.state, out)?;
            let length_bytes = out.len() - length_at - 4;
            let length = u32::try_from(length_bytes).map_err(|_| CodecError::Encode {
                codec: "the sessions of a key",
                why: format!("a session's state takes {length_bytes} bytes, more than 4 GiB"),
            })?;
            out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Sessions<A>>, CodecError> {
        let refuse = || CodecError::Decode {
            codec: "the sessions of a key",
            length_bytes: bytes.len(),
            why: "they end in the middle of one".to_owned(),
        };
        let mut rest = bytes;
        let timer = take_time(&mut rest).ok_or_else(refuse)?;
        let mut open = Vec::new();
        while !rest.is_empty() {
            let (first, last, state) = take_session(&mut rest).ok_or_else(refuse)?;
            let state = self.0.decode(state)?.into_owned();
            open.push(Session { first, last, state });
        }
        Ok(Cow::Owned(Sessions { timer, open }))
    }
}

impl<A: Datum + Clone> Datum for Sessions<A> {
    type DefaultCodec = SessionsCodec<A::DefaultCodec>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("sessions of {}", A::identity()))
    }
}

/// How values are folded in a session.
struct Fold<K: ?Sized, V: ?Sized, C: WindowFold<V>, E> {
    store: TimedStore<Sessions<C::State>>,
    windows: SessionWindows,
    fold: C,
    late: Late<K, V>,
    watermark: Timestamp,
    /// How far the operator has come as state: the end of the input closes what is open, and no more.
    reached: Timestamp,
    due: Due,
    closed: Vec<Session<C::State>>,
    touched: Vec<Window>,
    scratch: Vec<u8>,
    emission: PhantomData<fn() -> E>,
}

impl<K: Datum + ?Sized, V: ?Sized, C: WindowFold<V>, E: Emission> Fold<K, V, C, E> {
    /// Gives the session that took a record, and says that those are no more whose bounds it changed.
    fn give_open(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        let (key, time, origin) = (record.key, record.meta.timestamp, record.meta.origin);
        let session = self.store.peek(key, |sessions| {
            let mut open = sessions?.open.iter();
            open.find(|it| it.first <= time && time <= it.last).cloned()
        })?;
        let Some(session) = session else {
            return Ok(());
        };
        let window = self.windows.window(session.first, session.last);
        let gone = E::gone::<C::State>();
        for before in self.touched.drain(..).filter(|before| *before != window) {
            if let Some(gone) = &gone {
                push(before, key, gone, origin, &mut self.scratch, out)?;
            }
        }
        E::with(&session.state, |result| {
            push(window, key, result, origin, &mut self.scratch, out)
        })
    }
}

impl<K, V, C, E> Operator<K, V> for Fold<K, V, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    C: WindowFold<V>,
    E: Emission,
{
    type OutKey = Windowed<K>;
    type Out = E::Of<C::State>;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        let kept = self.store.kept_time(record.key);
        let watermark = kept.map_or(self.watermark, |kept| kept.max(self.watermark));
        let (windows, fold, time) = (self.windows, &self.fold, record.meta.timestamp);
        let touched = &mut self.touched;
        touched.clear();
        let taken = self.store.update(record.key, |sessions| {
            windows.take(sessions, time, record.value, watermark, fold, touched)
        })?;
        match taken {
            Taken::Part => {}
            Taken::Timer(time) => self.store.set_timer(record.key, time)?,
            Taken::Late => return self.late.push(record, LateReason::Closed, watermark),
        }
        match E::IS_ON_UPDATE {
            true => self.give_open(record, out),
            false => Ok(()),
        }
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        self.watermark = watermark;
        let windows = self.windows;
        while self.store.next_due(watermark, &mut self.due)?.is_some() {
            let (key, time) = (self.due.key::<K>(), self.due.time);
            let closed = &mut self.closed;
            let next = self
                .store
                .update(key, |sessions| windows.close(sessions, time, closed))?;
            if let Some(next) = next {
                self.store.set_timer(key, next)?;
            }
            for session in self.closed.drain(..) {
                self.reached = self.reached.max(windows.closes_at(session.last));
                if !E::IS_ON_UPDATE {
                    let window = windows.window(session.first, session.last);
                    let scratch = &mut self.scratch;
                    E::with(&session.state, |result| {
                        push(window, key, result, Origin::TIME, scratch, out)
                    })?;
                }
            }
        }
        if watermark < Timestamp::MAX {
            self.reached = self.reached.max(watermark);
        }
        Ok(())
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.windows.grace),
        }
    }

    /// Each time decides what is late, so how far time has come is state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<Windowed<K>, E::Of<C::State>>) -> Flow {
        self.store.set_time(self.reached)
    }
}

impl Windows for SessionWindows {
    #[track_caller]
    fn fold<K, V, Up, C, E>(
        self,
        keyed: Keyed<K, V, Up>,
        late: Option<SideOutput<K, V>>,
        name: &str,
        fold: C,
    ) -> Keyed<Windowed<K>, E::Of<C::State>, impl Upstream<Windowed<K>, E::Of<C::State>>>
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        Up: Upstream<K, V>,
        C: WindowFold<V>,
        E: Emission,
    {
        let store = name.to_owned();
        keyed
            .with_timed_store::<Sessions<C::State>>(name)
            .process(name, move |context| {
                Ok(Fold::<K, V, C, E> {
                    store: context.timed_store(&store)?,
                    windows: self,
                    fold: fold.clone(),
                    late: context.late(&store, late.as_ref())?,
                    watermark: Timestamp::MIN,
                    reached: Timestamp::MIN,
                    due: Due::default(),
                    closed: Vec::new(),
                    touched: Vec::new(),
                    scratch: Vec::new(),
                    emission: PhantomData,
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::Count;
    use super::*;

    #[test]
    fn the_sessions_of_a_key_have_these_bytes() {
        let sessions = Sessions {
            timer: Timestamp(258),
            open: vec![Session {
                first: Timestamp(-1),
                last: Timestamp(3),
                state: 7u64,
            }],
        };
        let mut bytes = Vec::new();
        let codec = SessionsCodec::<crate::codec::Bincode>::default();
        codec.encode(&sessions, &mut bytes).unwrap();
        let mut expected = vec![0, 0, 0, 0, 0, 0, 1, 2];
        expected.extend([255; 8]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 7]);
        assert_eq!(bytes, expected);
        assert_eq!(*codec.decode(&bytes).unwrap(), sessions);
        for length in (0..bytes.len()).filter(|length| *length != 8) {
            let cut = Codec::<Sessions<u64>>::decode(&codec, &bytes[..length]);
            assert!(cut.is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_ends_of_time_panic_nowhere() {
        for windows in [
            SessionWindows::gap(Duration::MAX).grace(Duration::MAX),
            SessionWindows::gap(Duration::ZERO),
        ] {
            let mut sessions = None;
            for time in [i64::MIN, -1, i64::MAX, 0] {
                windows.take(
                    &mut sessions,
                    Timestamp(time),
                    "",
                    Timestamp::MIN,
                    &Count,
                    &mut Vec::new(),
                );
            }
            let mut closed = Vec::new();
            while let Some(held) = &sessions {
                let timer = held.timer;
                windows.close(&mut sessions, timer, &mut closed);
            }
            assert_eq!(closed.iter().map(|it| it.state).sum::<u64>(), 4);
        }
    }

    /// A timer that was overtaken by an earlier one changes nothing.
    #[test]
    fn an_earlier_session_brings_the_timer_forward() {
        let windows = SessionWindows::gap(Duration::from_millis(5));
        let mut sessions = None;
        let take = |time, sessions: &mut _| {
            windows.take(
                sessions,
                Timestamp(time),
                "",
                Timestamp::MIN,
                &Count,
                &mut Vec::new(),
            )
        };
        assert_eq!(take(20, &mut sessions), Taken::Timer(Timestamp(26)));
        assert_eq!(take(0, &mut sessions), Taken::Timer(Timestamp(6)));
        assert_eq!(take(22, &mut sessions), Taken::Part);
        let mut closed = Vec::new();
        assert_eq!(
            windows.close(&mut sessions, Timestamp(6), &mut closed),
            Some(Timestamp(28))
        );
        assert_eq!(
            windows.close(&mut sessions, Timestamp(26), &mut closed),
            None
        );
        assert_eq!(closed.len(), 1);
        assert_eq!(
            windows.close(&mut sessions, Timestamp(28), &mut closed),
            None
        );
        assert_eq!((closed.len(), sessions), (2, None));
    }
}
