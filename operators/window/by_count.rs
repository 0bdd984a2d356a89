//! Windows of a number of records.
//!
//! The records of a key are cut into slices, so that each window is a whole number of them, and a window's result is put together from
//! its slices when its last record comes. Time has no part in it.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::fold::WindowFold;
use super::per_key::{put_state, take_state};
use super::{Emission, Windows};
use crate::codec::{
    Codec, CodecError, CodecId, Datum, First, Parts, TypeIdentity, tell_apart, told_apart,
};
use crate::runtime::{
    Flow, Headers, JobError, KeyValueStore, Keyed, Operator, Output, Record, SideOutput, Upstream,
};

/// Windows of as many records of a key, in the order in which they are processed.
///
/// A window gives its result with its last record, with the key itself and that record's time. Between splits there is no order, so
/// which records are in one window may depend on how the job ran; behind [`sorted_by_time`](crate::runtime::Keyed::sorted_by_time) it
/// does not. A window that is not full gives nothing and stays as it is, also when the input ends: the next run goes on with it.
///
/// ```
/// use onceflow::prelude::*;
/// use onceflow::testing::TestBed;
///
/// // The mean of the last 20 readings of a sensor, every 5.
/// let job = Job::new("means");
/// job.source(values("readings", (0..100u64).map(|n| (n % 3, n))))
///     .key_by(|(sensor, _)| *sensor)
///     .window(CountWindows::hopping(20, 5))
///     .avg("means", |(_, reading)| *reading)
///     .sink(topic("means"));
///
/// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
/// let means = bed.take::<u64, f64>("means");
/// // Readings 1 to 20, 6 to 25 and 11 to 30 of each of three sensors.
/// assert_eq!(means.len(), 3 * 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWindows {
    size: u32,
    step: u32,
    /// The greatest number that divides both.
    slice: u32,
}

impl CountWindows {
    /// Windows of `size` records that follow each other: each record is in exactly one.
    ///
    /// # Panics
    /// If `size` is 0.
    #[must_use]
    pub fn tumbling(size: u32) -> Self {
        Self::hopping(size, size)
    }

    /// Windows of the last `size` records, every `step` records: the first is full after `size`.
    ///
    /// # Panics
    /// If `step` is 0 or more than `size`.
    #[must_use]
    pub fn hopping(size: u32, step: u32) -> Self {
        assert!(
            (1..=size).contains(&step),
            "count windows begin every 1 to {size} records (their size), not every {step}"
        );
        let (mut slice, mut rest) = (size, step);
        while rest > 0 {
            (slice, rest) = (rest, slice % rest);
        }
        Self { size, step, slice }
    }
}

/// The windows of a key that are not full: what the store of [`CountWindows`] has for it. A running job is asked for it with
/// [`Queries::store`](crate::runtime::Queries::store).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling<A> {
    slice: u32,
    /// Number of records, from the first of the oldest window on.
    pub count: u32,
    /// The states of the slices that windows are put together from, in order.
    pub slices: Vec<A>,
}

/// The store was cut into slices of another number of records.
#[derive(Debug, PartialEq, Eq)]
struct OtherSlice(u32);

impl CountWindows {
    /// Takes a record in; returns the state of the window that it made full.
    fn take<V: ?Sized, C: WindowFold<V>>(
        self,
        filling: &mut Option<Filling<C::State>>,
        value: &V,
        fold: &C,
    ) -> Result<Option<C::State>, OtherSlice> {
        let held = filling.get_or_insert_with(|| Filling {
            slice: self.slice,
            count: 0,
            slices: Vec::with_capacity(1),
        });
        if held.slice != self.slice {
            return Err(OtherSlice(held.slice));
        }
        match held.slices.last_mut() {
            Some(last) if held.count % self.slice != 0 => fold.add(last, value),
            _ => held.slices.push(fold.first(value)),
        }
        held.count += 1;
        if held.count < self.size {
            return Ok(None);
        }
        let mut slices = held.slices.iter();
        let mut whole = slices.next().cloned();
        if let Some(whole) = &mut whole {
            slices.for_each(|state| fold.merge(whole, state));
        }
        held.count -= self.step;
        held.slices.drain(..(self.step / self.slice) as usize);
        if held.count == 0 {
            *filling = None;
        }
        Ok(whole)
    }
}

/// The bytes of a [`Filling`]: how many records a slice has and how many there are, in four bytes each, then of each slice
/// the length of its state in four, and the state. All numbers are big-endian. Where the first begins as the version of a value does, from
/// 4,278,190,080 records on, 255 and 1 stand in front.
#[derive(Clone, Default)]
pub struct FillingCodec<C>(C);

fn cut_short(bytes: &[u8]) -> CodecError {
    CodecError::Decode {
        codec: "count windows of a key",
        length_bytes: bytes.len(),
        why: "they end in the middle of one".to_owned(),
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

impl<A: Clone, C: Codec<A>> Codec<Filling<A>> for FillingCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, value: &Filling<A>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let at = out.len();
        out.extend_from_slice(&value.slice.to_be_bytes());
        out.extend_from_slice(&value.count.to_be_bytes());
        let mut slices = value.slices.iter();
        slices.try_for_each(|state| put_state(&self.0, state, out))?;
        tell_apart(out, at);
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Filling<A>>, CodecError> {
        let refuse = || cut_short(bytes);
        let mut rest = told_apart(bytes);
        let slice = take_number(&mut rest).ok_or_else(refuse)?;
        let count = take_number(&mut rest).ok_or_else(refuse)?;
        let mut slices = Vec::new();
        while !rest.is_empty() {
            let state = take_state(&mut rest).ok_or_else(refuse)?;
            slices.push(self.0.decode(state)?.into_owned());
        }
        Ok(Cow::Owned(Filling {
            slice,
            count,
            slices,
        }))
    }
}

impl<A: Datum + Clone> Datum for Filling<A> {
    type DefaultCodec = FillingCodec<A::DefaultCodec>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("count windows of {}", A::identity()))
    }

    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        let refuse = || cut_short(bytes);
        let mut rest = told_apart(bytes);
        take_number(&mut rest).ok_or_else(refuse)?;
        let count = take_number(&mut rest).ok_or_else(refuse)?;
        let mut slices = Vec::new();
        while !rest.is_empty() {
            slices.push(A::to_json(take_state(&mut rest).ok_or_else(refuse)?)?);
        }
        Ok(serde_json::json!({"count": count, "slices": slices}))
    }
}

/// Where the states are in a [`Filling`].
fn filling_parts<A: Datum + Clone>() -> Parts {
    Parts::one::<Filling<First>, A>(|walk| {
        walk.bytes(8)?;
        while !walk.is_over() {
            walk.measured(0)?;
        }
        Ok(())
    })
}

/// Fold of values in windows of a number of records.
struct Fold<V: ?Sized, C: WindowFold<V>, E> {
    store: KeyValueStore<Filling<C::State>>,
    windows: CountWindows,
    fold: C,
    job: String,
    emission: PhantomData<fn() -> E>,
}

impl<V: ?Sized, C: WindowFold<V>, E> Fold<V, C, E> {
    #[cold]
    fn refuse(&self, &OtherSlice(slice): &OtherSlice) -> JobError {
        JobError::Topology {
            job: self.job.clone(),
            why: format!(
                "its count windows were cut every {slice} records, and are now cut every {}: give the step another name, or go back to \
                 the numbers that it had",
                self.windows.slice
            ),
        }
    }
}

impl<K, V, C, E> Operator<K, V> for Fold<V, C, E>
where
    K: ?Sized,
    V: ?Sized,
    C: WindowFold<V>,
    E: Emission,
{
    type OutKey = K;
    type Out = E::Of<C::State>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<K, E::Of<C::State>>,
    ) -> Flow {
        let (windows, fold) = (self.windows, &self.fold);
        let taken = self.store.update(record.key, |filling| {
            windows.take(filling, record.value, fold)
        })?;
        let full = taken.map_err(|other| self.refuse(&other))?;
        let Some(state) = full else {
            return Ok(());
        };
        E::with(&state, |result| {
            out.push(Record {
                headers: Headers::NONE,
                ..record.with_value(result)
            })
        })
    }
}

impl Windows for CountWindows {
    type Key<K: Datum + ?Sized> = K;

    #[track_caller]
    fn fold<K, V, Up, C, E>(
        self,
        keyed: Keyed<K, V, Up>,
        _late: Option<SideOutput<K, V>>,
        name: &str,
        fold: C,
    ) -> Keyed<K, E::Of<C::State>, impl Upstream<K, E::Of<C::State>>>
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        Up: Upstream<K, V>,
        C: WindowFold<V>,
        E: Emission,
    {
        let store = name.to_owned();
        keyed
            .with_store::<Filling<C::State>>(name)
            .with_parts(name, filling_parts::<C::State>())
            .process(name, move |context| {
                Ok(Fold::<V, C, E> {
                    store: context.store(&store)?,
                    windows: self,
                    fold: fold.clone(),
                    job: context.job().name().to_owned(),
                    emission: PhantomData,
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::Reduce;
    use super::*;

    /// The digits of each window's records, for the records 1, 2, 3…
    fn full(windows: CountWindows, count: u64) -> (Vec<u64>, Option<Filling<u64>>) {
        let digits = Reduce::new(|sum: &mut u64, other: &u64| {
            let places = other.checked_ilog10().map_or(1, |log| log + 1);
            *sum = *sum * 10u64.pow(places) + other;
        });
        let (mut filling, mut full) = (None, Vec::new());
        for value in 1..=count {
            full.extend(windows.take(&mut filling, &value, &digits).unwrap());
        }
        (full, filling)
    }

    #[test]
    fn count_windows_are_full_with_the_last_of_their_records() {
        let (found, rest) = full(CountWindows::tumbling(3), 9);
        assert_eq!((found, rest), (vec![123, 456, 789], None));
        assert_eq!(full(CountWindows::hopping(4, 2), 9).0, [1234, 3456, 5678]);
        assert_eq!(full(CountWindows::hopping(3, 1), 6).0, [123, 234, 345, 456]);
        assert_eq!(full(CountWindows::hopping(6, 4), 9).0, [123_456]);
        let (found, rest) = full(CountWindows::hopping(3, 2), 6);
        assert_eq!(found, [123, 345]);
        assert_eq!(rest.unwrap().slices, [5, 6]);
    }

    #[test]
    fn windows_that_are_cut_otherwise_are_refused() {
        let (_, mut filling) = full(CountWindows::tumbling(3), 2);
        let sum = Reduce::new(|sum: &mut u64, other: &u64| *sum += other);
        let refused = CountWindows::hopping(4, 2).take(&mut filling, &9, &sum);
        assert_eq!(refused, Err(OtherSlice(3)));
    }

    #[test]
    fn windows_that_are_not_full_have_these_bytes() {
        let filling = Filling {
            slice: 258,
            count: 259,
            slices: vec![7u64, 8],
        };
        let mut bytes = Vec::new();
        let codec = FillingCodec::<crate::codec::Bincode>::default();
        codec.encode(&filling, &mut bytes).unwrap();
        let expected = [0, 0, 1, 2, 0, 0, 1, 3, 0, 0, 0, 1, 7, 0, 0, 0, 1, 8];
        assert_eq!(bytes, expected);
        assert_eq!(*codec.decode(&bytes).unwrap(), filling);
        for length in (0..bytes.len()).filter(|length| ![8, 13].contains(length)) {
            let cut = Codec::<Filling<u64>>::decode(&codec, &bytes[..length]);
            assert!(cut.is_err(), "{length} bytes");
        }
    }
}
