//! Codecs between values and bytes: at topics, in state, in changelogs.
//!
//! A codec may decode in place: [`Codec::decode`] returns a [`Cow`], so that text and bytes are
//! borrowed from the record batch and a filter does not pay for what it drops (design D8).
//! A store's [`Schema`], which is its codec and the [`TypeIdentity`] of keys and values, is kept with its data: what was
//! written with another one is refused.

#[cfg(feature = "avro")]
mod avro;
#[cfg(feature = "csv")]
mod csv;
mod error;
mod formats;
#[cfg(feature = "registry")]
pub(crate) mod framing;
mod identity;
pub(crate) mod json;
mod or_null;
mod parts;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(feature = "registry")]
mod schema_format;
mod shape;
mod sort_key;
mod versions;

use std::borrow::Cow;

#[cfg(feature = "avro")]
pub use avro::{Avro, AvroReading, AvroSchema, BareAvro};
#[cfg(feature = "csv")]
pub use csv::Csv;
pub use error::CodecError;
pub use formats::{Bincode, Json, Postcard, Raw, Text};
pub(crate) use identity::{Misread, first_version, is_first};
pub use identity::{Schema, SchemaDifference, TypeIdentity};
pub use or_null::OrNull;
pub(crate) use parts::{First, Parts, Second};
#[cfg(feature = "protobuf")]
pub use protobuf::{Protobuf, ProtobufReading, ProtobufSchema};
#[cfg(feature = "registry")]
pub use schema_format::{JsonSchema, SchemaCodec, SchemaFormat};
pub use sort_key::SortKey;
pub(crate) use versions::{
    StoredVersions, ValueVersions, Versioned, tell_apart, told_apart, version_of,
};

/// The number of a codec, stored with the data that it wrote. Numbers from 1,000 to 32,767 are for users' own codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CodecId(pub u16);

impl CodecId {
    /// Added to the codec of a store that tells values of version 1 from later ones (`versions.rs`).
    const TOLD_APART: u16 = 1 << 15;
    /// The first number that is for users.
    const FIRST_OF_USERS: Self = Self(1_000);

    /// The codec of the values, whether their versions are told apart or not.
    pub(crate) fn of_values(self) -> Self {
        Self(self.0 & !Self::TOLD_APART)
    }

    pub(crate) fn are_told_apart(self) -> bool {
        self.0 & Self::TOLD_APART != 0
    }

    /// The same codec, whose versions are told apart as those of `stored` are.
    pub(crate) fn told_apart_as(self, stored: Self) -> Self {
        Self(self.of_values().0 | (stored.0 & Self::TOLD_APART))
    }

    fn told_apart(self) -> Self {
        Self(self.0 | Self::TOLD_APART)
    }
}

/// The use that a job makes of a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecUse {
    /// It reads a topic with it.
    Read,
    /// It writes a topic with it.
    Write,
}

/// Turns values of `T` into bytes and back. Equal values must give equal bytes where `T` is used as a key.
///
/// ```
/// use onceflow::codec::{Codec, Text};
///
/// let mut bytes = Vec::new();
/// Text.encode("tea", &mut bytes)?;
/// let back = Codec::<str>::decode(&Text, &bytes)?;
/// assert_eq!(&*back, "tea");
/// # Ok::<(), onceflow::codec::CodecError>(())
/// ```
pub trait Codec<T: ?Sized + ToOwned>: Clone + Send + Sync + 'static {
    /// The codec's number.
    fn id(&self) -> CodecId;

    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    /// If the value has no form in this codec. `out` may then end in part of it.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The bytes of `value` where they lie in memory as they are written, so that nothing need be copied.
    fn as_encoded<'a>(&self, _value: &'a T) -> Option<&'a [u8]> {
        None
    }

    /// Reads a value that takes up all of `bytes`, borrowing from them where the format allows.
    ///
    /// # Errors
    /// If `bytes` are not exactly one value.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError>;

    /// Gets ready for a job that is about to start, such as by asking a schema registry. It is called at every start of the job and may
    /// wait, in a thread of its own; what was found out once is kept.
    ///
    /// # Errors
    /// If values cannot be written or read: the job does not start.
    fn prepare(&self, _use: CodecUse) -> Result<(), CodecError> {
        Ok(())
    }

    /// Whether a topic gets a record without a value, a tombstone, for this one ([`OrNull`]).
    #[inline]
    fn is_null(&self, _value: &T) -> bool {
        false
    }

    /// The value that a record of a topic without a value stands for, if there is one ([`OrNull`]).
    fn decode_null(&self) -> Option<T::Owned> {
        None
    }
}

/// A type that can be a key or a value: it knows the codec to use when none is named.
///
/// `str` is plain text, `[u8]` plain bytes, and every owned serde type is [`Bincode`]. Note that
/// `String` is a serde type: for topics of plain text use `str`, or name the codec [`Text`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key or a value",
    label = "not a `Datum`",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `Clone` for it, or use `str` or `[u8]`",
    note = "a key that is borrowed from its record (`&event.user`) is for `key_by_ref(|event: &Event| &event.user)`"
)]
pub trait Datum: ToOwned<Owned: Send + Sync + Clone + 'static> + Send + Sync + 'static {
    /// The codec used when none is named.
    type DefaultCodec: Codec<Self> + Default;

    /// The type as it is known to stored data. It changes when what was written by an earlier build must not be read as this type.
    fn identity() -> TypeIdentity;

    /// The value of these bytes, in the default codec, as JSON: for who has not the type. By default their hexadecimal digits.
    ///
    /// # Errors
    /// If the bytes are not a value of the type.
    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        Ok(json::to_hex(bytes).into())
    }

    /// The bytes, in the default codec, of a value that [`to_json`](Self::to_json) gave, or that somebody wrote like it.
    ///
    /// # Errors
    /// If it is no value of the type.
    fn from_json(json: &serde_json::Value) -> Result<Vec<u8>, CodecError> {
        json::bytes_of(json)
    }

    /// The value at the front of bytes behind which others stand, and how many of them are its own. Only serde types have one.
    #[doc(hidden)]
    fn decode_front(bytes: &[u8]) -> Result<(Cow<'_, Self>, usize), CodecError> {
        Err(CodecError::Decode {
            codec: "a part of a value",
            length_bytes: bytes.len(),
            why: format!(
                "values of the type {} do not say where they end",
                Self::identity()
            ),
        })
    }
}

impl<T> Datum for T
where
    T: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    type DefaultCodec = Bincode;

    fn identity() -> TypeIdentity {
        TypeIdentity::of::<T>()
    }

    fn decode_front(bytes: &[u8]) -> Result<(Cow<'_, T>, usize), CodecError> {
        let (value, length_bytes) = formats::bincode_front(bytes)?;
        Ok((Cow::Owned(value), length_bytes))
    }

    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        let value: Cow<'_, T> = Bincode.decode(bytes)?;
        // A map whose keys are no text has no form in JSON, for one.
        Ok(serde_json::to_value(&*value).unwrap_or_else(|_| json::to_hex(bytes).into()))
    }

    fn from_json(json: &serde_json::Value) -> Result<Vec<u8>, CodecError> {
        let refuse = |e| json::not_this(json, format_args!("`{}`: {e}", Self::identity()));
        match <T as serde::Deserialize>::deserialize(json) {
            Ok(value) => {
                let mut bytes = Vec::new();
                Bincode.encode(&value, &mut bytes)?;
                Ok(bytes)
            }
            Err(e) => {
                let bytes = json::bytes_of(json).map_err(|_| refuse(e))?;
                let _: Cow<'_, T> = Bincode.decode(&bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Datum for str {
    type DefaultCodec = Text;

    fn identity() -> TypeIdentity {
        TypeIdentity::named("text")
    }

    fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        let text: Cow<'_, str> = Text.decode(bytes)?;
        Ok(text.into())
    }

    fn from_json(json: &serde_json::Value) -> Result<Vec<u8>, CodecError> {
        let text = json.as_str().ok_or_else(|| json::not_this(json, "text"))?;
        Ok(text.as_bytes().to_vec())
    }
}

impl Datum for [u8] {
    type DefaultCodec = Raw;

    fn identity() -> TypeIdentity {
        TypeIdentity::named("raw bytes")
    }
}

#[cfg(test)]
mod tests;
