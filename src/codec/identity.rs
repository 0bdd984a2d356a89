//! The identity of a type and of what is stored in it: whether another build of a job may read what this one wrote.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::shape::shape_of;
use super::versions::may_begin_with_mark;
use super::{Bincode, Codec, CodecId, Datum};

/// A type as it is known to data that outlives the build: equal identities mean that each reads what the other wrote, as what it was.
///
/// That of a serde type is computed from what its `Deserialize` asks for: the names of structs, fields and variants, their order, and
/// the primitive types at the ends. `u64` and `i64` differ, and so do two structs whose fields are swapped. What serde calls the same is the same:
/// `usize` is `u64`, `Box<T>` is `T`, `String` and `PathBuf` are text. It cannot be seen what a number means, nor what stands in a struct behind a
/// field whose `Deserialize` refuses every sample. Say both with serde's own attribute: `#[serde(rename = "Account-2")]` gives a type
/// another identity, and `#[serde(rename = "OldName")]` on a type or field that was renamed in the source keeps the one it had.
///
/// ```
/// use onceflow::codec::{Datum, TypeIdentity};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Account { owner: String, cents: Option<i64> }
///
/// assert_eq!(Account::identity().as_str(), "Account{owner:str,cents:Option<i64>}");
/// assert_eq!(<(u64, Vec<bool>)>::identity().as_str(), "(u64,[bool])");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypeIdentity(String);

impl TypeIdentity {
    /// The identity of a type with a codec of its own: choose another name when the same bytes come to mean something else.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The identity of a serde type.
    #[must_use]
    pub fn of<T: DeserializeOwned>() -> Self {
        Self(shape_of::<T>())
    }

    /// The identity in words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TypeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The types of stored keys and values: the codec of the values, and both types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The codec of the values; 32,768 more where a store tells the first version of its values from later ones.
    pub codec: CodecId,
    /// The type of the keys, in their default codec.
    pub key: TypeIdentity,
    /// The type of the values.
    pub value: TypeIdentity,
    /// The version of the values, from 1 on.
    #[serde(default = "first_version", skip_serializing_if = "is_first")]
    pub value_version: u8,
    /// The types of the values of earlier versions that are read, or may still be there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub earlier: BTreeMap<u8, TypeIdentity>,
}

/// The version of values of which none is said.
pub(crate) fn first_version() -> u8 {
    1
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
pub(crate) fn is_first(version: &u8) -> bool {
    *version == first_version()
}

/// Reason why a build misreads another one's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misread {
    /// A type is another one.
    Type(SchemaDifference),
    /// The values are of a later version.
    Later { stored: u8, asked: u8 },
    /// There may be values of an earlier version, which it does not read.
    Missing {
        version: u8,
        value: TypeIdentity,
        asked: u8,
    },
    /// There are values of the first version, which were not told from later ones when they were written.
    NotToldApart { value: TypeIdentity },
}

impl Schema {
    /// The schema of keys and values in their default codecs.
    #[must_use]
    pub fn of<K: Datum + ?Sized, V: Datum + ?Sized>() -> Self {
        Self {
            codec: V::DefaultCodec::default().id(),
            key: K::identity(),
            value: V::identity(),
            value_version: first_version(),
            earlier: BTreeMap::new(),
        }
    }

    /// The schema of a store that tells values of version 1 from later ones, if they may begin as those do.
    pub(crate) fn told_apart(mut self) -> Self {
        let first = match self.value_version {
            1 => Some(&self.value),
            _ => self.earlier.get(&first_version()),
        };
        let is_bincode = self.codec == Codec::<u64>::id(&Bincode);
        let may_begin_so = first.is_some_and(|first| match is_bincode {
            true => may_begin_with_mark(first),
            // How they begin is the user's affair.
            false => self.codec.0 >= CodecId::FIRST_OF_USERS.0,
        });
        if may_begin_so {
            self.codec = self.codec.told_apart();
        }
        self
    }

    /// A number that tells schemas apart, for where the words would be too long. It is the same in every build.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let codec = self.codec.of_values().0;
        let mut words = format!("{codec}\0{}\0{}", self.key, self.value);
        if !is_first(&self.value_version) {
            let _ = write!(words, "\0{}", self.value_version);
        }
        rapidhash::v3::rapidhash_v3(words.as_bytes())
    }

    /// Says why a build with the schema `now` would misread what was stored; `None` if it reads all of it.
    pub(crate) fn misread(&self, now: &Self) -> Option<Misread> {
        if self.value_version > now.value_version {
            return Some(Misread::Later {
                stored: self.value_version,
                asked: now.value_version,
            });
        }
        let values = self.earlier.iter().map(|(version, it)| (*version, it));
        for (version, value) in values.chain([(self.value_version, &self.value)]) {
            let read = match version == now.value_version {
                true => Some(&now.value),
                false => now.earlier.get(&version),
            };
            let Some(read) = read else {
                return Some(Misread::Missing {
                    version,
                    value: value.clone(),
                    asked: now.value_version,
                });
            };
            let as_stored = Self {
                value: value.clone(),
                ..self.clone()
            };
            let as_read = Self {
                value: read.clone(),
                ..now.clone()
            };
            if let Some(difference) = as_stored.difference(&as_read) {
                return Some(Misread::Type(difference));
            }
        }
        let first = match self.value_version {
            1 => Some(&self.value),
            _ => self.earlier.get(&first_version()),
        };
        let is_first_now = is_first(&now.value_version);
        let is_told = self.codec.are_told_apart() || !now.codec.are_told_apart();
        let first = first.filter(|_| !is_first_now && !is_told);
        first.map(|value| Misread::NotToldApart {
            value: value.clone(),
        })
    }

    /// The schema of now, which knows all versions that may be stored, and whether they are told apart.
    pub(crate) fn after(mut self, stored: &Self) -> Self {
        self.codec = self.codec.told_apart_as(stored.codec);
        let stored_value = (stored.value_version, stored.value.clone());
        let earlier = stored.earlier.clone().into_iter().chain([stored_value]);
        self.earlier = earlier
            .filter(|(version, _)| *version != self.value_version)
            .collect();
        self
    }

    /// Says how the types of `now` differ from those that were stored; `None` if they do not. Versions are not compared.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<SchemaDifference> {
        let changed = |part, stored: String, asked: String| {
            Some(SchemaDifference {
                part,
                stored,
                asked,
            })
        };
        if self.key != now.key {
            return changed(
                "keys",
                excerpt(&self.key, &now.key),
                excerpt(&now.key, &self.key),
            );
        }
        if self.value != now.value {
            let (stored, asked) = (&self.value, &now.value);
            return changed("values", excerpt(stored, asked), excerpt(asked, stored));
        }
        if self.codec.of_values() != now.codec.of_values() {
            let name = |codec: CodecId| format!("codec {}", codec.of_values().0);
            return changed("values", name(self.codec), name(now.codec));
        }
        None
    }
}

/// Difference of a schema from a stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaDifference {
    /// Keys or values.
    pub part: &'static str,
    /// The stored type.
    pub stored: String,
    /// The type asked for.
    pub asked: String,
}

/// Of a long description no more is shown than this many bytes on each side of where it differs.
const EXCERPT_BYTES: usize = 80;

/// The part of `this` where it differs from `other`; all of it if it is short.
fn excerpt(this: &TypeIdentity, other: &TypeIdentity) -> String {
    let (this, other) = (this.as_str(), other.as_str());
    if this.len() <= 2 * EXCERPT_BYTES {
        return this.to_owned();
    }
    let mut pairs = this.bytes().zip(other.bytes());
    let same = pairs.position(|(a, b)| a != b);
    let same = same.unwrap_or(this.len().min(other.len()));
    let from = this.floor_char_boundary(same.saturating_sub(EXCERPT_BYTES));
    let to = this.ceil_char_boundary((same + EXCERPT_BYTES).min(this.len()));
    let open = if from > 0 { "…" } else { "" };
    let close = if to < this.len() { "…" } else { "" };
    format!("{open}{}{close}", &this[from..to])
}
