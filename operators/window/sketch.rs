//! A sketch of a set: how many different values there were, about, in a state of bounded size (HyperLogLog).
//!
//! Each value is hashed to 64 bits. The first `precision` of them choose a register, which keeps the longest run of zeros (and the one
//! behind it) that the rest of a hash began with. A small set is kept as its hashes, and counted exactly. The estimate is that of
//! Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017): without tables, unbiased from 0 on.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::marker::PhantomData;

use super::fold::WindowFold;
use crate::codec::{Codec, CodecError, CodecId, Datum, TypeIdentity};

/// Begins the bytes of a set that is kept as its hashes, and of registers.
const HASHES: u8 = 0;
const REGISTERS: u8 = 1;
const HASH_BYTES: usize = 8;

/// A sketch of a set of values of the type `B`.
pub(super) struct Sketch<B> {
    precision: u8,
    kept: Kept,
    value: PhantomData<fn() -> B>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    /// All hashes: at most as many as take the place of the registers.
    Hashes(BTreeSet<u64>),
    Registers(Vec<u8>),
}

impl<B> Clone for Sketch<B> {
    fn clone(&self) -> Self {
        Self {
            precision: self.precision,
            kept: self.kept.clone(),
            value: PhantomData,
        }
    }
}

/// The 64 bits of `MurmurHash64A` with the seed 0: part of the stored format.
pub(in crate::operators) fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word = (word ^ (word >> 47)).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(FACTOR);
    hash ^ (hash >> 47)
}

impl<B: Datum + Sized> Sketch<B> {
    fn new(precision: u8) -> Self {
        Self {
            precision,
            kept: Kept::Hashes(BTreeSet::new()),
            value: PhantomData,
        }
    }

    fn add(&mut self, value: &B) {
        let mut bytes = Vec::with_capacity(16);
        match B::DefaultCodec::default().encode(value, &mut bytes) {
            Ok(()) => self.add_hash(hash(&bytes)),
            // A value that has no bytes is not different from others of the kind.
            Err(_) => self.add_hash(0),
        }
    }

    fn add_hash(&mut self, hash: u64) {
        match &mut self.kept {
            Kept::Registers(registers) => note(registers, self.precision, hash),
            Kept::Hashes(hashes) => {
                hashes.insert(hash);
                if hashes.len() * HASH_BYTES > 1 << self.precision {
                    let mut registers = vec![0; 1 << self.precision];
                    for hash in std::mem::take(hashes) {
                        note(&mut registers, self.precision, hash);
                    }
                    self.kept = Kept::Registers(registers);
                }
            }
        }
    }

    /// Takes another sketch in. Of two precisions the lower one stays.
    fn merge(&mut self, other: &Self) {
        if other.precision < self.precision {
            let mine = std::mem::replace(self, other.clone());
            return self.merge(&mine);
        }
        let theirs = match &other.kept {
            Kept::Hashes(hashes) => return hashes.iter().for_each(|hash| self.add_hash(*hash)),
            Kept::Registers(registers) => registers,
        };
        let mut merged = vec![0u8; 1 << self.precision];
        let more = other.precision - self.precision;
        for (number, register) in (0u64..).zip(theirs).filter(|(_, it)| **it > 0) {
            // The last bits of its number are the first of the rest here.
            let rest = number & ((1 << more) - 1);
            let rank = match rest {
                0 => more + register,
                _ => more - width(rest) + 1,
            };
            let mine = &mut merged[place(number >> more)];
            *mine = rank.max(*mine);
        }
        match &mut self.kept {
            Kept::Registers(registers) => {
                let both = registers.iter_mut().zip(merged);
                both.for_each(|(mine, theirs)| *mine = theirs.max(*mine));
            }
            Kept::Hashes(hashes) => {
                let hashes = std::mem::take(hashes);
                self.kept = Kept::Registers(merged);
                hashes.into_iter().for_each(|hash| self.add_hash(hash));
            }
        }
    }

    /// Estimates the different values.
    pub(super) fn estimate(&self) -> u64 {
        match &self.kept {
            Kept::Hashes(hashes) => hashes.len() as u64,
            Kept::Registers(registers) => estimate(registers, self.precision),
        }
    }
}

/// Counts a number's bits.
#[allow(clippy::cast_possible_truncation, reason = "at most 64")]
fn width(number: u64) -> u8 {
    (u64::BITS - number.leading_zeros()) as u8
}

/// The place of a register, of which there are at most 2^18.
#[allow(clippy::cast_possible_truncation, reason = "at most 18 bits")]
fn place(number: u64) -> usize {
    number as usize
}

fn note(registers: &mut [u8], precision: u8, hash: u64) {
    let rest_bits = 64 - precision;
    let rest = hash & (u64::MAX >> precision);
    let rank = rest_bits - width(rest) + 1;
    let register = &mut registers[place(hash >> rest_bits)];
    *register = rank.max(*register);
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate is a positive number with an error"
)]
fn estimate(registers: &[u8], precision: u8) -> u64 {
    let last = usize::from(64 - precision) + 1;
    let mut counts = vec![0u32; last + 1];
    registers
        .iter()
        .for_each(|rank| counts[usize::from(*rank).min(last)] += 1);
    let m = registers.len() as f64;
    let mut sum = m * tau(1.0 - f64::from(counts[last]) / m);
    for count in counts[1..last].iter().rev() {
        sum = 0.5 * (sum + f64::from(*count));
    }
    sum += m * sigma(f64::from(counts[0]) / m);
    (m * m / (2.0 * std::f64::consts::LN_2 * sum)).round() as u64
}

/// The share of registers that are still empty, as a sum of its powers.
fn sigma(empty: f64) -> f64 {
    let (mut x, mut y, mut sum) = (empty, 1.0, empty);
    if empty >= 1.0 {
        return f64::INFINITY;
    }
    loop {
        x *= x;
        let before = sum;
        sum += x * y;
        y += y;
        if sum.to_bits() == before.to_bits() {
            return sum;
        }
    }
}

/// The share of registers that are not full, as a sum of its roots.
fn tau(open: f64) -> f64 {
    if open <= 0.0 || open >= 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut sum) = (open, 1.0, 1.0 - open);
    loop {
        x = x.sqrt();
        let before = sum;
        y *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * y;
        if sum.to_bits() == before.to_bits() {
            return sum / 3.0;
        }
    }
}

/// The bytes of a sketch: its precision, 0 and its hashes in order, eight bytes each and big-endian, or 1 and its registers, a byte each.
pub(super) struct SketchCodec<B>(PhantomData<fn() -> B>);

impl<B> Default for SketchCodec<B> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<B> Clone for SketchCodec<B> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<B: Datum + Sized> Codec<Sketch<B>> for SketchCodec<B> {
    fn id(&self) -> CodecId {
        B::DefaultCodec::default().id()
    }

    fn encode(&self, value: &Sketch<B>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(value.precision);
        match &value.kept {
            Kept::Hashes(hashes) => {
                out.push(HASHES);
                hashes
                    .iter()
                    .for_each(|hash| out.extend_from_slice(&hash.to_be_bytes()));
            }
            Kept::Registers(registers) => {
                out.push(REGISTERS);
                out.extend_from_slice(registers);
            }
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Sketch<B>>, CodecError> {
        let refuse = || CodecError::Decode {
            codec: "a sketch of a set",
            length_bytes: bytes.len(),
            why: "these are not the bytes of hashes or of registers".to_owned(),
        };
        let (precision, kept) = match bytes {
            [precision @ 4..=18, HASHES, hashes @ ..] => {
                let (hashes, []) = hashes.as_chunks::<HASH_BYTES>() else {
                    return Err(refuse());
                };
                let hashes = hashes.iter().map(|hash| u64::from_be_bytes(*hash));
                (*precision, Kept::Hashes(hashes.collect()))
            }
            [precision @ 4..=18, REGISTERS, registers @ ..]
                if registers.len() == 1 << *precision =>
            {
                (*precision, Kept::Registers(registers.to_vec()))
            }
            _ => return Err(refuse()),
        };
        let value = PhantomData;
        Ok(Cow::Owned(Sketch {
            precision,
            kept,
            value,
        }))
    }
}

impl<B: Datum + Sized> Datum for Sketch<B> {
    type DefaultCodec = SketchCodec<B>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("sketch of {}", B::identity()))
    }
}

/// The sketch of what a function takes from the values.
pub(super) struct Sketched<B, F> {
    of: F,
    precision: u8,
    value: PhantomData<fn() -> B>,
}

impl<B, F> Sketched<B, F> {
    /// # Panics
    /// If the precision is not within 4 to 18.
    pub(super) fn new(of: F, precision: u8) -> Self {
        assert!(
            (4..=18).contains(&precision),
            "the precision of a sketch is 4 to 18, not {precision}: it has 2^precision registers, and a standard error of 1.04 / 2^(precision/2)"
        );
        Self {
            of,
            precision,
            value: PhantomData,
        }
    }
}

impl<B, F: Clone> Clone for Sketched<B, F> {
    fn clone(&self) -> Self {
        Self::new(self.of.clone(), self.precision)
    }
}

impl<V, B, F> WindowFold<V> for Sketched<B, F>
where
    V: ?Sized,
    B: Datum + Sized,
    F: Fn(&V) -> B + Clone + Send + Sync + 'static,
{
    type State = Sketch<B>;

    fn first(&self, value: &V) -> Sketch<B> {
        let mut sketch = Sketch::new(self.precision);
        sketch.add(&(self.of)(value));
        sketch
    }

    fn add(&self, sketch: &mut Sketch<B>, value: &V) {
        sketch.add(&(self.of)(value));
    }

    fn merge(&self, sketch: &mut Sketch<B>, other: &Sketch<B>) {
        sketch.merge(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sketch of `count` numbers behind `from`.
    fn of(precision: u8, from: u64, count: u64) -> Sketch<u64> {
        let mut sketch = Sketch::new(precision);
        (from..from + count).for_each(|value| sketch.add(&value));
        sketch
    }

    /// Other implementations of the hash give the same.
    #[test]
    fn the_hash_is_that_of_others() {
        let hashes = [
            ("", 0),
            ("a", 0x0717_17d2_d36b_6b11),
            ("0123456789abcdef0", 0xd6d7_40ea_6bf3_5f45),
        ];
        for (text, expected) in hashes {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn sketches_have_these_bytes() {
        let codec = SketchCodec::<u64>::default();
        let mut sketch = Sketch::<u64>::new(4);
        sketch.add_hash(0x0102_0304_0506_0708);
        let mut bytes = Vec::new();
        codec.encode(&sketch, &mut bytes).unwrap();
        assert_eq!(bytes, [4, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(codec.decode(&bytes).unwrap().kept, sketch.kept);
        assert!(codec.decode(&bytes[..9]).is_err());
        sketch.add_hash(u64::MAX);
        sketch.add_hash(0x1000_0000_0000_0000);
        bytes.clear();
        codec.encode(&sketch, &mut bytes).unwrap();
        let mut expected = vec![4, 1, 4, 61];
        expected.extend([0; 13]);
        expected.push(1);
        assert_eq!(bytes, expected);
        assert_eq!(codec.decode(&bytes).unwrap().kept, sketch.kept);
        assert!(codec.decode(&bytes[..17]).is_err());
    }

    #[test]
    fn few_different_values_are_counted_exactly() {
        let (precision, most) = (12, 512);
        for count in [0, 1, 100, most] {
            let mut sketch = of(precision, 0, count);
            sketch.merge(&of(precision, 0, count));
            assert_eq!(sketch.estimate(), count);
        }
    }

    /// The error over many sets is the one that is stated, and none is off by five times that.
    #[test]
    #[allow(clippy::cast_precision_loss, reason = "an error is a share")]
    fn the_error_of_a_sketch_is_the_one_that_is_stated() {
        for precision in [8u8, 11, 14] {
            let stated = 1.04 / f64::from(1u32 << precision).sqrt();
            for count in [1_000u64, 10_000, 60_000] {
                let sets = 24u64;
                let mut squares = 0.0;
                for set in 0..sets {
                    let estimate = of(precision, set << 32, count).estimate();
                    let error = (estimate as f64 - count as f64) / count as f64;
                    assert!(error.abs() < 5.0 * stated, "{precision}, {count}: {error}");
                    squares += error * error;
                }
                let error = (squares / sets as f64).sqrt();
                assert!(
                    error < 1.5 * stated,
                    "{precision}, {count}: {error} of {stated}"
                );
            }
        }
    }

    /// However values are put together, also from sketches of other precisions, the sketch is the same.
    #[test]
    fn merged_sketches_are_those_of_all_values() {
        for (count, other) in [(10, 10), (10, 5_000), (5_000, 10), (5_000, 5_000)] {
            let mut all = of(9, 0, count);
            (count..count + other).for_each(|value| all.add(&value));
            for (precision, precision_other) in [(9, 9), (9, 12), (12, 9)] {
                let mut merged = of(precision, 0, count);
                merged.merge(&of(precision_other, count, other));
                assert_eq!((merged.precision, &merged.kept), (9, &all.kept));
            }
        }
    }
}
