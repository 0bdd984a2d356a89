//! Windows: the records of a key, by spans of event time.
//!
//! [`Keyed::window`] says which windows ([`Windows`]), the next step what is computed in each ([`WindowFold`]). A kind of windows is one
//! file here; the functions are the same for all of them (`functions.rs`).

mod fixed;
mod fold;
mod functions;
mod session;

pub use fold::WindowFold;
pub use functions::Number;
pub use session::SessionWindows;

use fold::{Aggregate, Count, Reduce};

use crate::codec::Datum;
use crate::runtime::{
    Flow, Headers, Key, Keyed, Meta, Origin, Output, Record, SideOutput, Upstream, Window, Windowed,
};

/// A keyed stream cut into windows; the next step says what is computed in each. Made by [`Keyed::window`].
#[must_use = "windows do nothing until something is computed in them"]
pub struct WindowedBy<K: ?Sized, V: ?Sized, U, W, L = Counted> {
    keyed: Keyed<K, V, U>,
    windows: W,
    late: L,
}

/// A kind of windows: [`FixedWindows`](crate::runtime::FixedWindows) or [`SessionWindows`].
pub trait Windows: Clone + Send + Sync + 'static {
    /// Folds the values of each key and window in the store `name`, and gives each window's result once, when it closes.
    #[track_caller]
    fn fold<K, V, Up, C>(
        self,
        keyed: Keyed<K, V, Up>,
        late: Option<SideOutput<K, V>>,
        name: &str,
        fold: C,
    ) -> Keyed<Windowed<K>, C::State, impl Upstream<Windowed<K>, C::State>>
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        Up: Upstream<K, V>,
        C: WindowFold<V>;
}

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
    ///
    /// let minute = Duration::from_secs(60);
    /// let job = Job::new("clicks-per-minute");
    /// let (clicks, late) = job
    ///     .source(topic::<str>("clicks"))
    ///     .key_by(|user: &str| user)
    ///     .window(FixedWindows::tumbling(minute).grace(minute))
    ///     .late();
    /// late.sink(topic("late-clicks"));
    /// clicks
    ///     .count("per-minute")
    ///     .entries(|user, clicks| format!("{} from {}: {clicks}", user.key, user.window.start))
    ///     .sink(topic("clicks-per-minute"));
    /// ```
    pub fn window<W: Windows>(self, windows: W) -> WindowedBy<K, V, Up, W> {
        WindowedBy {
            keyed: self,
            windows,
            late: Counted,
        }
    }
}

impl<K, V, Up, W> WindowedBy<K, V, Up, W>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
{
    /// Gives the records that come after all of their windows are closed a stream of their own: as they were, with key and time.
    /// Without it they are counted ([`JobProgress::late_records`](crate::runtime::JobProgress::late_records)) and warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn late(self) -> (WindowedBy<K, V, Up, W, SideOutput<K, V>>, Keyed<K, V>) {
        let (late, stream) = self.keyed.side_output("late");
        let windowed = WindowedBy {
            keyed: self.keyed,
            windows: self.windows,
            late,
        };
        (windowed, stream)
    }

    /// Counts the records of each key and window in the store `name`.
    #[track_caller]
    pub fn count(self, name: &str) -> Keyed<Windowed<K>, u64, impl Upstream<Windowed<K>, u64>> {
        // Nobody needs the values: the shuffle moves keys only.
        let keys = self.keyed.map(|_| ());
        self.windows.fold(keys, None, name, Count)
    }
}

impl<K, V, Up, W> WindowedBy<K, V, Up, W, SideOutput<K, V>>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
{
    /// Counts the records of each key and window in the store `name`.
    #[track_caller]
    pub fn count(self, name: &str) -> Keyed<Windowed<K>, u64, impl Upstream<Windowed<K>, u64>> {
        self.fold(name, Count)
    }
}

impl<K, V, Up, W, L> WindowedBy<K, V, Up, W, L>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: Windows,
    L: LateRecords<K, V>,
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
    ) -> Keyed<Windowed<K>, A, impl Upstream<Windowed<K>, A>>
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
    ///
    /// let job = Job::new("peaks");
    /// job.source(values("loads", 0..100u64))
    ///     .event_time(|load| load.cast_signed(), Watermarks::default())
    ///     .key_from(|load| load % 3)
    ///     .window(FixedWindows::tumbling(Duration::from_millis(10)))
    ///     .reduce("peaks", |peak, load| *peak = (*peak).max(*load))
    ///     .sink(topic("peaks"));
    /// ```
    #[track_caller]
    pub fn reduce<F>(
        self,
        name: &str,
        combine: F,
    ) -> Keyed<Windowed<K>, V, impl Upstream<Windowed<K>, V>>
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
    ) -> Keyed<Windowed<K>, C::State, impl Upstream<Windowed<K>, C::State>> {
        let late = self.late.output();
        self.windows.fold(self.keyed, late, name, fold)
    }
}

/// Pushes a window's result, with the last time that belongs to the window.
fn push<K: Datum + ?Sized, A>(
    window: Window,
    key: Key<'_, K>,
    value: &A,
    scratch: &mut Vec<u8>,
    out: &mut impl Output<Windowed<K>, A>,
) -> Flow {
    out.push(Record {
        key: Windowed::key(key, window, scratch),
        value,
        meta: Meta {
            timestamp: window.last(),
            origin: Origin::TIME,
        },
        headers: Headers::NONE,
    })
}
