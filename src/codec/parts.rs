//! The parts of a stored value that are of a user's types: where they stand among the bytes that a step writes around them.
//!
//! ```text
//! value of an earlier version    bytes of the step   part of an earlier type   bytes of the step
//!                                      │ as they are       │ converted              │ as they are
//! value of now                   bytes of the step   part of the type of now   bytes of the step
//! ```
//! A step that keeps a value inside its own says so where it declares its store: then `migrate_from` reaches the value there
//! (`versions.rs`).

use std::any::TypeId;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::versions::Earlier;
use super::{CodecError, Datum, TypeIdentity};

/// Stands for the first part in the type of a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename = "\u{1}the first part")]
pub(crate) struct First {}

/// Stands for the second part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename = "\u{1}the second part")]
pub(crate) struct Second {}

/// Most parts of different types in a value.
const PARTS_MAX: usize = 2;

/// Goes through the bytes of a value.
type Go = fn(&mut Walk<'_>) -> Result<(), CodecError>;

/// A part: its type, as the compiler and as stored data know it.
#[derive(Clone)]
struct Part {
    id: TypeId,
    identity: fn() -> TypeIdentity,
    /// The identity of what stands for it.
    stands: fn() -> TypeIdentity,
}

/// The parts of the values of a store.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The identity of the whole, in which `First` and `Second` stand for its parts.
    whole: fn() -> TypeIdentity,
    parts: Vec<Part>,
    go: Go,
}

impl Parts {
    /// Values of a type that `Whole` is, with [`First`] in the place of `A`; `go` finds the `A` in their bytes.
    pub(crate) fn one<Whole, A>(go: Go) -> Self
    where
        Whole: Datum + ?Sized,
        A: Datum + ?Sized,
    {
        Self {
            whole: Whole::identity,
            parts: vec![Part {
                id: TypeId::of::<A>(),
                identity: A::identity,
                stands: First::identity,
            }],
            go,
        }
    }

    /// Values of a type that `Whole` is, with [`First`] in the place of `A` and [`Second`] in that of `B`.
    pub(crate) fn two<Whole, A, B>(go: Go) -> Self
    where
        Whole: Datum + ?Sized,
        A: Datum + ?Sized,
        B: Datum + ?Sized,
    {
        let mut parts = Self::one::<Whole, A>(go);
        parts.parts.push(Part {
            id: TypeId::of::<B>(),
            identity: B::identity,
            stands: Second::identity,
        });
        parts
    }

    /// The numbers of the parts that are of a type.
    pub(crate) fn of_type<T: ?Sized + 'static>(&self) -> Vec<usize> {
        let all = self.parts.iter().enumerate();
        let own = all.filter(|(_, part)| part.id == TypeId::of::<T>());
        own.map(|(number, _)| number).collect()
    }

    /// The types of the parts, for people.
    pub(crate) fn types(&self) -> Vec<TypeIdentity> {
        self.parts.iter().map(|part| (part.identity)()).collect()
    }

    /// The identity of the whole where its parts are of these types; of the type of now where none is said.
    pub(super) fn whole_of(&self, types: [Option<&TypeIdentity>; PARTS_MAX]) -> TypeIdentity {
        let mut whole = (self.whole)().as_str().to_owned();
        for (part, earlier) in self.parts.iter().zip(types) {
            let identity = earlier.cloned().unwrap_or_else(part.identity);
            whole = whole.replace((part.stands)().as_str(), identity.as_str());
        }
        TypeIdentity::named(&whole)
    }

    /// Whether the identity of a whole is known from those of its parts: that of a very long type is not.
    pub(crate) fn make_up(&self, whole: &TypeIdentity) -> bool {
        self.whole_of([None; PARTS_MAX]) == *whole
    }

    /// Writes the value of now behind `out`, where `earlier` says how parts are converted.
    pub(super) fn convert(
        &self,
        bytes: &[u8],
        earlier: [Option<&Earlier>; PARTS_MAX],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let mut walk = Walk {
            whole: bytes,
            rest: bytes,
            earlier,
            out,
        };
        (self.go)(&mut walk)?;
        match walk.rest.len() {
            0 => Ok(()),
            left => Err(walk.refuse(format!("{left} bytes are left over"))),
        }
    }
}

/// A way through the bytes of a value of an earlier version, on which the value of now is written.
pub(crate) struct Walk<'w> {
    whole: &'w [u8],
    rest: &'w [u8],
    earlier: [Option<&'w Earlier>; PARTS_MAX],
    out: &'w mut Vec<u8>,
}

impl Walk<'_> {
    fn refuse(&self, why: String) -> CodecError {
        CodecError::Decode {
            codec: "a value of an earlier version",
            length_bytes: self.whole.len(),
            why,
        }
    }

    /// Whether all bytes were seen.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Copies the next bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<(), CodecError> {
        let Some((next, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.refuse("it ends too early".to_owned()));
        };
        self.out.extend_from_slice(next);
        self.rest = rest;
        Ok(())
    }

    /// Copies the next value, which is of the same type in every version.
    pub(crate) fn same<T: DeserializeOwned>(&mut self) -> Result<(), CodecError> {
        self.next::<T>().map(drop)
    }

    /// As [`same`](Self::same); returns it.
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        let (value, length_bytes) = super::formats::bincode_front(self.rest)?;
        self.bytes(length_bytes)?;
        Ok(value)
    }

    /// Goes through the next sequence, and through each element with `each`.
    pub(crate) fn each(
        &mut self,
        each: impl Fn(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let count: u64 = self.next()?;
        (0..count).try_for_each(|_| each(self))
    }

    /// Goes through the next value with `some` if it is there.
    pub(crate) fn optional(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let is_there = self.rest.first() == Some(&1);
        self.bytes(1)?;
        if is_there { some(self) } else { Ok(()) }
    }

    /// Converts the part of this number, which is an `A` now and has others behind it.
    pub(crate) fn part<A: Datum>(&mut self, number: usize) -> Result<(), CodecError> {
        match self.earlier[number] {
            Some(earlier) => {
                let length_bytes = earlier.convert_front(self.rest, self.out)?;
                self.rest = self.rest.get(length_bytes..).unwrap_or_default();
                Ok(())
            }
            None => {
                let (_, length_bytes) = A::decode_front(self.rest)?;
                self.bytes(length_bytes)
            }
        }
    }

    /// Converts the part of this number, to which the rest of the bytes belongs.
    pub(crate) fn last(&mut self, number: usize) -> Result<(), CodecError> {
        let part = std::mem::take(&mut self.rest);
        self.put(number, part)
    }

    /// Converts the part of this number, which stands behind its length in four bytes.
    pub(crate) fn measured(&mut self, number: usize) -> Result<(), CodecError> {
        let found = self.rest.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((part, rest)) = found else {
            return Err(self.refuse("it ends too early".to_owned()));
        };
        self.rest = rest;
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.put(number, part)?;
        let length_bytes = self.out.len() - at - 4;
        let length = u32::try_from(length_bytes)
            .map_err(|_| self.refuse(format!("a part takes {length_bytes} bytes")))?;
        self.out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn put(&mut self, number: usize, part: &[u8]) -> Result<(), CodecError> {
        match self.earlier[number] {
            Some(earlier) => earlier.convert(part, self.out),
            None => {
                self.out.extend_from_slice(part);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bincode, Codec, StoredVersions, ValueVersions, Versioned};
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        number: f64,
        name: String,
    }

    impl From<Old> for New {
        fn from(Old { name }: Old) -> Self {
            Self { number: 0.5, name }
        }
    }

    /// A step's own value: a list of users' values of two types, and one that may be absent.
    type Whole<A, B> = (u8, Vec<(i32, A, bool)>, Option<B>);

    fn parts<A: Datum, B: Datum>() -> Parts {
        Parts::two::<Whole<First, Second>, A, B>(|walk| {
            walk.same::<u8>()?;
            walk.each(|walk| {
                walk.same::<i32>()?;
                walk.part::<A>(0)?;
                walk.same::<bool>()
            })?;
            walk.optional(|walk| walk.part::<B>(1))
        })
    }

    fn bytes<V: Clone>(codec: &impl Codec<V>, value: &V) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.encode(value, &mut bytes).unwrap();
        bytes
    }

    fn read<V: Clone>(codec: &impl Codec<V>, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(codec.decode(bytes)?.into_owned())
    }

    fn versioned(versions: ValueVersions) -> Versioned<Bincode> {
        let versions = StoredVersions {
            earlier: Some(std::sync::Arc::new(versions)),
            are_told_apart: false,
        };
        Versioned::new(Bincode, versions)
    }

    fn whole<A, B>(a: A, b: Option<B>) -> Whole<A, B> {
        (9, vec![(-3, a, true)], b)
    }

    fn old() -> Old {
        let name = "ann".to_owned();
        Old { name }
    }

    #[test]
    fn u9_parts_of_a_whole_are_converted_one_type_after_the_other() {
        // First the one type changed, and then the other one. A part may begin with 255.
        let mut versions = ValueVersions::of_parts(parts::<New, u64>());
        versions.read(1, |old: Old| New::from(old)).unwrap();
        versions.read(2, |old: u8| u64::from(old) + 1_000).unwrap();
        let first: Whole<Old, u8> = whole(old(), Some(255));
        let second: Whole<New, u8> = whole(old().into(), Some(255));
        let now: Whole<New, u64> = whole(old().into(), Some(1_255));
        let earlier = versions.earlier();
        assert_eq!(earlier[&1], TypeIdentity::of::<Whole<Old, u8>>());
        assert_eq!(earlier[&2], TypeIdentity::of::<Whole<New, u8>>());
        assert!(parts::<New, u64>().make_up(&TypeIdentity::of::<Whole<New, u64>>()));
        let codec = versioned(versions);
        let stored = [
            bytes(&Bincode, &first),
            [&[255, 2], &bytes(&Bincode, &second)[..]].concat(),
            bytes(&codec, &now),
        ];
        assert_eq!(stored[0], b"\x09\x01\x05\x03ann\x01\x01\xff");
        assert_eq!(stored[2][..2], [255, 3]);
        for stored in stored {
            let read: Whole<New, u64> = read(&codec, &stored).unwrap();
            assert_eq!(read, now);
        }
        let without: Whole<Old, u8> = whole(old(), None);
        let expected: Whole<New, u64> = whole(old().into(), None);
        let without = bytes(&Bincode, &without);
        assert_eq!(read(&codec, &without), Ok(expected));
        for length in 0..without.len() {
            let cut: Result<Whole<New, u64>, _> = read(&codec, &without[..length]);
            assert!(cut.is_err(), "{length} bytes");
        }
    }

    #[test]
    fn u9_both_parts_of_one_type_are_converted() {
        let mut versions = ValueVersions::of_parts(parts::<New, New>());
        versions.read(1, |old: Old| New::from(old)).unwrap();
        assert_eq!(
            versions.earlier()[&1],
            TypeIdentity::of::<Whole<Old, Old>>()
        );
        let codec = versioned(versions);
        let stored = bytes(&Bincode, &whole(old(), Some(old())));
        let read: Whole<New, New> = read(&codec, &stored).unwrap();
        assert_eq!(read, whole(New::from(old()), Some(New::from(old()))));
    }
}
