//! Versions of a store's values: those that earlier builds of a job wrote are converted when they are read.
//!
//! ```text
//! version 1         value                    as in a store without versions
//!                   255, 1, value            where the value begins as a version does, in a store that tells them apart
//! version 2 to 254  255, version, value
//! ```
//! A store tells them apart from its first value on if its type asks for that (`CodecId::told_apart`, stored with its schema).
//! A value is written in the version of now at its next change; until then its old bytes stay. Where a step keeps a user's type inside
//! its own, the parts of that type are converted, and the version is that of the whole (`parts.rs`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parts::Parts;
use super::{Codec, CodecError, Datum, TypeIdentity};

/// Stands before the version of a value.
const MARK: u8 = u8::MAX;

/// Writes a value of now behind `out` for one of an earlier version: a whole one, or one at the front of bytes, whose length it returns.
type Convert<R> = dyn Fn(&[u8], &mut Vec<u8>) -> Result<R, CodecError> + Send + Sync;

/// A type of an earlier version, which is read and no longer written.
#[derive(Clone)]
pub(super) struct Earlier {
    value: TypeIdentity,
    convert: Arc<Convert<()>>,
    convert_front: Arc<Convert<usize>>,
}

impl Earlier {
    fn new<Old, New>(convert: impl Fn(Old) -> New + Send + Sync + 'static) -> Self
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        let convert = Arc::new(convert);
        let of_front = Arc::clone(&convert);
        Self {
            value: Old::identity(),
            convert: Arc::new(move |old, new| {
                let old = decode::<Old>(&Old::DefaultCodec::default(), old)?;
                New::DefaultCodec::default().encode(&convert(old), new)
            }),
            convert_front: Arc::new(move |old, new| {
                let (old, length_bytes) = Old::decode_front(old)?;
                New::DefaultCodec::default().encode(&of_front(owned(old)), new)?;
                Ok(length_bytes)
            }),
        }
    }

    /// Converts a value that takes up all of `bytes`.
    pub(super) fn convert(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        (self.convert)(bytes, out)
    }

    /// Converts the value at the front of `bytes`; returns how many of them are its own.
    pub(super) fn convert_front(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, CodecError> {
        (self.convert_front)(bytes, out)
    }
}

/// The versions that a build reads; the one behind the last of them is its own.
#[derive(Clone, Default)]
pub(crate) struct ValueVersions {
    /// The versions that are read.
    versions: BTreeSet<u8>,
    /// Parts until they changed, by the version in which they were so last. Without parts the whole is the first one.
    changes: [BTreeMap<u8, Earlier>; 2],
    parts: Option<Parts>,
}

impl ValueVersions {
    /// The versions of values that have these parts.
    pub(crate) fn of_parts(parts: Parts) -> Self {
        Self {
            parts: Some(parts),
            ..Self::default()
        }
    }

    /// Reads values of `version`, which are of the type `Old`, or have parts of it.
    ///
    /// # Errors
    /// Reason against such a version.
    pub(crate) fn read<Old, New>(
        &mut self,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Result<(), String>
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        if version == 0 || version >= LAST {
            return Err(format!(
                "there is no version {version}: values without one are of version 1, and the last is {LAST}, which is written"
            ));
        }
        let changed = match &self.parts {
            None => vec![0],
            Some(parts) => parts.of_type::<New>(),
        };
        let earlier = Earlier::new(convert);
        self.versions.insert(version);
        for part in changed {
            if self.changes[part]
                .insert(version, earlier.clone())
                .is_some()
            {
                return Err(format!("version {version} is read in two ways"));
            }
        }
        Ok(())
    }

    /// The version that is written.
    pub(crate) fn current(&self) -> u8 {
        self.versions.last().map_or(1, |last| last + 1)
    }

    /// Finds the parts of a value of `version`: as they were until they changed next.
    fn at(&self, version: u8) -> [Option<&Earlier>; 2] {
        let until = |changes| BTreeMap::range(changes, version..).next();
        let [first, second] = &self.changes;
        [first, second].map(|changes| until(changes).map(|(_, earlier)| earlier))
    }

    /// The bytes of a stored value as the value of now has them, without a version.
    pub(crate) fn as_of_now<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        let (version, value) = version_of(bytes);
        if version == self.current() {
            return Ok(Cow::Borrowed(value));
        }
        if !self.versions.contains(&version) {
            return Err(CodecError::Version {
                found: version,
                current: self.current(),
            });
        }
        let (mut converted, earlier) = (Vec::new(), self.at(version));
        match (&self.parts, earlier) {
            (Some(parts), earlier) => parts.convert(value, earlier, &mut converted)?,
            (None, [Some(whole), _]) => whole.convert(value, &mut converted)?,
            (None, _) => unreachable!("a version that is read says how"),
        }
        Ok(Cow::Owned(converted))
    }

    /// The types of the earlier versions.
    pub(crate) fn earlier(&self) -> BTreeMap<u8, TypeIdentity> {
        let type_of = |version: u8| {
            let types = self.at(version).map(|part| part.map(|it| &it.value));
            match (&self.parts, types) {
                (Some(parts), types) => Some(parts.whole_of(types)),
                (None, [whole, _]) => whole.cloned(),
            }
        };
        let versions = self.versions.iter();
        versions
            .filter_map(|version| Some((*version, type_of(*version)?)))
            .collect()
    }
}

fn decode<V: Clone>(codec: &impl Codec<V>, bytes: &[u8]) -> Result<V, CodecError> {
    Ok(owned(codec.decode(bytes)?))
}

fn owned<V: Clone>(value: Cow<'_, V>) -> V {
    value.into_owned()
}

/// The last version that there is.
const LAST: u8 = MARK - 1;

/// Whether bytes begin with a version.
fn has_version(bytes: &[u8]) -> bool {
    matches!(bytes, [MARK, 1..=LAST, ..])
}

/// Splits a stored value into its version and its bytes.
pub(crate) fn version_of(bytes: &[u8]) -> (u8, &[u8]) {
    match bytes {
        [MARK, version @ 1..=LAST, value @ ..] => (*version, value),
        _ => (1, bytes),
    }
}

/// Writes version 1 in front of a value that begins, at `at`, as a version does.
pub(crate) fn tell_apart(out: &mut Vec<u8>, at: usize) {
    if has_version(&out[at..]) {
        out.splice(at..at, [MARK, 1]);
    }
}

/// The bytes of a value without what [`tell_apart`] put in front.
pub(crate) fn told_apart(bytes: &[u8]) -> &[u8] {
    match bytes {
        [MARK, 1, value @ ..] => value,
        _ => bytes,
    }
}

/// Whether the first byte of a value of this type may be 255 in [`Bincode`](super::Bincode), in which every number is told by a byte of
/// at most 254, but for those of one byte and those with a point. The first leaf of the type decides.
pub(super) fn may_begin_with_mark(value: &TypeIdentity) -> bool {
    let mut rest = value.as_str();
    loop {
        let end = rest.find(['{', '(', '[', '<', '|', ',', ')', '}', ']']);
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = match behind.split_at_checked(1) {
            // A struct: its first field, behind the name.
            Some(("{", fields)) => match fields.split_once(':') {
                Some((field, first)) if !field.contains(['{', '}']) => first,
                // Of a map the length comes first; what has no fields has no bytes.
                _ => return fields.starts_with('}'),
            },
            Some(("(", fields)) => fields,
            // The length of a sequence, the number of a variant, whether there is a value.
            Some(("[" | "<", _)) => return false,
            _ => {
                return matches!(name, "" | "?" | "()" | "u8" | "i8" | "f32" | "f64")
                    || name.starts_with('@');
            }
        };
    }
}

/// The versions of a store's values.
#[derive(Clone, Default)]
pub(crate) struct StoredVersions {
    /// Those that are read, if there were any before.
    pub(crate) earlier: Option<Arc<ValueVersions>>,
    /// Whether the store tells values of version 1 from later ones.
    pub(crate) are_told_apart: bool,
}

impl StoredVersions {
    /// The bytes of a stored value as the value of now has them, without a version.
    pub(crate) fn as_of_now<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        match &self.earlier {
            Some(versions) => versions.as_of_now(bytes),
            None if self.are_told_apart => Ok(Cow::Borrowed(told_apart(bytes))),
            None => Ok(Cow::Borrowed(bytes)),
        }
    }
}

/// A codec of values in versions: without any it is the codec that it stands before.
#[derive(Clone, Default)]
pub(crate) struct Versioned<C> {
    codec: C,
    versions: StoredVersions,
}

impl<C> Versioned<C> {
    pub(crate) fn new(codec: C, versions: StoredVersions) -> Self {
        Self { codec, versions }
    }
}

impl<V: Clone, C: Codec<V>> Codec<V> for Versioned<C> {
    fn id(&self) -> super::CodecId {
        self.codec.id()
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let versions = &self.versions;
        let current = versions.earlier.as_ref().map_or(1, |it| it.current());
        if current > 1 {
            out.extend_from_slice(&[MARK, current]);
            return self.codec.encode(value, out);
        }
        let at = out.len();
        self.codec.encode(value, out)?;
        if versions.are_told_apart {
            tell_apart(out, at);
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, V>, CodecError> {
        match self.versions.as_of_now(bytes)? {
            Cow::Borrowed(value) => self.codec.decode(value),
            Cow::Owned(converted) => Ok(Cow::Owned(self.codec.decode(&converted)?.into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::super::{Bincode, TypeIdentity};
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct First {
        owner: String,
        cents: i64,
    }

    /// A field came into the middle.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Second {
        owner: String,
        currency: String,
        cents: i64,
    }

    impl From<First> for Second {
        fn from(first: First) -> Self {
            let currency = "EUR".to_owned();
            let First { owner, cents } = first;
            Self {
                owner,
                currency,
                cents,
            }
        }
    }

    fn versioned(versions: ValueVersions) -> Versioned<Bincode> {
        let versions = StoredVersions {
            earlier: Some(Arc::new(versions)),
            are_told_apart: false,
        };
        Versioned::new(Bincode, versions)
    }

    fn second() -> Versioned<Bincode> {
        let mut versions = ValueVersions::default();
        versions.read(1, |old: First| Second::from(old)).unwrap();
        versioned(versions)
    }

    fn third() -> Versioned<Bincode> {
        let mut versions = ValueVersions::default();
        versions
            .read(1, |first: First| vec![Second::from(first)])
            .unwrap();
        versions.read(2, |second: Second| vec![second]).unwrap();
        versioned(versions)
    }

    fn bytes<V: Clone>(codec: &impl Codec<V>, value: &V) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.encode(value, &mut bytes).unwrap();
        bytes
    }

    fn read<V: Clone>(codec: &impl Codec<V>, bytes: &[u8]) -> Result<V, CodecError> {
        codec.decode(bytes).map(Cow::into_owned)
    }

    #[test]
    fn u9_values_of_every_version_are_read_and_a_field_in_the_middle_is_filled() {
        let first = First {
            owner: "ann".to_owned(),
            cents: 3,
        };
        let second_value = Second::from(first.clone());
        let (one, two) = (bytes(&Bincode, &first), bytes(&second(), &second_value));
        assert_eq!(one, b"\x03ann\x06");
        assert_eq!(two, b"\xff\x02\x03ann\x03EUR\x06");
        assert_eq!(read(&second(), &one).as_ref(), Ok(&second_value));
        assert_eq!(read(&second(), &two).as_ref(), Ok(&second_value));
        for bytes in [one, two] {
            let read: Vec<Second> = read(&third(), &bytes).unwrap();
            assert_eq!(read, std::slice::from_ref(&second_value));
        }
    }

    #[test]
    fn u9_a_value_of_a_later_version_is_refused_with_both_numbers() {
        let three = bytes(&third(), &Vec::<Second>::new());
        let refused = read::<Second>(&second(), &three).unwrap_err().to_string();
        assert!(
            refused.contains("version 3") && refused.contains("version 2"),
            "{refused}"
        );
    }

    #[test]
    fn u9_types_whose_values_may_begin_as_a_version_does_are_known() {
        let free = [
            TypeIdentity::of::<u8>(),
            TypeIdentity::of::<(f64, u64)>(),
            TypeIdentity::of::<[u8; 3]>(),
            TypeIdentity::of::<((i8, String), u64)>(),
            TypeIdentity::of::<()>(),
            TypeIdentity::named("Empty{}"),
        ];
        for identity in free {
            assert!(may_begin_with_mark(&identity), "{identity}");
        }
        let told = [
            TypeIdentity::of::<First>(),
            TypeIdentity::of::<(u64, f64)>(),
            TypeIdentity::of::<Vec<u8>>(),
            TypeIdentity::of::<Option<u8>>(),
            TypeIdentity::of::<BTreeMap<u8, First>>(),
            TypeIdentity::of::<Result<u8, First>>(),
            TypeIdentity::of::<String>(),
            TypeIdentity::of::<bool>(),
            TypeIdentity::of::<i64>(),
        ];
        for identity in told {
            assert!(!may_begin_with_mark(&identity), "{identity}");
        }
    }

    #[test]
    fn u9_values_that_begin_as_a_version_does_are_told_apart_and_converted() {
        let first = Versioned::new(
            Bincode,
            StoredVersions {
                earlier: None,
                are_told_apart: true,
            },
        );
        let mut versions = ValueVersions::default();
        versions
            .read(1, |(kind, cents): (u8, i64)| Second {
                owner: kind.to_string(),
                currency: String::new(),
                cents,
            })
            .unwrap();
        let mut second = versioned(versions);
        second.versions.are_told_apart = true;
        for (kind, cents) in [
            (255_u8, 1),
            (255, -1),
            (255, 300),
            (255, 0),
            (254, 1),
            (0, 1),
        ] {
            let stored = bytes(&first, &(kind, cents));
            assert_eq!(read(&first, &stored), Ok((kind, cents)));
            let of_now = read::<Second>(&second, &stored).unwrap();
            assert_eq!((of_now.owner, of_now.cents), (kind.to_string(), cents));
        }
        // 255 and 2 would be read as a value of the second version.
        assert_eq!(bytes(&Bincode, &(255_u8, 1_i64)), [255, 2]);
        assert_eq!(bytes(&first, &(255_u8, 1_i64)), [255, 1, 255, 2]);
        assert_eq!(bytes(&first, &(254_u8, 1_i64)), [254, 2]);
    }

    #[test]
    fn u9_no_value_of_a_type_that_is_told_from_a_version_begins_as_one_does() {
        for number in [0, 250, 251, 255, 65_535, u64::MAX] {
            assert_ne!(bytes(&Bincode, &number)[0], MARK);
            assert_ne!(bytes(&Bincode, &u128::from(number))[0], MARK);
            assert_ne!(bytes(&Bincode, &number.cast_signed())[0], MARK);
        }
        for letter in ['a', 'ÿ', char::MAX] {
            assert_ne!(bytes(&Bincode, &letter)[0], MARK);
        }
        assert_ne!(bytes(&Bincode, &vec![MARK; 300])[0], MARK);
    }

    #[test]
    fn u9_what_begins_as_a_version_does_is_told_apart() {
        for (whole, stored) in [
            (&[255, 2, 9][..], &[255, 1, 255, 2, 9][..]),
            (&[255, 255, 9], &[255, 255, 9]),
            (&[255, 1], &[255, 1, 255, 1]),
            (&[255], &[255]),
            (&[7], &[7]),
            (&[], &[]),
        ] {
            let mut bytes = vec![3; 4];
            bytes.extend_from_slice(whole);
            tell_apart(&mut bytes, 4);
            assert_eq!(&bytes[4..], stored);
        }
        assert_eq!(told_apart(&[255, 1, 255, 2, 9]), [255, 2, 9]);
    }
}
