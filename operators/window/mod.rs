//! Windows: the records of a key, by spans of event time or by their number.
//!
//! [`Keyed::window`] says which windows ([`Windows`]), the next step what is computed in each ([`WindowFold`]). A kind of windows is one
//! file here; the functions are the same for all of them (`functions.rs`).

#![allow(
    clippy::type_complexity,
    reason = "the types say what a step gives; nobody writes them out"
)]

mod by_count;
mod calendar;
mod early;
mod emission;
mod fixed;
mod fold;
mod functions;
mod open;
mod per_key;
mod session;
mod sketch;
mod sliding;

pub use by_count::{CountWindows, Filling, FillingCodec};
pub use calendar::CalendarWindows;
pub use early::{Clock, EventClock, Every, WallClock};
pub use emission::{Emission, OnClose, OnUpdate};
pub(super) use fixed::Grid;
pub use fold::WindowFold;
pub use functions::Number;
pub use session::SessionWindows;
pub(super) use sketch::hash;
pub use sliding::SlidingWindows;

use std::time::Duration;

use fold::{Aggregate, Count, Reduce};

use crate::codec::Datum;
use crate::runtime::{
    FixedWindows, Flow, Headers, Key, Keyed, Meta, Origin, Output, Record, SideOutput, Upstream,
    Window, Windowed,
};

/// A keyed stream cut into windows; the next step says what is computed in each. Made by [`Keyed::window`].
#[must_use = "windows do nothing until something is computed in them"]
pub struct WindowedBy<K: ?Sized, V: ?Sized, U, W, L = Counted, E = OnClose> {
    keyed: Keyed<K, V, U>,
    windows: W,
    late: L,
    emission: E,
}

/// A kind of windows: [`FixedWindows`], [`CalendarWindows`], [`SessionWindows`], [`SlidingWindows`] or [`CountWindows`].
pub trait Windows: Clone + Send + Sync + 'static {
    /// The key of a result.
    type Key<K: Datum + ?Sized>: Datum + ?Sized;

    /// Folds the values of each key and window in the store `name`, and gives results when `E` says.
    #[track_caller]
    fn fold<K, V, Up, C, E>(
        self,
        keyed: Keyed<K, V, Up>,
        late: Option<SideOutput<K, V>>,
        name: &str,
        fold: C,
    ) -> Keyed<Self::Key<K>, E::Of<C::State>, impl Upstream<Self::Key<K>, E::Of<C::State>>>
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        Up: Upstream<K, V>,
        C: WindowFold<V>,
        E: Emission;
}

/// Windows of event time, whose results have keys with the window ([`Windowed`]).
pub trait TimeWindows: Windows {}

impl TimeWindows for FixedWindows {}
impl TimeWindows for CalendarWindows {}
impl TimeWindows for SessionWindows {}
impl TimeWindows for SlidingWindows {}

/// Late records are counted only.
pub struct Counted;

/// Where late records go.
pub trait LateRecords<K: ?Sized, V: ?Sized> {
    /// The stream that they have, if they have one.
    fn output(self) -> Option<SideOutput<K, V>>;
}

impl<K: ?Sized, V: ?Sized> LateRecords<K, V> for Counted {
    fn output(self) -> Option<SideOutput<K, V>> {
        None
    }
}

impl<K: ?Sized, V: ?Sized> LateRecords<K, V> for SideOutput<K, V> {
    fn output(self) -> Option<SideOutput<K, V>> {
        Some(self)
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Cuts the records of each key into windows of event time. The next step says what is computed in each window:
    /// [`count`](WindowedBy::count), [`reduce`](WindowedBy::reduce), [`aggregate`](WindowedBy::aggregate) and others. A window gives
    /// its result once, when the watermark has passed its end and its grace; see
    /// [`Stream::event_time`](crate::runtime::Stream::event_time).
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let minute = Duration::from_secs(60);
    /// let job = Job::new("clicks-per-minute");
    /// let (clicks, late) = job
    ///     .source(topic::<str>("clicks"))
    ///     .key_by_ref(|user: &str| user)
    ///     .window(FixedWindows::tumbling(minute).grace(minute))
    ///     .late();
    /// late.sink(topic("late-clicks"));
    /// clicks
    ///     .count("per-minute")
    ///     .entries(|user, clicks| format!("{} from {}: {clicks}", user.key, user.window.start))
    ///     .sink(topic("clicks-per-minute"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("clicks", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_value_at("clicks", "ann", noon);
    /// bed.send_value_at("clicks", "ann", noon.plus_millis(59_999));
    /// // The next minute, and the grace of one more.
    /// bed.send_value_at("clicks", "bob", noon.plus_millis(120_000));
    /// let closed = bed.take::<[u8], String>("clicks-per-minute");
    /// assert_eq!(closed[0].value.as_deref(), Some("ann from 1767182400000: 2"));
    /// // Too late now.
    /// bed.send_value_at("clicks", "ann", noon);
    /// assert_eq!(bed.take::<str, str>("late-clicks").len(), 1);
    /// ```
    pub fn window<W: Windows>(self, windows: W) -> WindowedBy<K, V, Up, W> {
        WindowedBy {
            keyed: self,
            windows,
            late: Counted,
            emission: OnClose,
        }
    }
}

impl<K: ?Sized, V: ?Sized, Up, W: TimeWindows, L> WindowedBy<K, V, Up, W, L> {
    /// Gives a result with each change of a window, without waiting for its close: `Some` result so far, or `None` for a window that is
    /// no more because it became part of another, which sessions do. Each stands for all before it with the same key and window.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("visits-so-far");
    /// job.source(topic::<str>("clicks"))
    ///     .key_by_ref(|user: &str| user)
    ///     .window(SessionWindows::gap(Duration::from_secs(30 * 60)))
    ///     .on_update()
    ///     .count("clicks-of-a-visit")
    ///     .sink(topic::<u64>("visits").as_option());
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("clicks", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_value_at("clicks", "ann", noon);
    /// bed.send_value_at("clicks", "ann", noon.plus_millis(60_000));
    /// let told = bed.take::<Windowed<str>, u64>("visits");
    /// // The first result is taken back when the visit becomes longer.
    /// assert_eq!(told.iter().map(|row| row.value).collect::<Vec<_>>(), [Some(1), None, Some(2)]);
    /// ```
    pub fn on_update(self) -> WindowedBy<K, V, Up, W, L, OnUpdate> {
        self.emitting(OnUpdate)
    }

    /// Gives results early: each time that a clock has passed a multiple of a period, the windows that changed since, and the last
    /// result of each when it closes. They are as with [`on_update`](Self::on_update), but fewer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// // A day's revenue, told every minute of event time while the day lasts.
    /// let job = Job::new("revenue-so-far");
    /// job.source(topic::<str>("orders"))
    ///     .try_map(|line: &str| line.parse::<u64>())
    ///     .key_by(|_| ())
    ///     .window(CalendarWindows::days("Europe/Berlin")?)
    ///     .early(Every::event_time(Duration::from_secs(60)))
    ///     .sum("revenue", |cents| *cents)
    ///     .sink(topic::<u64>("revenue").as_option());
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("orders", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_value_at("orders", "250", noon);
    /// bed.send_value_at("orders", "125", noon.plus_millis(60_000));
    /// let told = bed.take::<Windowed<()>, u64>("revenue");
    /// assert_eq!(told[0].value, Some(250));
    /// # Ok::<(), JobError>(())
    /// ```
    pub fn early<C: Clock>(self, every: Every<C>) -> WindowedBy<K, V, Up, W, L, Every<C>> {
        self.emitting(every)
    }

    fn emitting<E>(self, emission: E) -> WindowedBy<K, V, Up, W, L, E> {
        WindowedBy {
            keyed: self.keyed,
            windows: self.windows,
            late: self.late,
            emission,
        }
    }
}

impl<K, V, Up, W, E> WindowedBy<K, V, Up, W, Counted, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: TimeWindows,
    E: Emission,
{
    /// Gives the records that come after all of their windows are closed a stream of their own: as they were, with key and time.
    /// Without it they are counted ([`JobProgress::late_records`](crate::runtime::JobProgress::late_records)) and warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn late(self) -> (WindowedBy<K, V, Up, W, SideOutput<K, V>, E>, Keyed<K, V>) {
        let (late, stream) = self.keyed.side_output("late");
        let windowed = WindowedBy {
            keyed: self.keyed,
            windows: self.windows,
            late,
            emission: self.emission,
        };
        (windowed, stream)
    }
}

impl<K, V, Up, W, E> WindowedBy<K, V, Up, W, Counted, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    E: Emission,
{
    /// Counts the records of each key and window in the store `name`.
    #[track_caller]
    pub fn count(
        self,
        name: &str,
    ) -> Keyed<W::Key<K>, E::Of<u64>, impl Upstream<W::Key<K>, E::Of<u64>>> {
        // Nobody needs the values: the shuffle moves keys only.
        let keys = self.keyed.map(|_| ());
        let counts = self.windows.fold::<_, _, _, _, E>(keys, None, name, Count);
        self.emission.finish::<_, u64, _>(name, counts)
    }
}

impl<K, V, Up, W, E> WindowedBy<K, V, Up, W, SideOutput<K, V>, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    E: Emission,
{
    /// Counts the records of each key and window in the store `name`.
    #[track_caller]
    pub fn count(
        self,
        name: &str,
    ) -> Keyed<W::Key<K>, E::Of<u64>, impl Upstream<W::Key<K>, E::Of<u64>>> {
        self.fold(name, Count)
    }
}

impl<K, V, Up, W, L, E> WindowedBy<K, V, Up, W, L, E>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    L: LateRecords<K, V>,
    E: Emission,
{
    /// Folds the values of each key and window in the store `name`: `add` takes a value into what `initial` made, `merge` puts two
    /// such together, which windows that overlap or grow together need. Values of one split are added in their order; between
    /// splits, and where two are merged, there is none.
    #[track_caller]
    pub fn aggregate<A, I, F, M>(
        self,
        name: &str,
        initial: I,
        add: F,
        merge: M,
    ) -> Keyed<W::Key<K>, E::Of<A>, impl Upstream<W::Key<K>, E::Of<A>>>
    where
        A: Datum + Clone,
        I: Fn() -> A + Clone + Send + Sync + 'static,
        F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
        M: Fn(&mut A, &A) + Clone + Send + Sync + 'static,
    {
        self.fold(name, Aggregate::new(initial, add, merge))
    }

    /// Combines the values of each key and window in the store `name`: the first is kept as it is, each other one is combined into
    /// it. It must not matter which two are combined first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("peaks");
    /// job.source(values("loads", 0..100u64))
    ///     .event_time(|load| load.cast_signed(), Watermarks::default())
    ///     .key_by(|load| load % 3)
    ///     .window(FixedWindows::tumbling(Duration::from_millis(10)))
    ///     .reduce("peaks", |peak, load| *peak = (*peak).max(*load))
    ///     .sink(topic("peaks"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let peaks = bed.take::<Windowed<u64>, u64>("peaks");
    /// // Ten windows of three keys.
    /// assert_eq!(peaks.len(), 30);
    /// ```
    #[track_caller]
    pub fn reduce<F>(
        self,
        name: &str,
        combine: F,
    ) -> Keyed<W::Key<K>, E::Of<V>, impl Upstream<W::Key<K>, E::Of<V>>>
    where
        V: Sized + Clone,
        F: Fn(&mut V, &V) + Clone + Send + Sync + 'static,
    {
        self.fold(name, Reduce::new(combine))
    }

    /// Folds the values of each key and window in the store `name` as `fold` says: a function of your own.
    #[track_caller]
    pub fn fold<C: WindowFold<V>>(
        self,
        name: &str,
        fold: C,
    ) -> Keyed<W::Key<K>, E::Of<C::State>, impl Upstream<W::Key<K>, E::Of<C::State>>> {
        let late = self.late.output();
        let results = self
            .windows
            .fold::<_, _, _, _, E>(self.keyed, late, name, fold);
        self.emission.finish::<_, C::State, _>(name, results)
    }
}

/// A length or a grace is at most 2^60 ms, so that sums of them with times stay in order.
const MILLIS_MAX: i64 = 1 << 60;

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).map_or(MILLIS_MAX, |millis| millis.min(MILLIS_MAX))
}

/// Pushes a window's result, with the last time that belongs to the window.
fn push<K: Datum + ?Sized, A>(
    window: Window,
    key: Key<'_, K>,
    value: &A,
    origin: Origin,
    scratch: &mut Vec<u8>,
    out: &mut impl Output<Windowed<K>, A>,
) -> Flow {
    out.push(Record {
        key: Windowed::key(key, window, scratch),
        value,
        meta: Meta {
            timestamp: window.last(),
            origin,
        },
        headers: Headers::NONE,
    })
}
