//! `window`: the records of a key, by spans of event time.
//!
//! Each record is added to one slice of its key; a window's result is put together from its slices when the watermark closes it.
//! A tumbling window is its only slice.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::codec::Datum;
use crate::runtime::{
    Came, Due, FixedWindows, Flow, Headers, Key, Keyed, Late, Meta, Operator, Origin, Output,
    Record, SideOutput, TimedStore, Upstream, Window, Windowed,
};
use crate::types::Timestamp;

/// A keyed stream cut into windows; the next step says what is computed in each. Made by [`Keyed::window`].
#[must_use = "windows do nothing until something is computed in them"]
pub struct WindowedBy<K: ?Sized, V: ?Sized, U, L> {
    keyed: Keyed<K, V, U>,
    windows: FixedWindows,
    late: L,
}

/// Late records are counted only.
pub struct Counted;

/// How values are folded in a window.
struct Fold<K: ?Sized, V: ?Sized, A, I, F, M> {
    store: TimedStore<A>,
    windows: FixedWindows,
    initial: I,
    add: F,
    merge: M,
    late: Late<K, V>,
    watermark: Timestamp,
    /// The least watermark that closes another window.
    next_close: Timestamp,
    /// The largest watermark that closed a window with records.
    newest_close: Timestamp,
    /// The end of the last window that was closed.
    closed_end: Timestamp,
    /// The slice of the last record, and whether it is late.
    slice: Option<(Window, bool)>,
    due: Due,
    scratch: Vec<u8>,
    types: PhantomData<fn(&K, &V)>,
}

impl<K: Datum + ?Sized, V: ?Sized, A, I, F, M> Fold<K, V, A, I, F, M>
where
    A: Clone + Send + 'static,
    M: Fn(&mut A, &A),
{
    /// The slice of a time, and whether it is late; `None` between windows.
    #[inline]
    fn slice_of(&mut self, time: Timestamp) -> Option<(Window, bool)> {
        if let Some((slice, is_late)) = self.slice
            && slice.start <= time
            && time < slice.end
        {
            return Some((slice, is_late));
        }
        let slice = self.windows.slice_of(time)?;
        self.slice = Some((slice, self.windows.is_late(slice, self.watermark)));
        self.slice
    }

    /// Closes the windows that are one slice each.
    fn close_slices(&mut self, until: Timestamp, out: &mut impl Output<Windowed<K>, A>) -> Flow {
        while let Some(came) = self.store.next_due(until, &mut self.due)? {
            let Came::Value(value) = came else { continue };
            let end = self.due.time;
            let window = Window {
                start: end.plus_millis(-self.windows.slice_millis()),
                end,
            };
            self.newest_close = self.newest_close.max(self.windows.closes_at(window));
            push::<K, A>(window, self.due.key(), &value, &mut self.scratch, out)?;
        }
        Ok(())
    }

    /// Closes windows of several slices, in the order of their ends, and forgets the slices that no open window has.
    fn close_windows(&mut self, until: Timestamp, out: &mut impl Output<Windowed<K>, A>) -> Flow {
        while let Some(end) = self.store.first_time(until)? {
            let slice = Window {
                start: end.plus_millis(-self.windows.slice_millis()),
                end,
            };
            let mut windows = self.windows.windows_of(slice);
            let Some(window) = windows.find(|window| window.end > self.closed_end) else {
                // All of its windows are closed.
                self.store.next_due(end, &mut self.due)?;
                continue;
            };
            if window.end > until {
                break;
            }
            self.close_window(window, out)?;
            self.closed_end = window.end;
        }
        Ok(())
    }

    fn close_window(&mut self, window: Window, out: &mut impl Output<Windowed<K>, A>) -> Flow {
        let mut results: BTreeMap<Vec<u8>, (u32, A)> = BTreeMap::new();
        let merge = &self.merge;
        self.store
            .visit_between(window.start, window.end, &mut self.due, |due, value| {
                let key = due.key::<K>();
                match results.get_mut(key.bytes()) {
                    Some((_, result)) => merge(result, value),
                    None => {
                        let result = (key.partition_hash(), value.clone());
                        results.insert(key.bytes().to_vec(), result);
                    }
                }
            })?;
        let closes_at = self.windows.closes_at(window);
        self.newest_close = self.newest_close.max(closes_at);
        for (key, (hash, result)) in results {
            let key = Key::<K>::with_hash(&key, hash);
            // What was closed before a restart, on whichever worker, is not closed again (I15).
            if self
                .store
                .kept_time(key)
                .is_some_and(|kept| kept >= closes_at)
            {
                continue;
            }
            push::<K, A>(window, key, &result, &mut self.scratch, out)?;
        }
        Ok(())
    }
}

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

impl<K, V, A, I, F, M> Operator<K, V> for Fold<K, V, A, I, F, M>
where
    K: Datum + ?Sized,
    V: ?Sized,
    A: Clone + Send + 'static,
    I: Fn() -> A,
    F: Fn(&mut A, &V),
    M: Fn(&mut A, &A),
{
    type OutKey = Windowed<K>;
    type Out = A;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, V>,
        _out: &mut impl Output<Windowed<K>, A>,
    ) -> Flow {
        let Some((slice, mut is_late)) = self.slice_of(record.meta.timestamp) else {
            return Ok(());
        };
        if let Some(kept) = self.store.kept_time(record.key) {
            is_late |= self.windows.is_late(slice, kept);
        }
        if is_late {
            return self.late.push(record);
        }
        let (initial, add) = (&self.initial, &self.add);
        self.store.update_at(record.key, slice.end, |value| {
            add(value.get_or_insert_with(initial), record.value);
        })
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        out: &mut impl Output<Windowed<K>, A>,
    ) -> Flow {
        self.watermark = watermark;
        if watermark < self.next_close {
            return Ok(());
        }
        let until = match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.windows.grace_millis()),
        };
        match self.windows.is_tumbling() {
            true => self.close_slices(until, out)?,
            false => self.close_windows(until, out)?,
        }
        // The end of the input closes what is open, and no more: the next run goes on behind that.
        self.store.set_time(match watermark {
            Timestamp::MAX => self.newest_close,
            open => open,
        })?;
        self.slice = None;
        self.next_close = self.windows.next_close(watermark);
        Ok(())
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.windows.grace_millis()),
        }
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Cuts the records of each key into windows of event time. The next step says what is computed in each window:
    /// [`count`](WindowedBy::count) or [`aggregate`](WindowedBy::aggregate). A window gives its result
    /// once, when the watermark has passed its end and its grace; see [`Stream::event_time`](crate::runtime::Stream::event_time).
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
    pub fn window(self, windows: FixedWindows) -> WindowedBy<K, V, Up, Counted> {
        WindowedBy {
            keyed: self,
            windows,
            late: Counted,
        }
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> WindowedBy<K, V, Up, Counted> {
    /// Gives the records that come after all of their windows are closed a stream of their own: as they were, with key and time.
    /// Without it they are counted ([`JobProgress::late_records`](crate::runtime::JobProgress::late_records)) and warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn late(self) -> (WindowedBy<K, V, Up, SideOutput<K, V>>, Keyed<K, V>) {
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
        fold(
            keys,
            self.windows,
            None,
            name,
            || 0,
            |n, ()| *n += 1,
            |n, m| *n += m,
        )
    }

    /// Folds the values of each key and window in the store `name`: `add` takes a value into what `initial` made, `merge` puts two
    /// such together, which windows that overlap need. The order in which values are added is theirs in each split.
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
        fold(self.keyed, self.windows, None, name, initial, add, merge)
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>>
    WindowedBy<K, V, Up, SideOutput<K, V>>
{
    /// Counts the records of each key and window in the store `name`.
    #[track_caller]
    pub fn count(self, name: &str) -> Keyed<Windowed<K>, u64, impl Upstream<Windowed<K>, u64>> {
        fold(
            self.keyed,
            self.windows,
            Some(self.late),
            name,
            || 0,
            |n, _| *n += 1,
            |n, m| *n += m,
        )
    }

    /// See [`WindowedBy::aggregate`] of windows without a stream of late records.
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
        fold(
            self.keyed,
            self.windows,
            Some(self.late),
            name,
            initial,
            add,
            merge,
        )
    }
}

#[track_caller]
fn fold<K, V, Up, A, I, F, M>(
    keyed: Keyed<K, V, Up>,
    windows: FixedWindows,
    late: Option<SideOutput<K, V>>,
    name: &str,
    initial: I,
    add: F,
    merge: M,
) -> Keyed<Windowed<K>, A, impl Upstream<Windowed<K>, A>>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    A: Datum + Clone,
    I: Fn() -> A + Clone + Send + Sync + 'static,
    F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Clone + Send + Sync + 'static,
{
    let store = name.to_owned();
    keyed
        .with_timed_store::<A>(name)
        .process(name, move |context| {
            Ok(Fold {
                store: context.timed_store(&store)?,
                windows,
                initial: initial.clone(),
                add: add.clone(),
                merge: merge.clone(),
                late: context.late(&store, late.as_ref())?,
                watermark: Timestamp::MIN,
                next_close: Timestamp::MIN,
                newest_close: Timestamp::MIN,
                closed_end: Timestamp::MIN,
                slice: None,
                due: Due::default(),
                scratch: Vec::new(),
                types: PhantomData,
            })
        })
}
