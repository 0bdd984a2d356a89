//! Session windows: the records of a key that follow each other without a pause.
//!
//! A session is one part of what its key has: the times of its first and its last record, and its state. More than the gap lies
//! between any two.

use std::time::Duration;

use super::fold::WindowFold;
use super::per_key::{Held, KeyWindows, Part, Taken, by_key};
use super::{Emission, Windows, millis};
use crate::codec::Datum;
use crate::runtime::{Keyed, SideOutput, Upstream, Window, Windowed};
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
/// use onceflow::testing::TestBed;
/// use onceflow::types::Timestamp;
///
/// let job = Job::new("visits");
/// job.source(topic::<str>("clicks"))
///     .key_by_ref(|user: &str| user)
///     .window(SessionWindows::gap(Duration::from_secs(30 * 60)).grace(Duration::from_secs(60)))
///     .count("clicks-of-a-visit")
///     .entries(|visit, clicks| format!("{} from {}: {clicks}", visit.key, visit.window.start))
///     .sink(topic("visits"));
///
/// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("clicks", 1).start();
/// let noon = Timestamp(1_767_182_400_000);
/// bed.send_value_at("clicks", "ann", noon);
/// bed.send_value_at("clicks", "ann", noon.plus_millis(20 * 60_000));
/// bed.send_value_at("clicks", "bob", noon.plus_millis(3 * 3_600_000));
/// let visits = bed.take::<[u8], String>("visits");
/// assert_eq!(visits[0].value.as_deref(), Some("ann from 1767182400000: 2"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindows {
    gap: i64,
    grace: i64,
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

    pub(super) fn window_of<A>(self, session: &Part<A>) -> Window {
        self.window(session.first, session.last)
    }
}

impl KeyWindows for SessionWindows {
    const HELD: &'static str = "sessions";

    fn grace_millis(self) -> i64 {
        self.grace
    }

    #[inline]
    fn take<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &mut Option<Held<C::State, Self>>,
        time: Timestamp,
        value: &V,
        watermark: Timestamp,
        fold: &C,
        changed: Option<&mut Vec<Window>>,
    ) -> Taken {
        let open = held.as_mut().map(|it| &mut it.parts);
        // Those that the record touches follow each other.
        let (from, to) = open.as_ref().map_or((0, 0), |open| {
            let from = open.partition_point(|it| it.last.plus_millis(self.gap) < time);
            let to = open.partition_point(|it| it.first.plus_millis(-self.gap) <= time);
            (from, to)
        });
        if let Some(open) = open
            && from < to
        {
            self.prolong(open, (from, to), (time, value), fold, changed);
            return Taken::Held;
        }
        let window = self.window(time, time);
        let closes_at = self.closes_at(window);
        if closes_at <= watermark {
            return Taken::Late;
        }
        changed.into_iter().for_each(|changed| changed.push(window));
        let held = held.get_or_insert_with(|| Held::new(Timestamp::MAX, Vec::with_capacity(1)));
        let session = Part {
            first: time,
            last: time,
            state: fold.first(value),
        };
        held.parts.insert(from, session);
        if held.parts.len() == 1 || closes_at < held.timer {
            held.timer = closes_at;
            return Taken::Timer(closes_at);
        }
        Taken::Held
    }

    fn open<A>(self, held: &Held<A, Self>, _watermark: Timestamp) -> Vec<Window> {
        held.parts.iter().map(|it| self.window_of(it)).collect()
    }

    fn whole<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &Held<C::State, Self>,
        window: Window,
        _fold: &C,
    ) -> Option<C::State> {
        let session = held.parts.iter().find(|it| self.window_of(it) == window);
        session.map(|it| it.state.clone())
    }

    fn close<V: ?Sized, C: WindowFold<V>>(
        self,
        sessions: &mut Option<Held<C::State, Self>>,
        timer: Timestamp,
        _watermark: Timestamp,
        _fold: &C,
        closed: &mut Vec<(Window, C::State)>,
    ) -> Option<Timestamp> {
        let held = sessions.as_mut().filter(|held| held.timer == timer)?;
        let is_closed = |it: &Part<_>| self.closes_at(self.window_of(it)) <= timer;
        let count = held.parts.partition_point(is_closed);
        let drained = held.parts.drain(..count);
        closed.extend(drained.map(|it| (self.window_of(&it), it.state)));
        let Some(first) = held.parts.first() else {
            *sessions = None;
            return None;
        };
        held.timer = self.closes_at(self.window_of(first));
        Some(held.timer)
    }
}

impl SessionWindows {
    /// Makes one session of a record and of those that it touches: `open[from..to]`.
    fn prolong<V: ?Sized, C: WindowFold<V>>(
        self,
        open: &mut Vec<Part<C::State>>,
        (from, to): (usize, usize),
        (time, value): (Timestamp, &V),
        fold: &C,
        mut changed: Option<&mut Vec<Window>>,
    ) {
        if let Some(changed) = &mut changed {
            changed.extend(open[from..to].iter().map(|it| self.window_of(it)));
        }
        let (head, tail) = open.split_at_mut(from + 1);
        let session = &mut head[from];
        fold.add(&mut session.state, value);
        session.first = session.first.min(time);
        session.last = session.last.max(time);
        for other in &tail[..to - from - 1] {
            fold.merge(&mut session.state, &other.state);
            session.last = session.last.max(other.last);
        }
        if let Some(changed) = changed {
            // The session itself comes last, behind those that it takes the place of.
            let window = self.window_of(session);
            changed.retain(|before| *before != window);
            changed.push(window);
        }
        open.drain(from + 1..to);
    }
}

impl Windows for SessionWindows {
    type Key<K: Datum + ?Sized> = Windowed<K>;

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
        by_key::<_, _, _, _, _, E>(self, keyed, late, name, fold)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::Count;
    use super::*;

    fn take(
        windows: SessionWindows,
        time: i64,
        sessions: &mut Option<Held<u64, SessionWindows>>,
    ) -> Taken {
        windows.take(sessions, Timestamp(time), "", Timestamp::MIN, &Count, None)
    }

    fn close(
        windows: SessionWindows,
        timer: Timestamp,
        sessions: &mut Option<Held<u64, SessionWindows>>,
        closed: &mut Vec<(Window, u64)>,
    ) -> Option<Timestamp> {
        windows.close::<str, _>(sessions, timer, timer, &Count, closed)
    }

    #[test]
    fn the_ends_of_time_panic_nowhere() {
        for windows in [
            SessionWindows::gap(Duration::MAX).grace(Duration::MAX),
            SessionWindows::gap(Duration::ZERO),
        ] {
            let mut sessions = None;
            for time in [i64::MIN, -1, i64::MAX, 0] {
                take(windows, time, &mut sessions);
            }
            let mut closed = Vec::new();
            while let Some(held) = &sessions {
                let timer = held.timer;
                close(windows, timer, &mut sessions, &mut closed);
            }
            assert_eq!(closed.iter().map(|(_, count)| count).sum::<u64>(), 4);
        }
    }

    /// A timer that was overtaken by an earlier one changes nothing.
    #[test]
    fn an_earlier_session_brings_the_timer_forward() {
        let windows = SessionWindows::gap(Duration::from_millis(5));
        let (mut sessions, mut closed) = (None, Vec::new());
        assert_eq!(
            take(windows, 20, &mut sessions),
            Taken::Timer(Timestamp(26))
        );
        assert_eq!(take(windows, 0, &mut sessions), Taken::Timer(Timestamp(6)));
        assert_eq!(take(windows, 22, &mut sessions), Taken::Held);
        let mut close = |timer, sessions: &mut _| {
            let next = close(windows, Timestamp(timer), sessions, &mut closed);
            (next, closed.len())
        };
        assert_eq!(close(6, &mut sessions), (Some(Timestamp(28)), 1));
        assert_eq!(close(26, &mut sessions), (None, 1));
        assert_eq!(close(28, &mut sessions), (None, 2));
        assert!(sessions.is_none());
    }
}
