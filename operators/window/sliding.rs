//! Sliding windows: every set of records of a key that lie within some time of each other, as Kafka Streams has them.
//!
//! A key has one part for each time of its records. The windows that there are follow from these times, and a window's result is put
//! together from its parts when it closes; those that close together share that work ([`Sweep`]).

use std::time::Duration;

use super::fold::WindowFold;
use super::per_key::{Held, KeyWindows, Part, Taken, by_key};
use super::{Emission, Windows, millis};
use crate::codec::Datum;
use crate::runtime::{Keyed, SideOutput, Upstream, Window, Windowed};
use crate::types::Timestamp;

/// Windows of one length that lie where the records of a key are: for each time `t` of a record the one that ends with it and, if it
/// holds a record, the one that begins behind it. So every set of records that some window of this length can hold has one window.
///
/// Records whose times differ by at most `difference` are in one window. It is [t - difference, t + 1 ms), and [t + 1 ms,
/// t + difference + 2 ms) the one behind: half-open like every window, where Kafka Streams writes [t - difference, t] and
/// [t + 1, t + 1 + difference]. As there, a window of a time from 1970 on does not begin before 1970: it is [0, difference + 1 ms).
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
/// use onceflow::testing::TestBed;
/// use onceflow::types::Timestamp;
///
/// // Whether somebody failed to log in five times within a minute, whenever the minute begins.
/// let job = Job::new("guessing");
/// job.source(topic::<str>("failed-logins"))
///     .key_by_ref(|user: &str| user)
///     .window(SlidingWindows::difference(Duration::from_secs(60)).grace(Duration::from_secs(5)))
///     .count("failures-in-a-minute")
///     .filter(|failures| *failures >= 5)
///     .entries(|user, failures| format!("{} from {}: {failures}", user.key, user.window.start))
///     .sink(topic("guessing"));
///
/// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("failed-logins", 1).start();
/// let noon = Timestamp(1_767_182_400_000);
/// for second in 0..5 {
///     bed.send_value_at("failed-logins", "mallory", noon.plus_millis(second * 1_000));
/// }
/// bed.send_value_at("failed-logins", "ann", noon.plus_millis(180_000));
/// let found = bed.take::<[u8], String>("guessing");
/// assert!(found[0].value.as_deref().is_some_and(|told| told.starts_with("mallory from ")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindows {
    difference: i64,
    grace: i64,
}

impl SlidingWindows {
    /// Windows of records whose times differ by at most `difference`. Kept in whole milliseconds.
    #[must_use]
    pub fn difference(difference: Duration) -> Self {
        Self {
            difference: millis(difference),
            grace: 0,
        }
    }

    /// Keeps a window open for records that are late by up to `grace`. The default is none.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self {
            grace: millis(grace),
            ..self
        }
    }

    fn window_from(self, start: Timestamp) -> Window {
        Window {
            start,
            end: start.plus_millis(self.difference).plus_millis(1),
        }
    }

    /// The watermark that closes the window with this start.
    fn closes(self, start: Timestamp) -> Timestamp {
        self.closes_at(self.window_from(start))
    }

    /// The start of the window that ends with a record of this time.
    fn start_of(self, time: Timestamp) -> Timestamp {
        let start = time.plus_millis(-self.difference);
        match time.0 {
            0.. => start.max(Timestamp(0)),
            _ => start,
        }
    }

    /// The parts that a window holds, by their places.
    fn places<A>(window: Window, parts: &[Part<A>]) -> (usize, usize) {
        let from = parts.partition_point(|it| it.first < window.start);
        let to = parts.partition_point(|it| it.first < window.end);
        (from, to.max(from))
    }

    /// The start of the window behind a part, if that holds another one.
    fn start_behind<A>(self, place: usize, parts: &[Part<A>]) -> Option<Timestamp> {
        let start = parts[place].first.plus_millis(1);
        let next = parts.get(place + 1)?;
        (next.first < self.window_from(start).end).then_some(start)
    }

    /// The starts of the windows of which the first is closed at `from` or later, and the last at `until` or earlier, in order.
    fn starts_closed_within<A>(
        self,
        parts: &[Part<A>],
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<Timestamp> {
        let is_within = |start: Timestamp| (from..=until).contains(&self.closes(start));
        let before = parts.iter().map(|it| self.start_of(it.first));
        let behind = (0..parts.len()).filter_map(|place| self.start_behind(place, parts));
        let mut starts: Vec<Timestamp> = before.chain(behind).filter(|it| is_within(*it)).collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// The first time above `watermark` at which a window closes, or a part is in no window any more.
    fn next_timer<A>(self, parts: &[Part<A>], watermark: Timestamp) -> Option<Timestamp> {
        let behind = |it: &Part<A>| self.closes(it.first.plus_millis(1));
        let before = |it: &Part<A>| self.closes(self.start_of(it.first));
        let next_behind = parts.partition_point(|it| behind(it) <= watermark);
        let next_before = parts.partition_point(|it| before(it) <= watermark);
        let next_behind = parts.get(next_behind).map(behind);
        next_behind
            .into_iter()
            .chain(parts.get(next_before).map(before))
            .min()
    }

    /// The open windows that a record at `place` is in, and the one behind it if the record made that.
    fn changed_by<A>(
        self,
        parts: &[Part<A>],
        place: usize,
        is_new: bool,
        watermark: Timestamp,
    ) -> Vec<Window> {
        let time = parts[place].first;
        let earliest = time.plus_millis(-self.difference).plus_millis(-1);
        let from = parts.partition_point(|it| it.first < earliest);
        let (_, to) = Self::places(self.window_from(time), parts);
        let behind = (from..place).filter_map(|earlier| self.start_behind(earlier, parts));
        let before = parts[place..to].iter().map(|it| self.start_of(it.first));
        let holding = before.chain(behind).filter(|start| *start <= time);
        // The window behind the record is new, unless it is also one that ends with another.
        let is_known = |start| {
            parts[place..]
                .iter()
                .any(|it| self.start_of(it.first) == start)
        };
        let made = self.start_behind(place, parts);
        let made = made.filter(|start| is_new && !is_known(*start));
        let mut starts: Vec<Timestamp> = holding.chain(made).collect();
        starts.sort_unstable();
        starts.dedup();
        let windows = starts.into_iter().map(|start| self.window_from(start));
        windows
            .filter(|window| self.closes_at(*window) > watermark)
            .collect()
    }
}

impl KeyWindows for SlidingWindows {
    const HELD: &'static str = "times";

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
        // The last window that may hold the record begins with it.
        if self.closes(time) <= watermark {
            return Taken::Late;
        }
        let held = held.get_or_insert_with(|| Held::new(Timestamp::MAX, Vec::with_capacity(1)));
        let parts = &mut held.parts;
        let place = parts.partition_point(|it| it.first < time);
        let is_new = parts.get(place).is_none_or(|it| it.first != time);
        match is_new {
            true => {
                let (first, last) = (time, time);
                let state = fold.first(value);
                parts.insert(place, Part { first, last, state });
            }
            false => fold.add(&mut parts[place].state, value),
        }
        if let Some(changed) = changed {
            changed.extend(self.changed_by(parts, place, is_new, watermark));
        }
        let own = self.closes(self.start_of(time));
        let timer = match own > watermark {
            true => own,
            false => self.closes(time.plus_millis(1)),
        };
        if is_new && (parts.len() == 1 || timer < held.timer) {
            held.timer = timer;
            return Taken::Timer(timer);
        }
        Taken::Held
    }

    fn open<A>(self, held: &Held<A, Self>, watermark: Timestamp) -> Vec<Window> {
        let starts = self.starts_closed_within(&held.parts, watermark, Timestamp::MAX);
        let windows = starts.into_iter().map(|start| self.window_from(start));
        windows
            .filter(|window| self.closes_at(*window) > watermark)
            .collect()
    }

    fn whole<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &Held<C::State, Self>,
        window: Window,
        fold: &C,
    ) -> Option<C::State> {
        let (from, to) = Self::places(window, &held.parts);
        let (first, rest) = held.parts[from..to].split_first()?;
        let mut whole = first.state.clone();
        rest.iter().for_each(|it| fold.merge(&mut whole, &it.state));
        Some(whole)
    }

    fn close<V: ?Sized, C: WindowFold<V>>(
        self,
        times: &mut Option<Held<C::State, Self>>,
        timer: Timestamp,
        watermark: Timestamp,
        fold: &C,
        closed: &mut Vec<(Window, C::State)>,
    ) -> Option<Timestamp> {
        let held = times.as_mut().filter(|held| held.timer == timer)?;
        let mut sweep = Sweep::new(fold, &held.parts);
        for start in self.starts_closed_within(&held.parts, timer, watermark) {
            let window = self.window_from(start);
            let (from, to) = Self::places(window, &held.parts);
            closed.extend(sweep.whole(from, to).map(|state| (window, state)));
        }
        // A part is in the windows that begin up to its time, and says that there is one behind it.
        let is_gone = |it: &Part<_>| self.closes(it.first.plus_millis(1)) <= watermark;
        let count = held.parts.partition_point(is_gone);
        held.parts.drain(..count);
        match self.next_timer(&held.parts, watermark) {
            Some(next) => held.timer = next,
            None => *times = None,
        }
        times.as_ref().map(|held| held.timer)
    }
}

/// The states of windows that follow each other, each put together in constant time on average: two stacks, the states from each part of
/// the older half up to its end, and the state of all that came behind it.
struct Sweep<'p, A, C> {
    fold: &'p C,
    parts: &'p [Part<A>],
    /// The states of `parts[n..turned]`, that of the least `n` last.
    older: Vec<A>,
    newer: Option<A>,
    from: usize,
    to: usize,
}

impl<'p, A: Clone, C> Sweep<'p, A, C> {
    fn new(fold: &'p C, parts: &'p [Part<A>]) -> Self {
        Self {
            fold,
            parts,
            older: Vec::new(),
            newer: None,
            from: 0,
            to: 0,
        }
    }

    /// The state of `parts[from..to]`, neither of which goes back.
    fn whole<V: ?Sized>(&mut self, from: usize, to: usize) -> Option<A>
    where
        C: WindowFold<V, State = A>,
    {
        if from >= self.to {
            (self.from, self.to) = (from, from);
            self.older.clear();
            self.newer = None;
        }
        while self.from < from {
            if self.older.is_empty() {
                self.turn();
            }
            self.older.pop();
            self.from += 1;
        }
        for part in &self.parts[self.to..to] {
            match &mut self.newer {
                Some(newer) => self.fold.merge(newer, &part.state),
                None => self.newer = Some(part.state.clone()),
            }
        }
        self.to = to;
        let mut whole = self.older.last().cloned();
        match (&mut whole, &self.newer) {
            (Some(whole), Some(newer)) => self.fold.merge(whole, newer),
            (None, newer) => whole.clone_from(newer),
            (Some(_), None) => {}
        }
        whole
    }

    /// Makes the newer half the older one.
    fn turn<V: ?Sized>(&mut self)
    where
        C: WindowFold<V, State = A>,
    {
        for part in self.parts[self.from..self.to].iter().rev() {
            let mut state = part.state.clone();
            if let Some(behind) = self.older.last() {
                self.fold.merge(&mut state, behind);
            }
            self.older.push(state);
        }
        self.newer = None;
    }
}

impl Windows for SlidingWindows {
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
    use proptest::prelude::*;

    use super::super::fold::Count;
    use super::*;

    fn window(start: i64, end: i64) -> Window {
        Window {
            start: Timestamp(start),
            end: Timestamp(end),
        }
    }

    /// Everything that windows give for times in order, without lateness.
    fn closed(windows: SlidingWindows, times: &[i64]) -> Vec<(Window, u64)> {
        let (mut held, mut closed) = (None, Vec::new());
        for time in times {
            let time = Timestamp(*time);
            let taken = windows.take(&mut held, time, "", Timestamp::MIN, &Count, None);
            assert_ne!(taken, Taken::Late);
        }
        while let Some(timer) = held.as_ref().map(|it: &Held<u64, _>| it.timer) {
            windows.close::<str, _>(&mut held, timer, timer, &Count, &mut closed);
        }
        closed
    }

    #[test]
    fn w11_windows_are_those_of_kafka_streams() {
        let windows = SlidingWindows::difference(Duration::from_millis(10));
        let expected = [
            (window(0, 11), 2),
            (window(1, 12), 1),
            (window(2, 13), 2),
            (window(6, 17), 1),
        ];
        assert_eq!(closed(windows, &[0, 5, 12]), expected);
    }

    #[test]
    fn the_ends_of_time_panic_nowhere() {
        for windows in [
            SlidingWindows::difference(Duration::MAX).grace(Duration::MAX),
            SlidingWindows::difference(Duration::ZERO),
        ] {
            let (mut held, mut found) = (None, Vec::new());
            for time in [i64::MIN, -1, i64::MAX - 1, 0] {
                let time = Timestamp(time);
                let mut changed = Vec::new();
                windows.take(
                    &mut held,
                    time,
                    "",
                    Timestamp::MIN,
                    &Count,
                    Some(&mut changed),
                );
            }
            let timer = held.as_ref().map(|it: &Held<u64, _>| it.timer).unwrap();
            windows.close::<str, _>(&mut held, timer, Timestamp::MAX, &Count, &mut found);
            assert!(held.is_none());
        }
    }

    proptest! {
        #[test]
        fn windows_that_close_together_are_as_each_alone(
            mut cuts in prop::collection::vec((0usize..12, 0usize..12), 0..12),
        ) {
            let part = |n: usize| Part {
                first: Timestamp(0),
                last: Timestamp(0),
                state: 1u64 << n,
            };
            let parts: Vec<Part<u64>> = (0..12).map(part).collect();
            cuts.sort_unstable();
            let mut sweep = Sweep::new(&Count, &parts);
            let (mut from, mut to) = (0, 0);
            for (one, other) in cuts {
                (from, to) = (from.max(one), to.max(other).max(one));
                let expected: u64 = parts[from..to].iter().map(|it| it.state).sum();
                prop_assert_eq!(sweep.whole::<str>(from, to).unwrap_or(0), expected);
            }
        }
    }
}
