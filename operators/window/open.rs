//! Questions about windows that are open: what a running job holds in them, as of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::fixed::Grid;
use super::fold::WindowFold;
use super::per_key::{Held, KeyWindows};
use crate::codec::{Codec, Datum};
use crate::runtime::{QueryError, TimedRows, View, Window};
use crate::types::Timestamp;

/// The most windows, and the most slices, that one question looks for: each slice is a read of its own.
const WINDOWS_MAX: usize = 10_000;

/// The windows of a key, each with its state.
type States<A> = Vec<(Window, A)>;

/// Whether a window has some of these times.
fn touches(window: Window, times: &Range<Timestamp>) -> bool {
    window.start < times.end && times.start < window.end
}

/// The windows with some of these times, by their ends: those of each slice from the first on that has some.
fn windows_at<G: Grid>(
    windows: &G,
    times: &Range<Timestamp>,
) -> Result<BTreeSet<(Timestamp, Timestamp)>, QueryError> {
    let mut found = BTreeSet::new();
    let (mut at, mut slices_count) = (times.start, 0);
    while at < times.end {
        slices_count += 1;
        if found.len() > WINDOWS_MAX || slices_count > WINDOWS_MAX {
            return Err(QueryError::TooMany {
                what: "more windows",
                max: WINDOWS_MAX,
            });
        }
        let Some(slice) = windows.slice_of(at) else {
            match windows.next_start(at) {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        found.extend(windows.windows_of(slice).map(|it| (it.end, it.start)));
        at = slice.end;
    }
    Ok(found)
}

/// The way to read windows that are made of slices: a window is put together from those that its key has.
pub(super) fn of_grid<K, V, G, C>(
    windows: G,
    fold: C,
) -> impl Fn(
    &View<'_>,
    &TimedRows<K, C::State>,
    &K,
    &Range<Timestamp>,
) -> Result<States<C::State>, QueryError>
+ Send
+ Sync
+ 'static
where
    K: Datum + ?Sized,
    V: ?Sized,
    G: Grid,
    C: WindowFold<V>,
    <C::State as Datum>::DefaultCodec: Codec<C::State>,
{
    move |view, rows, key, times| {
        // A slice may outlive the windows that are closed, where it is part of others.
        let reached = rows.time(view, key)?.unwrap_or(Timestamp::MIN);
        let mut slices: BTreeMap<Timestamp, Option<C::State>> = BTreeMap::new();
        let mut found = Vec::new();
        for (end, start) in windows_at(&windows, times)? {
            let window = Window { start, end };
            if windows.closes_at(window) <= reached {
                continue;
            }
            let mut whole: Option<C::State> = None;
            for end in windows.slices_of(window) {
                if !slices.contains_key(&end) {
                    if slices.len() >= WINDOWS_MAX {
                        return Err(QueryError::TooMany {
                            what: "windows of more slices",
                            max: WINDOWS_MAX,
                        });
                    }
                    slices.insert(end, rows.get_at(view, key, end)?);
                }
                match (&mut whole, slices.get(&end).and_then(Option::as_ref)) {
                    (Some(whole), Some(state)) => fold.merge(whole, state),
                    (None, state) => whole = state.cloned(),
                    (Some(_), None) => {}
                }
            }
            found.extend(whole.map(|state| (window, state)));
        }
        Ok(found)
    }
}

/// The way to read windows whose bounds depend on the records of each key.
pub(super) fn by_key<K, V, W, C>(
    windows: W,
    fold: C,
) -> impl Fn(
    &View<'_>,
    &TimedRows<K, Held<C::State, W>>,
    &K,
    &Range<Timestamp>,
) -> Result<States<C::State>, QueryError>
+ Send
+ Sync
+ 'static
where
    K: Datum + ?Sized,
    V: ?Sized,
    W: KeyWindows,
    C: WindowFold<V>,
    <C::State as Datum>::DefaultCodec: Codec<C::State>,
{
    move |view, rows, key, times| {
        let Some(held) = rows.get(view, key)? else {
            return Ok(Vec::new());
        };
        let reached = rows.time(view, key)?.unwrap_or(Timestamp::MIN);
        let open = windows.open(&held, reached).into_iter();
        let open = open.filter(|window| touches(*window, times));
        let states = open.filter_map(|window| Some((window, windows.whole(&held, window, &fold)?)));
        Ok(states.collect())
    }
}
