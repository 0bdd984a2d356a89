//! Versions of a store's values: those that earlier builds of a job wrote are converted when they are read.
//!
//! ```text
//! version 1         value                    as in a store without versions
//! version 2 to 255  255, version, value      no value of version 1 begins with 255, else it gets no second version
//! ```
//! A value is written in the version of now at its next change; until then its old bytes stay.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Codec, CodecError, Datum, TypeIdentity};

/// Stands before the version of a value.
const MARK: u8 = u8::MAX;

type Convert = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), CodecError> + Send + Sync;

/// A version that is read, and no longer written.
#[derive(Clone)]
struct Earlier {
    value: TypeIdentity,
    /// From the bytes of its value to those of the value of now.
    convert: Arc<Convert>,
}

/// The versions that a build reads; the one behind the last of them is its own.
#[derive(Clone, Default)]
pub(crate) struct ValueVersions {
    earlier: BTreeMap<u8, Earlier>,
}

impl ValueVersions {
    /// Reads values of `version`, which are of the type `Old`.
    ///
    /// # Errors
    /// Why there can be no such version.
    pub(crate) fn read<Old, New>(
        &mut self,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Result<(), String>
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        let value = Old::identity();
        if version == 0 || version == MARK {
            return Err(format!(
                "there is no version {version}: values without one are of version 1, and there are up to 254 others"
            ));
        }
        if version == 1 && may_begin_with_mark(&value) {
            return Err(format!(
                "values of the type {value} begin with bytes that cannot be told from a version: give the step a new name, and fill its \
                 store from the input"
            ));
        }
        let convert = move |old: &[u8], new: &mut Vec<u8>| {
            let old = decode::<Old>(&Old::DefaultCodec::default(), old)?;
            New::DefaultCodec::default().encode(&convert(old), new)
        };
        let earlier = Earlier {
            value,
            convert: Arc::new(convert),
        };
        match self.earlier.insert(version, earlier) {
            None => Ok(()),
            Some(_) => Err(format!("version {version} is read in two ways")),
        }
    }

    /// The version that is written.
    pub(crate) fn current(&self) -> u8 {
        self.earlier.keys().last().map_or(1, |last| last + 1)
    }

    /// The bytes of a stored value as the value of now has them, without a version.
    pub(crate) fn as_of_now<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        let (version, value) = version_of(bytes);
        if version == self.current() {
            return Ok(Cow::Borrowed(value));
        }
        let Some(earlier) = self.earlier.get(&version) else {
            return Err(CodecError::Version {
                found: version,
                current: self.current(),
            });
        };
        let mut converted = Vec::new();
        (earlier.convert)(value, &mut converted)?;
        Ok(Cow::Owned(converted))
    }

    /// The types of the earlier versions.
    pub(crate) fn earlier(&self) -> BTreeMap<u8, TypeIdentity> {
        let earlier = self.earlier.iter();
        earlier
            .map(|(version, it)| (*version, it.value.clone()))
            .collect()
    }
}

fn decode<V: Clone>(codec: &impl Codec<V>, bytes: &[u8]) -> Result<V, CodecError> {
    Ok(codec.decode(bytes)?.into_owned())
}

/// Splits a stored value into its version and its bytes.
pub(crate) fn version_of(bytes: &[u8]) -> (u8, &[u8]) {
    match bytes {
        [MARK, version, value @ ..] => (*version, value),
        _ => (1, bytes),
    }
}

/// Whether the first byte of a value of this type may be 255 in [`Bincode`](super::Bincode), in which every number is told by a byte of
/// at most 254, but for those of one byte and those with a point. The first leaf of the type decides.
fn may_begin_with_mark(value: &TypeIdentity) -> bool {
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

/// A codec of values in versions: without any it is the codec that it stands before.
#[derive(Clone, Default)]
pub(crate) struct Versioned<C> {
    codec: C,
    versions: Option<Arc<ValueVersions>>,
}

impl<C> Versioned<C> {
    pub(crate) fn new(codec: C, versions: Option<Arc<ValueVersions>>) -> Self {
        Self { codec, versions }
    }

    fn current(&self) -> u8 {
        self.versions.as_ref().map_or(1, |it| it.current())
    }
}

impl<V: Clone, C: Codec<V>> Codec<V> for Versioned<C> {
    fn id(&self) -> super::CodecId {
        self.codec.id()
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let current = self.current();
        if current > 1 {
            out.extend_from_slice(&[MARK, current]);
        }
        self.codec.encode(value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, V>, CodecError> {
        let Some(versions) = &self.versions else {
            return self.codec.decode(bytes);
        };
        match versions.as_of_now(bytes)? {
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

    fn second() -> Versioned<Bincode> {
        let mut versions = ValueVersions::default();
        versions.read(1, |old: First| Second::from(old)).unwrap();
        Versioned::new(Bincode, Some(Arc::new(versions)))
    }

    fn third() -> Versioned<Bincode> {
        let mut versions = ValueVersions::default();
        versions
            .read(1, |first: First| vec![Second::from(first)])
            .unwrap();
        versions.read(2, |second: Second| vec![second]).unwrap();
        Versioned::new(Bincode, Some(Arc::new(versions)))
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
    fn u9_types_that_cannot_be_told_from_a_version_get_no_second_one() {
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
}
