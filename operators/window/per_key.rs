//! Windows whose bounds depend on the records of each key: sessions, and those that slide.
//!
//! The open windows of a key are one value of its store. A timer of the key is set at the time at which the first of them would
//! close if nothing more came: a record that changes no window's close changes the value alone, and when the timer comes too early, it
//! is set anew.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::fold::WindowFold;
use super::{Emission, open, push};
use crate::codec::{
    Codec, CodecError, CodecId, Datum, First, Parts, TypeIdentity, tell_apart, told_apart,
};
use crate::runtime::{
    Due, Flow, Keyed, Late, LateReason, Operator, Origin, Output, Record, SideOutput, TimedStore,
    Upstream, Window, Windowed,
};
use crate::types::Timestamp;

/// Records of a key that are together in every window: the times of the first and the last of them, and their state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part<A> {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) state: A,
}

/// The parts of a key's open windows of the kind `W`, in the order of times.
pub(super) struct Held<A, W> {
    /// The time of the key's timer: at or before the first close.
    pub(super) timer: Timestamp,
    pub(super) parts: Vec<Part<A>>,
    kind: PhantomData<fn() -> W>,
}

impl<A, W> Held<A, W> {
    pub(super) fn new(timer: Timestamp, parts: Vec<Part<A>>) -> Self {
        Self {
            timer,
            parts,
            kind: PhantomData,
        }
    }
}

impl<A: Clone, W> Clone for Held<A, W> {
    fn clone(&self) -> Self {
        Self::new(self.timer, self.parts.clone())
    }
}

/// The effect of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held.
    Held,
    /// It is held, and a window closes before the key's timer: here is the new one.
    Timer(Timestamp),
    /// All of its windows are closed.
    Late,
}

/// A kind of windows whose bounds depend on the records of each key.
pub(super) trait KeyWindows: Copy + Send + Sync + 'static {
    /// The name of what a key has, in the identity of the store's values.
    const HELD: &'static str;

    /// Returns the grace of a closed window for late records, in milliseconds.
    fn grace_millis(self) -> i64;

    /// The watermark that closes a window.
    fn closes_at(self, window: Window) -> Timestamp {
        window.end.plus_millis(self.grace_millis())
    }

    /// Takes a record in, as of the watermark before it. Adds to `changed`, if somebody asks, the windows that it changed, made or
    /// ended.
    fn take<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &mut Option<Held<C::State, Self>>,
        time: Timestamp,
        value: &V,
        watermark: Timestamp,
        fold: &C,
        changed: Option<&mut Vec<Window>>,
    ) -> Taken;

    /// The windows of a key that are open as of a watermark, in the order of time.
    fn open<A>(self, held: &Held<A, Self>, watermark: Timestamp) -> Vec<Window>;

    /// The state of a window; nothing if there is no such window.
    fn whole<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &Held<C::State, Self>,
        window: Window,
        fold: &C,
    ) -> Option<C::State>;

    /// Takes out what is closed when the timer `timer` has come; returns when the next one is. A timer that was overtaken by an
    /// earlier one changes nothing.
    fn close<V: ?Sized, C: WindowFold<V>>(
        self,
        held: &mut Option<Held<C::State, Self>>,
        timer: Timestamp,
        watermark: Timestamp,
        fold: &C,
        closed: &mut Vec<(Window, C::State)>,
    ) -> Option<Timestamp>;
}

/// The bytes of what a key has: the timer's time in eight bytes, and for each part the times of its first and its last record in eight
/// bytes each, the length of its state in four, and the state. All numbers are big-endian. Where the time begins as the version of
/// a value does, 8,900 years before 1970 and earlier, 255 and 1 stand in front.
#[derive(Clone, Default)]
pub(super) struct HeldCodec<C>(C);

fn cut_short(bytes: &[u8]) -> CodecError {
    CodecError::Decode {
        codec: "the windows of a key",
        length_bytes: bytes.len(),
        why: "they end in the middle of one".to_owned(),
    }
}

fn take_time(bytes: &mut &[u8]) -> Option<Timestamp> {
    let (time, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Timestamp(i64::from_be_bytes(*time)))
}

/// The first, the last and the state's bytes of the next part.
fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<(Timestamp, Timestamp, &'a [u8])> {
    let (first, last) = (take_time(bytes)?, take_time(bytes)?);
    let state = take_state(bytes)?;
    Some((first, last, state))
}

/// Writes a state behind its length in four bytes.
pub(super) fn put_state<A: Clone>(
    codec: &impl Codec<A>,
    state: &A,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    codec.encode(state, out)?;
    let length_bytes = out.len() - length_at - 4;
    let length = u32::try_from(length_bytes).map_err(|_| CodecError::Encode {
        codec: "the windows of a key",
        why: format!("a window's state takes {length_bytes} bytes, more than 4 GiB"),
    })?;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The bytes of the next state.
pub(super) fn take_state<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (state, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(state)
}

impl<A: Clone, W: 'static, C: Codec<A>> Codec<Held<A, W>> for HeldCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, value: &Held<A, W>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let at = out.len();
        out.extend_from_slice(&value.timer.0.to_be_bytes());
        for part in &value.parts {
            out.extend_from_slice(&part.first.0.to_be_bytes());
            out.extend_from_slice(&part.last.0.to_be_bytes());
            put_state(&self.0, &part.state, out)?;
        }
        tell_apart(out, at);
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Held<A, W>>, CodecError> {
        let refuse = || cut_short(bytes);
        let mut rest = told_apart(bytes);
        let timer = take_time(&mut rest).ok_or_else(refuse)?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (first, last, state) = take_part(&mut rest).ok_or_else(refuse)?;
            let state = self.0.decode(state)?.into_owned();
            parts.push(Part { first, last, state });
        }
        Ok(Cow::Owned(Held::new(timer, parts)))
    }
}

impl<A: Datum + Clone, W: KeyWindows> Datum for Held<A, W> {
    type DefaultCodec = HeldCodec<A::DefaultCodec>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("{} of {}", W::HELD, A::identity()))
    }

    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        let refuse = || cut_short(bytes);
        let mut rest = told_apart(bytes);
        take_time(&mut rest).ok_or_else(refuse)?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (first, last, state) = take_part(&mut rest).ok_or_else(refuse)?;
            let state = A::to_json(state)?;
            parts.push(serde_json::json!({"first": first.0, "last": last.0, "state": state}));
        }
        Ok(parts.into())
    }
}

/// Where the states are in what a key has.
fn held_parts<A: Datum + Clone, W: KeyWindows>() -> Parts {
    Parts::one::<Held<First, W>, A>(|walk| {
        walk.bytes(8)?;
        while !walk.is_over() {
            walk.bytes(16)?;
            walk.measured(0)?;
        }
        Ok(())
    })
}

/// Fold of values in a key's windows.
struct Fold<K: ?Sized, V: ?Sized, W, C: WindowFold<V>, E> {
    store: TimedStore<Held<C::State, W>>,
    windows: W,
    fold: C,
    late: Late<K, V>,
    watermark: Timestamp,
    /// Operator's time as state: the end of the input closes what is open, and no more.
    reached: Timestamp,
    due: Due,
    closed: Vec<(Window, C::State)>,
    changed: Vec<Window>,
    scratch: Vec<u8>,
    emission: PhantomData<fn() -> E>,
}

impl<K, V, W, C, E> Fold<K, V, W, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    W: KeyWindows,
    C: WindowFold<V>,
    E: Emission,
{
    /// Gives the windows that a record changed, and says that those are no more which it ended.
    fn give_changed(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<Windowed<K>, E::Of<C::State>>,
    ) -> Flow {
        let (key, origin) = (record.key, record.meta.origin);
        for window in self.changed.drain(..) {
            let (windows, fold) = (self.windows, &self.fold);
            let whole = self.store.peek(key, |held| {
                held.and_then(|held| windows.whole(held, window, fold))
            })?;
            let scratch = &mut self.scratch;
            match (whole, E::gone::<C::State>()) {
                (Some(state), _) => E::with(&state, |result| {
                    push(window, key, result, origin, scratch, out)
                })?,
                (None, Some(gone)) => push(window, key, &gone, origin, scratch, out)?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

impl<K, V, W, C, E> Operator<K, V> for Fold<K, V, W, C, E>
where
    K: Datum + ?Sized,
    V: ?Sized,
    W: KeyWindows,
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
        self.changed.clear();
        let changed = E::IS_ON_UPDATE.then_some(&mut self.changed);
        let taken = self.store.update(record.key, |held| {
            windows.take(held, time, record.value, watermark, fold, changed)
        })?;
        match taken {
            Taken::Held => {}
            Taken::Timer(time) => self.store.set_timer(record.key, time)?,
            Taken::Late => return self.late.push(record, LateReason::Closed, watermark),
        }
        match E::IS_ON_UPDATE {
            true => self.give_changed(record, out),
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
            let (fold, closed) = (&self.fold, &mut self.closed);
            let next = self.store.update(key, |held| {
                windows.close(held, time, watermark, fold, closed)
            })?;
            if let Some(next) = next {
                self.store.set_timer(key, next)?;
            }
            for (window, state) in self.closed.drain(..) {
                self.reached = self.reached.max(windows.closes_at(window));
                if !E::IS_ON_UPDATE {
                    let scratch = &mut self.scratch;
                    E::with(&state, |result| {
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
            open => open.plus_millis(-self.windows.grace_millis()),
        }
    }

    /// Each time decides what is late, so how far time has come is state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<Windowed<K>, E::Of<C::State>>) -> Flow {
        self.store.set_time(self.reached)
    }
}

/// Puts the operator behind the stream.
#[track_caller]
pub(super) fn by_key<K, V, Up, W, C, E>(
    windows: W,
    keyed: Keyed<K, V, Up>,
    late: Option<SideOutput<K, V>>,
    name: &str,
    fold: C,
) -> Keyed<Windowed<K>, E::Of<C::State>, impl Upstream<Windowed<K>, E::Of<C::State>>>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    W: KeyWindows,
    C: WindowFold<V>,
    E: Emission,
{
    let store = name.to_owned();
    keyed
        .with_timed_store::<Held<C::State, W>>(name)
        .with_parts(name, held_parts::<C::State, W>())
        .with_open_windows::<Held<C::State, W>, C::State>(
            name,
            open::by_key::<K, V, _, _>(windows, fold.clone()),
        )
        .process(name, move |context| {
            let mut timed = context.timed_store(&store)?;
            context.read_ahead(&mut timed);
            Ok(Fold::<K, V, W, C, E> {
                store: timed,
                windows,
                fold: fold.clone(),
                late: context.late(&store, late.as_ref())?,
                watermark: Timestamp::MIN,
                reached: Timestamp::MIN,
                due: Due::default(),
                closed: Vec::new(),
                changed: Vec::new(),
                scratch: Vec::new(),
                emission: PhantomData,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::super::SessionWindows;
    use super::*;

    #[test]
    fn what_a_key_has_in_open_windows_has_these_bytes() {
        let part = Part {
            first: Timestamp(-1),
            last: Timestamp(3),
            state: 7u64,
        };
        let held = Held::<_, SessionWindows>::new(Timestamp(258), vec![part]);
        let mut bytes = Vec::new();
        let codec = HeldCodec::<crate::codec::Bincode>::default();
        codec.encode(&held, &mut bytes).unwrap();
        let mut expected = vec![0, 0, 0, 0, 0, 0, 1, 2];
        expected.extend([255; 8]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 7]);
        assert_eq!(bytes, expected);
        let decoded: Cow<'_, Held<u64, SessionWindows>> = codec.decode(&bytes).unwrap();
        assert_eq!((decoded.timer, &decoded.parts), (held.timer, &held.parts));
        for length in (0..bytes.len()).filter(|length| *length != 8) {
            let cut = Codec::<Held<u64, SessionWindows>>::decode(&codec, &bytes[..length]);
            assert!(cut.is_err(), "{length} bytes");
        }
    }
}
