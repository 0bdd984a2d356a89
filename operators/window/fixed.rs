//! Windows whose bounds are the same for all keys: tumbling, hopping, cumulative, and those of a calendar.
//!
//! Each record is added to one slice of its key; a window's result is put together from its slices when the watermark closes it.
//! A tumbling window is its only slice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::fold::WindowFold;
use super::{Emission, Windows, open, push};
use crate::codec::Datum;
use crate::runtime::{
    Came, Due, Failure, FixedWindows, Flow, Key, Keyed, Late, LateReason, Operator, Origin, Output,
    Record, SideOutput, TimedStore, Upstream, Window, Windowed,
};
use crate::types::Timestamp;

/// Windows whose bounds are the same for all keys, made of slices.
pub(in crate::operators) trait Grid: Clone + Send + Sync + 'static {
    /// The slice that a time belongs to; `None` between windows, or out of the range of times.
    fn slice_of(&self, time: Timestamp) -> Option<Window>;
    /// Whether there are times between windows.
    fn has_gaps(&self) -> bool;
    /// The first start of a window behind a time between windows, if there is one.
    fn next_start(&self, time: Timestamp) -> Option<Timestamp>;
    /// The slice that ends at a time.
    fn slice_ending(&self, end: Timestamp) -> Window;
    /// The windows that a slice is part of, by their ends.
    fn windows_of(&self, slice: Window) -> impl Iterator<Item = Window>;
    /// The ends of a window's slices.
    fn slices_of(&self, window: Window) -> impl Iterator<Item = Timestamp>;
    /// Whether every slice is a window, and every window a slice.
    fn is_tumbling(&self) -> bool;
    /// Returns the grace of a closed window for late records, in milliseconds.
    fn grace_millis(&self) -> i64;
    /// Whether every window that a slice is part of is closed.
    fn is_late(&self, slice: Window, watermark: Timestamp) -> bool;
    /// The least watermark above `watermark` that closes a window.
    fn next_close(&self, watermark: Timestamp) -> Timestamp;

    /// The watermark that closes a window.
    fn closes_at(&self, window: Window) -> Timestamp {
        window.end.plus_millis(self.grace_millis())
    }
}

impl Grid for FixedWindows {
    fn slice_of(&self, time: Timestamp) -> Option<Window> {
        Self::slice_of(self, time)
    }

    fn has_gaps(&self) -> bool {
        Self::has_gaps(self)
    }

    fn next_start(&self, time: Timestamp) -> Option<Timestamp> {
        Self::next_start(self, time)
    }

    fn slice_ending(&self, end: Timestamp) -> Window {
        Window {
            start: end.plus_millis(-self.slice_millis()),
            end,
        }
    }

    fn windows_of(&self, slice: Window) -> impl Iterator<Item = Window> {
        Self::windows_of(self, slice)
    }

    fn slices_of(&self, window: Window) -> impl Iterator<Item = Timestamp> {
        let length = self.slice_millis();
        let first = Some(window.start.plus_millis(length));
        std::iter::successors(first, move |end| Some(end.plus_millis(length)))
            .take_while(move |end| *end <= window.end)
    }

    fn is_tumbling(&self) -> bool {
        Self::is_tumbling(self)
    }

    fn grace_millis(&self) -> i64 {
        Self::grace_millis(self)
    }

    fn is_late(&self, slice: Window, watermark: Timestamp) -> bool {
        Self::is_late(self, slice, watermark)
    }

    fn next_close(&self, watermark: Timestamp) -> Timestamp {
        Self::next_close(self, watermark)
    }

    fn closes_at(&self, window: Window) -> Timestamp {
        Self::closes_at(self, window)
    }
}

/// Fold of values in a window.
struct Fold<K: ?Sized, V: ?Sized, G, C: WindowFold<V>, E> {
    store: TimedStore<C::State>,
    windows: G,
    fold: C,
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
    types: PhantomData<fn(&K, &V) -> E>,
}

impl<K, V, G, C, E> Fold<K, V, G, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    G: Grid,
    C: WindowFold<V>,
    E: Emission,
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

    /// No window holds the record.
    #[cold]
    fn no_slice(&mut self, record: Record<'_, K, V>) -> Flow {
        if self.windows.has_gaps() {
            self.late.leave_out();
            return Ok(());
        }
        self.late
            .push(record, LateReason::OutOfRange, self.watermark)
    }

    /// All windows that hold the record are closed.
    #[cold]
    fn too_late(&mut self, record: Record<'_, K, V>) -> Flow {
        let bound = self.watermark.max(self.store.time(record.key));
        self.late.push(record, LateReason::Closed, bound)
    }

    /// Closes the windows that are one slice each.
    fn close_slices(
        &mut self,
        until: Timestamp,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        while let Some(came) = self.store.next_due(until, &mut self.due)? {
            let Came::Value(value) = came else { continue };
            let end = self.due.time;
            let window = self.windows.slice_ending(end);
            self.newest_close = self.newest_close.max(self.windows.closes_at(window));
            if !E::IS_ON_UPDATE {
                give::<K, E, _>(
                    window,
                    self.due.key(),
                    &value,
                    Origin::TIME,
                    &mut self.scratch,
                    out,
                )?;
            }
        }
        Ok(())
    }

    /// Closes windows of several slices, in the order of their ends, and forgets the slices that no open window has.
    fn close_windows(
        &mut self,
        until: Timestamp,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        while let Some(end) = self.store.first_time(until)? {
            let slice = self.windows.slice_ending(end);
            let mut windows = self.windows.windows_of(slice);
            let closed_end = self.closed_end;
            let open = windows.find(|window| window.end > closed_end);
            drop(windows);
            let Some(window) = open else {
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

    fn close_window(
        &mut self,
        window: Window,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        let closes_at = self.windows.closes_at(window);
        self.newest_close = self.newest_close.max(closes_at);
        if E::IS_ON_UPDATE {
            return Ok(());
        }
        let mut results: BTreeMap<Vec<u8>, (u32, C::State)> = BTreeMap::new();
        let fold = &self.fold;
        self.store
            .visit_between(window.start, window.end, &mut self.due, |due, value| {
                let key = due.key::<K>();
                match results.get_mut(key.bytes()) {
                    Some((_, result)) => fold.merge(result, value),
                    None => {
                        let result = (key.partition_hash(), value.clone());
                        results.insert(key.bytes().to_vec(), result);
                    }
                }
            })?;
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
            give::<K, E, _>(window, key, &result, Origin::TIME, &mut self.scratch, out)?;
        }
        Ok(())
    }
}

impl<K, V, G, C, E> Fold<K, V, G, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    G: Grid,
    C: WindowFold<V>,
    E: Emission,
{
    /// Gives the open windows that a changed slice is part of.
    fn give_open(
        &mut self,
        slice: Window,
        record: Record<'_, K, V>,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        let (key, origin) = (record.key, record.meta.origin);
        let kept = self.store.kept_time(key).unwrap_or(Timestamp::MIN);
        let watermark = self.watermark.max(kept);
        let windows = self.windows.clone();
        for window in windows.windows_of(slice) {
            if windows.closes_at(window) <= watermark {
                continue;
            }
            if let Some(state) = self.whole(window, key)? {
                give::<K, E, _>(window, key, &state, origin, &mut self.scratch, out)?;
            }
        }
        Ok(())
    }

    /// The state of a window of a key, put together from its slices.
    fn whole(&mut self, window: Window, key: Key<'_, K>) -> Result<Option<C::State>, Failure> {
        let mut whole: Option<C::State> = None;
        for end in self.windows.slices_of(window) {
            match (&mut whole, self.store.get_at(key, end)?) {
                (Some(whole), Some(state)) => self.fold.merge(whole, &state),
                (None, state) => whole = state,
                (Some(_), None) => {}
            }
        }
        Ok(whole)
    }
}

/// Pushes the result that a state stands for.
fn give<K: Datum + ?Sized, E: Emission, A: Clone + 'static>(
    window: Window,
    key: Key<'_, K>,
    state: &A,
    origin: Origin,
    scratch: &mut Vec<u8>,
    out: &mut impl Output<Windowed<K>, E::Of<A>>,
) -> Flow {
    E::with(state, |result| {
        push(window, key, result, origin, scratch, out)
    })
}

impl<K, V, G, C, E> Operator<K, V> for Fold<K, V, G, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    G: Grid,
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
        let Some((slice, mut is_late)) = self.slice_of(record.meta.timestamp) else {
            return self.no_slice(record);
        };
        if let Some(kept) = self.store.kept_time(record.key) {
            is_late |= self.windows.is_late(slice, kept);
        }
        if is_late {
            return self.too_late(record);
        }
        let fold = &self.fold;
        self.store
            .update_at(record.key, slice.end, |state| match state {
                Some(state) => fold.add(state, record.value),
                None => *state = Some(fold.first(record.value)),
            })?;
        match E::IS_ON_UPDATE {
            true => self.give_open(slice, record, out),
            false => Ok(()),
        }
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
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

impl Windows for FixedWindows {
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
        on_grid::<_, _, _, _, _, E>(self, keyed, late, name, fold)
    }
}

/// The end of a time's slice: the time at which the slice's state is kept.
fn ends_of_slices(windows: impl Grid) -> impl Fn(Timestamp) -> Option<Timestamp> {
    let last = Cell::new(None::<Window>);
    move |time| {
        let known = last.get();
        let known = known.filter(|slice| slice.start <= time && time < slice.end);
        let slice = known.or_else(|| windows.slice_of(time));
        last.set(slice);
        slice.map(|slice| slice.end)
    }
}

/// Puts the operator behind the stream.
#[track_caller]
pub(super) fn on_grid<K, V, Up, G, C, E>(
    windows: G,
    keyed: Keyed<K, V, Up>,
    late: Option<SideOutput<K, V>>,
    name: &str,
    fold: C,
) -> Keyed<Windowed<K>, E::Of<C::State>, impl Upstream<Windowed<K>, E::Of<C::State>>>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    G: Grid,
    C: WindowFold<V>,
    E: Emission,
{
    let store = name.to_owned();
    keyed
        .with_timed_store::<C::State>(name)
        .with_open_windows::<C::State, C::State>(
            name,
            open::of_grid::<K, V, _, _>(windows.clone(), fold.clone()),
        )
        .process(name, move |context| {
            let mut timed = context.timed_store(&store)?;
            context.read_ahead_at(&mut timed, ends_of_slices(windows.clone()));
            Ok(Fold::<K, V, G, C, E> {
                store: timed,
                windows: windows.clone(),
                fold: fold.clone(),
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
