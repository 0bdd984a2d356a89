//! Windows of fixed length on the time line: which slices they are made of, when they close, and what is late.
//!
//! All windows are half-open: [start, end). The time line is cut into *slices*, so that each window is a whole number
//! of them and a record belongs to one slice only: however much windows overlap, a record is counted once, and a window's
//! result is put together from its slices when it closes (design D20).
//!
//! ```text
//!   hopping, 6 long, every 4        slices of 2 (the greatest length that divides both)
//!   [0 ........ 6)                  |0 |2 |4 |
//!           [4 ........ 10)               |4 |6 |8 |
//! ```
//! A window is closed by the watermark W once end + grace ≤ W. A record is late when every window that it belongs to is
//! closed, by the watermark before it.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::record::Key;
use crate::codec::json::not_this;
use crate::codec::{Codec, CodecError, CodecId, Datum, TypeIdentity};
use crate::types::Timestamp;

/// A span of event time, from `start` up to but not including `end`, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first time that belongs to it.
    pub start: Timestamp,
    /// The first time that no longer does.
    pub end: Timestamp,
}

impl Window {
    /// The time of a record that stands for the whole window: the last one that belongs to it. So the result of a minute belongs to
    /// the hour that the minute is part of.
    #[must_use]
    pub fn last(self) -> Timestamp {
        self.end.plus_millis(-1)
    }

    /// The window that the bytes of a [`Windowed`] key end with.
    #[must_use]
    pub fn of_key(bytes: &[u8]) -> Option<Self> {
        let (_, window) = bytes.split_last_chunk::<WINDOW_BYTES>()?;
        let times = i128::from_be_bytes(*window);
        let time = |bits: i128| {
            let low = bits & i128::from(u64::MAX);
            Timestamp(u64::try_from(low).unwrap_or(0).cast_signed() ^ i64::MIN)
        };
        Some(Self {
            start: time(times >> 64),
            end: time(times),
        })
    }
}

/// A key in a window: the key of a window's result. As bytes it is the key, then start and end in eight bytes each,
/// big-endian with the sign flipped, so that the windows of a key are in order.
pub struct Windowed<K: Datum + ?Sized> {
    /// The key.
    pub key: K::Owned,
    /// The window.
    pub window: Window,
}

impl<K: Datum + ?Sized> Clone for Windowed<K> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            window: self.window,
        }
    }
}

impl<K: Datum<Owned: PartialEq> + ?Sized> PartialEq for Windowed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.window == other.window
    }
}

impl<K: Datum<Owned: Eq> + ?Sized> Eq for Windowed<K> {}

impl<K: Datum<Owned: Ord> + ?Sized> PartialOrd for Windowed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Datum<Owned: Ord> + ?Sized> Ord for Windowed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.key, self.window).cmp(&(&other.key, other.window))
    }
}

impl<K: Datum<Owned: fmt::Debug> + ?Sized> fmt::Debug for Windowed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { start, end } = self.window;
        write!(f, "{:?} in [{start}, {end})", self.key)
    }
}

impl<K: Datum + ?Sized> Windowed<K> {
    /// The key in a window as bytes, which lie in `scratch`. It stays where the key is: in its state partition, and in its partition of
    /// a topic.
    #[must_use]
    pub fn key<'s>(key: Key<'_, K>, window: Window, scratch: &'s mut Vec<u8>) -> Key<'s, Self> {
        scratch.clear();
        scratch.extend_from_slice(key.bytes());
        put_window(window, scratch);
        Key::with_hash(scratch, key.partition_hash())
    }
}

/// Bytes of a window behind a key.
pub(crate) const WINDOW_BYTES: usize = 16;

fn put_window(window: Window, out: &mut Vec<u8>) {
    for time in [window.start, window.end] {
        out.extend_from_slice(&(time.0 ^ i64::MIN).to_be_bytes());
    }
}

/// The bytes of a key in a window.
pub struct WindowedCodec<K: ?Sized>(PhantomData<fn() -> Box<K>>);

impl<K: ?Sized> Default for WindowedCodec<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<K: ?Sized> Clone for WindowedCodec<K> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<K: Datum + ?Sized> Codec<Windowed<K>> for WindowedCodec<K> {
    fn id(&self) -> CodecId {
        K::DefaultCodec::default().id()
    }

    fn encode(&self, value: &Windowed<K>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        K::DefaultCodec::default().encode(value.key.borrow(), out)?;
        put_window(value.window, out);
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Windowed<K>>, CodecError> {
        let (key, window) = split_window(bytes)?;
        Ok(Cow::Owned(Windowed {
            key: K::DefaultCodec::default().decode(key)?.into_owned(),
            window,
        }))
    }
}

impl<K: Datum + ?Sized> Datum for Windowed<K> {
    type DefaultCodec = WindowedCodec<K>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("window of {}", K::identity()))
    }

    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        let (key, window) = split_window(bytes)?;
        let (start, end) = (window.start.0, window.end.0);
        Ok(serde_json::json!({"key": K::to_json(key)?, "start": start, "end": end}))
    }

    fn from_json(json: &serde_json::Value) -> Result<Vec<u8>, CodecError> {
        let time = |name: &str| Some(Timestamp(json.get(name)?.as_i64()?));
        let (Some(key), Some(start), Some(end)) = (json.get("key"), time("start"), time("end"))
        else {
            return Err(not_this(
                json,
                "a window: an object with key, start and end",
            ));
        };
        let mut bytes = K::from_json(key)?;
        put_window(Window { start, end }, &mut bytes);
        Ok(bytes)
    }
}

/// A key and its window.
fn split_window(bytes: &[u8]) -> Result<(&[u8], Window), CodecError> {
    let window = Window::of_key(bytes).ok_or_else(|| CodecError::Decode {
        codec: "a key in a window",
        length_bytes: bytes.len(),
        why: "a window takes 16 bytes behind its key".to_owned(),
    })?;
    Ok((&bytes[..bytes.len() - WINDOW_BYTES], window))
}

/// Windows of one length that begin at regular times, the same for all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindows {
    size: i64,
    step: i64,
    /// A start of a window; any.
    origin: i64,
    grace: i64,
    /// The greatest length that divides size and step.
    slice: i64,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A window begins every step.
    Hopping,
    /// Windows of one span begin together, and end a step apart up to its size.
    Cumulative,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl FixedWindows {
    /// Windows that follow each other without overlap: each time is in exactly one.
    ///
    /// # Panics
    /// If `size` is less than a millisecond or over 2^62 of them.
    #[must_use]
    pub fn tumbling(size: Duration) -> Self {
        Self::hopping(size, size)
    }

    /// Windows of `size` that begin every `step`: they overlap where `step` is less, and leave gaps where it is more.
    ///
    /// # Panics
    /// If one of the two is less than a millisecond or over 2^62 of them.
    #[must_use]
    pub fn hopping(size: Duration, step: Duration) -> Self {
        let (size, step) = (millis(size), millis(step));
        for length in [size, step] {
            assert!(
                (1..=1 << 62).contains(&length),
                "a window's size and step are at least 1 ms and at most 2^62 ms, not {length} ms"
            );
        }
        Self {
            size,
            step,
            origin: 0,
            grace: 0,
            slice: greatest_common_divisor(size, step),
            shape: Shape::Hopping,
        }
    }

    /// Windows that begin together every `size` and end every `step` of it: after 1, 2, 3 hours… of the same day.
    ///
    /// # Panics
    /// If `step` is less than a millisecond, or `size` is not a whole number of steps.
    #[must_use]
    pub fn cumulative(size: Duration, step: Duration) -> Self {
        let windows = Self::hopping(size, step);
        assert!(
            windows.size % windows.step == 0,
            "the size of cumulative windows is a whole number of steps: {} ms is not one of {} ms",
            windows.size,
            windows.step
        );
        Self {
            shape: Shape::Cumulative,
            ..windows
        }
    }

    /// Moves all windows: one begins at `origin` (by default at 1970-01-01 00:00 UTC), which may lie before 1970.
    #[must_use]
    pub fn aligned_to(self, origin: Timestamp) -> Self {
        Self {
            origin: origin.0,
            ..self
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

    /// The slice that a time belongs to; `None` where hopping windows leave a gap, or time leaves its range.
    pub(crate) fn slice_of(&self, time: Timestamp) -> Option<Window> {
        let start = floor(time.0, self.origin, self.slice)?;
        let slice = Window {
            start: Timestamp(start),
            end: Timestamp(start.checked_add(self.slice)?),
        };
        self.windows_of(slice).next().map(|_| slice)
    }

    /// Whether there are times between windows.
    pub(crate) fn has_gaps(&self) -> bool {
        matches!(self.shape, Shape::Hopping) && self.step > self.size
    }

    /// The first start of a window behind a time.
    pub(crate) fn next_start(&self, time: Timestamp) -> Option<Timestamp> {
        let behind = time.0.checked_add(1)?;
        ceiling(behind, self.origin, self.step).map(Timestamp)
    }

    /// The windows that a slice is part of, by their ends.
    pub(crate) fn windows_of(&self, slice: Window) -> impl Iterator<Item = Window> + use<> {
        let windows = *self;
        let first_end = match self.shape {
            Shape::Hopping => {
                // The first window that begins behind `slice.end - size`, at the earliest.
                let earliest = slice.end.0.saturating_sub(self.size);
                ceiling(earliest, self.origin, self.step).and_then(|s| s.checked_add(self.size))
            }
            Shape::Cumulative => ceiling(slice.end.0, self.origin, self.step),
        };
        let last_end = self.last_end_of(slice);
        let mut end = first_end.filter(|&end| last_end.is_some_and(|last| end <= last));
        std::iter::from_fn(move || {
            let this = end?;
            end = this
                .checked_add(windows.step)
                .filter(|&end| last_end.is_some_and(|last| end <= last));
            windows.window_ending(this)
        })
    }

    /// The end of the last window that a slice is part of.
    fn last_end_of(&self, slice: Window) -> Option<i64> {
        match self.shape {
            Shape::Hopping => floor(slice.start.0, self.origin, self.step)?.checked_add(self.size),
            Shape::Cumulative => {
                floor(slice.start.0, self.origin, self.size)?.checked_add(self.size)
            }
        }
    }

    fn window_ending(&self, end: i64) -> Option<Window> {
        let start = match self.shape {
            Shape::Hopping => end.checked_sub(self.size)?,
            Shape::Cumulative => floor(end.checked_sub(1)?, self.origin, self.size)?,
        };
        Some(Window {
            start: Timestamp(start),
            end: Timestamp(end),
        })
    }

    /// Returns the slice in milliseconds.
    pub(crate) fn slice_millis(&self) -> i64 {
        self.slice
    }

    /// Returns the grace of a closed window for late records, in milliseconds.
    pub(crate) fn grace_millis(&self) -> i64 {
        self.grace
    }

    /// Whether every slice is a window, and every window a slice.
    pub(crate) fn is_tumbling(&self) -> bool {
        self.size == self.slice && self.step == self.slice
    }

    /// The watermark that closes a window.
    pub(crate) fn closes_at(&self, window: Window) -> Timestamp {
        Timestamp(window.end.0.saturating_add(self.grace))
    }

    /// Whether every window that a slice is part of is closed: what comes for it is late, and its state can go.
    pub(crate) fn is_late(&self, slice: Window, watermark: Timestamp) -> bool {
        self.last_end_of(slice)
            .is_none_or(|end| end.saturating_add(self.grace) <= watermark.0)
    }

    /// The least watermark above `watermark` that closes a window.
    pub(crate) fn next_close(&self, watermark: Timestamp) -> Timestamp {
        // Ends lie on the grid of starts moved by the size; closing times on that moved by the grace.
        let moved = (self.origin as i128 + self.size as i128 + self.grace as i128)
            .rem_euclid(self.step as i128);
        let moved = i64::try_from(moved).unwrap_or(0);
        let above = watermark.0.checked_add(1);
        let next = above.and_then(|above| ceiling(above, moved, self.step));
        Timestamp(next.unwrap_or(i64::MAX))
    }
}

/// The last point of the grid at or before `time`; `None` if it is out of range.
fn floor(time: i64, origin: i64, length: i64) -> Option<i64> {
    let (time, origin, length) = (i128::from(time), i128::from(origin), i128::from(length));
    i64::try_from(time - (time - origin).rem_euclid(length)).ok()
}

/// The first point of the grid at or behind `time`.
fn ceiling(time: i64, origin: i64, length: i64) -> Option<i64> {
    match floor(time, origin, length) {
        Some(at) if at == time => Some(at),
        Some(at) => at.checked_add(length),
        // Below the range's first point of the grid.
        None => floor(time.checked_add(length)?, origin, length),
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn window(start: i64, end: i64) -> Window {
        Window {
            start: Timestamp(start),
            end: Timestamp(end),
        }
    }

    #[test]
    fn w1_negative_times_round_down() {
        let windows = FixedWindows::tumbling(ms(10));
        for (time, start) in [(-1, -10), (-10, -10), (-11, -20), (0, 0), (9, 0), (10, 10)] {
            assert_eq!(
                windows.slice_of(Timestamp(time)),
                Some(window(start, start + 10))
            );
        }
    }

    #[test]
    fn w2_an_origin_before_1970_is_the_same_as_one_a_whole_number_of_steps_later() {
        let hour = 3_600_000;
        let day = FixedWindows::tumbling(ms(24 * 3_600_000));
        let (before, after) = (
            day.aligned_to(Timestamp(-8 * hour)),
            day.aligned_to(Timestamp(16 * hour)),
        );
        for time in [-hour * 30, -1, 0, 15 * hour, 16 * hour, 17 * hour] {
            assert_eq!(
                before.slice_of(Timestamp(time)),
                after.slice_of(Timestamp(time))
            );
        }
        assert_eq!(
            before.slice_of(Timestamp(0)),
            Some(window(-8 * hour, 16 * hour))
        );
    }

    #[test]
    fn hopping_windows_share_slices() {
        let windows = FixedWindows::hopping(ms(6), ms(4));
        let of = |time| {
            let slice = windows.slice_of(Timestamp(time)).unwrap();
            windows.windows_of(slice).collect::<Vec<_>>()
        };
        assert_eq!(of(5), [window(0, 6), window(4, 10)]);
        assert_eq!(of(7), [window(4, 10)]);
        assert_eq!(of(-1), [window(-4, 2)]);
    }

    #[test]
    fn windows_with_gaps_leave_times_out() {
        let windows = FixedWindows::hopping(ms(2), ms(5));
        assert!(windows.slice_of(Timestamp(1)).is_some());
        assert_eq!(windows.slice_of(Timestamp(2)), None);
        assert!(windows.slice_of(Timestamp(5)).is_some());
    }

    #[test]
    fn cumulative_windows_begin_together() {
        let windows = FixedWindows::cumulative(ms(6), ms(2));
        let slice = windows.slice_of(Timestamp(3)).unwrap();
        assert_eq!(slice, window(2, 4));
        assert_eq!(
            windows.windows_of(slice).collect::<Vec<_>>(),
            [window(0, 4), window(0, 6)]
        );
    }

    #[test]
    fn the_ends_of_time_panic_nowhere() {
        for windows in [
            FixedWindows::tumbling(ms(10)),
            FixedWindows::hopping(ms(7), ms(3)).grace(Duration::MAX),
            FixedWindows::cumulative(ms(6), ms(2)).aligned_to(Timestamp(i64::MIN)),
            FixedWindows::tumbling(ms(1 << 62)).aligned_to(Timestamp(i64::MAX)),
        ] {
            for time in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
                let time = Timestamp(time);
                windows.next_close(time);
                if let Some(slice) = windows.slice_of(time) {
                    assert!(slice.start <= time && time < slice.end);
                    windows.windows_of(slice).take(10).for_each(|window| {
                        windows.closes_at(window);
                    });
                    windows.is_late(slice, time);
                }
            }
        }
    }

    #[test]
    fn a_window_closes_next_at_both_ends_of_time() {
        let windows = FixedWindows::tumbling(ms(10));
        let first = windows.next_close(Timestamp::MIN);
        assert!(first > Timestamp::MIN && first.0 - i64::MIN <= 10 && first.0 % 10 == 0);
        assert_eq!(windows.next_close(Timestamp(i64::MAX - 1)), Timestamp::MAX);
    }

    fn any_windows() -> impl Strategy<Value = FixedWindows> {
        let grid = (1u64..20, 1u64..20, -50i64..50, 0u64..9, any::<bool>());
        grid.prop_map(|(a, b, origin, grace, is_cumulative)| {
            let windows = match is_cumulative {
                true => FixedWindows::cumulative(ms(a * b), ms(a)),
                false => FixedWindows::hopping(ms(a), ms(b)),
            };
            windows.aligned_to(Timestamp(origin)).grace(ms(grace))
        })
    }

    /// All windows around zero, by the definition.
    fn all(windows: &FixedWindows) -> Vec<Window> {
        let starts_apart = match windows.shape {
            Shape::Hopping => windows.step,
            Shape::Cumulative => windows.size,
        };
        let starts = (-600..600).filter(|s| (s - windows.origin).rem_euclid(starts_apart) == 0);
        match windows.shape {
            Shape::Hopping => starts.map(|s| window(s, s + windows.size)).collect(),
            Shape::Cumulative => starts
                .flat_map(|s| {
                    (1..=windows.size / windows.step).map(move |n| window(s, s + n * windows.step))
                })
                .collect(),
        }
    }

    proptest! {
        /// A record is counted in exactly the windows that hold its time, late when all of them are closed, and time next
        /// matters where the next window closes.
        #[test]
        fn slices_windows_and_closing_are_as_defined(windows in any_windows(), time in -60i64..60, watermark in -60i64..60) {
            let all = all(&windows);
            let holding: Vec<Window> = all.iter().copied().filter(|w| w.start.0 <= time && time < w.end.0).collect();
            let slice = windows.slice_of(Timestamp(time));
            prop_assert_eq!(slice.is_some(), !holding.is_empty());
            if let Some(slice) = slice {
                let mut found: Vec<_> = windows.windows_of(slice).collect();
                found.sort();
                prop_assert_eq!(&found, &holding);
                // A slice is never cut by a window.
                for w in &all {
                    let is_apart = w.end <= slice.start || slice.end <= w.start;
                    prop_assert!(is_apart || (w.start <= slice.start && slice.end <= w.end));
                }
                let is_late = holding.iter().all(|w| windows.closes_at(*w).0 <= watermark);
                prop_assert_eq!(windows.is_late(slice, Timestamp(watermark)), is_late);
            }
            let next = all.iter().map(|w| windows.closes_at(*w).0).filter(|&at| at > watermark).min();
            prop_assert_eq!(Some(windows.next_close(Timestamp(watermark)).0), next);
        }
    }
}
